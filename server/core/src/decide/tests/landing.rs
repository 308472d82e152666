//! The last call: made once, out of what was held back, without tools, and the loop ends with it.

use super::kit::{Session, call_with, kinds, usage};
use crate::{
    agent::{Agent, BudgetLimits, Limits},
    budget::Dimension,
    effect::{EffectKey, wanted},
    event::{Event, Nudge},
    input::Mode,
    message::Part,
    outcome::{EndReason, ModelFailureKind, StopReason},
    state::ModelPhase,
};

/// So many tokens in all, of which so many are held back.
fn holding(total: u64, tokens: u64) -> Limits {
    held(
        BudgetLimits {
            total_tokens: Some(total),
            ..BudgetLimits::default()
        },
        tokens,
    )
}

fn held(budget: BudgetLimits, tokens: u64) -> Limits {
    Limits {
        max_output_tokens: 500,
        final_call_tokens: Some(tokens),
        budget,
        ..Limits::default()
    }
}

/// One step that costs so much.
fn step(s: &mut Session, at: u32, input: u64) -> Vec<Event> {
    let asks = vec![call_with("read", &at.to_string())];
    s.reply_with(asks, StopReason::ToolUse, usage(input, 5));
    let call = s.state.next_call - 1;
    s.tool(call, 1, "x")
}

fn exceeded(s: &Session) -> (Dimension, u64) {
    let EndReason::BudgetExceeded {
        dimension, limit, ..
    } = s.reason()
    else {
        panic!("{:?}", s.reason());
    };
    (dimension, limit)
}

fn concludes(events: &[Event]) -> bool {
    events.iter().any(|event| {
        matches!(event, Event::MessageAdded(e) if matches!(e.nudge, Some(Nudge::Conclude(_))))
    })
}

/// A loop whose last call runs.
fn landed() -> Session {
    let mut s = Session::started(holding(6_000, 2_500));
    let events = step(&mut s, 1, 2_800);
    assert!(concludes(&events), "{events:?}");
    s
}

#[test]
fn a_last_call_without_tools_concludes_out_of_what_was_held_back() {
    let mut s = landed();
    let request = s.state.model_request().expect("it runs");
    assert!(request.concludes);
    assert_eq!(request.tool_choice(), Some("none"));
    assert_eq!(request.tools.len(), 5, "the prefix of the prompt stays");
    assert!(
        s.talk()
            .last()
            .is_some_and(|last| last.contains("last reply")),
        "{:?}",
        s.talk()
    );
    let events = s.say("this is what I have");
    assert_eq!(
        kinds(&events),
        ["ModelCallCompleted", "BudgetSettled", "LoopEnded"]
    );
    assert_eq!(exceeded(&s), (Dimension::TotalTokens, 6_000));
    let ended = s.state.ended.back().expect("it ended");
    assert_eq!(ended.text, "this is what I have");
    assert!(ended.totals.usage.total() <= 6_000);
}

#[test]
fn without_a_reserve_there_is_no_last_call() {
    let mut s = Session::started(Limits {
        final_call_tokens: None,
        ..holding(6_000, 0)
    });
    let events = step(&mut s, 1, 2_200);
    assert_eq!(events.last().map(Event::kind), Some("ModelCallStarted"));
    let events = step(&mut s, 2, 3_000);
    assert_eq!(kinds(&events), ["ToolCallCompleted", "LoopEnded"]);
}

#[test]
fn what_is_held_back_is_left_by_every_other_call() {
    let mut s = Session::new(holding(3_000, 1_000), Agent::default());
    s.start("hello");
    let reserved = s.state.active.as_ref().and_then(|a| a.reserved);
    let reserved = reserved.expect("it is limited");
    assert!(
        reserved.input + reserved.output <= 2_000,
        "{reserved:?} of 3000, 1000 held back"
    );
}

#[test]
fn of_no_limit_is_more_than_half_held_back() {
    let calls = BudgetLimits {
        model_calls: Some(1),
        ..BudgetLimits::default()
    };
    let mut s = Session::started(held(calls, 1_000_000));
    let request = s.state.model_request().expect("it runs");
    assert!(!request.concludes, "the only call is no last one");
    s.say("hi");
    let mut s = Session::started(holding(4_000, u64::MAX));
    assert!(!s.state.concludes());
    s.say("hi");
    assert_eq!(s.reason(), EndReason::Completed);
}

#[test]
fn each_dimension_lands() {
    let calls = BudgetLimits {
        model_calls: Some(2),
        ..BudgetLimits::default()
    };
    let mut s = Session::started(held(calls, 100));
    assert!(concludes(&step(&mut s, 1, 10)));
    s.say("so");
    assert_eq!(exceeded(&s), (Dimension::ModelCalls, 2));
    let output = BudgetLimits {
        output_tokens: Some(300),
        ..BudgetLimits::default()
    };
    let mut s = Session::started(held(output, 400));
    s.reply_with(
        vec![call_with("read", "1")],
        StopReason::ToolUse,
        usage(10, 140),
    );
    assert!(concludes(&s.tool(2, 1, "x")));
    s.say("so");
    assert_eq!(exceeded(&s), (Dimension::OutputTokens, 300));
    let tools = BudgetLimits {
        tool_calls: Some(1),
        ..BudgetLimits::default()
    };
    let mut s = Session::started(held(tools, 100));
    s.reply(
        vec![call_with("read", "1"), call_with("read", "2")],
        StopReason::ToolUse,
    );
    assert!(concludes(&s.tool(2, 1, "x")));
    s.say("so");
    assert_eq!(exceeded(&s), (Dimension::ToolCalls, 1));
}

