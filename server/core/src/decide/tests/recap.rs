//! A model writes the recap: what it is asked, what it is charged to, and what follows from each end.

use std::sync::Arc;

use super::kit::{Session, kinds, usage};
use crate::{
    Event, What,
    agent::{Agent, BudgetLimits, Limits},
    budget::{Dimension, Shortfall},
    context::{CompactionTrigger, ContextTerms, RecapFallback},
    event::{ContextCompacted, ModelCallStarted},
    input::Mode,
    message::{Part, text_of},
    outcome::{AbandonReason, ModelFailureKind, StopReason, WaitsFor},
    state::Turn,
};

/// A window of 20,000 tokens, checked after every fourth step, whose recaps the model `w` writes.
fn limits() -> Limits {
    let context = ContextTerms {
        max_tokens: 20_000,
        check_every: 4,
        min_recent_messages: 2,
        recap_by_model: Some("w".to_owned()),
        ..ContextTerms::default()
    };
    Limits {
        max_output_tokens: 1_000,
        context: Some(context),
        ..Limits::default()
    }
}

/// One step: the model asks for a tool, after a prompt of a token for each byte; the tool gives back so
/// many bytes.
fn step(s: &mut Session, bytes: usize) -> Vec<Event> {
    let prompt = s.state.conversation.bytes() + s.state.fixed_bytes();
    let parts = vec![super::kit::call("read")];
    s.reply_with(parts, StopReason::ToolUse, usage(prompt, 5));
    let call = s.state.next_call - 1;
    s.tool(call, 1, &"x".repeat(bytes))
}

/// A session up to the entry in which the recap is asked for.
fn asked(limits: Limits, agent: Agent) -> (Session, Vec<Event>) {
    let mut s = Session::new(limits, agent);
    s.start("hello");
    let shared = !s.state.agent.budgets.is_empty();
    for _ in 0..3 {
        let cap = s.state.limits.max_output_tokens;
        if shared {
            s.granted(cap);
        }
        step(&mut s, 3_000);
    }
    if shared {
        s.granted(1_000);
    }
    let events = step(&mut s, 3_000);
    (s, events)
}

fn started(events: &[Event]) -> Option<&ModelCallStarted> {
    events.iter().find_map(|event| {
        if let Event::ModelCallStarted(e) = event {
            return Some(e);
        }
        None
    })
}

fn compaction(events: &[Event]) -> &ContextCompacted {
    let found = events.iter().find_map(|event| {
        if let Event::ContextCompacted(e) = event {
            return Some(e);
        }
        None
    });
    found.expect("it is compacted")
}

fn totals(s: &Session) -> (u32, u64) {
    let active = s.state.active.as_ref().expect("a loop runs");
    (active.totals.steps, active.totals.model_calls)
}

#[test]
fn a_model_writes_it_before_the_step_goes_on() {
    let (mut s, events) = asked(limits(), Agent::default());
    assert_eq!(kinds(&events), ["ToolCallCompleted", "ModelCallStarted"]);
    let call = started(&events).expect("a call");
    let ask = call.recap.expect("it is of a recap");
    assert_eq!(
        (call.model.as_str(), call.step, totals(&s)),
        ("w", 5, (4, 5))
    );
    let request = s.state.model_request().expect("it is licensed");
    assert!(request.recap && request.tools.is_empty() && request.conversation.len() == 1);
    assert_eq!(request.max_output_tokens, ask.max_output_tokens());
    let turns = request.conversation.turns();
    let Turn::User(parts) = &*turns[0] else {
        panic!("nobody asks for it")
    };
    let text = text_of(parts);
    assert!(
        text.contains("[user]\nhello") && text.contains("[c2 read("),
        "{text}"
    );
    s.send(Mode::Steer, "and quickly");
    let before = s.state.conversation.clone();

    let events = s.reply(
        vec![Part::Text(" The vault is Q7-kite.\n".to_owned())],
        StopReason::EndTurn,
    );
    assert_eq!(
        kinds(&events),
        ["ModelCallCompleted", "ContextCompacted", "ModelCallStarted"]
    );
    let done = compaction(&events);
    assert!(
        done.by_model && done.fallback.is_none() && done.target_met,
        "{done:?}"
    );
    assert_eq!(
        (done.trigger, done.dropped),
        (CompactionTrigger::Threshold, ask.dropped)
    );
    let told = &s.talk()[0];
    assert!(
        told.ends_with("Task:\n- hello\n\nSummary:\nThe vault is Q7-kite."),
        "{told}"
    );
    assert_eq!(
        s.talk().last().map(String::as_str),
        Some("user: and quickly")
    );
    assert_eq!(s.state.conversation.replies(), before.replies());
    assert_eq!(totals(&s), (5, 6));
    assert_eq!(
        s.state.totals.usage.output,
        4 * 5 + 5,
        "it is in the totals"
    );
}

