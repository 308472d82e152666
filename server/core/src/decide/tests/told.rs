//! What entries tell beside what follows from them: for people and for the wire.

use super::kit::{Session, kinds, start};
use crate::{
    What,
    agent::{Agent, BudgetLimits, Limits},
    budget::{Bound, Dimension},
    event::Event,
    ids::{CallId, Timestamp},
    outcome::{EndReason, ModelFailureKind, ToolFailureKind},
    rejection::Rejection,
};

fn bound(events: &[Event]) -> Option<Bound> {
    events.iter().find_map(|event| {
        if let Event::ModelCallStarted(e) = event {
            Some(e.bound)
        } else {
            None
        }
    })
}

fn deadlines(events: &[Event]) -> Vec<(CallId, u32, Option<Timestamp>)> {
    let of = |event: &Event| {
        if let Event::ToolCallStarted(e) = event {
            Some((e.call, e.attempt, e.deadline))
        } else {
            None
        }
    };
    events.iter().filter_map(of).collect()
}

#[test]
fn every_licence_of_a_tool_call_says_when_it_times_out() {
    let mut s = Session::started(Limits::default());
    let timeout = |s: &Session, name: &str| {
        let spec = s.state.tools.get(name);
        let spec = spec.expect("the kit has it").timeout_ms;
        Some(Timestamp(s.now).plus(spec))
    };
    let events = s.ask(&["read"]);
    let expected = timeout(&s, "read");
    assert_eq!(deadlines(&events), [(CallId(2), 1, expected)]);
    s.now += 500;
    let events = s.attach();
    let expected = timeout(&s, "read");
    assert_eq!(deadlines(&events), [(CallId(2), 2, expected)]);
}

#[test]
fn who_set_the_output_cap_is_told() {
    let asked = |budget| Limits {
        max_output_tokens: 100,
        max_output_asked: true,
        budget,
        ..Limits::default()
    };
    let begun = |limits| {
        let mut s = Session::new(limits, Agent::default());
        bound(&s.start("go"))
    };
    assert_eq!(begun(Limits::default()), Some(Bound::Configured));
    assert_eq!(
        begun(asked(BudgetLimits::default())),
        Some(Bound::Requested)
    );
    let small = BudgetLimits {
        output_tokens: Some(80),
        ..BudgetLimits::default()
    };
    let by_budget = Bound::Budget(Dimension::OutputTokens);
    assert_eq!(begun(asked(small)), Some(by_budget));
}

#[test]
fn a_driver_names_the_version_of_its_server() {
    let mut s = Session::started(Limits::default());
    let events = s.go(What::Attach {
        epoch: 2,
        cut_bytes: None,
        server: "1.2.3".to_owned(),
    });
    let Some(Event::DriverAttached(attached)) = events.first() else {
        panic!("{events:?}");
    };
    assert_eq!((attached.epoch, attached.server.as_str()), (2, "1.2.3"));
}

#[test]
fn an_end_for_want_of_room_says_how_much_was_wanted() {
    let mut s = Session::started(Limits::default());
    let wanted = s.state.prompt_estimate();
    s.fail(ModelFailureKind::ContextTooLong);
    let EndReason::ContextExhausted { tokens, .. } = s.reason() else {
        panic!("{:?}", s.reason());
    };
    assert!(tokens > 0 && tokens == wanted, "{tokens} of {wanted}");
}

#[test]
fn an_unknown_outcome_names_the_attempt() {
    let mut s = Session::started(Limits::default());
    s.ask(&["blind"]);
    let events = s.tool_fails(2, 1, ToolFailureKind::Ambiguous, false);
    let of = |event: &Event| {
        if let Event::ToolCallUnknown(e) = event {
            Some(e.attempt)
        } else {
            None
        }
    };
    let attempts: Vec<u32> = events.iter().filter_map(of).collect();
    assert_eq!(attempts, [1]);
}

/// A loop that ends before its first call leaves its message behind: that many are kept, and no more.
#[test]
fn starts_that_come_to_nothing_leave_no_more_messages_than_may_wait() {
    let limits = Limits {
        max_waiting_messages: 2,
        budget: BudgetLimits {
            model_calls: Some(0),
            ..BudgetLimits::default()
        },
        ..Limits::default()
    };
    let mut s = Session::new(limits, Agent::default());
    for _ in 0..2 {
        let events = s.start("go");
        assert_eq!(kinds(&events).last(), Some(&"LoopEnded"));
    }
    let third = s.offer(What::StartLoop(start("", "go")));
    assert_eq!(third, Err(Rejection::TooManyMessages { limit: 2 }));
}
