//! The task of one ledger: takes what waits, decides all of it, appends once, answers.
//!
//! Entries go to the log one behind the other, without waiting for the ones before to be durable: the
//! fold runs ahead of the log. Invariants: an answer is given once its entry and all before it are
//! durable; what is told of a grant before says only that its entry is on its way. Whatever goes wrong
//! with one entry ends the task with all that came after it, once the log has spoken of each of them,
//! so that nothing of a fold that is given up is written behind the next one's back.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesOrdered};
use loopwright_core::{
    ids::{Seq, Timestamp},
    ledger::{Ledger, Request},
};
use loopwright_log::{Fate, Id, Log};
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    LedgerError,
    entry::{Draft, OnItsWay, Reply, To, Written},
    stream::{self, Folded, Place},
};
use crate::driver::Clock;

/// Requests that one entry answers at most: it must fit a record, however long the chains are.
const BATCH: usize = 64;
/// Entries on their way at most; whoever comes later waits to be let in.
const ON_THEIR_WAY: usize = 64;
/// Longest time to an expiry that is slept at once: a clock that is set is noticed.
const LONGEST: Duration = Duration::from_secs(60);
/// A stream may grow to so many times what it carries, where that is more than its limit.
const TIMES_CARRIED: u64 = 4;

/// The ledger as it is shown: what was seen is given away once everything in it is durable.
pub(super) struct Shown<'a> {
    pub(super) ledger: &'a Ledger,
    pub(super) at: Timestamp,
    /// Where its next record goes.
    pub(super) place: &'a Place,
}

