//! Tool calls: checked, capped, repeated where that is safe, in doubt where it is not.

use std::sync::Arc;

use super::kit::{Session, call, call_with, completed, kinds, nothing, specs};
use crate::{
    What,
    agent::{EffectClass, Limits, UnknownPolicy},
    effect::{EffectKey, wanted},
    ids::{CallId, Timestamp},
    input::TimerWhy,
    message::ToolOutput,
    outcome::{EndReason, LookupAnswer, StopReason, ToolFailure, ToolFailureKind},
};

const AMBIGUOUS: ToolFailureKind = ToolFailureKind::Ambiguous;
const NOT_EXECUTED: ToolFailureKind = ToolFailureKind::NotExecuted;

fn asked(limits: Limits, tools: &[&str]) -> Session {
    let mut s = Session::started(limits);
    s.ask(tools);
    s
}

fn tell_model() -> Limits {
    Limits {
        on_unknown: Some(UnknownPolicy::TellModel),
        ..Limits::default()
    }
}

fn running(s: &Session) -> Vec<EffectKey> {
    wanted(&s.state).into_iter().collect()
}

fn tool(call: u32, attempt: u32) -> EffectKey {
    EffectKey::Tool {
        call: CallId(call),
        attempt,
    }
}

#[test]
fn no_more_than_the_cap_run_at_once_and_slots_fill_in_call_order() {
    let limits = Limits {
        max_parallel_tool_calls: 2,
        ..Limits::default()
    };
    let mut s = asked(limits, &["read", "read", "read", "read"]);
    assert_eq!(running(&s), [tool(2, 1), tool(3, 1)]);
    assert_eq!(
        kinds(&s.tool(3, 1, "b")),
        ["ToolCallCompleted", "ToolCallStarted"]
    );
    assert_eq!(running(&s), [tool(2, 1), tool(4, 1)]);
    s.tool(2, 1, "a");
    s.tool(5, 1, "d");
    assert_eq!(
        kinds(&s.tool(4, 1, "c")),
        ["ToolCallCompleted", "ModelCallStarted"]
    );
    let told: Vec<String> = s.results().into_iter().map(|(_, text, _)| text).collect();
    assert_eq!(
        told,
        ["a", "b", "c", "d"],
        "in call order, not as they ended"
    );
}

#[test]
fn a_cap_of_nothing_still_runs_one_at_a_time() {
    let limits = Limits {
        max_parallel_tool_calls: 0,
        ..Limits::default()
    };
    let mut s = asked(limits, &["read", "read"]);
    assert_eq!(running(&s), [tool(2, 1)]);
    s.tool(2, 1, "a");
    assert_eq!(running(&s), [tool(3, 1)]);
}

#[test]
fn the_cap_by_name_counts_over_steps_and_refuses_at_dispatch() {
    let limits = Limits {
        max_tool_calls_per_name: Some(2),
        ..Limits::default()
    };
    let mut s = asked(limits, &["read"]);
    s.tool(2, 1, "one");
    let events = s.ask(&["read", "read", "idem"]);
    let rejected = kinds(&events)
        .iter()
        .filter(|k| **k == "ToolCallRejected")
        .count();
    assert_eq!(rejected, 1);
    assert_eq!(running(&s), [tool(4, 1), tool(6, 1)]);
    s.tool(4, 1, "two");
    s.tool(6, 1, "other");
    let refusal = "`read` was called 2 times, as often as allowed.".to_owned();
    assert_eq!(s.results()[1], (5, refusal, true));
}

#[test]
fn what_may_not_run_is_told_to_the_model_and_the_loop_goes_on() {
    let mut s = Session::started(Limits::default());
    let parts = vec![call("gone"), call_with("read", "bad")];
    let events = s.reply(parts, StopReason::ToolUse);
    assert_eq!(
        kinds(&events),
        [
            "ModelCallCompleted",
            "ToolCallRequested",
            "ToolCallRequested",
            "ToolCallRejected",
            "ToolCallRejected",
            "ModelCallStarted"
        ]
    );
    let told = [
        (2, "There is no tool named `gone`.".to_owned(), true),
        (3, "`a` must be a number".to_owned(), true),
    ];
    assert_eq!(s.results(), told);
    let none = &s.state.active.as_ref().expect("it runs").totals;
    assert_eq!(none.tool_calls, 0);
}

#[test]
fn a_call_without_a_verdict_is_not_dispatched() {
    let mut s = Session::started(Limits::default());
    let (model, attempt) = s.model();
    let mut what = completed(
        model,
        attempt,
        vec![call("read")],
        StopReason::ToolUse,
        None,
    );
    if let What::ModelCompleted { reply, .. } = &mut what {
        reply.verdicts.clear();
    }
    let events = s.go(what);
    assert!(!kinds(&events).contains(&"ToolCallStarted"), "{events:?}");
    assert!(s.results()[0].2, "the model is told");
}

