//! Entries that are sent before the ones before them are durable.

use futures_util::FutureExt as _;
use tokio::sync::Semaphore;

use super::{
    streams::{Death, Heard, Mortal},
    *,
};

/// A ledger with a budget for two calls, over a log of whose appends nobody hears without a permit.
async fn ledger_for_two() -> (Arc<MemoryLog>, Arc<Mortal>, Arc<Ledgers>) {
    let memory = MemoryLog::new();
    let heard = Heard::Permitted(Semaphore::new(1));
    let log = Mortal::heard(&memory, u64::MAX, Death::Before, heard);
    let ledgers = Ledgers::new(Arc::clone(&log) as Arc<dyn Log>, Clock);
    let created = ledgers.ask(&default_namespace(), create("b", 40)).await;
    created.unwrap();
    (memory, log, ledgers)
}

async fn tail(log: &MemoryLog) -> Option<u64> {
    log.tail(&Place::first(&default_namespace()).key)
        .await
        .unwrap()
}

#[tokio::test]
async fn the_next_entry_is_sent_at_once_and_nothing_is_answered_before_it_is_durable() {
    let (memory, log, ledgers) = ledger_for_two().await;
    let namespace = default_namespace();
    let mut first = ledgers.ask_ahead(&namespace, call(1)).unwrap();
    first.granted.await.unwrap();
    let mut second = ledgers.ask_ahead(&namespace, call(2)).unwrap();
    second.granted.await.unwrap();
    assert_eq!(tail(&memory).await, Some(3), "both are on their way");
    // What was decided counts at once, and a refusal stands on it.
    let mut third = ledgers.ask_ahead(&namespace, call(3)).unwrap();
    assert!(third.granted.await.is_err(), "40 tokens cover two calls");
    let mut seen = used(&ledgers).boxed();
    assert!((&mut seen).now_or_never().is_none());
    tokio::task::yield_now().await;
    assert!(first.answer.try_recv().is_err());

    log.permit(1);
    assert!(matches!(first.answer.await, Ok(Ok(Answer::Granted(_)))));
    tokio::task::yield_now().await;
    assert!(second.answer.try_recv().is_err());
    assert!(third.answer.try_recv().is_err());
    assert!(
        (&mut seen).now_or_never().is_none(),
        "a look at the second one's reservation, which is not durable"
    );

    log.permit(1);
    assert!(matches!(second.answer.await, Ok(Ok(Answer::Granted(_)))));
    let refused = third.answer.await.unwrap();
    assert!(
        matches!(refused, Err(LedgerError::Refused(_))),
        "{refused:?}"
    );
    assert_eq!(seen.await.model_calls, 2);
}

#[tokio::test]
async fn an_entry_that_fails_takes_what_was_sent_behind_it() {
    let (memory, log, ledgers) = ledger_for_two().await;
    let namespace = default_namespace();
    // The fence of the second entry alone would let it in behind somebody else's.
    let other = Ledgers::new(Arc::clone(&memory) as Arc<dyn Log>, Clock);
    other.ask(&namespace, call(7)).await.unwrap();
    let first = ledgers.ask_ahead(&namespace, call(1)).unwrap();
    first.granted.await.unwrap();
    let second = ledgers.ask_ahead(&namespace, call(2)).unwrap();
    let fate = second.granted.await.unwrap().fate.unwrap();
    log.permit(usize::from(u16::MAX));
    for answer in [first.answer.await, second.answer.await] {
        let answer = answer.unwrap();
        assert!(
            matches!(answer, Err(LedgerError::Unavailable(_))),
            "{answer:?}"
        );
    }
    assert_eq!(tail(&memory).await, Some(2), "the budget, and the other's");

    let kind = loopwright_log::StreamKind::Session;
    let key = loopwright_log::StreamKey::new(kind, &namespace, &namespace);
    let licence = NewRecord::new(At::from_unix_ms(1), 1, b"{}".to_vec().into());
    let licensed = memory.append(&key, 0, licence.behind([fate])).await;
    assert!(licensed.is_err(), "{licensed:?}");

    ledgers.ask(&namespace, call(1)).await.unwrap();
    let refused = ledgers.ask(&namespace, call(2)).await;
    assert!(
        matches!(refused, Err(LedgerError::Refused(_))),
        "folded anew: {refused:?}"
    );
}