#[test]
fn a_tool_that_the_last_reply_asks_for_is_not_dispatched() {
    let mut s = landed();
    let events = s.reply(
        vec![Part::Text("so".to_owned()), call_with("read", "9")],
        StopReason::ToolUse,
    );
    assert!(!kinds(&events).contains(&"ToolCallStarted"), "{events:?}");
    assert!(s.results().iter().all(|(_, _, is_error)| *is_error));
    assert_eq!(exceeded(&s), (Dimension::TotalTokens, 6_000));
}

#[test]
fn however_the_last_reply_ends_the_budget_is_the_reason() {
    for stop in [
        StopReason::EndTurn,
        StopReason::MaxTokens,
        StopReason::Refusal,
        StopReason::ContextFull,
        StopReason::Pause,
        StopReason::Other("odd".to_owned()),
    ] {
        let mut s = landed();
        s.reply(vec![Part::Text("so".to_owned())], stop);
        assert_eq!(exceeded(&s), (Dimension::TotalTokens, 6_000));
        let ended = s.state.ended.back().expect("it ended");
        assert_eq!(ended.text, "so");
    }
    let mut s = landed();
    s.fail(ModelFailureKind::Auth);
    assert_eq!(exceeded(&s), (Dimension::TotalTokens, 6_000));
    let mut s = landed();
    s.cancel();
    assert!(matches!(s.reason(), EndReason::Cancelled { .. }));
}

#[test]
fn a_last_call_that_fails_is_tried_again_and_survives_a_crash() {
    let mut s = landed();
    s.fail(ModelFailureKind::Overloaded);
    s.fire_next();
    assert!(s.state.model_request().is_some_and(|r| r.concludes));
    let mut s = Session::started(holding(9_000, 4_500));
    assert!(concludes(&step(&mut s, 1, 4_400)));
    s.attach();
    // What ran counts whole: there may be enough for another attempt, and there may not.
    if s.state.active.is_some() {
        assert!(s.state.concludes());
        s.say("so");
    }
    assert_eq!(exceeded(&s).1, 9_000);
}

#[test]
fn a_retry_that_is_no_longer_covered_becomes_the_last_call() {
    let mut s = Session::started(holding(6_000, 3_000));
    let (first, _) = s.model();
    s.fail_with(ModelFailureKind::Stalled, None, usage(1_900, 400));
    let events = s.fire_next();
    assert_eq!(
        kinds(&events),
        [
            "ModelCallAbandoned",
            "MessageAdded",
            "BudgetReserved",
            "ModelCallStarted"
        ]
    );
    let (call, attempt) = s.model();
    assert!(call > first && attempt == 1);
    s.say("so");
    assert_eq!(exceeded(&s), (Dimension::TotalTokens, 6_000));
}

#[test]
fn a_reply_cut_by_what_others_may_use_is_concluded() {
    let mut s = Session::started(holding(3_000, 1_500));
    let active = s.state.active.as_ref().expect("it runs");
    let model = active.model.as_ref().expect("it runs");
    let ModelPhase::Running {
        max_output_tokens, ..
    } = model.phase
    else {
        panic!("{model:?}");
    };
    let text = vec![Part::Text("half".to_owned())];
    let cap = usage(700, max_output_tokens);
    let events = s.reply_with(text, StopReason::MaxTokens, cap);
    assert!(concludes(&events), "{events:?}");
    s.say("whole");
    assert_eq!(s.state.ended.back().map(|e| e.text.as_str()), Some("whole"));
}

#[test]
fn a_message_that_interrupts_the_last_call_starts_no_other_step() {
    let mut s = landed();
    s.send(Mode::Interrupt, "and now?");
    if s.state.active.is_some() {
        assert!(s.state.concludes());
        s.say("so");
    }
    assert_eq!(exceeded(&s), (Dimension::TotalTokens, 6_000));
}

#[test]
fn named_budgets_are_asked_for_the_last_call_too() {
    let agent = Agent {
        budgets: vec!["team".to_owned()],
        ..Agent::default()
    };
    let mut s = Session::new(holding(6_000, 2_500), agent);
    s.start("hello");
    s.granted(500);
    let events = step(&mut s, 1, 2_800);
    assert!(concludes(&events));
    assert_eq!(events.last().map(Event::kind), Some("ModelCallReserving"));
    let asks = |key| matches!(key, EffectKey::Reserve { .. });
    assert!(wanted(&s.state).into_iter().any(asks));
    s.granted(500);
    assert!(s.state.model_request().is_some_and(|r| r.concludes));
    s.say("so");
    assert_eq!(exceeded(&s), (Dimension::TotalTokens, 6_000));
}

#[test]
fn the_model_is_told_what_is_left_and_the_log_is_not() {
    let budget = BudgetLimits {
        total_tokens: Some(6_000),
        tool_calls: Some(3),
        wall_ms: Some(1),
        ..BudgetLimits::default()
    };
    let mut s = Session::started(Limits {
        tell_budget: true,
        budget,
        ..Limits::default()
    });
    let note = |s: &Session| s.state.model_request().expect("it runs").note;
    assert_eq!(
        note(&s).as_deref(),
        Some("[Left of your budget: 6000 of 6000 tokens, 3 of 3 tool calls.]")
    );
    let bound = s.state.prompt_bound();
    step(&mut s, 1, 995);
    assert_eq!(
        note(&s).as_deref(),
        Some("[Left of your budget: 5000 of 6000 tokens, 2 of 3 tool calls.]")
    );
    assert!(bound > 512, "it is reserved for");
    assert!(!s.talk().iter().any(|line| line.contains("Left of")));
    let mut s = Session::started(Limits {
        tell_budget: true,
        ..Limits::default()
    });
    assert_eq!(note(&s), None, "nothing is limited");
    s.say("hi");
}