/// Looks at the ledger, unless there is none to be shown, and says what to do once all that it saw is
/// durable, or is known not to be.
pub(super) type Look = Box<dyn FnOnce(Option<Shown<'_>>) -> Give + Send>;

/// Gives away what was seen of the ledger, or says why it cannot be.
pub(super) type Give = Box<dyn FnOnce(Result<(), LedgerError>) + Send>;

/// What is asked of the task.
pub(super) enum Asked {
    /// A request.
    Request {
        /// What.
        request: Request,
        /// Where the answer goes.
        reply: Reply,
        /// Where a grant goes as soon as its entry is on its way.
        ahead: Option<oneshot::Sender<OnItsWay>>,
    },
    /// To be shown the ledger.
    Look(Look),
}

/// The keeper of one ledger.
pub(super) struct Keeper {
    pub(super) log: Arc<dyn Log>,
    pub(super) namespace: Id,
    pub(super) clock: Clock,
    /// Bytes after which a stream is followed by another.
    pub(super) stream_bytes: u64,
    pub(super) changes: Arc<watch::Sender<Seq>>,
}

/// A ledger at work.
struct Work {
    /// Ahead of the log by what is on its way and by the draft.
    folded: Folded,
    draft: Draft,
    on_their_way: FuturesOrdered<BoxFuture<'static, Written>>,
    /// Of the last entry that was sent.
    last: Option<Fate>,
    /// Who wants to look, once the fold is at the end of an entry.
    looks: Vec<Look>,
    /// What was seen, and up to where it is to be durable first.
    seen: VecDeque<(Seq, Give)>,
    /// Bytes at which another stream follows.
    limit: u64,
}

impl Keeper {
    /// Keeps the ledger until nobody can ask any more, or its log fails.
    pub(super) async fn run(self, mut inbox: mpsc::Receiver<Asked>) {
        let failed = match stream::open(&*self.log, &self.namespace).await {
            Ok(folded) => {
                let limit = self.limit(&folded);
                let mut work = Work {
                    folded,
                    draft: Draft::default(),
                    on_their_way: FuturesOrdered::new(),
                    last: None,
                    looks: Vec::new(),
                    seen: VecDeque::new(),
                    limit,
                };
                let failed = self.keep(&mut work, &mut inbox).await;
                if let Err(error) = &failed {
                    work.give_up(error).await;
                }
                failed.err()
            }
            Err(error) => Some(error),
        };
        let Some(error) = failed else { return };
        let namespace = &self.namespace;
        tracing::warn!(%namespace, %error, "a ledger ends; the next request folds it anew");
        inbox.close();
        while let Some(asked) = inbox.recv().await {
            asked.refuse(&error);
        }
    }

    /// Serves the inbox until it is closed.
    async fn keep(
        &self,
        work: &mut Work,
        inbox: &mut mpsc::Receiver<Asked>,
    ) -> Result<(), LedgerError> {
        let mut waiting = Vec::with_capacity(BATCH);
        let mut open = true;
        while open || !work.on_their_way.is_empty() {
            if work.folded.bytes >= work.limit && work.on_their_way.is_empty() {
                self.turn(work).await?;
            }
            let expires = work.folded.ledger.expires_at();
            let room = BATCH.saturating_sub(work.draft.requests());
            let more = open && room > 0 && work.lets_in();
            tokio::select! {
                biased;
                Some(written) = work.on_their_way.next() => self.tell(work, written)?,
                taken = inbox.recv_many(&mut waiting, room), if more => open = taken > 0,
                () = until(self.clock, expires), if expires.is_some() && more => {}
            }
            if !waiting.is_empty() {
                gather(inbox, &mut waiting, room).await;
            }
            self.decide(work, waiting.drain(..));
            self.send(work);
            work.show(self.clock.now());
        }
        Ok(())
    }

    /// Decides what was asked; nothing of it is told yet.
    fn decide(&self, work: &mut Work, waiting: impl Iterator<Item = Asked>) {
        let at = self.clock.now();
        let Work {
            folded,
            draft,
            looks,
            ..
        } = work;
        if folded.ledger.expires_at().is_some_and(|due| due <= at) {
            // It is never refused.
            let _ = draft.take(&mut folded.ledger, at, &Request::Expire);
        }
        for asked in waiting {
            match asked {
                Asked::Request {
                    request,
                    reply,
                    ahead,
                } => {
                    let answer = draft.take(&mut folded.ledger, at, &request);
                    draft.answer(reply, ahead, answer);
                }
                Asked::Look(look) => looks.push(look),
            }
        }
    }

    /// Sends the draft on its way, where somebody waits for that or nothing else is: what nobody waits
    /// for goes with the next entry.
    fn send(&self, work: &mut Work) {
        let Work { folded, draft, .. } = work;
        let idle = work.on_their_way.is_empty();
        if !draft.says() {
            if idle {
                std::mem::take(draft).go();
            }
            return;
        }
        if !(idle || draft.is_urgent() || draft.requests() >= BATCH) {
            return;
        }
        let to = To {
            key: folded.place.key.clone(),
            base: folded.place.base,
            before: folded.ledger.seq,
        };
        if idle {
            // All before it is durable, and need not be told of.
            work.last = None;
        }
        let (log, at) = (Arc::clone(&self.log), self.clock.now());
        let sent = std::mem::take(draft).send(log, at, &to, &mut work.last);
        folded.ledger.seq += 1;
        folded.bytes += sent.bytes;
        work.on_their_way.push_back(sent.written);
    }

    /// Tells whoever waited for an entry what became of it.
    fn tell(&self, work: &mut Work, written: Written) -> Result<(), LedgerError> {
        let Written { seq, told } = written;
        match seq {
            Ok(seq) => {
                told.go();
                work.is_durable(seq);
                self.move_to(seq);
                Ok(())
            }
            Err(error) => {
                told.fail(&error);
                Err(error)
            }
        }
    }

    /// Goes on in a new stream, if the log lets it.
    async fn turn(&self, work: &mut Work) -> Result<(), LedgerError> {
        let at = self.clock.now();
        let folded = &work.folded;
        let (log, place) = (&*self.log, &folded.place);
        let next = stream::go_on(log, &self.namespace, at, place, &folded.ledger).await?;
        if let Some(next) = next {
            work.folded = next;
            self.move_to(work.folded.ledger.seq);
        }
        let soonest = work.folded.bytes + (self.stream_bytes / 16).max(1);
        work.limit = self.limit(&work.folded).max(soonest);
        Ok(())
    }

    /// All up to there is durable.
    fn move_to(&self, seq: Seq) {
        self.changes
            .send_if_modified(|told| std::mem::replace(told, seq) != seq);
    }

    /// Bytes at which the stream is followed by another: what is carried over is written seldom enough.
    fn limit(&self, folded: &Folded) -> u64 {
        let carried = folded.carried.saturating_mul(TIMES_CARRIED);
        folded.carried + self.stream_bytes.max(carried)
    }
}

impl Work {
    /// Whether it takes requests in now: not while its stream is to end, which waits for what is on its way.
    fn lets_in(&self) -> bool {
        self.folded.bytes < self.limit && self.on_their_way.len() < ON_THEIR_WAY
    }

    /// Lets look whoever wants to. What is in the fold and in no entry yet has no place in the log.
    fn show(&mut self, at: Timestamp) {
        let Folded { ledger, place, .. } = &self.folded;
        if self.draft.says() {
            return;
        }
        for look in self.looks.drain(..) {
            let give = look(Some(Shown { ledger, at, place }));
            match self.on_their_way.is_empty() {
                true => give(Ok(())),
                false => self.seen.push_back((ledger.seq, give)),
            }
        }
    }

    /// All up to there is durable.
    fn is_durable(&mut self, seq: Seq) {
        while let Some((_, give)) = self.seen.pop_front_if(|(of, _)| *of <= seq) {
            give(Ok(()));
        }
    }

    /// Nothing that is not durable yet will be known to be. Ends once the log has spoken of all of it.
    async fn give_up(&mut self, error: &LedgerError) {
        std::mem::take(&mut self.draft).fail(error);
        while let Some(written) = self.on_their_way.next().await {
            written.told.fail(error);
        }
        for (_, give) in self.seen.drain(..) {
            give(Err(error.clone()));
        }
        for look in self.looks.drain(..) {
            look(None)(Err(error.clone()));
        }
    }
}

impl Asked {
    fn refuse(self, error: &LedgerError) {
        match self {
            // Whoever asked may have left.
            Self::Request { reply, .. } => drop(reply.send(Err(error.clone()))),
            Self::Look(look) => look(None)(Err(error.clone())),
        }
    }
}

/// Lets everybody run who can, and takes in what they ask as well: loops that step at the same time share
/// an entry, and one that is alone waits for nobody.
async fn gather(inbox: &mut mpsc::Receiver<Asked>, waiting: &mut Vec<Asked>, room: usize) {
    tokio::task::yield_now().await;
    while waiting.len() < room
        && let Ok(asked) = inbox.try_recv()
    {
        waiting.push(asked);
    }
}

async fn until(clock: Clock, at: Option<Timestamp>) {
    let left = at.map_or(LONGEST, |at| clock.until(at));
    tokio::time::sleep(left.min(LONGEST)).await;
}
