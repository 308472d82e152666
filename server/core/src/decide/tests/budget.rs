//! Budgets: reserved before, clamped to what is left, settled after; never above a limit.

use super::kit::{Session, call_with, completed, kinds, nothing, said, specs, start, usage};
use crate::{
    What,
    agent::{Agent, BudgetLimits, Limits},
    budget::{Bound, Dimension, Reservation, Shortfall},
    effect::{EffectKey, wanted},
    event::Event,
    ids::CallId,
    input::Mode,
    message::Part,
    outcome::{EndReason, ModelFailure, ModelFailureKind, StopReason, WaitsFor},
};

fn limited(budget: BudgetLimits) -> Limits {
    Limits {
        budget,
        ..Limits::default()
    }
}

fn total(tokens: u64) -> Limits {
    limited(BudgetLimits {
        total_tokens: Some(tokens),
        ..BudgetLimits::default()
    })
}

fn named(limits: Limits) -> Session {
    let agent = Agent {
        budgets: vec!["team".to_owned()],
        ..Agent::default()
    };
    let mut s = Session::new(limits, agent);
    s.start("hello");
    s
}

fn exceeded(s: &Session) -> (String, Dimension, u64, u64) {
    let EndReason::BudgetExceeded {
        budget,
        dimension,
        limit,
        used,
        ..
    } = s.reason()
    else {
        panic!("{:?}", s.reason());
    };
    (budget, dimension, limit, used)
}

fn licence(events: &[Event]) -> Option<(u64, Bound)> {
    events.iter().find_map(|event| {
        if let Event::ModelCallStarted(e) = event {
            Some((e.max_output_tokens, e.bound))
        } else {
            None
        }
    })
}

#[test]
fn the_output_cap_shrinks_to_what_is_left_beside_the_prompt() {
    let mut s = Session::new(total(2_000), Agent::default());
    let events = s.start("hello");
    assert_eq!(kinds(&events)[2..], ["BudgetReserved", "ModelCallStarted"]);
    let bound = s
        .state
        .active
        .as_ref()
        .and_then(|a| a.reserved)
        .map(|r| r.input);
    let input = bound.expect("it is reserved");
    let by_total = Bound::Budget(Dimension::TotalTokens);
    assert_eq!(licence(&events), Some((2_000 - input, by_total)));
    assert!(input > 5 && input < 1_000, "{input}");
    let events = s.ask(&["read"]);
    assert_eq!(kinds(&events)[..2], ["ModelCallCompleted", "BudgetSettled"]);
    assert_eq!(
        s.state.active.as_ref().map(|a| a.totals.usage.total()),
        Some(15)
    );
}

#[test]
fn a_small_cap_is_not_overshot_by_a_large_call() {
    let mut s = Session::new(total(1_000), Agent::default());
    let mut large = start("", "");
    large.parts = said(&"x".repeat(154_000));
    let events = s.go(What::StartLoop(large));
    assert_eq!(
        kinds(&events),
        ["MessageAdded", "LoopStarted", "LoopEnded"],
        "no call is made"
    );
    assert_eq!(
        exceeded(&s),
        ("loop".to_owned(), Dimension::TotalTokens, 1_000, 0)
    );
}

#[test]
fn long_arguments_and_results_raise_the_bound_of_the_next_call() {
    let mut s = Session::started(total(20_000));
    s.reply(
        vec![call_with("read", &"x".repeat(9_000))],
        StopReason::ToolUse,
    );
    s.tool(2, 1, &"y".repeat(9_000));
    let reserved = s
        .state
        .active
        .as_ref()
        .and_then(|a| a.reserved)
        .expect("it fits");
    assert!(reserved.input >= 18_010, "{reserved:?}");
    assert!(
        reserved.input + reserved.output + 15 <= 20_000,
        "{reserved:?}"
    );
}

#[test]
fn a_bound_follows_the_tools_that_the_counted_prompt_had() {
    let mut s = Session::started(total(20_000));
    let before = s.state.prompt_bound();
    let mut longer = specs();
    longer[0].description = "d".repeat(5_000);
    s.change_tools(longer);
    s.ask(&["read"]);
    assert!(
        s.state.prompt_bound() > 5_000,
        "the count was of the shorter ones: {before}"
    );
}

#[test]
fn without_a_report_the_whole_reservation_counts() {
    let mut s = Session::started(total(3_000));
    s.reply_with(vec![Part::Text("hi".to_owned())], StopReason::EndTurn, None);
    let totals = s.state.ended.back().expect("it ended").totals;
    assert_eq!((totals.usage.total(), totals.estimated), (3_000, 3_000));
}

