//! What a call must leave for the last one of its loop, what is said to be left, and who is told of a
//! warning.

use super::*;
use crate::budget::{HoldBack, Left, Price};

fn keeping(number: u32, input: u64, output: u64, tokens: u64) -> Request {
    let Request::ReserveCall { hold, budgets, ask } = call(number, &["b"], input, output) else {
        panic!("a call reserves");
    };
    let keep = Some(HoldBack {
        tokens,
        max_output: 200,
        price: None,
    });
    let ask = Ask { keep, ..ask };
    Request::ReserveCall { hold, budgets, ask }
}

fn telling(number: u32, budget: &str) -> Request {
    let Request::ReserveCall { hold, budgets, ask } = call(number, &[budget], 100, 50) else {
        panic!("a call reserves");
    };
    let ask = Ask { tells: true, ..ask };
    Request::ReserveCall { hold, budgets, ask }
}

fn said(answer: Result<Answer, Refusal>) -> Vec<Left> {
    match answer {
        Ok(Answer::Granted(granted)) => granted.left,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_kept_is_left_by_every_call_and_taken_by_the_last_alone() {
    let mut ledger = after(&[create("b", terms(2_000)), keeping(1, 500, 900, 600)]);
    assert_eq!(ledger.budgets["b"].used_at(NOON).output, 900, "all of it");
    let cut = carry_out(&mut ledger, NOON, &keeping(2, 0, 900, 550));
    assert_eq!(output_of(cut), Some(50), "600 are left, 550 of them kept");
    let refused = carry_out(&mut ledger, NOON, &keeping(3, 100, 100, 500));
    let Err(Refusal::Exhausted { short, .. }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(
        (short.limit, short.used, short.requested),
        (2_000, 1_450, 610),
        "what is kept is not used"
    );
    let last = carry_out(&mut ledger, NOON, &call(4, &["b"], 100, 900));
    assert_eq!(output_of(last), Some(450), "never over the limit");
    assert_eq!(
        ledger.budgets["b"].used_at(NOON).of(Dimension::TotalTokens),
        2_000
    );
}

#[test]
fn of_no_limit_is_more_than_half_kept_and_of_a_budget_that_loops_wait_for_nothing() {
    let mut ledger = after(&[create("b", terms(2_000))]);
    let cut = carry_out(&mut ledger, NOON, &keeping(1, 100, 4_000, u64::MAX));
    assert_eq!(output_of(cut), Some(900));
    let calls = Terms {
        limits: BudgetLimits {
            model_calls: Some(1),
            ..BudgetLimits::default()
        },
        ..Terms::default()
    };
    let mut ledger = after(&[create("b", calls)]);
    assert!(carry_out(&mut ledger, NOON, &keeping(1, 1, 10, 500)).is_ok());
    let waits = Terms {
        on_exhausted: OnExhausted::Pause,
        ..terms(2_000)
    };
    let mut ledger = after(&[create("b", waits)]);
    let whole = carry_out(&mut ledger, NOON, &keeping(1, 100, 4_000, 600));
    assert_eq!(output_of(whole), Some(1_900));
}

#[test]
fn money_and_calls_are_kept_too() {
    let limits = BudgetLimits {
        cost_micro_usd: Some(10_000),
        model_calls: Some(3),
        ..BudgetLimits::default()
    };
    let price = Price {
        input: 1_000_000,
        output: 1_000_000,
        long: None,
    };
    let keep = HoldBack {
        tokens: 4_000,
        max_output: 100,
        price: Some(price),
    };
    let kept = keep.of(&limits);
    assert_eq!((kept.cost_micro_usd, kept.model_calls), (4_000, 1));
    let dear = HoldBack {
        tokens: 40_000,
        ..keep
    };
    assert_eq!(dear.of(&limits).cost_micro_usd, 5_000, "half of it");
}

#[test]
fn the_tightest_of_each_dimension_is_said_before_and_after_a_repeat() {
    let calls = BudgetLimits {
        model_calls: Some(9),
        ..terms(5_000).limits
    };
    let calls = Terms {
        limits: calls,
        ..Terms::default()
    };
    let mut ledger = after(&[
        create("org", calls),
        create("b", below("org", terms(3_000))),
        call(1, &["b"], 1_000, 500),
    ]);
    let expected = [
        (Dimension::TotalTokens, 1_500, 3_000),
        (Dimension::ModelCalls, 8, 9),
    ];
    let expected = expected.map(|(dimension, left, limit)| Left {
        dimension,
        left,
        limit,
    });
    for _ in 0..2 {
        let left = said(carry_out(&mut ledger, NOON, &telling(2, "b")));
        assert_eq!(left, expected, "its own reservation is not gone for it");
    }
    let unasked = carry_out(&mut ledger, NOON, &call(3, &["b"], 10, 10));
    assert_eq!(said(unasked), []);
}

#[test]
fn whoever_crosses_the_line_is_told_and_nobody_else_in_the_period() {
    let mut ledger = after(&[
        create("b", terms(1_000)),
        call(1, &["b"], 400, 50),
        call(2, &["b"], 400, 50),
        call(3, &["b"], 50, 50),
    ]);
    let warned = |answer| match answer {
        Ok(Answer::Settled(warned)) => warned,
        other => panic!("{other:?}"),
    };
    let none = warned(carry_out(&mut ledger, NOON, &settle(1, 400, 50)));
    assert_eq!(none, []);
    let crossed = warned(carry_out(&mut ledger, NOON, &settle(2, 400, 50)));
    let expected = BudgetWarning {
        name: name("b"),
        dimension: Dimension::TotalTokens,
        limit: 1_000,
        used: 900,
    };
    assert_eq!(crossed, [expected]);
    let again = carry_out(&mut ledger, NOON, &settle(2, 400, 50));
    assert_eq!(again, Ok(Answer::Done), "a repeat is told nothing");
    assert_eq!(warned(carry_out(&mut ledger, NOON, &settle(3, 50, 10))), []);
}
