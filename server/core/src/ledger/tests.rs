//! The ledger's rules as tables, and its invariant over random histories.

#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;
use crate::{
    agent::BudgetLimits,
    budget::{Ask, Price},
};

const NOON: Timestamp = Timestamp(20_779 * 86_400_000 + 43_200_000);

fn name(text: &str) -> Name {
    text.into()
}

fn terms(total: u64) -> Terms {
    Terms {
        limits: BudgetLimits {
            total_tokens: Some(total),
            ..BudgetLimits::default()
        },
        ..Terms::default()
    }
}

fn below(parent: &str, terms: Terms) -> Terms {
    Terms {
        parent: Some(name(parent)),
        ..terms
    }
}

fn create(text: &str, terms: Terms) -> Request {
    Request::Create {
        name: name(text),
        terms: Arc::new(terms),
    }
}

fn update(text: &str, terms: Terms) -> Request {
    Request::Update {
        name: name(text),
        terms: Arc::new(terms),
    }
}

fn hold(call: u32) -> HoldId {
    HoldId::of_call("s", CallId(call), 1)
}

fn call(number: u32, budgets: &[&str], input: u64, output: u64) -> Request {
    Request::ReserveCall {
        hold: hold(number),
        budgets: budgets.iter().map(|text| name(text)).collect(),
        ask: Ask {
            input,
            output,
            min_output: 10,
            price: None,
        },
    }
}

fn settle(number: u32, input: u64, output: u64) -> Request {
    Request::Settle {
        hold: hold(number),
        used: Some(tokens(input, output)),
    }
}

fn tokens(input: u64, output: u64) -> Amount {
    Amount {
        input,
        output,
        model_calls: 1,
        ..Amount::default()
    }
}

/// Carries a request out.
fn carry_out(ledger: &mut Ledger, at: Timestamp, request: &Request) -> Result<Answer, Refusal> {
    let (events, answer) = decide(ledger, at, request)?;
    if !events.is_empty() {
        ledger.apply_entry(ledger.seq + 1, &LedgerEntry { events });
    }
    Ok(answer)
}

/// A ledger after these requests, each of which must be carried out.
fn after(requests: &[Request]) -> Ledger {
    let mut ledger = Ledger::default();
    for request in requests {
        let answer = carry_out(&mut ledger, NOON, request);
        assert!(answer.is_ok(), "{request:?}: {answer:?}");
    }
    ledger
}

fn output_of(answer: Result<Answer, Refusal>) -> Option<u64> {
    let Ok(Answer::Granted(granted)) = answer else {
        return None;
    };
    Some(granted.amount.output)
}

fn kinds(events: &[LedgerEvent]) -> Vec<&'static str> {
    let kind = |event: &LedgerEvent| match event {
        LedgerEvent::BudgetCreated(_) => "created",
        LedgerEvent::LimitsUpdated(_) => "updated",
        LedgerEvent::BudgetDeleted(_) => "deleted",
        LedgerEvent::BudgetPeriodStarted(_) => "period",
        LedgerEvent::BudgetReserved(_) => "reserved",
        LedgerEvent::BudgetSettled(_) => "settled",
        LedgerEvent::BudgetReleased(_) => "released",
        LedgerEvent::BudgetWarning(_) => "warning",
        LedgerEvent::BudgetOverrun(_) => "overrun",
    };
    events.iter().map(kind).collect()
}

#[test]
fn the_output_cap_shrinks_to_the_narrowest_budget_of_the_chain() {
    let mut ledger = after(&[
        create("org", terms(1_000)),
        create("team", below("org", terms(700))),
        create("own", below("team", terms(5_000))),
        call(1, &["team"], 100, 200),
    ]);
    assert_eq!(
        output_of(carry_out(&mut ledger, NOON, &call(2, &["own"], 100, 4_096))),
        Some(300)
    );
    let org = &ledger.budgets["org"];
    assert_eq!(
        org.reserved,
        tokens(200, 500).plus(&Amount {
            model_calls: 1,
            ..Amount::default()
        })
    );
}

