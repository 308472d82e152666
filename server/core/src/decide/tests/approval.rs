//! Calls that repeat one whose outcome is unknown: held, allowed, denied, expired, cancelled.

use super::kit::{Session, answer, by, call_with, kinds, nothing, specs};
use crate::{
    Event, Rejection, What,
    agent::{EffectClass, Limits, UnknownPolicy},
    effect::{EffectKey, wanted},
    ids::{CallId, LoopId, Timestamp},
    input::TimerWhy,
    outcome::{DeadlineKind, EndReason, StopReason, ToolFailureKind},
};

const AMBIGUOUS: ToolFailureKind = ToolFailureKind::Ambiguous;

/// A session whose call c2 of `blind` has an unknown outcome; the model is called again.
fn after_unknown(limits: Limits) -> Session {
    let mut s = Session::started(Limits {
        on_unknown: Some(UnknownPolicy::TellModel),
        ..limits
    });
    s.ask(&["blind"]);
    s.tool_fails(2, 1, AMBIGUOUS, false);
    s
}

/// The model asks for it again: c4 is held.
fn held(limits: Limits) -> Session {
    let mut s = after_unknown(limits);
    let events = s.ask(&["blind"]);
    assert_eq!(kinds(&events).last(), Some(&"ApprovalRequested"));
    s
}

fn in_a_second() -> Limits {
    Limits {
        approval_timeout_ms: Some(1_000),
        ..Limits::default()
    }
}

#[test]
fn a_repeat_of_an_unknown_call_waits_for_a_person() {
    let s = held(Limits::default());
    assert_eq!(wanted(&s.state).len(), 0, "waiting costs nothing");
    assert_eq!(s.state.wake_at(), None);
    assert!(
        s.state
            .active
            .as_ref()
            .is_some_and(|a| a.waits_for_person())
    );
}

#[test]
fn only_the_same_tool_with_the_same_arguments_is_held() {
    let mut s = after_unknown(Limits::default());
    let other = vec![call_with("blind", "{\"a\":1}"), call_with("once", "{}")];
    s.reply(other, StopReason::ToolUse);
    let tool = |call| EffectKey::Tool {
        call: CallId(call),
        attempt: 1,
    };
    assert_eq!(
        wanted(&s.state).into_iter().collect::<Vec<_>>(),
        [tool(4), tool(5)]
    );
}

#[test]
fn what_does_no_harm_twice_is_not_held_and_what_has_another_key_is() {
    let mut lax = specs();
    for spec in lax.iter_mut().filter(|spec| spec.name == "blind") {
        spec.effect = EffectClass::Idempotent;
    }
    let mut s = after_unknown(Limits::default());
    s.change_tools(lax);
    assert_eq!(kinds(&s.ask(&["blind"])).last(), Some(&"ToolCallStarted"));
    let mut s = Session::started(Limits::default());
    s.ask(&["dedup"]);
    s.wait(60_000);
    s.tool_fails(2, 1, AMBIGUOUS, false);
    assert_eq!(kinds(&s.ask(&["dedup"])).last(), Some(&"ApprovalRequested"));
}

#[test]
fn a_twin_that_waits_for_a_slot_is_held_once_the_first_is_unknown() {
    let mut s = Session::started(Limits {
        max_parallel_tool_calls: 1,
        ..Limits::default()
    });
    s.ask(&["blind", "blind", "read"]);
    let events = s.tool_fails(2, 1, AMBIGUOUS, false);
    let expected = [
        "ToolCallInDoubt",
        "ToolCallUnknown",
        "ApprovalRequested",
        "ToolCallStarted",
    ];
    assert_eq!(kinds(&events), expected, "and it takes no slot");
}

