//! The task of a ledger over a real log: durable answers, one append for many, a failure in between.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use loopwright_core::{
    agent::BudgetLimits,
    budget::{Amount, Ask},
    ids::CallId,
    ledger::{HoldId, Name, Terms},
};
use loopwright_log::{Log, MemoryLog, NewRecord, Timestamp as At};

use super::*;

mod ahead;
mod orphans;
pub(crate) mod streams;

fn default_namespace() -> Id {
    Id::parse("default").unwrap()
}

fn create(name: &str, total: u64) -> Request {
    let limits = BudgetLimits {
        total_tokens: Some(total),
        ..BudgetLimits::default()
    };
    Request::Create {
        name: name.into(),
        terms: Arc::new(Terms {
            limits,
            ..Terms::default()
        }),
    }
}

fn call(number: u32) -> Request {
    Request::ReserveCall {
        hold: HoldId::of_call("s", Timestamp(7), CallId(number), 1),
        budgets: vec![Name::from("b")],
        ask: Ask {
            input: 10,
            output: 10,
            min_output: 10,
            price: None,
            ..Ask::default()
        },
    }
}

async fn used(ledgers: &Ledgers) -> Amount {
    let look = |ledger: &Ledger, at| ledger.budgets["b"].used_at(at);
    ledgers.look(&default_namespace(), look).await.unwrap()
}

#[tokio::test]
async fn many_loops_at_once_take_one_append_and_no_more_than_there_is() {
    let log: Arc<dyn Log> = MemoryLog::new();
    let ledgers = Ledgers::new(Arc::clone(&log), Clock);
    let namespace = default_namespace();
    ledgers.ask(&namespace, create("b", 200)).await.unwrap();
    let asked = (0..64).map(|number| ledgers.ask(&namespace, call(number)));
    let answers = futures_util::future::join_all(asked).await;
    let granted = answers.iter().filter(|answer| answer.is_ok()).count();
    assert_eq!(granted, 10, "of 200 tokens, at 20 a call");
    let tail = log.tail(&Place::first(&namespace).key).await.unwrap();
    assert!(tail <= Some(3), "64 requests took {tail:?} appends");
    assert_eq!(
        used(&ledgers)
            .await
            .of(loopwright_core::budget::Dimension::TotalTokens),
        200
    );
}

/// A keeper that decides as soon as the first of them asks writes an entry for each.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn loops_that_ask_one_after_the_other_share_an_entry() {
    let log: Arc<dyn Log> = MemoryLog::new();
    let ledgers = Ledgers::new(Arc::clone(&log), Clock);
    let namespace = default_namespace();
    ledgers.ask(&namespace, create("b", 200)).await.unwrap();
    let burst = tokio::spawn(async move {
        let ask = |number| {
            let ledgers = Arc::clone(&ledgers);
            tokio::spawn(async move { ledgers.ask(&default_namespace(), call(number)).await })
        };
        let asks: Vec<_> = (0..10).map(ask).collect();
        for ask in asks {
            ask.await.unwrap().unwrap();
        }
    });
    burst.await.unwrap();
    let tail = log.tail(&Place::first(&namespace).key).await.unwrap();
    // The budget, and one entry or two of ten requests.
    assert!(matches!(tail, Some(2 | 3)), "{tail:?}");
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_restart() {
    let log: Arc<dyn Log> = MemoryLog::new();
    let namespace = default_namespace();
    let first = Ledgers::new(Arc::clone(&log), Clock);
    first.ask(&namespace, create("b", 200)).await.unwrap();
    first.ask(&namespace, call(1)).await.unwrap();
    let before = used(&first).await;
    drop(first);
    let second = Ledgers::new(log, Clock);
    assert_eq!(used(&second).await, before);
    second.ask(&namespace, call(1)).await.unwrap();
    assert_eq!(used(&second).await, before, "the same reservation");
}

#[tokio::test]
async fn another_writer_costs_an_error_and_no_budget() {
    let log: Arc<dyn Log> = MemoryLog::new();
    let namespace = default_namespace();
    let ledgers = Ledgers::new(Arc::clone(&log), Clock);
    ledgers.ask(&namespace, create("b", 20)).await.unwrap();
    let other = Ledgers::new(Arc::clone(&log), Clock);
    other.ask(&namespace, call(1)).await.unwrap();
    let stale = ledgers.ask(&namespace, call(2)).await;
    assert!(
        matches!(stale, Err(LedgerError::Unavailable(_))),
        "{stale:?}"
    );
    let folded = ledgers.ask(&namespace, call(2)).await;
    assert!(matches!(folded, Err(LedgerError::Refused(_))), "{folded:?}");
}

#[tokio::test]
async fn a_ledger_that_cannot_be_read_grants_nothing() {
    let log: Arc<dyn Log> = MemoryLog::new();
    let namespace = default_namespace();
    let body = br#"{"events":[{"BudgetMelted":{"name":"b"}}]}"#.to_vec();
    let record = NewRecord::new(At::from_unix_ms(1), 0, body.into());
    log.append(&Place::first(&namespace).key, 0, record)
        .await
        .unwrap();
    let ledgers = Ledgers::new(log, Clock);
    let answer = ledgers.ask(&namespace, create("b", 20)).await;
    assert!(
        matches!(answer, Err(LedgerError::Unreadable(_))),
        "{answer:?}"
    );
}
