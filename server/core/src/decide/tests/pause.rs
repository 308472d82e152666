//! A paused loop: what runs ends, nothing starts, and a driver that attaches repeats nothing.

use super::kit::{Session, cancel, kinds, nothing, pause, resume};
use crate::{
    agent::{Agent, BudgetLimits, Limits, UnknownPolicy},
    effect::{EffectKey, wanted},
    event::UnknownResolution,
    ids::{CallId, LoopId},
    input::{Mode, TimerWhy},
    message::Part,
    outcome::{EndReason, LookupAnswer, ModelFailureKind, StopReason, ToolFailureKind, WaitsFor},
    rejection::Rejection,
    state::ToolPhase,
};

fn by_ann() -> WaitsFor {
    WaitsFor::Client {
        by: "ann".to_owned(),
    }
}

fn waits_for(s: &Session) -> Option<WaitsFor> {
    s.state.active.as_ref()?.paused.clone()
}

fn wants(s: &Session) -> Vec<EffectKey> {
    wanted(&s.state).into_iter().collect()
}

#[test]
fn a_reply_ends_and_its_tools_wait() {
    let mut s = Session::started(Limits::default());
    assert_eq!(kinds(&s.go(pause(""))), ["LoopPaused"]);
    assert_eq!(waits_for(&s), Some(by_ann()));
    let (call, attempt) = s.model();
    let running = EffectKey::Model { call, attempt };
    assert_eq!(wants(&s), [running], "what runs is left to end");
    assert_eq!(
        kinds(&s.ask(&["read", "once"])),
        [
            "ModelCallCompleted",
            "ToolCallRequested",
            "ToolCallRequested"
        ]
    );
    assert_eq!(wants(&s), []);
    let events = s.go(resume(""));
    assert_eq!(
        kinds(&events),
        ["LoopResumed", "ToolCallStarted", "ToolCallStarted"]
    );
    assert_eq!(waits_for(&s), None);
}

#[test]
fn a_tool_ends_and_the_next_step_waits() {
    let mut s = Session::started(Limits::default());
    s.ask(&["read", "read"]);
    s.go(pause(""));
    assert_eq!(wants(&s).len(), 2);
    s.tool(2, 1, "a");
    assert_eq!(kinds(&s.tool(3, 1, "b")), ["ToolCallCompleted"]);
    assert_eq!(wants(&s), []);
    assert_eq!(
        kinds(&s.go(resume(""))),
        ["LoopResumed", "ModelCallStarted"]
    );
}

#[test]
fn calls_without_a_slot_wait_for_more_than_a_slot() {
    let limits = Limits {
        max_parallel_tool_calls: 1,
        ..Limits::default()
    };
    let mut s = Session::started(limits);
    s.ask(&["read", "read"]);
    s.go(pause(""));
    assert_eq!(kinds(&s.tool(2, 1, "a")), ["ToolCallCompleted"]);
    assert_eq!(s.phase(3), ToolPhase::Waiting);
    assert_eq!(kinds(&s.go(resume(""))), ["LoopResumed", "ToolCallStarted"]);
}

#[test]
fn a_reply_that_is_all_there_is_ends_the_loop_and_what_is_queued_starts_paused() {
    let mut s = Session::started(Limits::default());
    s.send(Mode::Queue, "next");
    s.go(pause(""));
    assert_eq!(
        kinds(&s.say("done")),
        [
            "ModelCallCompleted",
            "LoopEnded",
            "LoopStarted",
            "LoopPaused"
        ]
    );
    assert_eq!(s.state.current_loop(), LoopId(2));
    assert_eq!(wants(&s), []);
    assert_eq!(
        kinds(&s.go(resume(""))),
        ["LoopResumed", "ModelCallStarted"]
    );
    assert_eq!(s.talk().last().map(String::as_str), Some("user: next"));
}

#[test]
fn a_driver_that_attaches_repeats_no_model_call() {
    let mut s = Session::started(Limits::default());
    s.go(pause(""));
    assert_eq!(
        kinds(&s.attach()),
        ["DriverAttached", "ModelCallAbandoned", "BudgetSettled"]
    );
    assert_eq!(wants(&s), []);
    assert_eq!(kinds(&s.attach()), ["DriverAttached"], "and says so once");
    assert_eq!(
        kinds(&s.go(resume(""))),
        ["LoopResumed", "ModelCallStarted"]
    );
    assert_eq!(
        s.model(),
        (CallId(1), 2),
        "another attempt of the same call"
    );
    s.say("hi");
    let totals = s.state.ended.back().expect("it ended").totals;
    assert_eq!((totals.steps, totals.model_calls), (1, 2));
    assert_eq!(s.talk(), ["user: hello", "model: hi"]);
}

