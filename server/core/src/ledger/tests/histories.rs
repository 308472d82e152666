//! Random histories: what holds at every fact of each of them.

use proptest::prelude::*;

use super::*;
use crate::budget::{HoldBack, Price};

/// A step of a random history: who, what, how much, and how much later.
pub(super) type Step = (u8, u8, u64, u64, u64);

pub(super) fn request_of((what, who, input, output, _): Step) -> Request {
    let names = ["a", "b", "c"];
    let at = names[usize::from(who) % 3];
    let number = u32::from(who) % 16;
    match what % 8 {
        0..=3 => Request::ReserveCall {
            hold: hold(number),
            budgets: vec![name(at)],
            ask: Ask {
                input,
                output: output + 1,
                min_output: 5,
                price: Some(Price {
                    input: 3_000_000,
                    output: 15_000_000,
                    long: None,
                }),
                tool_calls: input % 3,
                keep: (what % 8 < 2).then_some(HoldBack {
                    tokens: output,
                    max_output: input,
                    price: None,
                }),
                tells: what % 2 == 0,
            },
        },
        4 => Request::Settle {
            hold: hold(number),
            used: Used::Whole,
        },
        5 => Request::Settle {
            hold: hold(number),
            used: Used::Reported(tokens(0, output.min(3))),
        },
        6 => Request::Release { hold: hold(number) },
        _ => Request::Reserve {
            hold: HoldId::of_client(at),
            budgets: vec![name(at)],
            amount: tokens(input, output),
            expires_at: Timestamp(NOON.0 + input),
        },
    }
}

proptest! {
    /// No budget of a chain is ever overdrawn, in no dimension and at no record; what is set aside
    /// is the sum of what is open; and the fold of the facts is the state that decided them.
    #[test]
    fn what_is_settled_and_set_aside_stays_within_every_limit(
        steps in prop::collection::vec((any::<u8>(), any::<u8>(), 0u64..400, 0u64..400, 0u64..50_000_000), 1..80),
        limits in prop::collection::vec(500u64..3_000, 3),
    ) {
        let limited = |total: u64| {
            let mut terms = terms(total);
            terms.limits.cost_micro_usd = Some(total * 9);
            terms.limits.model_calls = Some(9);
            terms.limits.tool_calls = Some(total / 200);
            terms
        };
        let mut ledger = after(&[
            create("a", Terms { period: Period::Day, ..limited(limits[0]) }),
            create("b", below("a", limited(limits[1]))),
            create("c", below("b", limited(limits[2]))),
        ]);
        let mut folded = ledger.clone();
        let mut at = NOON;
        for step in steps {
            at = at.plus(step.4);
            for request in [Request::Expire, request_of(step)] {
                let Ok((events, _)) = decide(&ledger, at, &request) else { continue };
                for event in &events {
                    ledger.apply(event);
                    for (name, budget) in &ledger.budgets {
                        for dimension in Dimension::ALL {
                            let Some(limit) = budget.terms.limits.of(dimension) else { continue };
                            let used = budget.used_at(at).of(dimension);
                            prop_assert!(used <= limit, "{name} {dimension}: {used} of {limit}");
                        }
                    }
                }
                let text = serde_json::to_string(&LedgerEntry { events: events.clone() }).unwrap();
                let read: LedgerEntry = serde_json::from_str(&text).unwrap();
                prop_assert_eq!(&read.events, &events);
                read.events.iter().for_each(|event| folded.apply(event));
            }
        }
        for (name, budget) in &ledger.budgets {
            let open = ledger.holds.values().filter(|hold| hold.budgets.contains(name));
            let sum = open.fold(Amount::default(), |sum, hold| sum.plus(&hold.amount));
            prop_assert_eq!(budget.reserved, sum, "{}", name);
        }
        prop_assert_eq!(ledger, folded);
    }
}