#[test]
fn whatever_becomes_of_the_call_the_rule_holds_and_nothing_is_tried_again() {
    let text = |text: &str| vec![Part::Text(text.to_owned())];
    let long = "x".repeat(9_000);
    for (parts, stop, why) in [
        (text("half"), StopReason::MaxTokens, RecapFallback::Cut),
        (text("no"), StopReason::Refusal, RecapFallback::Failed),
        (
            vec![super::kit::call("read")],
            StopReason::ToolUse,
            RecapFallback::Failed,
        ),
        (text("  "), StopReason::EndTurn, RecapFallback::Empty),
        (text(&long), StopReason::EndTurn, RecapFallback::TooLarge),
    ] {
        let (mut s, _) = asked(limits(), Agent::default());
        let events = s.reply(parts, stop);
        assert_eq!(
            kinds(&events),
            ["ModelCallCompleted", "ContextCompacted", "ModelCallStarted"]
        );
        let done = compaction(&events);
        assert_eq!((done.by_model, done.fallback), (false, Some(why)));
        assert!(s.talk()[0].contains("hello"), "{:?}", s.talk());
    }
    let (mut s, _) = asked(limits(), Agent::default());
    let events = s.fail(ModelFailureKind::RateLimited);
    assert_eq!(
        kinds(&events),
        ["ModelCallFailed", "ContextCompacted", "ModelCallStarted"]
    );
    assert_eq!(compaction(&events).fallback, Some(RecapFallback::Failed));
    assert_eq!(started(&events).and_then(|call| call.recap), None);
}

#[test]
fn a_budget_that_does_not_cover_it_and_the_step_is_left_for_the_step() {
    let budget = BudgetLimits {
        model_calls: Some(5),
        ..BudgetLimits::default()
    };
    let (s, events) = asked(Limits { budget, ..limits() }, Agent::default());
    assert_eq!(
        kinds(&events),
        [
            "ToolCallCompleted",
            "ContextCompacted",
            "BudgetReserved",
            "ModelCallStarted"
        ]
    );
    assert_eq!(compaction(&events).fallback, Some(RecapFallback::Budget));
    assert_eq!(totals(&s), (5, 5));
    let budget = BudgetLimits {
        model_calls: Some(6),
        ..BudgetLimits::default()
    };
    let (mut s, events) = asked(Limits { budget, ..limits() }, Agent::default());
    assert_eq!(
        kinds(&events),
        ["ToolCallCompleted", "BudgetReserved", "ModelCallStarted"]
    );
    let events = s.say("all");
    assert_eq!(
        kinds(&events),
        [
            "ModelCallCompleted",
            "BudgetSettled",
            "ContextCompacted",
            "BudgetReserved",
            "ModelCallStarted"
        ]
    );
}

#[test]
fn a_shared_budget_that_says_no_or_wait_keeps_no_step_waiting() {
    let agent = || Agent {
        budgets: vec!["team".to_owned()],
        ..Agent::default()
    };
    let short = Shortfall {
        dimension: Dimension::TotalTokens,
        limit: 1,
        used: 1,
        requested: 1,
    };
    for waits in [false, true] {
        let (mut s, events) = asked(limits(), agent());
        assert_eq!(kinds(&events), ["ToolCallCompleted", "ModelCallReserving"]);
        let ask = s.state.budget_request().expect("it asks for itself");
        assert_eq!(ask.min_output, ask.output, "all of it or nothing");
        let (call, attempt) = s.model();
        let events = s.go(match waits {
            false => What::BudgetRefused {
                call,
                attempt,
                reason: short.of("team"),
            },
            true => What::BudgetWaits {
                call,
                attempt,
                waits_for: WaitsFor::Budget {
                    budget: "team".to_owned(),
                    short,
                },
            },
        });
        assert_eq!(
            kinds(&events),
            [
                "ModelCallAbandoned",
                "BudgetSettled",
                "ContextCompacted",
                "ModelCallReserving"
            ]
        );
        assert_eq!(compaction(&events).fallback, Some(RecapFallback::Budget));
        let reason = |event: &Event| matches!(event, Event::ModelCallAbandoned(e) if e.reason == AbandonReason::NotCovered);
        assert!(events.iter().any(reason));
    }
    let (mut s, _) = asked(limits(), agent());
    let ask = s.state.budget_request().expect("it asks for itself");
    let events = s.granted(ask.output);
    assert_eq!(kinds(&events), ["BudgetReserved", "ModelCallStarted"]);
    assert!(started(&events).is_some_and(|call| call.recap.is_some()));
}