#[test]
fn an_allowed_call_runs_and_the_next_repeat_is_held_again() {
    let mut s = held(Limits::default());
    assert_eq!(
        kinds(&s.answer(4, true)),
        ["ApprovalResolved", "ToolCallStarted"]
    );
    s.tool(4, 1, "done");
    assert_eq!(s.results(), [(4, "done".to_owned(), false)]);
    let events = s.ask(&["blind"]);
    assert_eq!(
        kinds(&events).last(),
        Some(&"ApprovalRequested"),
        "c2 stays unknown"
    );
}

#[test]
fn an_allowed_call_waits_for_its_slot_and_is_not_held_again() {
    let mut s = after_unknown(Limits {
        max_parallel_tool_calls: 1,
        ..Limits::default()
    });
    s.ask(&["blind", "read"]);
    assert_eq!(kinds(&s.answer(4, true)), ["ApprovalResolved"]);
    assert_eq!(
        kinds(&s.tool(5, 1, "text")),
        ["ToolCallCompleted", "ToolCallStarted"]
    );
}

#[test]
fn a_denied_call_does_not_run_and_the_model_is_told_why() {
    let mut s = held(Limits::default());
    assert_eq!(
        kinds(&s.answer(4, false)),
        ["ApprovalResolved", "ToolCallRejected", "ModelCallStarted"]
    );
    let (_, text, is_error) = s.results().remove(0);
    assert!(is_error && text.ends_with("They say: so be it"), "{text}");
    let mut s = held(Limits::default());
    let without_a_reason = What::ResolveApproval {
        by: by(""),
        guard: Some(LoopId(1)),
        call: CallId(4),
        allow: false,
        reason: String::new(),
    };
    s.go(without_a_reason);
    assert!(s.results()[0].1.ends_with("whether it ran."));
}

#[test]
fn an_approval_expires_into_its_default() {
    let approval = TimerWhy::Approval(CallId(4));
    let mut s = held(in_a_second());
    assert_eq!(s.state.wake_at(), Some(Timestamp(s.now + 1_000)));
    s.wait(999);
    assert_eq!(s.fire(approval), nothing(), "it is early");
    s.wait(1);
    assert_eq!(
        kinds(&s.fire(approval)),
        ["ApprovalResolved", "ToolCallRejected", "ModelCallStarted"]
    );
    assert!(
        s.results()[0].1.starts_with("Nobody allowed"),
        "{:?}",
        s.results()
    );
    let mut s = held(Limits {
        approval_default_allow: true,
        ..in_a_second()
    });
    assert_eq!(
        kinds(&s.fire_next()),
        ["ApprovalResolved", "ToolCallStarted"]
    );
    assert_eq!(s.fire(approval), nothing(), "it fired");
}

#[test]
fn an_answer_that_comes_after_the_expiry_is_refused() {
    let mut s = held(in_a_second());
    s.wait(1_000);
    let late = s.offer(answer("", 4, true)).expect_err("it is too late");
    assert!(late.to_string().contains("expired"), "{late}");
    let mut s = held(in_a_second());
    s.wait(999);
    s.answer(4, true);
}

#[test]
fn the_end_of_the_loop_ends_the_wait() {
    let mut s = held(Limits::default());
    let events = s.cancel();
    assert_eq!(
        kinds(&events),
        ["ApprovalResolved", "ToolCallCancelled", "LoopEnded"]
    );
    let dispatched = |e: &Event| matches!(e, Event::ToolCallCancelled(c) if c.dispatched);
    assert!(!events.iter().any(dispatched));
}

#[test]
fn a_driver_that_takes_over_leaves_the_question_open() {
    let mut s = held(in_a_second());
    let before = wanted(&s.state);
    assert_eq!(kinds(&s.attach()), ["DriverAttached"]);
    assert_eq!(wanted(&s.state), before);
}