#[test]
fn a_failure_costs_what_it_may_have_consumed() {
    let cases = [
        (ModelFailureKind::RateLimited, None, 0),
        (ModelFailureKind::Connect, None, 0),
        (ModelFailureKind::Stalled, None, 3_000),
        (ModelFailureKind::Stalled, usage(40, 2), 42),
    ];
    for (kind, usage, expected) in cases {
        let mut s = Session::started(total(3_000));
        let events = s.fail_with(kind, None, usage);
        assert_eq!(kinds(&events), ["ModelCallFailed", "BudgetSettled"]);
        assert_eq!(s.state.totals.usage.total(), expected, "{kind:?} {usage:?}");
    }
}

#[test]
fn a_failure_that_was_counted_costs_what_the_provider_charges() {
    let mut s = Session::started(total(3_000));
    let (call, attempt) = s.model();
    s.go(What::ModelFailed {
        call,
        attempt,
        failure: ModelFailure {
            kind: ModelFailureKind::Cut,
            message: "half of it".to_owned(),
            retry_after_ms: None,
            http_status: 200,
            usage: usage(40, 2),
            cost_micro_usd: Some(7),
            body_crc: String::new(),
        },
        jitter: 0,
    });
    assert_eq!(s.state.totals.cost_micro_usd, 7);
}

#[test]
fn a_retry_that_is_no_longer_covered_is_not_made() {
    let mut s = Session::started(total(3_000));
    s.fail(ModelFailureKind::Stalled);
    assert_eq!(kinds(&s.fire_next()), ["ModelCallAbandoned", "LoopEnded"]);
    assert_eq!(exceeded(&s).3, 3_000);
}

#[test]
fn a_provider_that_counts_more_is_recorded() {
    let mut s = Session::started(total(3_000));
    let text = vec![Part::Text("hi".to_owned())];
    let events = s.reply_with(text, StopReason::EndTurn, usage(9_000, 2));
    let expected = [
        "ModelCallCompleted",
        "BudgetOverrun",
        "BudgetSettled",
        "LoopEnded",
    ];
    assert_eq!(kinds(&events), expected);
    let Event::BudgetOverrun(overrun) = &events[1] else {
        panic!("{events:?}");
    };
    assert_eq!(overrun.usage.prompt(), 9_000);
    assert_ne!(overrun.reserved, Reservation::default());
    assert_eq!(s.state.totals.usage.total(), 9_002);
}

#[test]
fn counts_of_calls_are_budgets_too() {
    let mut s = Session::started(limited(BudgetLimits {
        model_calls: Some(2),
        ..BudgetLimits::default()
    }));
    s.fail(ModelFailureKind::Overloaded);
    s.fire_next();
    s.fail(ModelFailureKind::Overloaded);
    s.fire_next();
    assert_eq!(
        exceeded(&s),
        ("loop".to_owned(), Dimension::ModelCalls, 2, 2)
    );
    let mut s = Session::started(limited(BudgetLimits {
        tool_calls: Some(1),
        ..BudgetLimits::default()
    }));
    let events = s.ask(&["read", "read", "read"]);
    let rejected = kinds(&events)
        .iter()
        .filter(|k| **k == "ToolCallRejected")
        .count();
    assert_eq!(rejected, 2, "tools over the limit are not dispatched");
    assert_eq!(
        kinds(&s.tool(2, 1, "text")),
        ["ToolCallCompleted", "LoopEnded"]
    );
    assert_eq!(
        exceeded(&s),
        ("loop".to_owned(), Dimension::ToolCalls, 1, 1)
    );
}

#[test]
fn a_new_loop_has_the_budget_anew() {
    let mut s = Session::started(total(3_000));
    s.cancel();
    let events = s.start("again");
    assert!(licence(&events).is_some());
}

#[test]
fn named_budgets_are_asked_before_the_licence() {
    let mut s = named(Limits::default());
    let reserve = EffectKey::Reserve {
        call: CallId(1),
        attempt: 1,
    };
    assert_eq!(wanted(&s.state).into_iter().collect::<Vec<_>>(), [reserve]);
    let early = completed(CallId(1), 1, Vec::new(), StopReason::EndTurn, None);
    assert_eq!(s.go(early), nothing(), "it is not licensed");
    let events = s.granted(9_999);
    assert_eq!(kinds(&events), ["BudgetReserved", "ModelCallStarted"]);
    assert_eq!(
        licence(&events),
        Some((4_096, Bound::Configured)),
        "no more than was asked for"
    );
    assert_eq!(s.granted(1), nothing(), "granted already");
    s.say("hi");
    let settle = EffectKey::Settle {
        call: CallId(1),
        attempt: 1,
    };
    assert_eq!(wanted(&s.state).into_iter().collect::<Vec<_>>(), [settle]);
    let taken = || What::BudgetSettled {
        call: CallId(1),
        attempt: 1,
        more: Vec::new(),
        warnings: Vec::new(),
    };
    assert_eq!(kinds(&s.go(taken())), ["SettlementAcknowledged"]);
    assert_eq!(s.go(taken()), nothing());
    assert_eq!(wanted(&s.state).len(), 0);
}