#[test]
fn a_lost_driver_has_it_made_again_and_an_interrupt_does_without() {
    let (mut s, events) = asked(limits(), Agent::default());
    let first = started(&events).cloned().expect("a call");
    let request = s.state.model_request().expect("it is licensed");
    let events = s.attach();
    assert_eq!(
        kinds(&events),
        [
            "DriverAttached",
            "ModelCallAbandoned",
            "BudgetSettled",
            "ModelCallStarted"
        ]
    );
    let second = started(&events).expect("a call");
    assert_eq!(
        (second.call, second.attempt, second.recap),
        (first.call, 2, first.recap)
    );
    let again = s.state.model_request().expect("it is licensed");
    assert_eq!(again.conversation, request.conversation);
    let events = s.send(Mode::Interrupt, "stop that");
    assert_eq!(
        kinds(&events),
        [
            "MessageAdded",
            "ModelCallAbandoned",
            "BudgetSettled",
            "ContextCompacted",
            "ModelCallStarted"
        ]
    );
    assert_eq!(
        compaction(&events).fallback,
        Some(RecapFallback::Interrupted)
    );
    assert_eq!(s.talk().last().map(String::as_str), Some("user: stop that"));
}

#[test]
fn where_the_prompt_would_not_fit_the_rule_holds_at_once() {
    let mut s = Session::started(limits());
    step(&mut s, 9_000);
    let events = step(&mut s, 11_000);
    let done = compaction(&events);
    assert_eq!(
        (done.trigger, done.by_model, done.fallback),
        (CompactionTrigger::Ceiling, false, None)
    );
}

#[test]
fn what_a_model_wrote_is_carried_through_a_round_of_the_rule() {
    let (mut s, _) = asked(limits(), Agent::default());
    s.say("The vault is Q7-kite.");
    let terms = s.state.limits.context.clone();
    let by_rule = terms.map(|terms| ContextTerms {
        recap_by_model: None,
        ..terms
    });
    Arc::make_mut(&mut s.state.limits).context = by_rule;
    let events = loop {
        let prompt = s.state.conversation.bytes() + s.state.fixed_bytes();
        let at = crate::ids::Timestamp(1);
        let parts = vec![super::kit::call("read")];
        let (call, attempt) = s.model();
        let reply =
            super::kit::completed(call, attempt, parts, StopReason::ToolUse, usage(prompt, 5));
        apply(&mut s, at, reply);
        let call = s.state.next_call - 1;
        let done = super::kit::tool_completed(call, 1, &"y".repeat(3_000));
        let events = apply(&mut s, at, done);
        if events
            .iter()
            .any(|event| matches!(event, Event::ContextCompacted(_)))
        {
            break events;
        }
    };
    let recap = compaction(&events)
        .recap
        .clone()
        .expect("turns were dropped");
    let text = recap.text();
    assert!(
        recap.round == 2 && text.contains("Q7-kite") && text.contains("- hello"),
        "{text}"
    );
    assert!(text.contains(" read("), "and what came since: {text}");
}

/// Decides and applies without the log: the terms were changed behind its back.
fn apply(s: &mut Session, at: crate::ids::Timestamp, what: What) -> Vec<Event> {
    let events = crate::decide(&s.state, crate::Input::new(at, what)).expect("it is accepted");
    events.iter().for_each(|event| s.state.apply(event));
    events
}

#[test]
fn a_recap_that_is_given_up_or_lost_is_charged_at_its_writers_price() {
    let price = |input, output| crate::budget::Price {
        input,
        output,
        long: None,
    };
    let prices = [
        (String::new(), price(1_000_000, 1_000_000)),
        ("w".to_owned(), price(700_000_000, 700_000_000)),
    ];
    let budget = BudgetLimits {
        cost_micro_usd: Some(1_000_000_000),
        ..BudgetLimits::default()
    };
    let limits = Limits {
        prices: prices.into(),
        budget,
        ..limits()
    };
    for ends in [Session::cancel, Session::attach] {
        let (mut s, _) = asked(limits.clone(), Agent::default());
        let reserved = s.state.active.as_ref().and_then(|active| active.reserved);
        let reserved = reserved.expect("it is reserved");
        let before = s.state.totals.cost_micro_usd;
        ends(&mut s);
        let charged = s.state.totals.cost_micro_usd - before;
        assert_eq!(charged, 700 * (reserved.input + reserved.output));
    }
}
