use proptest::prelude::*;

use super::*;
use crate::usage::Totals;

fn limits(input: Option<u64>, output: Option<u64>, total: Option<u64>) -> BudgetLimits {
    BudgetLimits {
        input_tokens: input,
        output_tokens: output,
        total_tokens: total,
        ..BudgetLimits::default()
    }
}

fn gone(input: u64, output: u64) -> Amount {
    Amount {
        input,
        output,
        ..Amount::default()
    }
}

const ASK: Ask = Ask {
    input: 500,
    output: 4096,
    min_output: 64,
    price: None,
    tool_calls: 0,
    keep: None,
    tells: false,
};

fn dimension(result: Result<Grant, Shortfall>) -> Option<Dimension> {
    result.err().map(|short| short.dimension)
}

#[test]
fn without_limits_the_cap_is_the_configured_one() {
    let granted = grant(&BudgetLimits::default(), &gone(u64::MAX, u64::MAX), ASK);
    let reserved = Reservation {
        input: 500,
        output: 4096,
    };
    assert_eq!(
        granted,
        Ok(Grant {
            reserved,
            bound: Bound::Configured,
            tool_calls: None
        })
    );
}

#[test]
fn zero_allows_nothing() {
    assert_eq!(
        dimension(grant(&limits(Some(0), None, None), &gone(0, 0), ASK)),
        Some(Dimension::InputTokens)
    );
    assert_eq!(
        dimension(grant(&limits(None, Some(0), None), &gone(0, 0), ASK)),
        Some(Dimension::OutputTokens)
    );
    assert_eq!(
        dimension(grant(&limits(None, None, Some(0)), &gone(0, 0), ASK)),
        Some(Dimension::TotalTokens)
    );
    let none = BudgetLimits {
        model_calls: Some(0),
        ..BudgetLimits::default()
    };
    assert_eq!(
        dimension(grant(&none, &gone(0, 0), ASK)),
        Some(Dimension::ModelCalls)
    );
}

#[test]
fn the_cap_shrinks_to_what_is_left_and_stops_below_the_least() {
    let granted = grant(&limits(None, None, Some(1_000)), &gone(0, 0), ASK);
    let reserved = Reservation {
        input: 500,
        output: 500,
    };
    assert_eq!(
        granted,
        Ok(Grant {
            reserved,
            bound: Bound::Budget(Dimension::TotalTokens),
            tool_calls: None
        })
    );
    let granted = grant(&limits(None, None, Some(1_000)), &gone(400, 37), ASK);
    assert_eq!(
        granted,
        Err(Shortfall {
            dimension: Dimension::TotalTokens,
            limit: 1_000,
            used: 437,
            requested: 564,
        })
    );
}

#[test]
fn a_request_for_less_than_the_least_is_still_served() {
    let small = Ask { output: 16, ..ASK };
    let granted = grant(&limits(None, Some(16), None), &gone(0, 0), small);
    assert_eq!(granted.map(|g| g.reserved.output), Ok(16));
}

#[test]
fn cache_reads_count() {
    let cached = Totals {
        usage: Usage {
            cache_read: 900_000,
            ..Usage::default()
        },
        ..Totals::default()
    };
    assert_eq!(
        dimension(grant(
            &limits(Some(10_000), None, None),
            &Amount::from(&cached),
            ASK
        )),
        Some(Dimension::InputTokens)
    );
}

#[test]
fn money_clamps_the_output_at_the_dearest_price() {
    let limits = BudgetLimits {
        cost_micro_usd: Some(4_500),
        ..BudgetLimits::default()
    };
    let price = Some(Price {
        input: 3_000_000,
        output: 15_000_000,
        long: None,
    });
    let ask = Ask { price, ..ASK };
    let granted = grant(&limits, &gone(0, 0), ask);
    assert_eq!(
        granted.map(|g| (g.reserved.output, g.bound)),
        Ok((200, Bound::Budget(Dimension::CostMicroUsd)))
    );
    let spent = Amount {
        cost_micro_usd: 3_000,
        ..Amount::default()
    };
    assert_eq!(
        dimension(grant(&limits, &spent, ask)),
        Some(Dimension::CostMicroUsd),
        "1,500 micro-USD pay for the prompt and nothing else"
    );
}

#[test]
fn a_call_without_a_price_is_no_free_ride() {
    let limits = BudgetLimits {
        cost_micro_usd: Some(1_000_000),
        ..BudgetLimits::default()
    };
    assert_eq!(
        dimension(grant(&limits, &gone(0, 0), ASK)),
        Some(Dimension::CostMicroUsd)
    );
}

#[test]
fn of_wall_time_something_must_be_left() {
    let limits = BudgetLimits {
        wall_ms: Some(10),
        ..BudgetLimits::default()
    };
    let waited = |wall_ms| Amount {
        wall_ms,
        ..Amount::default()
    };
    assert!(grant(&limits, &waited(9), ASK).is_ok());
    assert_eq!(
        dimension(grant(&limits, &waited(10), ASK)),
        Some(Dimension::WallTimeMs)
    );
}

proptest! {
    /// Whatever is granted fits: used + reserved never passes a limit.
    #[test]
    fn a_grant_never_passes_a_limit(
        input in proptest::option::of(0_u64..20_000),
        output in proptest::option::of(0_u64..20_000),
        total in proptest::option::of(0_u64..20_000),
        spent_input in 0_u64..20_000, spent_output in 0_u64..20_000,
        money in proptest::option::of(0_u64..200_000), spent_money in 0_u64..200_000,
        price in proptest::option::of((0_u64..20_000_000, 0_u64..20_000_000)),
        above in proptest::option::of(0_u64..20_000),
        ask_input in 0_u64..20_000, ask_output in 1_u64..20_000, min_output in 0_u64..200,
    ) {
        let limits = BudgetLimits { cost_micro_usd: money, ..limits(input, output, total) };
        let used = Amount { cost_micro_usd: spent_money, ..gone(spent_input, spent_output) };
        let long = above.map(|above| LongPrice { above, input: 19_000_000, output: 21_000_000 });
        let price = price.map(|(input, output)| Price { input, output, long });
        let ask = Ask { input: ask_input, output: ask_output, min_output, price, ..Ask::default() };
        if let Ok(Grant { reserved, .. }) = grant(&limits, &used, ask) {
            prop_assert!(reserved.output >= 1 && reserved.output <= ask_output);
            prop_assert!(input.is_none_or(|l| spent_input + reserved.input <= l));
            prop_assert!(output.is_none_or(|l| spent_output + reserved.output <= l));
            let sum = spent_input + spent_output + reserved.input + reserved.output;
            prop_assert!(total.is_none_or(|l| sum <= l));
            let cost = price.map_or(0, |price| price.cost(reserved.input, reserved.output));
            prop_assert!(money.is_none_or(|l| price.is_some() && (cost == 0 || spent_money + cost <= l)));
        }
    }
}