#[test]
fn an_answer_to_nothing_says_what_it_found() {
    assert_eq!(
        Session::empty().offer(answer("", 2, true)),
        Err(Rejection::SessionNotFound)
    );
    let mut s = held(Limits::default());
    let running = LoopId(1);
    let call = CallId(99);
    assert_eq!(
        s.offer(answer("", 99, true)),
        Err(Rejection::NoSuchCall { call, running })
    );
    // Of two people who answer, the second one learns that it is over, at whatever time.
    let over = |call, phase| Rejection::NotWaiting {
        call: CallId(call),
        awaited: "approval",
        phase,
    };
    assert_eq!(s.offer(answer("", 2, true)), Err(over(2, "it is over")));
    let guarded = |guard| What::ResolveApproval {
        by: by(""),
        guard,
        call: CallId(4),
        allow: true,
        reason: String::new(),
    };
    let named = LoopId(7);
    assert_eq!(
        s.offer(guarded(Some(named))),
        Err(Rejection::LoopMismatch { named, running })
    );
    s.cancel();
    let refused = s.offer(answer("", 4, true));
    assert_eq!(refused, Err(over(4, "its loop has ended")));
}

#[test]
fn an_answer_to_a_call_that_does_not_wait_names_its_phase() {
    let mut s = Session::started(Limits {
        max_parallel_tool_calls: 4,
        on_unknown: Some(UnknownPolicy::Ask),
        ..Limits::default()
    });
    s.ask(&["read", "once", "idem", "blind", "read", "read"]);
    s.tool(2, 1, "ended");
    s.tool_fails(3, 1, AMBIGUOUS, false);
    s.tool_fails(4, 1, AMBIGUOUS, false);
    s.tool_fails(5, 1, AMBIGUOUS, false);
    let phases = [
        (2, "has ended"),
        (3, "sidecar is being asked"),
        (4, "next attempt"),
        (5, "ResolveUnknown"),
        (6, "is running"),
    ];
    for (call, words) in phases {
        let refused = s
            .offer(answer("", call, true))
            .expect_err("it does not wait");
        assert!(refused.to_string().contains(words), "{refused}");
        assert_eq!(refused.reason(), "CALL_NOT_WAITING");
    }
    let mut s = Session::started(Limits {
        max_parallel_tool_calls: 1,
        ..Limits::default()
    });
    s.ask(&["read", "read"]);
    let refused = s.offer(answer("", 3, true)).expect_err("it does not wait");
    assert!(refused.to_string().contains("free slot"), "{refused}");
}

#[test]
fn answered_twice_under_one_request_it_counts_once() {
    let mut s = held(Limits::default());
    s.go(answer("r", 4, true));
    let first = s.state.answer("r").expect("it was answered");
    assert_eq!(s.go(answer("r", 4, true)), nothing());
    assert_eq!(s.state.answer("r"), Some(first));
    let other = s.offer(answer("r2", 4, false)).expect_err("it runs");
    assert_eq!(other.reason(), "CALL_NOT_WAITING");
}

#[test]
fn a_loop_that_waits_for_nobody_but_a_person_ends_after_its_idle_timeout() {
    let limits = Limits {
        idle_timeout_ms: Some(5_000),
        ..Limits::default()
    };
    let idle = TimerWhy::Idle(LoopId(1));
    let mut s = held(limits.clone());
    assert_eq!(s.state.wake_at(), Some(Timestamp(s.now + 5_000)));
    s.wait(4_999);
    assert_eq!(s.fire(idle), nothing(), "it is early");
    s.wait(1);
    assert_eq!(kinds(&s.fire(idle)).last(), Some(&"LoopEnded"));
    let kind = DeadlineKind::Idle;
    assert_eq!(s.reason(), EndReason::Deadline { kind });
    let mut s = after_unknown(limits);
    s.ask(&["blind", "read", "blind"]);
    s.wait(9_000);
    assert_eq!(s.fire(idle), nothing(), "a tool runs");
    s.answer(6, false);
    s.tool(5, 1, "text");
    assert_eq!(
        s.state.wake_at(),
        Some(Timestamp(s.now + 5_000)),
        "an answer shows that somebody is there"
    );
}