#[test]
fn a_refusal_ends_the_loop_and_gives_back() {
    let mut s = named(Limits::default());
    let reason = EndReason::BudgetExceeded {
        budget: "team".to_owned(),
        dimension: Dimension::TotalTokens,
        limit: 10,
        used: 9,
        requested: 99,
    };
    let refuse = |attempt| What::BudgetRefused {
        call: CallId(1),
        attempt,
        reason: reason.clone(),
    };
    assert_eq!(s.go(refuse(2)), nothing());
    let events = s.go(refuse(1));
    assert_eq!(
        kinds(&events),
        ["ModelCallAbandoned", "BudgetSettled", "LoopEnded"]
    );
    assert_eq!(s.reason(), reason);
    assert_eq!(s.go(refuse(1)), nothing());
}

#[test]
fn the_loops_own_budget_still_counts_when_others_grant() {
    let mut s = named(total(1_200));
    let own = s.state.prompt_bound();
    let events = s.granted(4_096);
    assert_eq!(licence(&events).map(|(cap, _)| cap), Some(1_200 - own));
}

#[test]
fn a_steer_while_reserving_joins_the_next_call_and_is_not_reserved_for() {
    let mut s = named(Limits::default());
    let bound = s.state.prompt_bound();
    s.send(Mode::Steer, &"x".repeat(500));
    assert_eq!(
        s.state.prompt_bound(),
        bound,
        "what was asked for is what counts"
    );
    let events = s.granted(4_096);
    assert_eq!(s.talk(), ["user: hello"]);
    let Event::BudgetReserved(e) = &events[0] else {
        panic!("{events:?}");
    };
    assert_eq!(e.reserved.input, bound);
    s.say("hi");
    assert!(s.state.prompt_bound() > 500, "now it joins");
}

#[test]
fn an_interrupt_while_reserving_asks_again_for_both_messages() {
    let mut s = named(Limits::default());
    let events = s.send(Mode::Interrupt, "no");
    assert_eq!(
        kinds(&events),
        [
            "MessageAdded",
            "ModelCallAbandoned",
            "BudgetSettled",
            "ModelCallReserving"
        ]
    );
    s.granted(4_096);
    assert_eq!(s.talk(), ["user: hello", "user: no"]);
}

#[test]
fn a_change_of_tools_while_reserving_asks_again() {
    let mut s = named(Limits::default());
    let events = s.change_tools(Vec::new());
    assert_eq!(
        kinds(&events),
        [
            "ToolsChanged",
            "ModelCallAbandoned",
            "BudgetSettled",
            "ModelCallReserving"
        ]
    );
    let stale = What::BudgetGranted {
        call: CallId(1),
        attempt: 1,
        max_output_tokens: 4_096,
        tool_calls: None,
        left: std::sync::Arc::default(),
    };
    assert_eq!(s.go(stale), nothing());
}

#[test]
fn a_budget_that_says_to_wait_pauses_the_loop_until_it_grants() {
    let mut s = named(Limits::default());
    let (call, attempt) = (CallId(1), 1);
    let waits = |used| What::BudgetWaits {
        call,
        attempt,
        waits_for: WaitsFor::Budget {
            budget: "team".to_owned(),
            short: Shortfall {
                dimension: Dimension::TotalTokens,
                limit: 10,
                used,
                requested: 5,
            },
        },
    };
    assert_eq!(kinds(&s.go(waits(8))), ["LoopPaused"]);
    assert_eq!(s.go(waits(9)), nothing(), "it is said once");
    assert!(
        wanted(&s.state).contains(&EffectKey::Reserve { call, attempt }),
        "it is asked again"
    );
    s.attach();
    assert_eq!(
        kinds(&s.granted(100)),
        ["LoopResumed", "BudgetReserved", "ModelCallStarted"]
    );
    assert_eq!(
        s.state
            .active
            .as_ref()
            .and_then(|active| active.paused.clone()),
        None
    );
    assert_eq!(s.go(waits(9)), nothing(), "an answer that comes too late");
}

#[test]
fn a_paused_loop_is_cancelled_like_any_other() {
    let mut s = named(Limits::default());
    let (call, attempt) = (CallId(1), 1);
    let short = Shortfall {
        dimension: Dimension::TotalTokens,
        limit: 0,
        used: 0,
        requested: 1,
    };
    let budget = "team".to_owned();
    let waits_for = WaitsFor::Budget { budget, short };
    s.go(What::BudgetWaits {
        call,
        attempt,
        waits_for,
    });
    assert_eq!(
        kinds(&s.cancel()),
        ["ModelCallAbandoned", "BudgetSettled", "LoopEnded"],
        "what was not granted is given back"
    );
}
