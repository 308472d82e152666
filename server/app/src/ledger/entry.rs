//! What one entry of a ledger will say, and who is told once it is durable.

use std::sync::Arc;

use futures_util::{FutureExt as _, future::BoxFuture};
use loopwright_core::{
    ids::{Seq, Timestamp},
    ledger::{Answer, Granted, Ledger, LedgerEvent, Request, decide},
};
use loopwright_log::{Fate, Log, StreamKey};
use tokio::sync::oneshot;

use super::{LedgerError, stream};

/// Where an answer goes.
pub(super) type Reply = oneshot::Sender<Result<Answer, LedgerError>>;

/// An entry in the making. What it decides is in the fold already, and in nobody's hands.
#[derive(Default)]
pub(super) struct Draft {
    events: Vec<LedgerEvent>,
    told: Told,
    /// Who hears of a grant as soon as the entry is on its way.
    ahead: Vec<(oneshot::Sender<OnItsWay>, Granted)>,
    requests: usize,
}

/// Who waits for an entry to be durable, and for what.
#[derive(Default)]
pub(super) struct Told(Vec<(Reply, Result<Answer, LedgerError>)>);

/// A grant whose entry is on its way to the log.
pub struct OnItsWay {
    /// What is granted.
    pub granted: Granted,
    /// What a record is to be sent behind that uses the grant; none where it is durable already.
    pub fate: Option<Fate>,
}

/// Where an entry goes.
#[derive(Clone)]
pub(super) struct To {
    /// The stream.
    pub(super) key: StreamKey,
    /// The ledger's position before the stream's first record.
    pub(super) base: Seq,
    /// And before the entry.
    pub(super) before: Seq,
}

/// An entry that was sent.
pub(super) struct Sent {
    pub(super) bytes: u64,
    pub(super) written: BoxFuture<'static, Written>,
}

/// An entry on its way to the disk.
pub(super) struct Written {
    /// The ledger's position after it; or why it is not known to be there.
    pub(super) seq: Result<Seq, LedgerError>,
    pub(super) told: Told,
}

impl Draft {
    /// How many requests it answers.
    pub(super) fn requests(&self) -> usize {
        self.requests
    }

    /// Whether it says anything.
    pub(super) fn says(&self) -> bool {
        !self.events.is_empty()
    }

    /// Whether somebody waits for its being on its way.
    pub(super) fn is_urgent(&self) -> bool {
        !self.ahead.is_empty()
    }

    /// Decides a request on the ledger as the requests before it leave it.
    ///
    /// # Errors
    /// A refusal.
    pub(super) fn take(
        &mut self,
        ledger: &mut Ledger,
        at: Timestamp,
        request: &Request,
    ) -> Result<Answer, LedgerError> {
        self.requests += 1;
        let (events, answer) = decide(ledger, at, request)?;
        events.iter().for_each(|event| ledger.apply(event));
        self.events.extend(events);
        Ok(answer)
    }

    /// Gives an answer once it is durable, and what it grants to `ahead` once it is on its way.
    pub(super) fn answer(
        &mut self,
        reply: Reply,
        ahead: Option<oneshot::Sender<OnItsWay>>,
        answer: Result<Answer, LedgerError>,
    ) {
        if let (Some(ahead), Ok(Answer::Granted(granted))) = (ahead, &answer) {
            self.ahead.push((ahead, granted.clone()));
        }
        self.told.0.push((reply, answer));
    }

    /// Sends it to the log, at this place behind the entry of that fate.
    pub(super) fn send(
        self,
        log: Arc<dyn Log>,
        at: Timestamp,
        to: &To,
        behind: &mut Option<Fate>,
    ) -> Sent {
        let record = stream::record_of(at, self.events);
        let bytes = record.body.len() as u64;
        let mut record = record.behind(behind.take());
        let fate = record.fate();
        *behind = Some(fate.clone());
        let (told, To { key, base, before }) = (self.told, to.clone());
        let mut written = async move {
            let seq = stream::append(&*log, &key, before - base, record).await;
            let seq = seq.map(|seq| base + seq);
            Written { seq, told }
        }
        .boxed();
        // The record is on its way once the append was looked at.
        let soon = (&mut written).now_or_never();
        let written = match soon {
            Some(done) => std::future::ready(done).boxed(),
            None => written,
        };
        tell_ahead(self.ahead, Some(&fate));
        Sent { bytes, written }
    }

    /// Nothing of it will be durable.
    pub(super) fn fail(self, error: &LedgerError) {
        self.told.fail(error);
    }

    /// What it answers is durable: it says nothing itself.
    pub(super) fn go(self) {
        tell_ahead(self.ahead, None);
        self.told.go();
    }
}

fn tell_ahead(ahead: Vec<(oneshot::Sender<OnItsWay>, Granted)>, fate: Option<&Fate>) {
    for (to, granted) in ahead {
        let fate = fate.cloned();
        // Whoever asked may have left.
        let _ = to.send(OnItsWay { granted, fate });
    }
}

impl Told {
    /// It is durable.
    pub(super) fn go(self) {
        for (reply, answer) in self.0 {
            // Whoever asked may have left.
            let _ = reply.send(answer);
        }
    }

    /// It is not known to be.
    pub(super) fn fail(self, error: &LedgerError) {
        for (reply, _) in self.0 {
            let _ = reply.send(Err(error.clone()));
        }
    }
}
