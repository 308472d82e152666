//! Cancel, in every phase: all that is open ends, once, and nothing is wanted any more.

use super::kit::{Session, by, cancel, kinds, nothing, tool_completed};
use crate::{
    What,
    agent::{Agent, BudgetLimits, Limits},
    effect::{EffectKey, wanted},
    event::Event,
    ids::LoopId,
    input::Mode,
    outcome::{EndReason, LookupAnswer, ModelFailureKind, ToolFailureKind},
    rejection::Rejection,
};

fn cancelled() -> EndReason {
    EndReason::Cancelled {
        by: "ann".to_owned(),
        reason: "enough".to_owned(),
    }
}

pub(super) fn dispatched(events: &[Event]) -> Vec<bool> {
    let of = |event: &Event| {
        if let Event::ToolCallCancelled(e) = event {
            Some(e.dispatched)
        } else {
            None
        }
    };
    events.iter().filter_map(of).collect()
}

fn at_rest(s: &Session) {
    assert_eq!(s.reason(), cancelled());
    let only_settling = |key: &EffectKey| matches!(key, EffectKey::Settle { .. });
    assert!(
        wanted(&s.state).iter().all(only_settling),
        "{:?}",
        wanted(&s.state)
    );
}

#[test]
fn while_the_model_is_called() {
    let mut s = Session::started(Limits::default());
    assert_eq!(
        kinds(&s.cancel()),
        ["ModelCallAbandoned", "BudgetSettled", "LoopEnded"]
    );
    at_rest(&s);
}

#[test]
fn while_the_model_is_called_on_a_budget_the_whole_reservation_counts() {
    let mut s = Session::started(Limits {
        budget: BudgetLimits {
            total_tokens: Some(3_000),
            ..BudgetLimits::default()
        },
        ..Limits::default()
    });
    let events = s.cancel();
    assert_eq!(
        kinds(&events),
        ["ModelCallAbandoned", "BudgetSettled", "LoopEnded"]
    );
    let totals = s.state.ended.back().expect("it ended").totals;
    assert_eq!((totals.usage.total(), totals.estimated), (3_000, 3_000));
    at_rest(&s);
}

#[test]
fn while_named_budgets_are_asked_the_reservation_is_given_back() {
    let agent = Agent {
        budgets: vec!["team".to_owned()],
        ..Agent::default()
    };
    let mut s = Session::new(Limits::default(), agent);
    s.start("hello");
    let events = s.cancel();
    assert_eq!(
        kinds(&events),
        ["ModelCallAbandoned", "BudgetSettled", "LoopEnded"]
    );
    assert_eq!(
        wanted(&s.state).len(),
        1,
        "the settlement stays wanted after the end"
    );
    assert_eq!(s.state.totals.usage.total(), 0);
    at_rest(&s);
}

#[test]
fn between_two_attempts_of_the_model() {
    let mut s = Session::started(Limits::default());
    s.fail(ModelFailureKind::Overloaded);
    assert_eq!(kinds(&s.cancel()), ["ModelCallAbandoned", "LoopEnded"]);
    at_rest(&s);
}

#[test]
fn while_tools_wait_run_are_in_doubt_and_have_ended() {
    let mut s = Session::started(Limits {
        max_parallel_tool_calls: 3,
        ..Limits::default()
    });
    s.ask(&["once", "idem", "read", "read", "read"]);
    s.tool(4, 1, "ended");
    s.tool_fails(2, 1, ToolFailureKind::Ambiguous, true);
    s.tool_fails(3, 1, ToolFailureKind::Ambiguous, true);
    let events = s.cancel();
    assert_eq!(dispatched(&events), [true, true, true, false]);
    let told: Vec<bool> = s.results().into_iter().map(|(_, _, error)| error).collect();
    assert_eq!(told, [true, true, false, true, true]);
    at_rest(&s);
    assert_eq!(
        kinds(&s.go(tool_completed(5, 1, "late"))),
        ["ToolCallResultLate"]
    );
    assert_eq!(s.looked_up(2, LookupAnswer::NeverStarted), nothing());
}

#[test]
fn without_a_loop_or_for_another_one_it_is_refused() {
    let mut s = Session::empty();
    assert_eq!(s.offer(cancel("", None)), Err(Rejection::SessionNotFound));
    let mut s = Session::started(Limits::default());
    let (named, running) = (LoopId(2), LoopId(1));
    assert_eq!(
        s.offer(cancel("", Some(named))),
        Err(Rejection::LoopMismatch { named, running })
    );
    s.go(cancel("", Some(running)));
    assert_eq!(s.offer(cancel("", None)), Err(Rejection::NoLoopRunning));
    assert_eq!(
        s.offer(cancel("", Some(running))),
        Err(Rejection::NoLoopRunning)
    );
}

#[test]
fn asked_twice_it_is_answered_once() {
    let mut s = Session::started(Limits::default());
    s.go(cancel("r", None));
    let answer = s.state.answer("r");
    assert!(answer.is_some());
    assert_eq!(s.go(cancel("r", None)), nothing());
    s.start("again");
    assert_eq!(
        s.go(cancel("r", None)),
        nothing(),
        "it does not cancel the next loop"
    );
    assert_eq!(s.state.answer("r"), answer);
}

#[test]
fn queued_messages_stay_and_steers_join_the_next_loop() {
    let mut s = Session::started(Limits::default());
    s.send(Mode::Queue, "later");
    s.send(Mode::Steer, "mind this");
    assert_eq!(
        kinds(&s.cancel()),
        ["ModelCallAbandoned", "BudgetSettled", "LoopEnded"]
    );
    assert_eq!((s.state.queue.len(), s.state.pending.len()), (1, 1));
    s.start("again");
    s.say("ok");
    assert_eq!(
        s.talk(),
        [
            "user: hello",
            "user: mind this",
            "user: again",
            "model: ok",
            "user: later"
        ],
        "what is queued goes on once a loop has completed"
    );
}

#[test]
fn the_canceller_is_named() {
    let mut s = Session::started(Limits::default());
    s.go(What::CancelLoop {
        by: by("r"),
        guard: None,
        reason: String::new(),
    });
    assert_eq!(s.reason().describe(), "cancelled by ann");
}
