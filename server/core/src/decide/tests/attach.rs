//! A driver attaches, in every phase: what ran is made again where that is safe.

use super::kit::{Session, kinds, nothing, tool_completed};
use crate::{
    Event, What,
    agent::{Agent, BudgetLimits, Limits, UnknownPolicy},
    effect::{EffectKey, wanted},
    ids::{CallId, LoopId},
    input::TimerWhy,
    outcome::{EndReason, LookupAnswer, ModelFailureKind, ToolFailureKind},
    rejection::Rejection,
};

/// What follows on a driver's having attached.
fn after(attached: &[Event]) -> Vec<&str> {
    let kinds = kinds(attached);
    assert_eq!(kinds[0], "DriverAttached");
    kinds[1..].to_vec()
}

fn tell_model() -> Limits {
    Limits {
        on_unknown: Some(UnknownPolicy::TellModel),
        ..Limits::default()
    }
}

#[test]
fn epochs_follow_each_other() {
    let mut s = Session::started(Limits::default());
    let attach = |epoch| What::Attach {
        epoch,
        cut_bytes: None,
        server: String::new(),
    };
    for epoch in [0, 1, 3, u64::MAX] {
        assert_eq!(
            s.offer(attach(epoch)),
            Err(Rejection::StaleEpoch { epoch, current: 1 })
        );
    }
    s.go(attach(2));
    assert_eq!(s.state.epoch, 2);
}

#[test]
fn at_rest_nothing_follows() {
    let mut s = Session::new(Limits::default(), Agent::default());
    assert_eq!(kinds(&s.attach()), ["DriverAttached"]);
    assert_eq!(wanted(&s.state).len(), 0);
}

#[test]
fn a_cut_log_is_told() {
    let mut s = Session::started(Limits::default());
    let events = s.go(What::Attach {
        epoch: 2,
        cut_bytes: Some(9),
        server: String::new(),
    });
    assert_eq!(kinds(&events)[..2], ["LogRecovered", "DriverAttached"]);
}

#[test]
fn a_driver_that_lets_go_says_so() {
    let mut s = Session::empty();
    assert_eq!(s.go(What::Detach), nothing(), "nobody was attached");
    let mut s = Session::started(Limits::default());
    assert_eq!(kinds(&s.go(What::Detach)), ["DriverDetached"]);
}

#[test]
fn a_running_model_call_is_given_up_and_made_again() {
    let mut s = Session::started(Limits::default());
    assert_eq!(
        after(&s.attach()),
        ["ModelCallAbandoned", "BudgetSettled", "ModelCallStarted"]
    );
    assert_eq!(s.model(), (CallId(1), 2));
    s.say("hi");
    let totals = s.state.ended.back().expect("it ended").totals;
    assert_eq!((totals.steps, totals.model_calls), (1, 2));
    assert_eq!(
        s.talk(),
        ["user: hello", "model: hi"],
        "the message joined once"
    );
}

#[test]
fn crashes_are_no_failures_of_the_model() {
    let mut limits = Limits::default();
    limits.retry.max_attempts = 2;
    let mut s = Session::started(limits);
    for _ in 0..5 {
        s.attach();
    }
    assert_eq!(
        kinds(&s.fail(ModelFailureKind::Overloaded)),
        ["ModelCallFailed"]
    );
    assert!(s.state.active.is_some(), "the first failure is repeated");
}

#[test]
fn what_a_lost_call_may_have_cost_is_settled_before_the_next() {
    let budget = BudgetLimits {
        total_tokens: Some(6_000),
        ..BudgetLimits::default()
    };
    let mut s = Session::started(Limits {
        budget,
        ..Limits::default()
    });
    assert_eq!(
        after(&s.attach()),
        [
            "ModelCallAbandoned",
            "BudgetSettled",
            "BudgetReserved",
            "ModelCallStarted"
        ]
    );
    assert_eq!(
        after(&s.attach()),
        ["ModelCallAbandoned", "BudgetSettled", "LoopEnded"],
        "nothing is left"
    );
    assert!(matches!(s.reason(), EndReason::BudgetExceeded { .. }));
}

#[test]
fn reserving_and_backoff_are_asked_for_again_as_they_are() {
    let agent = Agent {
        budgets: vec!["team".to_owned()],
        ..Agent::default()
    };
    let mut s = Session::new(Limits::default(), agent);
    s.start("hello");
    let before = wanted(&s.state);
    assert_eq!(kinds(&s.attach()), ["DriverAttached"]);
    assert_eq!(wanted(&s.state), before);
    let mut s = Session::started(Limits::default());
    s.fail(ModelFailureKind::Overloaded);
    let before = wanted(&s.state);
    assert_eq!(kinds(&s.attach()), ["DriverAttached"]);
    assert_eq!(wanted(&s.state), before);
}

