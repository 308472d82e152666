//! The task of one ledger: takes what waits, decides all of it, appends once, answers.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use loopwright_core::{
    ids::Timestamp,
    ledger::{Answer, Ledger, LedgerEntry, LedgerEvent, Request, decide},
};
use loopwright_log::{Log, LogError, NewRecord, ReadItem, ReadMode, StreamKey};
use tokio::sync::{mpsc, oneshot, watch};

use super::LedgerError;
use crate::driver::Clock;

/// Requests that one entry answers at most: it must fit a record, however long the chains are.
const BATCH: usize = 64;
/// Longest time to an expiry that is slept at once: a clock that is set is noticed.
const LONGEST: Duration = Duration::from_secs(60);

/// Looks at the ledger, or hears why it cannot.
pub(super) type Look = Box<dyn FnOnce(Result<(&Ledger, Timestamp), LedgerError>) + Send>;

/// What is asked of the task.
pub(super) enum Asked {
    /// A request.
    Request {
        /// What.
        request: Request,
        /// Where the answer goes.
        reply: Reply,
    },
    /// To be shown the ledger.
    Look(Look),
}

type Reply = oneshot::Sender<Result<Answer, LedgerError>>;

/// Keeps the ledger of `key` until nobody can ask any more, or its log fails.
pub(super) async fn run(
    log: Arc<dyn Log>,
    key: StreamKey,
    clock: Clock,
    mut inbox: mpsc::Receiver<Asked>,
    changes: Arc<watch::Sender<u64>>,
) {
    let failed = match fold(&*log, &key).await {
        Ok(ledger) => keep(&*log, &key, clock, ledger, &mut inbox, &changes).await,
        Err(error) => Some(error),
    };
    let Some(error) = failed else { return };
    tracing::warn!(%key, %error, "a ledger ends; the next request folds it anew");
    inbox.close();
    while let Some(asked) = inbox.recv().await {
        asked.refuse(error.clone());
    }
}

impl Asked {
    fn refuse(self, error: LedgerError) {
        match self {
            // Whoever asked may have left.
            Self::Request { reply, .. } => drop(reply.send(Err(error))),
            Self::Look(look) => look(Err(error)),
        }
    }
}

/// Serves the inbox; `None` where it is closed.
async fn keep(
    log: &dyn Log,
    key: &StreamKey,
    clock: Clock,
    mut ledger: Ledger,
    inbox: &mut mpsc::Receiver<Asked>,
    changes: &watch::Sender<u64>,
) -> Option<LedgerError> {
    let mut waiting = Vec::with_capacity(BATCH);
    loop {
        let expires = ledger.expires_at();
        tokio::select! {
            taken = inbox.recv_many(&mut waiting, BATCH) => if taken == 0 {
                return None;
            },
            () = until(clock, expires), if expires.is_some() => {}
        }
        let at = clock.now();
        let mut decided = Decided::default();
        // It is never refused.
        let _ = decided.take(&mut ledger, at, &Request::Expire);
        let mut looks = Vec::new();
        for asked in waiting.drain(..) {
            match asked {
                Asked::Request { request, reply } => {
                    let answer = decided.take(&mut ledger, at, &request);
                    decided.answers.push((reply, answer));
                }
                Asked::Look(look) => looks.push(look),
            }
        }
        if let Err(error) = decided.commit(log, key, at, &mut ledger).await {
            looks.into_iter().for_each(|look| look(Err(error.clone())));
            return Some(error);
        }
        changes.send_if_modified(|seq| std::mem::replace(seq, ledger.seq) != ledger.seq);
        looks.into_iter().for_each(|look| look(Ok((&ledger, at))));
    }
}

/// What one entry will say, and to whom it is the answer.
#[derive(Default)]
struct Decided {
    events: Vec<LedgerEvent>,
    answers: Vec<(Reply, Result<Answer, LedgerError>)>,
}

impl Decided {
    /// Decides a request on the ledger as the requests before it leave it.
    fn take(
        &mut self,
        ledger: &mut Ledger,
        at: Timestamp,
        request: &Request,
    ) -> Result<Answer, LedgerError> {
        let (events, answer) = decide(ledger, at, request)?;
        events.iter().for_each(|event| ledger.apply(event));
        self.events.extend(events);
        Ok(answer)
    }

    /// Makes it durable and answers. After an error the ledger is ahead of its log and of no use.
    async fn commit(
        self,
        log: &dyn Log,
        key: &StreamKey,
        at: Timestamp,
        ledger: &mut Ledger,
    ) -> Result<(), LedgerError> {
        let Self { events, answers } = self;
        if !events.is_empty() {
            match append(log, key, at, ledger.seq, events).await {
                Ok(seq) => ledger.seq = seq,
                Err(error) => {
                    for (reply, _) in answers {
                        let _ = reply.send(Err(error.clone()));
                    }
                    return Err(error);
                }
            }
        }
        for (reply, answer) in answers {
            let _ = reply.send(answer);
        }
        Ok(())
    }
}

async fn append(
    log: &dyn Log,
    key: &StreamKey,
    at: Timestamp,
    expected: u64,
    events: Vec<LedgerEvent>,
) -> Result<u64, LedgerError> {
    let body = serde_json::to_vec(&LedgerEntry { events })
        .map_err(|error| LedgerError::Unreadable(error.to_string()))?;
    let at = loopwright_log::Timestamp::from_unix_ms(at.0);
    let record = NewRecord::new(at, 0, body.into());
    let appended = log.append(key, expected, record).await;
    appended.map_err(|error| LedgerError::Unavailable(error.to_string()))
}

async fn fold(log: &dyn Log, key: &StreamKey) -> Result<Ledger, LedgerError> {
    let mut ledger = Ledger::default();
    let mut items = log.read(key, 0, ReadMode::ToTail);
    while let Some(item) = items.next().await {
        let ReadItem::Fact(record) = item.map_err(unreadable)? else {
            continue;
        };
        let entry: LedgerEntry = serde_json::from_slice(&record.body()).map_err(|error| {
            LedgerError::Unreadable(format!("{key} at seq {}: {error}", record.seq))
        })?;
        ledger.apply_entry(record.seq, &entry);
    }
    Ok(ledger)
}

fn unreadable(error: LogError) -> LedgerError {
    match error {
        LogError::Unavailable { reason } => LedgerError::Unavailable(reason),
        other => LedgerError::Unreadable(other.to_string()),
    }
}

async fn until(clock: Clock, at: Option<Timestamp>) {
    let left = at.map_or(LONGEST, |at| clock.until(at));
    tokio::time::sleep(left.min(LONGEST)).await;
}