#[test]
fn a_refused_call_beside_a_good_one_waits_for_its_result() {
    let mut s = asked(Limits::default(), &["gone", "read"]);
    assert_eq!(s.talk().len(), 2, "no results before all have ended");
    s.tool(3, 1, "text");
    assert_eq!(s.results().len(), 2);
}

#[test]
fn what_surely_did_not_run_is_repeated_when_that_may_help() {
    let mut s = asked(Limits::default(), &["once"]);
    assert_eq!(
        kinds(&s.tool_fails(2, 1, NOT_EXECUTED, true)),
        ["ToolCallFailed"]
    );
    let timer = EffectKey::Timer {
        at: Timestamp(s.now + 1_000),
        why: TimerWhy::RetryTool(CallId(2)),
    };
    assert_eq!(running(&s), [timer]);
    assert_eq!(kinds(&s.fire_next()), ["ToolCallStarted"]);
    assert_eq!(running(&s), [tool(2, 2)]);
    let totals = s.state.active.as_ref().expect("it runs").totals;
    assert_eq!(totals.tool_calls, 1, "a repeat counts once");
    let mut s = asked(Limits::default(), &["once"]);
    let events = s.tool_fails(2, 1, NOT_EXECUTED, false);
    assert_eq!(kinds(&events), ["ToolCallFailed", "ModelCallStarted"]);
    assert_eq!(s.results(), [(2, "no luck".to_owned(), true)]);
}

#[test]
fn attempts_of_a_tool_run_out() {
    for kind in [NOT_EXECUTED, AMBIGUOUS] {
        let mut limits = Limits::default();
        limits.retry.max_attempts = 2;
        let mut s = asked(limits, &["idem"]);
        s.tool_fails(2, 1, kind, true);
        s.fire_next();
        let events = s.tool_fails(2, 2, kind, true);
        assert_eq!(
            kinds(&events),
            ["ToolCallFailed", "ModelCallStarted"],
            "{kind:?}"
        );
    }
}

#[test]
fn an_ambiguous_failure_is_repeated_by_class_only() {
    for (name, repeated) in [
        ("read", true),
        ("idem", true),
        ("dedup", true),
        ("once", false),
    ] {
        let mut s = asked(Limits::default(), &[name]);
        let events = s.tool_fails(2, 1, AMBIGUOUS, false);
        let expected = if repeated {
            "ToolCallFailed"
        } else {
            "ToolCallInDoubt"
        };
        assert_eq!(kinds(&events), [expected], "{name}");
    }
}

#[test]
fn a_lookup_says_what_became_of_a_call_in_doubt() {
    let doubt = || {
        let mut s = asked(tell_model(), &["once"]);
        s.tool_fails(2, 1, AMBIGUOUS, false);
        assert_eq!(running(&s), [EffectKey::Lookup { call: CallId(2) }]);
        s
    };
    let mut s = doubt();
    let output = Arc::new(ToolOutput {
        text: "written".to_owned(),
        ..ToolOutput::default()
    });
    let events = s.looked_up(2, LookupAnswer::Completed(output));
    assert_eq!(kinds(&events), ["ToolCallCompleted", "ModelCallStarted"]);
    assert_eq!(s.results(), [(2, "written".to_owned(), false)]);
    let mut s = doubt();
    assert_eq!(
        kinds(&s.looked_up(2, LookupAnswer::NeverStarted)),
        ["ToolCallFailed"]
    );
    s.fire_next();
    assert_eq!(running(&s), [tool(2, 2)]);
    let mut s = doubt();
    let unsure = LookupAnswer::NotKnown("gone".to_owned());
    assert_eq!(
        kinds(&s.looked_up(2, unsure)),
        ["ToolCallUnknown", "ModelCallStarted"]
    );
    let (_, told, is_error) = s.results().remove(0);
    assert!(is_error, "an unknown outcome is no success");
    assert!(told.ends_with("was asked: gone"), "{told}");
    assert_eq!(s.looked_up(2, LookupAnswer::NeverStarted), nothing());
}

#[test]
fn without_a_lookup_the_outcome_is_unknown_at_once() {
    let mut s = asked(tell_model(), &["blind", "read"]);
    let events = s.tool_fails(2, 1, AMBIGUOUS, true);
    assert_eq!(kinds(&events), ["ToolCallInDoubt", "ToolCallUnknown"]);
    let limits = Limits {
        on_unknown: Some(UnknownPolicy::End),
        ..Limits::default()
    };
    let mut s = asked(limits, &["blind", "read"]);
    let events = s.tool_fails(2, 1, AMBIGUOUS, true);
    assert_eq!(
        kinds(&events),
        [
            "ToolCallInDoubt",
            "ToolCallUnknown",
            "ToolCallCancelled",
            "LoopEnded"
        ]
    );
    assert_eq!(s.reason(), EndReason::UnknownOutcome { call: CallId(2) });
    assert_eq!(s.results().len(), 2);
}

