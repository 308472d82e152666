use std::sync::Arc;

use super::*;
use crate::{
    entry::tests::one_of_each,
    event::{DriverAttached, DriverDetached, Unknown},
    ids::CallId,
    input::{Command, TimerWhy},
};

fn attached(epoch: u64) -> Entry {
    Entry::new(
        Cause::Attach,
        vec![
            DriverAttached {
                epoch,
                server: String::new(),
            }
            .into(),
        ],
    )
}

#[test]
fn a_log_that_was_edited_shows_where_it_parts() {
    let at = Timestamp(7);
    let state = fold(&[attached(1)]);
    assert_eq!(redecide(&state, at, &attached(2)), Ok(()));
    let mut edited = attached(2);
    edited.events.push(DriverDetached {}.into());
    let divergence = redecide(&state, at, &edited).expect_err("an event was added");
    assert_eq!(divergence.seq, 2);
    assert_eq!(divergence.logged, edited.events);
    assert_eq!(divergence.decided, Ok(attached(2).events));
    let refused = redecide(&state, at, &attached(3)).expect_err("the epoch does not follow");
    assert_eq!(refused.decided, Err("epoch 3 does not follow 1".to_owned()));
}

#[test]
fn an_entry_without_the_event_that_tells_its_input_says_so() {
    let tells_all = |cause: &Cause| {
        matches!(
            cause,
            Cause::PauseLoop { .. }
                | Cause::ResumeLoop { .. }
                | Cause::Detach
                | Cause::BudgetGranted { .. }
                | Cause::BudgetSpent { .. }
                | Cause::BudgetSettled { .. }
                | Cause::Timer(_)
        )
    };
    let causes = one_of_each().into_iter();
    for cause in causes.filter(|cause| !tells_all(cause)) {
        let label = cause.label();
        let events = vec![DriverDetached {}.into()];
        let error = Input::from_entry(Timestamp(0), &Entry::new(cause, events));
        let error = error.expect_err(label).to_string();
        assert!(error.contains(&format!("`{label}`")), "{error}");
    }
}

#[test]
fn inputs_that_their_cause_tells_need_no_event() {
    let (call, attempt) = (CallId(1), 1);
    let (by, guard) = (Command::default(), None);
    let inputs = [
        What::PauseLoop {
            by: by.clone(),
            guard,
        },
        What::ResumeLoop { by, guard },
        What::Detach,
        What::BudgetSpent { call, attempt },
        What::BudgetSettled {
            call,
            attempt,
            more: vec![(CallId(9), 2)],
            warnings: Vec::new(),
        },
        What::BudgetGranted {
            call,
            attempt,
            max_output_tokens: 9,
            tool_calls: Some(3),
            left: Arc::default(),
        },
        What::TimerFired(TimerWhy::RetryTool(call)),
        What::LookedUp {
            call,
            answer: LookupAnswer::NotKnown(String::new()),
        },
    ];
    for what in inputs {
        let at = Timestamp(5);
        let input = Input::new(at, what);
        let entry = Entry::new(input.cause(), Vec::new());
        assert_eq!(Input::from_entry(at, &entry), Ok(input));
    }
}

#[test]
fn only_kinds_that_may_not_be_skipped_are_newer() {
    let unknown = |kind: &str, json: &str| {
        Event::Unknown(Unknown {
            kind: kind.to_owned(),
            json: json.to_owned(),
        })
    };
    let entry = Entry::new(
        Cause::Attach,
        vec![
            unknown("A", "{\"ignorable\":true}"),
            DriverAttached {
                epoch: 1,
                server: String::new(),
            }
            .into(),
            unknown("B", "{}"),
        ],
    );
    assert_eq!(newer_kinds(&entry).collect::<Vec<_>>(), ["B"]);
    assert_eq!(
        fold(&[entry]).epoch,
        1,
        "what is not known is skipped by the fold"
    );
}

#[test]
fn a_fold_of_nothing_is_no_session() {
    let none: [Arc<Entry>; 0] = [];
    let state = fold(none.iter().map(|entry| &**entry));
    assert_eq!((state.seq, state.session), (0, None));
}