#[test]
fn one_reservation_takes_all_or_none() {
    let mut ledger = after(&[
        create("org", terms(100)),
        create("team", below("org", terms(5_000))),
    ]);
    let before = ledger.clone();
    let refused = carry_out(&mut ledger, NOON, &call(1, &["team"], 95, 50));
    let Err(Refusal::Exhausted { budget, short, .. }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!((&*budget, short.limit, short.requested), ("org", 100, 105));
    assert_eq!(ledger, before);
}

#[test]
fn a_repeat_gets_the_first_answer_and_takes_nothing() {
    let mut ledger = after(&[create("b", terms(1_000)), call(1, &["b"], 100, 4_096)]);
    let before = ledger.clone();
    let again = carry_out(&mut ledger, NOON, &call(1, &["b"], 100, 4_096));
    assert_eq!(output_of(again), Some(900));
    assert_eq!(ledger, before);
    for _ in 0..2 {
        assert_eq!(
            carry_out(&mut ledger, NOON, &settle(1, 80, 20)),
            Ok(Answer::Done)
        );
        assert_eq!(ledger.budgets["b"].used_at(NOON), tokens(80, 20));
    }
    let zombie = carry_out(&mut ledger, NOON, &call(1, &["b"], 100, 4_096));
    assert_eq!(
        zombie,
        Err(Refusal::Ended(hold(1))),
        "it would never be settled"
    );
}

#[test]
fn what_nobody_reports_settles_whole_and_a_release_costs_nothing() {
    let mut ledger = after(&[
        create("b", terms(1_000)),
        call(1, &["b"], 100, 200),
        call(2, &["b"], 50, 50),
    ]);
    let whole = Request::Settle {
        hold: hold(1),
        used: None,
    };
    let (events, _) = decide(&ledger, NOON, &whole).unwrap();
    assert!(
        matches!(&events[0], LedgerEvent::BudgetSettled(e) if e.estimated && e.amount.output == 200)
    );
    carry_out(&mut ledger, NOON, &whole).unwrap();
    carry_out(&mut ledger, NOON, &Request::Release { hold: hold(2) }).unwrap();
    assert_eq!(ledger.budgets["b"].used_at(NOON), tokens(100, 200));
    assert_eq!(ledger.budgets["b"].reserved, Amount::default());
}

#[test]
fn more_than_was_reserved_is_an_overrun_in_words() {
    let ledger = after(&[create("b", terms(1_000)), call(1, &["b"], 100, 200)]);
    let (events, _) = decide(&ledger, NOON, &settle(1, 140, 200)).unwrap();
    assert_eq!(kinds(&events), ["overrun", "settled"]);
    let LedgerEvent::BudgetOverrun(overrun) = &events[0] else {
        panic!()
    };
    assert_eq!(
        (overrun.dimension, overrun.reserved, overrun.used),
        (Dimension::InputTokens, 100, 140)
    );
}

#[test]
fn a_warning_comes_once_until_the_terms_change() {
    let mut ledger = after(&[
        create("b", terms(1_000)),
        call(1, &["b"], 700, 50),
        settle(1, 700, 50),
        call(2, &["b"], 50, 50),
    ]);
    let (events, _) = decide(&ledger, NOON, &settle(2, 40, 10)).unwrap();
    assert_eq!(kinds(&events), ["settled", "warning"], "800 of 1,000");
    carry_out(&mut ledger, NOON, &settle(2, 40, 10)).unwrap();
    carry_out(&mut ledger, NOON, &call(3, &["b"], 10, 10)).unwrap();
    assert_eq!(
        kinds(&decide(&ledger, NOON, &settle(3, 10, 10)).unwrap().0),
        ["settled"]
    );
    carry_out(&mut ledger, NOON, &update("b", terms(1_010))).unwrap();
    assert_eq!(
        kinds(&decide(&ledger, NOON, &settle(3, 10, 10)).unwrap().0),
        ["settled", "warning"]
    );
}

#[test]
fn a_day_begins_anew_and_what_is_set_aside_stays() {
    let daily = Terms {
        period: Period::Day,
        ..terms(1_000)
    };
    let mut ledger = after(&[
        create("b", daily),
        call(1, &["b"], 500, 100),
        settle(1, 500, 100),
        call(2, &["b"], 200, 100),
    ]);
    let tomorrow = NOON.plus(86_400_000);
    assert_eq!(ledger.budgets["b"].used_at(tomorrow), tokens(200, 100));
    let next = call(3, &["b"], 600, 4_096);
    let (events, _) = decide(&ledger, tomorrow, &next).unwrap();
    assert_eq!(kinds(&events), ["period", "reserved"]);
    assert_eq!(
        output_of(carry_out(&mut ledger, tomorrow, &next)),
        Some(100)
    );
    let late = decide(&ledger, NOON, &call(4, &["b"], 1, 10));
    assert!(
        late.is_err(),
        "a clock that was set back opens nothing: {late:?}"
    );
}

#[test]
fn a_change_of_period_gives_nothing_away() {
    let mut ledger = after(&[
        create("b", terms(1_000)),
        call(1, &["b"], 500, 100),
        settle(1, 500, 100),
    ]);
    for period in [
        Period::Rolling { window_ms: 1_000 },
        Period::Month,
        Period::None,
        Period::Day,
    ] {
        carry_out(
            &mut ledger,
            NOON,
            &update(
                "b",
                Terms {
                    period,
                    ..terms(1_000)
                },
            ),
        )
        .unwrap();
        assert_eq!(
            ledger.budgets["b"].used_at(NOON),
            tokens(500, 100),
            "{period:?}"
        );
    }
}

#[test]
fn every_budget_ends_in_the_namespaces() {
    let ledger = after(&[
        create(NAMESPACE_BUDGET, terms(9_000)),
        create("org", terms(1_000)),
        create("team", below("org", terms(700))),
    ]);
    let chain = ledger.chain(["team", "org"]).unwrap();
    let chain: Vec<&str> = chain.iter().map(AsRef::as_ref).collect();
    assert_eq!(chain, ["team", "org", NAMESPACE_BUDGET]);
    assert_eq!(ledger.chain([]).unwrap(), [name(NAMESPACE_BUDGET)]);
    assert_eq!(ledger.chain(["gone"]), Err(name("gone")));
}

#[test]
fn circles_orphans_and_budgets_in_use_are_refused() {
    let mut ledger = after(&[
        create("a", terms(1)),
        create("b", below("a", terms(1))),
        create("wide", terms(1_000)),
        call(1, &["wide"], 10, 10),
    ]);
    let mut refused = |request: &Request| carry_out(&mut ledger, NOON, request).unwrap_err();
    let circle = |at: &str, parent: &str| Refusal::Circle {
        name: name(at),
        parent: name(parent),
    };
    assert_eq!(
        refused(&update("a", below("b", terms(1)))),
        circle("a", "b")
    );
    assert_eq!(
        refused(&create("c", below("c", terms(1)))),
        circle("c", "c")
    );
    assert_eq!(
        refused(&create("c", below("d", terms(1)))),
        Refusal::NoBudget(name("d"))
    );
    assert_eq!(
        refused(&create(NAMESPACE_BUDGET, below("a", terms(1)))),
        circle(NAMESPACE_BUDGET, "a")
    );
    assert_eq!(refused(&create("a", terms(2))), Refusal::Exists(name("a")));
    for used in ["a", "wide"] {
        let refusal = refused(&Request::Delete { name: name(used) });
        assert!(matches!(refusal, Refusal::InUse { .. }), "{refusal:?}");
    }
    let moved = refused(&update("wide", below("a", terms(1_000))));
    assert!(matches!(moved, Refusal::InUse { .. }), "{moved:?}");
    assert_eq!(
        refused(&Request::Delete { name: name("zz") }),
        Refusal::NoBudget(name("zz"))
    );
}

#[test]
fn a_clients_reservation_expires_as_used() {
    let amount = tokens(300, 0);
    let reserve = |amount, expires_at| Request::Reserve {
        hold: HoldId::of_client("r1"),
        budgets: vec![name("b")],
        amount,
        expires_at,
    };
    let mut ledger = after(&[create("b", terms(1_000)), reserve(amount, NOON.plus(10))]);
    assert_eq!(ledger.expires_at(), Some(NOON.plus(10)));
    let other = reserve(tokens(1, 1), NOON.plus(10));
    let reused = carry_out(&mut ledger, NOON, &other);
    assert_eq!(reused, Err(Refusal::Reused(HoldId::of_client("r1"))));
    assert!(
        decide(&ledger, NOON.plus(9), &Request::Expire)
            .unwrap()
            .0
            .is_empty()
    );
    carry_out(&mut ledger, NOON.plus(10), &Request::Expire).unwrap();
    assert_eq!(ledger.budgets["b"].settled_at(NOON), amount);
    let late = Request::Settle {
        hold: HoldId::of_client("r1"),
        used: Some(Amount::default()),
    };
    assert_eq!(
        carry_out(&mut ledger, NOON, &late),
        Ok(Answer::Done),
        "it has ended"
    );
    let never = Request::Release {
        hold: HoldId::of_client("r2"),
    };
    assert_eq!(
        carry_out(&mut ledger, NOON, &never),
        Err(Refusal::NoHold(HoldId::of_client("r2")))
    );
}

#[test]
fn a_limit_on_cost_that_comes_later_lets_no_unpriced_call_in() {
    let mut money = terms(1_000);
    money.limits.cost_micro_usd = Some(1_000_000);
    let mut ledger = after(&[create("b", terms(1_000)), update("b", money)]);
    let refused = carry_out(&mut ledger, NOON, &call(1, &["b"], 10, 10));
    assert!(
        format!("{refused:?}").contains("CostMicroUsd"),
        "{refused:?}"
    );
}

#[test]
fn a_reservation_says_whose_it_is() {
    assert_eq!(hold(7).call(), Some(("s", CallId(7), 1)));
    assert_eq!(hold(7).client(), None);
    assert_eq!(HoldId::of_client("x").client(), Some("x"));
    assert_eq!(HoldId::of_client("x").call(), None);
}

/// A step of a random history: who, what, how much, and how much later.
type Step = (u8, u8, u64, u64, u64);

fn request_of((what, who, input, output, _): Step) -> Request {
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
                }),
            },
        },
        4 => Request::Settle {
            hold: hold(number),
            used: None,
        },
        5 => Request::Settle {
            hold: hold(number),
            used: Some(tokens(0, output.min(3))),
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
