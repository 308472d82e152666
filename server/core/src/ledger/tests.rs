//! The ledger's rules as tables, and its invariant over random histories.

#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::{agent::BudgetLimits, budget::Ask};

mod carried;
mod histories;
mod kept;
mod tools;

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
    HoldId::of_call("s", NOON, CallId(call), 1)
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
            ..Ask::default()
        },
    }
}

fn settle(number: u32, input: u64, output: u64) -> Request {
    Request::Settle {
        hold: hold(number),
        used: Used::Reported(tokens(input, output)),
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
        LedgerEvent::LedgerSealed(_) => "sealed",
        LedgerEvent::LedgerCarried(_)
        | LedgerEvent::BudgetCarried(_)
        | LedgerEvent::EndedCarried(_) => "carried",
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
    for answer in [Answer::Settled(Vec::new()), Answer::Done] {
        assert_eq!(carry_out(&mut ledger, NOON, &settle(1, 80, 20)), Ok(answer));
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
        used: Used::Whole,
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
        used: Used::Reported(Amount::default()),
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
fn a_session_that_took_the_id_of_another_reserves_for_itself() {
    let again = Request::ReserveCall {
        hold: HoldId::of_call("s", NOON.plus(5), CallId(1), 1),
        budgets: vec![name("b")],
        ask: Ask {
            input: 10,
            output: 10,
            min_output: 10,
            price: None,
            ..Ask::default()
        },
    };
    let mut ledger = after(&[
        create("b", terms(1_000)),
        call(1, &["b"], 100, 200),
        settle(1, 80, 20),
    ]);
    assert_eq!(output_of(carry_out(&mut ledger, NOON, &again)), Some(10));
}

#[test]
fn what_a_session_that_is_gone_had_set_aside_counts_as_used() {
    let mut ledger = after(&[
        create("b", terms(1_000)),
        call(1, &["b"], 100, 200),
        call(2, &["b"], 10, 20),
        Request::ReserveCall {
            hold: HoldId::of_call("s2", NOON, CallId(1), 1),
            budgets: vec![name("b")],
            ask: Ask {
                input: 1,
                output: 64,
                min_output: 10,
                price: None,
                ..Ask::default()
            },
        },
    ]);
    let session = "s".to_owned();
    carry_out(&mut ledger, NOON, &Request::Abandon { session }).unwrap();
    let b = &ledger.budgets["b"];
    let both = tokens(100, 200).plus(&tokens(10, 20));
    assert_eq!(b.settled_at(NOON), both);
    assert_eq!(b.reserved, tokens(1, 64), "another session's stays");
}

#[test]
fn a_reservation_says_whose_it_is() {
    assert_eq!(hold(7).call(), Some(("s", CallId(7), 1)));
    let older: HoldId = serde_json::from_str("\"call/s/c7/1\"").unwrap();
    assert_eq!(older.call(), hold(7).call());
    assert_eq!(hold(7).client(), None);
    assert_eq!(HoldId::of_client("x").client(), Some("x"));
    assert_eq!(HoldId::of_client("x").call(), None);
}