#[test]
fn a_driver_that_attaches_repeats_no_tool_call() {
    let mut s = Session::started(Limits::default());
    s.ask(&["read", "once", "blind"]);
    s.go(pause(""));
    let events = s.attach();
    assert_eq!(
        kinds(&events),
        [
            "DriverAttached",
            "ToolCallInDoubt",
            "ToolCallInDoubt",
            "ToolCallUnknown"
        ],
        "that nobody knows is no secret while the loop is paused"
    );
    assert_eq!(wants(&s), [EffectKey::Lookup { call: CallId(3) }]);
    assert_eq!(
        kinds(&s.looked_up(3, LookupAnswer::NeverStarted)),
        ["ToolCallFailed"]
    );
    assert_eq!(wants(&s), []);
    assert_eq!(kinds(&s.attach()), ["DriverAttached"]);
    assert_eq!(kinds(&s.go(resume(""))), ["LoopResumed"]);
    let tools = s.state.active.as_ref().map(|active| active.tools.clone());
    let due = tools.expect("a loop goes on");
    assert_eq!(
        due.iter().map(|tool| tool.attempt).collect::<Vec<_>>(),
        [2, 2, 1]
    );
    for call in [2, 3] {
        assert_eq!(
            kinds(&s.fire(TimerWhy::RetryTool(CallId(call)))),
            ["ToolCallStarted"]
        );
    }
}

/// What could be repeated when the driver was lost may not be any more when the pause ends.
#[test]
fn a_call_that_its_tool_forgot_in_the_pause_is_in_doubt() {
    let mut s = Session::started(Limits::default());
    s.ask(&["dedup"]);
    s.go(pause(""));
    assert_eq!(kinds(&s.attach()), ["DriverAttached"]);
    s.wait(60_000);
    s.go(resume(""));
    let events = s.fire(TimerWhy::RetryTool(CallId(2)));
    assert_eq!(kinds(&events)[..2], ["ToolCallInDoubt", "ToolCallUnknown"]);
}

#[test]
fn a_retry_waits_for_more_than_its_time() {
    let mut s = Session::started(Limits::default());
    s.fail(ModelFailureKind::Overloaded);
    s.go(pause(""));
    assert_eq!(wants(&s), []);
    s.wait(600_000);
    assert_eq!(s.fire(TimerWhy::RetryModel(CallId(1))), nothing());
    assert_eq!(
        kinds(&s.go(resume(""))),
        ["LoopResumed", "ModelCallStarted"]
    );
    assert_eq!(s.model(), (CallId(1), 2));
}

#[test]
fn a_failure_is_written_down_and_not_retried() {
    let mut s = Session::started(Limits::default());
    s.ask(&["read"]);
    s.go(pause(""));
    let failed = s.tool_fails(2, 1, ToolFailureKind::Ambiguous, true);
    assert_eq!(kinds(&failed), ["ToolCallFailed"]);
    assert_eq!(wants(&s), []);
    s.go(resume(""));
    assert_eq!(kinds(&s.fire_next()), ["ToolCallStarted"]);
}

/// Others may need what a paused loop had asked of a shared budget.
#[test]
fn a_reservation_is_given_back() {
    let agent = Agent {
        budgets: vec!["team".to_owned()],
        ..Agent::default()
    };
    let mut s = Session::new(Limits::default(), agent);
    s.start("hello");
    assert_eq!(
        kinds(&s.go(pause(""))),
        ["ModelCallAbandoned", "BudgetSettled", "LoopPaused"]
    );
    let settle = EffectKey::Settle {
        call: CallId(1),
        attempt: 1,
    };
    assert_eq!(wants(&s), [settle]);
    assert_eq!(
        kinds(&s.go(resume(""))),
        ["LoopResumed", "ModelCallReserving"]
    );
    assert_eq!(s.model(), (CallId(2), 1), "the message has not joined yet");
    s.granted(100);
    s.fail(ModelFailureKind::Overloaded);
    s.fire_next();
    assert_eq!(s.model(), (CallId(2), 2));
    s.go(pause(""));
    s.go(resume(""));
    assert_eq!(s.model(), (CallId(2), 3), "it is the same step still");
    s.granted(100);
    s.say("hi");
    let totals = s.state.ended.back().expect("it ended").totals;
    assert_eq!(totals.steps, 1);
}

