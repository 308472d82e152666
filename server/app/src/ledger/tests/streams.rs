//! A ledger that goes on in stream after stream: nothing is lost, whatever moment a crash takes.

use std::sync::atomic::{AtomicU64, Ordering};

use loopwright_core::ledger::Used;
use loopwright_log::{AppendError, KeyQuery, LogError, Seq, StreamKey, StreamKind};
use tokio::sync::Semaphore;

use super::*;
use crate::faulty::{Fault, Faulty, Write};

/// So small that a stream is followed by another after a few calls.
const SMALL: u64 = 1_500;
/// Calls of a run.
const CALLS: u32 = 24;

/// What a write does at which the process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Death {
    /// It changes nothing.
    Before,
    /// It is durable, and nobody hears of it.
    After,
}

/// When whoever appends hears of it.
pub(crate) enum Heard {
    /// With the append.
    AtOnce,
    /// After others had their turn.
    Later,
    /// When a permit comes, in order.
    Permitted(Semaphore),
}

/// A log whose process dies at one of its writes.
pub(crate) type Mortal = Faulty<Dying>;

/// A process that makes so many writes more, and dies at the last of them.
pub(crate) struct Dying {
    writes_left: AtomicU64,
    death: Death,
    heard: Heard,
    /// Appends that nobody has heard of, now and at most.
    unheard: [AtomicU64; 2],
}

impl Mortal {
    pub(crate) fn new(log: &Arc<MemoryLog>, writes: u64, death: Death) -> Arc<Self> {
        Self::heard(log, writes, death, Heard::AtOnce)
    }

    pub(crate) fn heard(
        log: &Arc<MemoryLog>,
        writes: u64,
        death: Death,
        heard: Heard,
    ) -> Arc<Self> {
        let fault = Dying {
            writes_left: AtomicU64::new(writes),
            death,
            heard,
            unheard: Default::default(),
        };
        Arc::new(Self {
            log: Arc::clone(log),
            fault,
        })
    }

    /// How many appends were on their way at once, at most.
    pub(crate) fn most_unheard(&self) -> u64 {
        self.fault.unheard[1].load(Ordering::SeqCst)
    }

    /// Lets it be heard of so many appends.
    pub(crate) fn permit(&self, appends: usize) {
        if let Heard::Permitted(permits) = &self.fault.heard {
            permits.add_permits(appends);
        }
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.fault.writes_left.load(Ordering::SeqCst) == 0
    }
}

impl Dying {
    async fn until_heard(&self) {
        let [now, most] = &self.unheard;
        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        match &self.heard {
            Heard::AtOnce => {}
            Heard::Later => {
                for _ in 0..16 {
                    tokio::task::yield_now().await;
                }
            }
            Heard::Permitted(permits) => permits.acquire().await.unwrap().forget(),
        }
        now.fetch_sub(1, Ordering::SeqCst);
    }

    /// Carries out one write, if it still lives.
    async fn write<T>(&self, write: impl Future<Output = T>, dead: impl Fn() -> T) -> T {
        match self.writes_left.load(Ordering::SeqCst) {
            0 => dead(),
            left => {
                self.writes_left.store(left - 1, Ordering::SeqCst);
                if left > 1 {
                    return write.await;
                }
                if self.death == Death::After {
                    write.await;
                }
                dead()
            }
        }
    }
}

impl Fault for Dying {
    fn append<'a>(
        &'a self,
        _: &'a StreamKey,
        write: Write<'a, Seq, AppendError>,
    ) -> Write<'a, Seq, AppendError> {
        let dead = || {
            Err(AppendError::Unavailable {
                reason: "dead".to_owned(),
                ambiguous: true,
            })
        };
        Box::pin(async move {
            let appended = self.write(write, dead).await;
            self.until_heard().await;
            appended
        })
    }

    fn remove<'a>(&'a self, write: Write<'a, bool, LogError>) -> Write<'a, bool, LogError> {
        let dead = || {
            Err(LogError::Unavailable {
                reason: "dead".to_owned(),
            })
        };
        Box::pin(self.write(write, dead))
    }
}

