//! Calls whose outcome nobody knows: policy, what a person says, and what a lookup does.

use std::sync::Arc;

use super::kit::{Session, by, kinds, nothing, resolve, specs};
use crate::{
    Rejection, What,
    agent::{Limits, UnknownPolicy},
    effect::{EffectKey, wanted},
    event::UnknownResolution::{
        self, Cancelled, DidNotHappen, Happened, RunAgain, TellModel as Tell,
    },
    ids::{CallId, LoopId},
    input::TimerWhy,
    message::ToolOutput,
    outcome::{LookupAnswer, ToolFailureKind},
    retry::RetryPolicy,
    state::ToolPhase,
};

const AMBIGUOUS: ToolFailureKind = ToolFailureKind::Ambiguous;

fn policy(on_unknown: Option<UnknownPolicy>) -> Limits {
    Limits {
        on_unknown,
        ..Limits::default()
    }
}

/// A session that asks a person about c2, a call of `blind`.
fn asking(limits: Limits) -> Session {
    let mut s = Session::started(Limits {
        on_unknown: Some(UnknownPolicy::Ask),
        ..limits
    });
    s.ask(&["blind"]);
    let events = s.tool_fails(2, 1, AMBIGUOUS, false);
    assert_eq!(kinds(&events), ["ToolCallInDoubt", "ToolCallUnknown"]);
    assert_eq!(s.phase(2), ToolPhase::Asking);
    s
}

fn resolved(resolution: UnknownResolution, output: Option<&str>) -> What {
    let output = output.map(|text| {
        Arc::new(ToolOutput {
            text: text.to_owned(),
            ..ToolOutput::default()
        })
    });
    What::ResolveUnknown {
        by: by("r"),
        guard: Some(LoopId(1)),
        call: CallId(2),
        resolution,
        output,
        reason: String::new(),
    }
}

#[test]
fn without_a_policy_a_person_is_asked_about_destructive_tools_alone() {
    let mut dangerous = specs();
    for spec in dangerous.iter_mut().filter(|spec| spec.name == "blind") {
        spec.destructive = true;
    }
    for (on_unknown, destructive, last) in [
        (None, true, "ToolCallUnknown"),
        (None, false, "ModelCallStarted"),
        (Some(UnknownPolicy::Ask), false, "ToolCallUnknown"),
        (Some(UnknownPolicy::TellModel), true, "ModelCallStarted"),
        (Some(UnknownPolicy::End), true, "LoopEnded"),
    ] {
        let mut s = Session::started(policy(on_unknown));
        if destructive {
            s.change_tools(dangerous.clone());
        }
        s.ask(&["blind"]);
        let events = s.tool_fails(2, 1, AMBIGUOUS, false);
        assert_eq!(
            kinds(&events).last(),
            Some(&last),
            "{on_unknown:?} {destructive}"
        );
    }
}

#[test]
fn while_a_person_is_asked_the_others_go_on() {
    let mut s = Session::started(Limits {
        max_parallel_tool_calls: 1,
        ..policy(Some(UnknownPolicy::Ask))
    });
    s.ask(&["blind", "read"]);
    let events = s.tool_fails(2, 1, AMBIGUOUS, false);
    assert_eq!(
        kinds(&events).last(),
        Some(&"ToolCallStarted"),
        "it takes no slot"
    );
    assert_eq!(kinds(&s.tool(3, 1, "text")), ["ToolCallCompleted"]);
    assert_eq!(wanted(&s.state).len(), 0);
    assert_eq!(kinds(&s.attach()), ["DriverAttached"]);
    assert_eq!(s.phase(2), ToolPhase::Asking);
}

#[test]
fn the_model_is_told_what_the_person_said() {
    for (resolution, output, text, is_error) in [
        (Happened, Some("paid"), "paid", false),
        (Happened, None, "says that this call ran", false),
        (DidNotHappen, None, "says that this call did not run", true),
        (Tell, None, "not known whether this call ran", true),
    ] {
        let mut s = asking(Limits::default());
        let events = s.go(resolved(resolution, output));
        assert_eq!(kinds(&events), ["UnknownResolved", "ModelCallStarted"]);
        let (_, told, told_error) = s.results().remove(0);
        assert!(told.contains(text) && told_error == is_error, "{told}");
    }
    let mut s = asking(Limits::default());
    s.resolve(2, DidNotHappen);
    assert!(s.results()[0].1.ends_with("They say: I looked"));
}

#[test]
fn only_what_happened_has_a_result() {
    let mut s = asking(Limits::default());
    s.go(resolved(DidNotHappen, Some("paid")));
    assert!(!s.results()[0].1.contains("paid"));
}

#[test]
fn a_call_runs_again_by_a_persons_word() {
    let mut s = asking(Limits::default());
    assert_eq!(
        kinds(&s.resolve(2, RunAgain)),
        ["UnknownResolved", "ToolCallStarted"]
    );
    let events = s.tool_fails(2, 2, ToolFailureKind::NotExecuted, true);
    assert_eq!(
        kinds(&events),
        ["ToolCallFailed"],
        "no earlier attempt is in question"
    );
    s.fire_next();
    s.tool(2, 3, "done");
    assert_eq!(s.results(), [(2, "done".to_owned(), false)]);
}