#[test]
fn a_deduplicated_call_is_not_repeated_past_its_retention() {
    let mut s = asked(Limits::default(), &["dedup"]);
    s.wait(59_000);
    let events = s.tool_fails(2, 1, AMBIGUOUS, false);
    let kinds_now = kinds(&events);
    assert_eq!(
        kinds_now[..2],
        ["ToolCallInDoubt", "ToolCallUnknown"],
        "due at the 60th second"
    );
    let mut s = asked(Limits::default(), &["dedup"]);
    s.tool_fails(2, 1, AMBIGUOUS, false);
    s.wait(70_000);
    let events = s.fire(TimerWhy::RetryTool(CallId(2)));
    assert_eq!(
        kinds(&events)[..2],
        ["ToolCallInDoubt", "ToolCallUnknown"],
        "the timer was late"
    );
    let mut s = asked(Limits::default(), &["dedup"]);
    s.tool_fails(2, 1, NOT_EXECUTED, true);
    s.wait(70_000);
    let events = s.fire(TimerWhy::RetryTool(CallId(2)));
    assert_eq!(
        kinds(&events),
        ["ToolCallStarted"],
        "it never ran, so nothing is remembered"
    );
}

#[test]
fn in_doubt_is_the_attempt_that_ran_last() {
    let mut looked_up = specs();
    for spec in &mut looked_up {
        spec.lookup = true;
    }
    let mut s = Session::started(Limits::default());
    s.change_tools(looked_up);
    s.ask(&["dedup"]);
    s.tool_fails(2, 1, AMBIGUOUS, false);
    s.wait(70_000);
    s.fire(TimerWhy::RetryTool(CallId(2)));
    assert_eq!(s.state.tool_request(CallId(2)).map(|r| r.attempt), Some(1));
    s.looked_up(2, LookupAnswer::NeverStarted);
    assert_eq!(running(&s), [tool(2, 2)]);
}

#[test]
fn a_later_attempt_that_did_not_run_says_nothing_of_an_earlier_one() {
    let mut s = asked(tell_model(), &["dedup"]);
    s.tool_fails(2, 1, AMBIGUOUS, false);
    s.fire_next();
    s.wait(60_000);
    let events = s.tool_fails(2, 2, NOT_EXECUTED, true);
    assert_eq!(kinds(&events)[..2], ["ToolCallInDoubt", "ToolCallUnknown"]);
}

#[test]
fn a_call_keeps_the_class_that_it_was_dispatched_with() {
    let lax = |name: &str| {
        let mut specs = specs();
        for spec in specs.iter_mut().filter(|spec| spec.name == name) {
            spec.effect = EffectClass::Idempotent;
        }
        specs
    };
    let mut s = asked(Limits::default(), &["once"]);
    assert_eq!(kinds(&s.change_tools(lax("once"))), ["ToolsChanged"]);
    assert_eq!(
        s.change_tools(lax("once")),
        nothing(),
        "the same tools are no change"
    );
    assert_eq!(
        kinds(&s.tool_fails(2, 1, AMBIGUOUS, true)),
        ["ToolCallInDoubt"]
    );
    let mut s = asked(Limits::default(), &["idem"]);
    s.change_tools(Vec::new());
    assert_eq!(
        kinds(&s.tool_fails(2, 1, AMBIGUOUS, true)),
        ["ToolCallFailed"]
    );
}

#[test]
fn outcomes_of_other_attempts_and_calls_decide_to_nothing() {
    let mut s = asked(Limits::default(), &["idem", "read"]);
    assert_eq!(s.tool(2, 2, "later"), nothing());
    assert_eq!(s.tool(9, 1, "never asked for"), nothing());
    assert_eq!(s.looked_up(2, LookupAnswer::NeverStarted), nothing());
    s.tool(2, 1, "in time");
    assert_eq!(s.tool(2, 1, "again"), nothing());
    assert_eq!(s.tool_fails(2, 1, AMBIGUOUS, true), nothing());
    assert_eq!(s.fire(TimerWhy::RetryTool(CallId(2))), nothing());
}

#[test]
fn a_sidecar_that_asks_for_time_gets_it() {
    let limits = Limits::default();
    let failure = |retry_after_ms| What::ToolFailed {
        call: CallId(2),
        attempt: 1,
        failure: ToolFailure {
            kind: NOT_EXECUTED,
            message: "busy".to_owned(),
            retryable: true,
            retry_after_ms,
            cause: None,
        },
        jitter: 0,
    };
    let mut s = asked(limits.clone(), &["once"]);
    s.go(failure(Some(7_000)));
    assert_eq!(s.state.wake_at(), Some(Timestamp(s.now + 7_000)));
    let mut s = asked(limits.clone(), &["once"]);
    s.go(failure(Some(limits.retry.total_deadline_ms + 1)));
    assert!(s.results()[0].2, "so long nobody waits");
}
