//! Timers: only what is wanted and due.

use super::kit::{Session, kinds, nothing};
use crate::{
    agent::Limits,
    effect::{EffectKey, wanted},
    ids::{CallId, LoopId, Timestamp},
    input::TimerWhy,
    outcome::{DeadlineKind, EndReason, ModelFailureKind, StopReason},
};

fn with_deadline() -> Session {
    Session::started(Limits {
        deadline_ms: Some(5_000),
        ..Limits::default()
    })
}

const LATE: EndReason = EndReason::Deadline {
    kind: DeadlineKind::Loop,
};

#[test]
fn the_deadline_gives_up_what_runs() {
    let mut s = with_deadline();
    assert_eq!(s.state.wake_at(), Some(Timestamp(s.now + 5_000)));
    s.wait(4_999);
    assert_eq!(
        s.fire(TimerWhy::Deadline(LoopId(1))),
        nothing(),
        "it is early"
    );
    s.wait(1);
    let events = s.fire(TimerWhy::Deadline(LoopId(1)));
    assert_eq!(
        kinds(&events),
        ["ModelCallAbandoned", "BudgetSettled", "LoopEnded"]
    );
    assert_eq!(s.reason(), LATE);
    assert_eq!(s.fire(TimerWhy::Deadline(LoopId(1))), nothing());
    assert_eq!(s.state.wake_at(), None);
}

#[test]
fn the_deadline_of_another_loop_is_nothing() {
    let mut s = with_deadline();
    s.say("hi");
    s.start("again");
    s.wait(9_000);
    assert_eq!(s.fire(TimerWhy::Deadline(LoopId(1))), nothing());
}

#[test]
fn a_step_past_the_deadline_does_not_begin() {
    let mut s = with_deadline();
    s.ask(&["read"]);
    s.wait(5_000);
    assert_eq!(
        kinds(&s.tool(2, 1, "text")),
        ["ToolCallCompleted", "LoopEnded"]
    );
    assert_eq!(s.reason(), LATE);
}

#[test]
fn a_backoff_does_not_hide_the_deadline() {
    let mut s = with_deadline();
    s.fail_with(ModelFailureKind::RateLimited, Some(60_000), None);
    assert_eq!(wanted(&s.state).len(), 2);
    assert!(wanted(&s.state).iter().all(EffectKey::is_timer));
    s.fire_next();
    assert_eq!(s.reason(), LATE);
}

#[test]
fn a_retry_that_is_not_due_or_not_wanted_is_nothing() {
    let mut s = Session::started(Limits::default());
    let retry = TimerWhy::RetryModel(CallId(1));
    assert_eq!(s.fire(retry), nothing(), "the call runs");
    s.fail(ModelFailureKind::Server);
    s.wait(999);
    assert_eq!(s.fire(retry), nothing(), "it is early");
    assert_eq!(s.fire(TimerWhy::RetryModel(CallId(2))), nothing());
    s.wait(1);
    assert_eq!(kinds(&s.fire(retry)), ["ModelCallStarted"]);
    assert_eq!(s.fire(retry), nothing(), "it fired");
    s.reply(Vec::new(), StopReason::EndTurn);
    assert_eq!(s.fire(retry), nothing(), "no loop runs");
}

#[test]
fn a_retry_past_the_deadline_does_not_begin() {
    let mut s = with_deadline();
    s.fail(ModelFailureKind::Server);
    s.wait(9_000);
    let events = s.fire(TimerWhy::RetryModel(CallId(1)));
    assert_eq!(kinds(&events), ["ModelCallAbandoned", "LoopEnded"]);
    assert_eq!(s.reason(), LATE);
}

#[test]
fn a_driver_that_comes_after_the_deadline_repeats_nothing() {
    let mut s = with_deadline();
    s.wait(5_000);
    assert_eq!(
        kinds(&s.attach()),
        [
            "DriverAttached",
            "ModelCallAbandoned",
            "BudgetSettled",
            "LoopEnded"
        ]
    );
    let mut s = with_deadline();
    s.ask(&["idem", "once"]);
    s.wait(5_000);
    assert_eq!(
        kinds(&s.attach()),
        [
            "DriverAttached",
            "ToolCallCancelled",
            "ToolCallCancelled",
            "LoopEnded"
        ]
    );
    assert_eq!(s.reason(), LATE);
}
