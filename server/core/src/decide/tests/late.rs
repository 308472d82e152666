//! Results that come after their call has ended: logged once, for people.

use super::kit::{Session, kinds, nothing, resolve};
use crate::{
    agent::{Limits, UnknownPolicy},
    event::UnknownResolution,
    ids::{Attempt, CallId},
    input::TimerWhy,
    outcome::ToolFailureKind,
    retry::RetryPolicy,
    state::LATE_KEPT,
};

const AMBIGUOUS: ToolFailureKind = ToolFailureKind::Ambiguous;

fn is_late_once(s: &mut Session, call: u32, attempt: Attempt) {
    let talk = s.talk();
    assert_eq!(
        kinds(&s.tool(call, attempt, "late")),
        ["ToolCallResultLate"]
    );
    assert_eq!(s.tool(call, attempt, "again"), nothing());
    assert_eq!(s.talk(), talk, "the model is not given it");
}

#[test]
fn after_an_unknown_outcome() {
    let mut s = Session::started(Limits::default());
    s.ask(&["blind"]);
    s.tool_fails(2, 1, AMBIGUOUS, false);
    is_late_once(&mut s, 2, 1);
    for resolution in [
        UnknownResolution::Happened,
        UnknownResolution::DidNotHappen,
        UnknownResolution::TellModel,
    ] {
        let mut s = Session::started(Limits {
            on_unknown: Some(UnknownPolicy::Ask),
            ..Limits::default()
        });
        s.ask(&["blind"]);
        s.tool_fails(2, 1, AMBIGUOUS, false);
        s.go(resolve("", 2, resolution));
        is_late_once(&mut s, 2, 1);
    }
}

#[test]
fn after_the_last_attempt_failed_and_for_any_attempt() {
    let failed = || {
        let mut s = Session::started(Limits {
            retry: RetryPolicy {
                max_attempts: 2,
                ..RetryPolicy::default()
            },
            ..Limits::default()
        });
        s.ask(&["idem"]);
        s.tool_fails(2, 1, AMBIGUOUS, false);
        s.fire_next();
        s.tool_fails(2, 2, AMBIGUOUS, false);
        s
    };
    assert_eq!(failed().tool(2, 3, "never made"), nothing());
    assert_eq!(failed().tool(2, 0, "never made"), nothing());
    is_late_once(&mut failed(), 2, 1);
    is_late_once(&mut failed(), 2, 2);
}

#[test]
fn after_a_cancel_also_when_the_loop_has_ended() {
    let mut s = Session::started(Limits {
        max_parallel_tool_calls: 2,
        ..Limits::default()
    });
    s.ask(&["once", "idem", "read"]);
    s.tool_fails(3, 1, AMBIGUOUS, false);
    s.cancel();
    assert_eq!(s.tool(4, 1, "never dispatched"), nothing());
    assert_eq!(s.tool(3, 2, "not made yet"), nothing());
    is_late_once(&mut s, 2, 1);
    s.start("again");
    is_late_once(&mut s, 3, 1);
}

#[test]
fn not_of_a_call_that_has_its_result_or_was_refused() {
    let mut s = Session::started(Limits::default());
    s.ask(&["idem", "gone"]);
    s.tool_fails(2, 1, AMBIGUOUS, false);
    s.fire_next();
    s.tool(2, 2, "done");
    assert_eq!(s.tool(2, 1, "of the first attempt"), nothing());
    assert_eq!(s.tool(3, 1, "of no tool"), nothing());
}

#[test]
fn a_result_in_time_for_the_doubt_is_the_result() {
    let mut s = Session::started(Limits::default());
    s.ask(&["once"]);
    s.tool_fails(2, 1, AMBIGUOUS, false);
    assert_eq!(s.tool(2, 2, "never made"), nothing());
    assert_eq!(
        kinds(&s.tool(2, 1, "done")),
        ["ToolCallCompleted", "ModelCallStarted"]
    );
    let mut s = Session::started(Limits::default());
    s.ask(&["idem"]);
    s.tool_fails(2, 1, AMBIGUOUS, false);
    assert_eq!(s.tool(2, 1, "another attempt is due"), nothing());
    assert_eq!(kinds(&s.fire(TimerWhy::RetryTool(CallId(2)))), [""; 0]);
}

#[test]
fn so_many_calls_are_remembered_and_no_more() {
    let mut s = Session::started(Limits {
        max_steps: 1_000,
        ..Limits::default()
    });
    for _ in 0..=LATE_KEPT {
        s.ask(&["idem"]);
        s.tool_fails(
            s.state.next_call - 1,
            1,
            ToolFailureKind::NotExecuted,
            false,
        );
    }
    assert_eq!(s.tool(2, 1, "of the first"), nothing());
    is_late_once(&mut s, 4, 1);
}