#[test]
fn running_tools_are_made_again_by_class_only() {
    let mut s = Session::started(tell_model());
    s.ask(&["read", "idem", "dedup", "once", "blind"]);
    assert_eq!(
        after(&s.attach()),
        [
            "ToolCallStarted",
            "ToolCallStarted",
            "ToolCallStarted",
            "ToolCallInDoubt",
            "ToolCallInDoubt",
            "ToolCallUnknown"
        ]
    );
    let tool = |call| EffectKey::Tool {
        call: CallId(call),
        attempt: 2,
    };
    let expected = [
        tool(2),
        tool(3),
        tool(4),
        EffectKey::Lookup { call: CallId(5) },
    ];
    assert_eq!(wanted(&s.state).into_iter().collect::<Vec<_>>(), expected);
    assert_eq!(
        s.go(tool_completed(2, 1, "of the driver before")),
        nothing()
    );
}

#[test]
fn a_deduplicated_call_past_its_retention_is_in_doubt() {
    let mut s = Session::started(tell_model());
    s.ask(&["dedup", "read"]);
    s.wait(60_000);
    assert_eq!(
        after(&s.attach()),
        ["ToolCallInDoubt", "ToolCallUnknown", "ToolCallStarted"]
    );
}

#[test]
fn what_waits_ends_or_is_in_doubt_stays_as_it_is() {
    let limits = Limits {
        max_parallel_tool_calls: 3,
        ..tell_model()
    };
    let mut s = Session::started(limits);
    s.ask(&["once", "idem", "read", "read"]);
    s.tool_fails(2, 1, ToolFailureKind::Ambiguous, false);
    s.tool_fails(3, 1, ToolFailureKind::NotExecuted, true);
    s.tool(4, 1, "ended");
    s.tool(5, 1, "ended too");
    let before = wanted(&s.state);
    assert_eq!(kinds(&s.attach()), ["DriverAttached"]);
    assert_eq!(wanted(&s.state), before);
    s.looked_up(2, LookupAnswer::NeverStarted);
    s.fire(TimerWhy::RetryTool(CallId(2)));
    s.wait(2_000);
    s.fire(TimerWhy::RetryTool(CallId(2)));
    assert_eq!(
        s.state
            .tool_request(CallId(2))
            .map(|r| (r.attempt, r.epoch)),
        Some((2, 2))
    );
}

#[test]
fn an_unknown_outcome_frees_its_slot() {
    let limits = Limits {
        max_parallel_tool_calls: 1,
        ..tell_model()
    };
    let mut s = Session::started(limits);
    s.ask(&["blind", "read"]);
    assert_eq!(
        after(&s.attach()),
        ["ToolCallInDoubt", "ToolCallUnknown", "ToolCallStarted"]
    );
    assert_eq!(s.state.tool_request(CallId(3)).map(|r| r.attempt), Some(1));
}

#[test]
fn one_unknown_outcome_may_end_the_loop_and_the_rest_is_cancelled() {
    let mut s = Session::started(Limits {
        on_unknown: Some(UnknownPolicy::End),
        ..Limits::default()
    });
    s.ask(&["blind", "blind", "read"]);
    assert_eq!(
        after(&s.attach()),
        [
            "ToolCallInDoubt",
            "ToolCallUnknown",
            "ToolCallCancelled",
            "ToolCallCancelled",
            "LoopEnded"
        ]
    );
    assert_eq!(s.reason(), EndReason::UnknownOutcome { call: CallId(2) });
    assert_eq!(s.results().len(), 3);
    assert_eq!(s.state.current_loop(), LoopId(1));
}

#[test]
fn what_ran_when_a_driver_died_stays_in_question_when_its_repeat_does_not_run() {
    let mut s = Session::started(tell_model());
    s.ask(&["dedup", "read"]);
    s.attach();
    s.wait(60_000);
    let events = s.tool_fails(2, 2, ToolFailureKind::NotExecuted, true);
    assert_eq!(kinds(&events), ["ToolCallInDoubt", "ToolCallUnknown"]);
    let mut s = Session::started(tell_model());
    s.ask(&["read", "read"]);
    s.attach();
    let events = s.tool_fails(2, 2, ToolFailureKind::NotExecuted, false);
    assert_eq!(
        kinds(&events),
        ["ToolCallFailed"],
        "harmless to repeat, so it is"
    );
    assert!(s.state.wake_at().is_some());
}