/// What a run asks for: a budget, then calls, each of which but the last is settled.
fn requests() -> Vec<Request> {
    let mut all = vec![create("b", 100_000)];
    for number in 0..CALLS {
        all.push(call(number));
        if number + 1 < CALLS {
            all.push(settle(number));
        }
    }
    all
}

fn settle(number: u32) -> Request {
    let Request::ReserveCall { hold, .. } = call(number) else {
        panic!("a call reserves");
    };
    let used = Used::Reported(Amount {
        input: 3,
        output: 4,
        model_calls: 1,
        ..Amount::default()
    });
    Request::Settle { hold, used }
}

fn small(log: Arc<dyn Log>) -> Arc<Ledgers> {
    Ledgers::with_streams_of(log, Clock, SMALL)
}

async fn ledger(ledgers: &Ledgers) -> Ledger {
    ledgers.whole(&default_namespace()).await.unwrap().0
}

async fn streams(log: &dyn Log) -> Vec<(String, u64)> {
    let page = log.keys(KeyQuery {
        namespace: Some(default_namespace()),
        kind: StreamKind::Ledger,
        after: None,
        limit: 100,
    });
    let page = page.await.unwrap();
    let ids = page.keys.iter().map(|key| key.id().to_owned());
    ids.zip(page.sizes).collect()
}

/// A ledger without its times: what two runs of the same requests come to.
fn come_to(ledger: &Ledger) -> (Amount, Amount, usize, Vec<bool>) {
    let b = &ledger.budgets["b"];
    let ended = (0..CALLS).map(|number| match call(number) {
        Request::ReserveCall { hold, .. } => ledger.has_ended(&hold),
        _ => false,
    });
    (b.ever, b.reserved, ledger.holds.len(), ended.collect())
}

#[tokio::test]
async fn a_ledger_goes_on_in_new_streams_and_the_old_ones_go() {
    let log = MemoryLog::new();
    let ledgers = small(Arc::clone(&log) as Arc<dyn Log>);
    let mut most = 0;
    for request in requests() {
        ledgers.ask(&default_namespace(), request).await.unwrap();
        // The turn comes after the answer; what is shown comes after the turn.
        let shown = ledger(&ledgers).await;
        let again = stream::open(&*log, &default_namespace()).await.unwrap();
        assert_eq!(again.ledger, shown, "read anew");
        let streams = streams(&*log).await;
        assert!(streams.len() <= 2, "{streams:?}");
        most = most.max(streams.iter().map(|(_, size)| *size).max().unwrap_or(0));
    }
    let known = streams(&*log).await;
    assert!(known.iter().all(|(id, _)| id != "budgets"), "{known:?}");
    assert!(most < 20 * SMALL, "a stream of {most} bytes");
}