#[test]
fn a_call_that_runs_again_waits_for_its_slot() {
    let mut s = Session::started(Limits {
        max_parallel_tool_calls: 1,
        ..policy(Some(UnknownPolicy::Ask))
    });
    s.ask(&["blind", "read"]);
    s.tool_fails(2, 1, AMBIGUOUS, false);
    assert_eq!(kinds(&s.resolve(2, RunAgain)), ["UnknownResolved"]);
    s.tool(3, 1, "text");
    assert_eq!(s.state.tool_request(CallId(2)).map(|r| r.attempt), Some(2));
}

#[test]
fn what_a_person_knows_is_not_held_for_and_what_nobody_knows_is() {
    for (resolution, last) in [
        (Happened, "ToolCallStarted"),
        (DidNotHappen, "ToolCallStarted"),
        (Tell, "ApprovalRequested"),
    ] {
        let mut s = asking(Limits::default());
        s.resolve(2, resolution);
        let events = s.ask(&["blind"]);
        assert_eq!(kinds(&events).last(), Some(&last), "{resolution:?}");
    }
    let mut s = asking(Limits::default());
    s.resolve(2, RunAgain);
    s.tool(2, 2, "done");
    assert_eq!(kinds(&s.ask(&["blind"])).last(), Some(&"ToolCallStarted"));
    let mut s = asking(Limits::default());
    assert_eq!(kinds(&s.cancel()), ["UnknownResolved", "LoopEnded"]);
    s.start("again");
    assert_eq!(kinds(&s.ask(&["blind"])).last(), Some(&"ApprovalRequested"));
}

#[test]
fn of_two_unknown_calls_alike_one_answer_resolves_one() {
    let mut s = Session::started(policy(Some(UnknownPolicy::Ask)));
    s.ask(&["blind", "blind"]);
    s.tool_fails(2, 1, AMBIGUOUS, false);
    s.tool_fails(3, 1, AMBIGUOUS, false);
    s.resolve(2, Happened);
    s.resolve(3, Tell);
    assert_eq!(kinds(&s.ask(&["blind"])).last(), Some(&"ApprovalRequested"));
}

#[test]
fn a_word_on_a_call_that_nobody_asks_about_is_refused() {
    let mut s = asking(Limits::default());
    let call = CallId(2);
    assert_eq!(
        s.offer(resolve("", 2, Cancelled)),
        Err(Rejection::NoResolution { call })
    );
    s.go(resolved(RunAgain, None));
    assert_eq!(
        s.go(resolved(RunAgain, None)),
        nothing(),
        "the same request"
    );
    let refused = s.offer(resolve("other", 2, Happened)).expect_err("it runs");
    assert!(refused.to_string().contains("is running"), "{refused}");
    s.tool(2, 2, "done");
    let refused = s
        .offer(resolve("other", 2, Happened))
        .expect_err("it ended");
    assert_eq!(refused.reason(), "CALL_NOT_WAITING");
}

#[test]
fn a_result_that_comes_while_a_person_is_asked_is_the_result() {
    let mut s = asking(Limits::default());
    assert_eq!(
        kinds(&s.tool(2, 1, "done")),
        ["ToolCallCompleted", "ModelCallStarted"]
    );
    let events = s.ask(&["blind"]);
    assert_eq!(
        kinds(&events).last(),
        Some(&"ToolCallStarted"),
        "it is known now"
    );
}

#[test]
fn attempts_that_never_started_run_out() {
    let mut s = Session::started(Limits {
        retry: RetryPolicy {
            max_attempts: 2,
            ..RetryPolicy::default()
        },
        ..Limits::default()
    });
    s.ask(&["once"]);
    s.tool_fails(2, 1, AMBIGUOUS, false);
    assert_eq!(
        kinds(&s.looked_up(2, LookupAnswer::NeverStarted)),
        ["ToolCallFailed"]
    );
    assert_eq!(s.state.wake_at().map(|at| at.0 - s.now), Some(1_000));
    s.fire(TimerWhy::RetryTool(CallId(2)));
    s.fire_next();
    s.tool_fails(2, 2, AMBIGUOUS, false);
    assert_eq!(
        kinds(&s.looked_up(2, LookupAnswer::NeverStarted)),
        ["ToolCallFailed", "ModelCallStarted"],
        "a sidecar that always breaks is not tried for ever"
    );
}

#[test]
fn a_call_lost_with_its_driver_starts_at_once_if_it_never_did() {
    let mut s = Session::started(Limits::default());
    s.ask(&["once"]);
    s.attach();
    let lookup = EffectKey::Lookup { call: CallId(2) };
    assert!(wanted(&s.state).contains(&lookup));
    assert_eq!(
        kinds(&s.looked_up(2, LookupAnswer::NeverStarted)),
        ["ToolCallStarted"]
    );
    let events = s.tool_fails(2, 2, ToolFailureKind::NotExecuted, true);
    assert_eq!(kinds(&events), ["ToolCallFailed"]);
}

#[test]
fn a_loop_that_nobody_tells_ends_after_its_idle_timeout() {
    let limits = Limits {
        idle_timeout_ms: Some(5_000),
        ..Limits::default()
    };
    let mut s = asking(limits.clone());
    assert_eq!(s.state.wake_at().map(|at| at.0 - s.now), Some(5_000));
    assert_eq!(kinds(&s.fire_next()), ["UnknownResolved", "LoopEnded"]);
    let mut s = asking(limits);
    s.wait(3_000);
    s.resolve(2, RunAgain);
    assert_eq!(s.state.wake_at(), None, "a tool runs");
    s.tool_fails(2, 2, AMBIGUOUS, false);
    assert_eq!(s.state.wake_at().map(|at| at.0 - s.now), Some(5_000));
}