#[test]
fn persons_answer_and_the_call_waits() {
    let limits = Limits {
        on_unknown: Some(UnknownPolicy::Ask),
        ..Limits::default()
    };
    let mut s = Session::started(limits);
    s.ask(&["blind"]);
    s.tool_fails(2, 1, ToolFailureKind::Ambiguous, false);
    s.go(pause(""));
    let said = s.resolve(2, UnknownResolution::RunAgain);
    assert_eq!(kinds(&said), ["UnknownResolved"]);
    assert_eq!(s.phase(2), ToolPhase::Waiting);
    assert_eq!(kinds(&s.go(resume(""))), ["LoopResumed", "ToolCallStarted"]);
}

#[test]
fn a_message_waits_and_an_interrupt_gives_up_what_runs() {
    let mut s = Session::started(Limits::default());
    s.go(pause(""));
    assert_eq!(kinds(&s.send(Mode::Steer, "a")), ["MessageAdded"]);
    assert_eq!(
        kinds(&s.send(Mode::Interrupt, "b")),
        ["MessageAdded", "ModelCallAbandoned", "BudgetSettled"]
    );
    assert_eq!(wants(&s), []);
    assert_eq!(
        kinds(&s.go(resume(""))),
        ["LoopResumed", "ModelCallStarted"]
    );
    assert_eq!(s.talk(), ["user: hello", "user: a", "user: b"]);
}

#[test]
fn a_cut_reply_is_continued_when_it_goes_on() {
    let mut s = Session::started(Limits::default());
    s.go(pause(""));
    let half = vec![Part::Text("half".to_owned())];
    assert_eq!(
        kinds(&s.reply(half, StopReason::MaxTokens)),
        ["ModelCallCompleted", "MessageAdded"]
    );
    assert_eq!(
        kinds(&s.go(resume(""))),
        ["LoopResumed", "ModelCallStarted"]
    );
}

#[test]
fn deadline_and_cancel_end_it_all_the_same() {
    let limits = Limits {
        deadline_ms: Some(50),
        ..Limits::default()
    };
    let mut s = Session::started(limits.clone());
    s.ask(&["read"]);
    s.go(pause(""));
    assert_eq!(kinds(&s.fire_next()), ["ToolCallCancelled", "LoopEnded"]);
    let mut s = Session::started(limits);
    s.go(pause(""));
    assert_eq!(
        kinds(&s.cancel()),
        ["ModelCallAbandoned", "BudgetSettled", "LoopEnded"]
    );
    assert!(matches!(s.reason(), EndReason::Cancelled { .. }));
}

#[test]
fn a_reserved_call_that_ends_in_a_pause_is_settled() {
    let budget = BudgetLimits {
        total_tokens: Some(6_000),
        ..BudgetLimits::default()
    };
    let mut s = Session::started(Limits {
        budget,
        ..Limits::default()
    });
    s.go(pause(""));
    assert_eq!(
        kinds(&s.attach()),
        ["DriverAttached", "ModelCallAbandoned", "BudgetSettled"]
    );
}

#[test]
fn what_cannot_be_paused_or_resumed_is_refused() {
    let mut s = Session::new(Limits::default(), Agent::default());
    assert_eq!(s.offer(pause("")), Err(Rejection::NoLoopRunning));
    s.start("hello");
    let running = LoopId(1);
    let not_paused = Rejection::NotPaused {
        running,
        budget: None,
    };
    assert_eq!(s.offer(resume("")), Err(not_paused));
    assert_eq!(kinds(&s.go(pause("p"))), ["LoopPaused"]);
    assert_eq!(s.go(pause("p")), nothing(), "the same request again");
    let by = "ann".to_owned();
    assert_eq!(
        s.offer(pause("q")),
        Err(Rejection::AlreadyPaused { running, by })
    );
    let other = crate::What::ResumeLoop {
        by: super::kit::by(""),
        guard: Some(LoopId(7)),
    };
    assert!(matches!(
        s.offer(other),
        Err(Rejection::LoopMismatch { .. })
    ));
    s.go(cancel("", None));
    assert_eq!(s.offer(resume("")), Err(Rejection::NoLoopRunning));
}