#[tokio::test]
async fn whatever_write_a_crash_takes_the_ledger_is_what_was_answered() {
    let expected = {
        let ledgers = small(MemoryLog::new());
        for request in requests() {
            ledgers.ask(&default_namespace(), request).await.unwrap();
        }
        come_to(&ledger(&ledgers).await)
    };
    let (mut crashes, mut leftovers) = (0, 0);
    for death in [Death::Before, Death::After] {
        for writes in 1.. {
            let log = MemoryLog::new();
            let mortal = Mortal::new(&log, writes, death);
            let first = small(Arc::clone(&mortal) as Arc<dyn Log>);
            let mut answered = Ledger::default();
            let mut todo = requests().into_iter().peekable();
            while let Some(request) = todo.next_if(|_| !mortal.is_dead()) {
                if first
                    .ask(&default_namespace(), request.clone())
                    .await
                    .is_err()
                {
                    todo = [request]
                        .into_iter()
                        .chain(todo)
                        .collect::<Vec<_>>()
                        .into_iter()
                        .peekable();
                    break;
                }
                if !mortal.is_dead() {
                    answered = ledger(&first).await;
                }
            }
            let lived = !mortal.is_dead();
            drop(first);
            leftovers = leftovers.max(streams(&*log).await.len());
            let second = small(Arc::clone(&log) as Arc<dyn Log>);
            let found = ledger(&second).await;
            assert!(
                found.seq >= answered.seq,
                "{death:?} {writes}: {} of {}",
                found.seq,
                answered.seq
            );
            if found.seq == answered.seq {
                assert_eq!(found, answered, "{death:?} at write {writes}");
            }
            for request in todo {
                second.ask(&default_namespace(), request).await.unwrap();
            }
            assert_eq!(
                come_to(&ledger(&second).await),
                expected,
                "{death:?} at write {writes}"
            );
            let after = streams(&*log).await;
            assert!(after.len() <= 3, "{death:?} at write {writes}: {after:?}");
            if lived {
                break;
            }
            crashes += 1;
        }
    }
    assert!(crashes > 100, "{crashes} crashes");
    assert!(
        leftovers >= 3,
        "no crash left a stream behind that was begun and not sealed for"
    );
}

#[tokio::test]
async fn who_writes_to_a_stream_that_another_has_sealed_loses() {
    let log: Arc<dyn Log> = MemoryLog::new();
    let namespace = default_namespace();
    let stale = small(Arc::clone(&log));
    stale.ask(&namespace, create("b", 100_000)).await.unwrap();
    let other = small(Arc::clone(&log));
    for request in requests() {
        other.ask(&namespace, request).await.unwrap();
    }
    let before = ledger(&other).await;
    let lost = stale.ask(&namespace, call(99)).await;
    assert!(matches!(lost, Err(LedgerError::Unavailable(_))), "{lost:?}");
    assert_eq!(ledger(&stale).await, before, "folded anew from where it is");
}

#[tokio::test]
async fn a_ledger_whose_next_stream_cannot_begin_stays_where_it_is() {
    let log: Arc<dyn Log> = MemoryLog::new();
    let namespace = default_namespace();
    let ledgers = small(Arc::clone(&log));
    ledgers.ask(&namespace, create("b", 100_000)).await.unwrap();
    // As many were begun and never sealed for as are tried.
    for number in 0..64 {
        let id = Id::parse(&format!("budgets-1-{number}")).unwrap();
        let key = StreamKey::new(StreamKind::Ledger, &namespace, &id);
        let body = br#"{"events":[{"LedgerCarried":{"seq":1,"events":9}}]}"#.to_vec();
        let record = NewRecord::new(At::from_unix_ms(1), 0, body.into());
        log.append(&key, 0, record).await.unwrap();
    }
    for request in requests() {
        ledgers.ask(&namespace, request).await.unwrap();
    }
    let all = streams(&*log).await;
    assert_eq!(all.len(), 65, "the first one, and those");
    let again = stream::open(&*log, &namespace).await.unwrap();
    assert_eq!(again.ledger, ledger(&ledgers).await);
}

#[tokio::test]
async fn a_stream_that_does_not_begin_with_all_that_came_before_grants_nothing() {
    let log: Arc<dyn Log> = MemoryLog::new();
    let namespace = default_namespace();
    let id = Id::parse("budgets-3-0").unwrap();
    let key = StreamKey::new(StreamKind::Ledger, &namespace, &id);
    let body = br#"{"events":[{"LedgerCarried":{"seq":7,"events":2}}]}"#.to_vec();
    let record = NewRecord::new(At::from_unix_ms(1), 0, body.into());
    log.append(&key, 0, record).await.unwrap();
    let answer = small(log).ask(&namespace, create("b", 20)).await;
    assert!(
        matches!(answer, Err(LedgerError::Unreadable(_))),
        "{answer:?}"
    );
}
