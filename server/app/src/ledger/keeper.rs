//! The task of one ledger: takes what waits, decides all of it, appends once, answers.

use std::{sync::Arc, time::Duration};

use loopwright_core::{
    ids::{Seq, Timestamp},
    ledger::{Answer, Ledger, LedgerEvent, Request, decide},
};
use loopwright_log::{Id, Log};
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    LedgerError,
    stream::{self, Folded, Place},
};
use crate::driver::Clock;

/// Requests that one entry answers at most: it must fit a record, however long the chains are.
const BATCH: usize = 64;
/// Longest time to an expiry that is slept at once: a clock that is set is noticed.
const LONGEST: Duration = Duration::from_secs(60);
/// A stream may grow to so many times what it carries, where that is more than its limit.
const TIMES_CARRIED: u64 = 4;

/// The ledger as it is shown: everything in it is durable.
pub(super) struct Shown<'a> {
    pub(super) ledger: &'a Ledger,
    pub(super) at: Timestamp,
    /// Where its next record goes.
    pub(super) place: &'a Place,
}

/// Looks at the ledger, or hears why it cannot.
pub(super) type Look = Box<dyn FnOnce(Result<Shown<'_>, LedgerError>) + Send>;

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

/// The keeper of one ledger.
pub(super) struct Keeper {
    pub(super) log: Arc<dyn Log>,
    pub(super) namespace: Id,
    pub(super) clock: Clock,
    /// Bytes after which a stream is followed by another.
    pub(super) stream_bytes: u64,
    pub(super) changes: Arc<watch::Sender<Seq>>,
}

impl Keeper {
    /// Keeps the ledger until nobody can ask any more, or its log fails.
    pub(super) async fn run(self, mut inbox: mpsc::Receiver<Asked>) {
        let failed = match stream::open(&*self.log, &self.namespace).await {
            Ok(folded) => self.keep(folded, &mut inbox).await,
            Err(error) => Some(error),
        };
        let Some(error) = failed else { return };
        let namespace = &self.namespace;
        tracing::warn!(%namespace, %error, "a ledger ends; the next request folds it anew");
        inbox.close();
        while let Some(asked) = inbox.recv().await {
            asked.refuse(error.clone());
        }
    }

    /// Serves the inbox; `None` where it is closed.
    async fn keep(
        &self,
        mut folded: Folded,
        inbox: &mut mpsc::Receiver<Asked>,
    ) -> Option<LedgerError> {
        let mut waiting = Vec::with_capacity(BATCH);
        let mut limit = self.limit(&folded);
        loop {
            let expires = folded.ledger.expires_at();
            tokio::select! {
                taken = inbox.recv_many(&mut waiting, BATCH) => if taken == 0 {
                    return None;
                },
                () = until(self.clock, expires), if expires.is_some() => {}
            }
            if let Err(error) = self.carry_out(&mut folded, waiting.drain(..)).await {
                return Some(error);
            }
            if folded.bytes >= limit {
                match self.turn(&mut folded).await {
                    Ok(()) => {
                        limit = self
                            .limit(&folded)
                            .max(folded.bytes + self.stream_bytes / 16)
                    }
                    Err(error) => return Some(error),
                }
            }
        }
    }

    /// Decides what was asked, makes it durable, answers.
    async fn carry_out(
        &self,
        folded: &mut Folded,
        waiting: impl Iterator<Item = Asked>,
    ) -> Result<(), LedgerError> {
        let at = self.clock.now();
        let mut decided = Decided::default();
        // It is never refused.
        let _ = decided.take(&mut folded.ledger, at, &Request::Expire);
        let mut looks = Vec::new();
        for asked in waiting {
            match asked {
                Asked::Request { request, reply } => {
                    let answer = decided.take(&mut folded.ledger, at, &request);
                    decided.answers.push((reply, answer));
                }
                Asked::Look(look) => looks.push(look),
            }
        }
        if let Err(error) = decided.commit(&*self.log, at, folded).await {
            looks.into_iter().for_each(|look| look(Err(error.clone())));
            return Err(error);
        }
        self.tell(folded);
        for look in looks {
            look(Ok(Shown {
                ledger: &folded.ledger,
                at,
                place: &folded.place,
            }));
        }
        Ok(())
    }

    /// Goes on in a new stream, if the log lets it.
    async fn turn(&self, folded: &mut Folded) -> Result<(), LedgerError> {
        let at = self.clock.now();
        let (log, place) = (&*self.log, &folded.place);
        let next = stream::go_on(log, &self.namespace, at, place, &folded.ledger).await?;
        if let Some(next) = next {
            *folded = next;
            self.tell(folded);
        }
        Ok(())
    }

    fn tell(&self, folded: &Folded) {
        let seq = folded.ledger.seq;
        self.changes
            .send_if_modified(|told| std::mem::replace(told, seq) != seq);
    }

    /// Bytes at which the stream is followed by another: what is carried over is written seldom enough.
    fn limit(&self, folded: &Folded) -> u64 {
        let carried = folded.carried.saturating_mul(TIMES_CARRIED);
        folded.carried + self.stream_bytes.max(carried)
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
        at: Timestamp,
        folded: &mut Folded,
    ) -> Result<(), LedgerError> {
        let Self { events, answers } = self;
        if !events.is_empty() {
            let Place { key, base, .. } = &folded.place;
            match stream::append(log, key, at, folded.ledger.seq - base, events).await {
                Ok((seq, bytes)) => {
                    folded.ledger.seq = base + seq;
                    folded.bytes += bytes;
                }
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

async fn until(clock: Clock, at: Option<Timestamp>) {
    let left = at.map_or(LONGEST, |at| clock.until(at));
    tokio::time::sleep(left.min(LONGEST)).await;
}
