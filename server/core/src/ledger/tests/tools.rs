//! Tool calls and time in shared budgets.

use super::*;
use crate::budget::{Beside, TOOL_CALLS_AT_ONCE};

fn tools(limit: u64, on_exhausted: OnExhausted) -> Terms {
    Terms {
        limits: BudgetLimits {
            tool_calls: Some(limit),
            ..BudgetLimits::default()
        },
        on_exhausted,
        ..Terms::default()
    }
}

fn time(limit: u64) -> Terms {
    Terms {
        limits: BudgetLimits {
            wall_ms: Some(limit),
            ..BudgetLimits::default()
        },
        ..Terms::default()
    }
}

/// A call whose model is offered tools.
fn with_tools(number: u32, budget: &str) -> Request {
    Request::ReserveCall {
        hold: hold(number),
        budgets: vec![name(budget)],
        ask: Ask {
            input: 10,
            output: 10,
            min_output: 1,
            price: None,
            tool_calls: TOOL_CALLS_AT_ONCE,
            ..Ask::default()
        },
    }
}

fn used(number: u32, tool_calls: u64, wall_ms: u64) -> Request {
    Request::Settle {
        hold: hold(number),
        used: Used::Reported(tokens(1, 1).with(Beside {
            tool_calls,
            wall_ms,
        })),
    }
}

fn let_through(ledger: &mut Ledger, request: &Request) -> Option<u64> {
    match carry_out(ledger, NOON, request) {
        Ok(Answer::Granted(granted)) => granted.tool_calls,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_reply_is_let_through_a_share_of_the_tool_calls_that_are_left() {
    let mut ledger = after(&[
        create("open", Terms::default()),
        create("wide", tools(1_000, OnExhausted::End)),
        create("b", tools(20, OnExhausted::End)),
    ]);
    assert_eq!(let_through(&mut ledger, &with_tools(1, "open")), None);
    assert_eq!(let_through(&mut ledger, &with_tools(2, "wide")), Some(64));
    assert_eq!(let_through(&mut ledger, &with_tools(3, "b")), Some(3));
    assert_eq!(let_through(&mut ledger, &with_tools(3, "b")), Some(3));
    assert_eq!(ledger.budgets["b"].reserved.tool_calls, 3, "set aside once");
    assert_eq!(let_through(&mut ledger, &with_tools(4, "b")), Some(3));
    carry_out(&mut ledger, NOON, &used(3, 1, 0)).unwrap();
    assert_eq!(ledger.budgets["b"].used_at(NOON).tool_calls, 4);
}

#[test]
fn without_a_tool_call_left_a_model_may_still_answer_where_loops_do_not_wait() {
    let mut ledger = after(&[
        create("ends", tools(0, OnExhausted::End)),
        create("waits", tools(0, OnExhausted::Pause)),
    ]);
    assert_eq!(let_through(&mut ledger, &with_tools(1, "ends")), Some(0));
    let refused = carry_out(&mut ledger, NOON, &with_tools(2, "waits"));
    let Err(Refusal::Exhausted { short, .. }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(
        (short.dimension, short.requested),
        (Dimension::ToolCalls, 1)
    );
    let toolless = call(3, &["waits"], 10, 10);
    assert!(carry_out(&mut ledger, NOON, &toolless).is_ok());
}

#[test]
fn a_call_that_nobody_counted_settles_at_its_tokens_and_at_what_its_loop_knows() {
    let mut ledger = after(&[create("b", tools(80, OnExhausted::End)), with_tools(1, "b")]);
    let crashed = Request::Settle {
        hold: hold(1),
        used: Used::Tokens(Beside {
            tool_calls: 0,
            wall_ms: 1_200,
        }),
    };
    let (events, _) = decide(&ledger, NOON, &crashed).unwrap();
    assert_eq!(kinds(&events), ["settled"]);
    carry_out(&mut ledger, NOON, &crashed).unwrap();
    let expected = tokens(10, 10).with(Beside {
        tool_calls: 0,
        wall_ms: 1_200,
    });
    assert_eq!(ledger.budgets["b"].used_at(NOON), expected);
}

#[test]
fn time_is_charged_when_a_call_is_settled_and_what_passes_the_limit_is_told() {
    let mut ledger = after(&[
        create("b", time(1_000)),
        with_tools(1, "b"),
        with_tools(2, "b"),
    ]);
    let (events, _) = decide(&ledger, NOON, &used(1, 0, 700)).unwrap();
    assert_eq!(kinds(&events), ["settled"]);
    carry_out(&mut ledger, NOON, &used(1, 0, 700)).unwrap();
    let (events, _) = decide(&ledger, NOON, &used(2, 0, 700)).unwrap();
    assert_eq!(kinds(&events), ["overrun", "settled", "warning"]);
    carry_out(&mut ledger, NOON, &used(2, 0, 700)).unwrap();
    let refused = carry_out(&mut ledger, NOON, &with_tools(3, "b"));
    let Err(Refusal::Exhausted { short, .. }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(short.dimension, Dimension::WallTimeMs);
    assert_eq!((short.limit, short.used), (1_000, 1_400));
}

#[test]
fn time_without_a_limit_is_counted_and_overruns_nothing() {
    let mut ledger = after(&[create("b", Terms::default()), with_tools(1, "b")]);
    let (events, _) = decide(&ledger, NOON, &used(1, 9, 700)).unwrap();
    assert_eq!(kinds(&events), ["settled"]);
    carry_out(&mut ledger, NOON, &used(1, 9, 700)).unwrap();
    let known = ledger.budgets["b"].used_at(NOON);
    assert_eq!((known.tool_calls, known.wall_ms), (9, 700));
}

/// A loop's time after its last call.
fn late(number: u32, wall_ms: u64, budgets: &[&str]) -> Request {
    Request::Charge {
        hold: hold(number),
        budgets: budgets.iter().map(|text| name(text)).collect(),
        used: Amount {
            wall_ms,
            ..Amount::default()
        },
    }
}

#[test]
fn time_that_nothing_was_set_aside_for_is_charged_once_to_the_whole_chain() {
    let mut ledger = after(&[
        create("up", time(1_000)),
        create("b", below("up", time(5_000))),
    ]);
    let request = late(1, 900, &["b"]);
    let (events, _) = decide(&ledger, NOON, &request).unwrap();
    assert_eq!(kinds(&events), ["reserved", "settled", "warning"]);
    for _ in 0..2 {
        carry_out(&mut ledger, NOON, &request).unwrap();
    }
    for budget in ["b", "up"] {
        let known = &ledger.budgets[budget];
        assert_eq!(known.settled_at(NOON).wall_ms, 900, "{budget}");
        assert_eq!(known.reserved, Amount::default(), "{budget}");
    }
    let (events, _) = decide(&ledger, NOON, &late(2, 200, &["b"])).unwrap();
    assert_eq!(kinds(&events), ["reserved", "overrun", "settled"]);
}

#[test]
fn a_budget_that_is_gone_is_charged_with_nothing() {
    let mut ledger = after(&[create("b", time(1_000))]);
    let both = late(1, 90, &["gone", "b"]);
    carry_out(&mut ledger, NOON, &both).unwrap();
    assert_eq!(ledger.budgets["b"].settled_at(NOON).wall_ms, 90);
    let (events, _) = decide(&ledger, NOON, &late(2, 90, &["gone"])).unwrap();
    assert_eq!(kinds(&events), [""; 0]);
}
