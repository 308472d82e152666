//! The named budgets of every namespace: one task each carries requests to the ledger's machine in
//! the core and its facts to the log.
//!
//! Boundary: decides nothing, which is the core's. Invariants: an answer is given once the facts
//! behind it are durable; what came together is one append, so that a hundred loops that reserve at
//! once wait for one write, and the next one does not wait for it; a ledger whose append failed is
//! folded anew from the log before it decides again; its stream never grows without end, since another one follows it.

mod entry;
mod keeper;
mod orphans;
mod stream;

#[cfg(test)]
pub(crate) mod tests;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use loopwright_core::{
    ids::Timestamp,
    ledger::{Answer, Ledger, Refusal, Request},
};
use loopwright_log::{Id, Log};
use tokio::sync::{mpsc, oneshot, watch};

use crate::driver::Clock;
pub use entry::OnItsWay;
use keeper::{Asked, Give, Keeper, Shown};
pub(crate) use orphans::watch_over;
pub use stream::Place;
pub(crate) use stream::entry_of;

/// Requests that may wait for one namespace's ledger; whoever comes later waits to be let in.
const WAITING: usize = 1_024;
/// Bytes after which a ledger's stream is followed by another: a few tens of thousands of calls, read
/// within a fraction of a second.
const STREAM_BYTES: u64 = 16 << 20;

/// Why a ledger gives no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// It refuses.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Its log cannot be read or written now. What was asked may have been carried out: ask again,
    /// under the same name or reservation.
    #[error("the ledger of the budgets is unavailable: {0}")]
    Unavailable(String),
    /// Its log was damaged, or written by a newer version: nothing is granted from a ledger that
    /// cannot be read whole.
    #[error("the ledger of the budgets cannot be read: {0}")]
    Unreadable(String),
}

/// The ledgers of all namespaces.
pub struct Ledgers {
    log: Arc<dyn Log>,
    clock: Clock,
    stream_bytes: u64,
    open: Mutex<HashMap<Id, Open>>,
}

/// What a ledger says of a request before its answer is durable, and then.
pub struct Ahead {
    /// What is granted, as soon as the entry that says so is on its way to the log: what uses it is to be
    /// sent behind that. Nothing comes where nothing is granted.
    pub granted: oneshot::Receiver<OnItsWay>,
    /// The answer, durable.
    pub answer: oneshot::Receiver<Result<Answer, LedgerError>>,
}

/// A ledger's task, and the last seq that it wrote.
struct Open {
    keeper: mpsc::Sender<Asked>,
    changes: Arc<watch::Sender<u64>>,
}

impl Ledgers {
    /// The ledgers in `log`; each is folded when it is first asked.
    #[must_use]
    pub fn new(log: Arc<dyn Log>, clock: Clock) -> Arc<Self> {
        Self::with_streams_of(log, clock, STREAM_BYTES)
    }

    /// As [`Self::new`], with streams of so many bytes.
    #[must_use]
    pub fn with_streams_of(log: Arc<dyn Log>, clock: Clock, stream_bytes: u64) -> Arc<Self> {
        Arc::new(Self {
            log,
            clock,
            stream_bytes,
            open: Mutex::default(),
        })
    }

    /// Carries a request out; the answer is durable.
    ///
    /// # Errors
    /// A refusal, or the state of the log.
    pub async fn ask(&self, namespace: &Id, request: Request) -> Result<Answer, LedgerError> {
        let (reply, answer) = oneshot::channel();
        let asked = Asked::Request {
            request,
            reply,
            ahead: None,
        };
        self.send(namespace, asked).await;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Asks without waiting, not even to be let in; `None` where that would be needed. The request is in
    /// the ledger's inbox before whatever is asked later.
    #[must_use]
    pub fn ask_ahead(&self, namespace: &Id, request: Request) -> Option<Ahead> {
        let (reply, answer) = oneshot::channel();
        let (ahead, granted) = oneshot::channel();
        let asked = Asked::Request {
            request,
            reply,
            ahead: Some(ahead),
        };
        self.keeper(namespace).try_send(asked).ok()?;
        Some(Ahead { granted, answer })
    }

    /// Shows the ledger as it stands, everything in it durable, to `look`.
    ///
    /// # Errors
    /// The state of the log.
    pub async fn look<T: Send + 'static>(
        &self,
        namespace: &Id,
        look: impl FnOnce(&Ledger, Timestamp) -> T + Send + 'static,
    ) -> Result<T, LedgerError> {
        self.show(namespace, |shown| look(shown.ledger, shown.at))
            .await
    }

    /// The ledger as it stands, and where what follows is written.
    ///
    /// # Errors
    /// The state of the log.
    pub async fn whole(&self, namespace: &Id) -> Result<(Ledger, Place), LedgerError> {
        self.show(namespace, |shown| {
            (shown.ledger.clone(), shown.place.clone())
        })
        .await
    }

    async fn show<T: Send + 'static>(
        &self,
        namespace: &Id,
        look: impl FnOnce(Shown<'_>) -> T + Send + 'static,
    ) -> Result<T, LedgerError> {
        let (reply, seen) = oneshot::channel();
        let look = Box::new(move |shown: Option<Shown<'_>>| -> Give {
            let seen = shown.map(look);
            Box::new(move |durable: Result<(), LedgerError>| {
                let seen = durable.and_then(|()| seen.ok_or_else(gone));
                // Whoever asked may have left.
                let _ = reply.send(seen);
            })
        });
        self.send(namespace, Asked::Look(look)).await;
        seen.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Moves with every entry that is written to a namespace's ledger.
    #[must_use]
    pub fn changes(&self, namespace: &Id) -> watch::Receiver<u64> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        self.opened(&mut open, namespace).changes.subscribe()
    }

    async fn send(&self, namespace: &Id, mut asked: Asked) {
        loop {
            let keeper = self.keeper(namespace);
            match keeper.send(asked).await {
                Ok(()) => return,
                // It ended after a failure, and the next one folds the log anew.
                Err(mpsc::error::SendError(back)) => asked = back,
            }
        }
    }

    fn keeper(&self, namespace: &Id) -> mpsc::Sender<Asked> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        self.opened(&mut open, namespace).keeper.clone()
    }

    /// The task of a namespace, started where there is none or where it has ended.
    fn opened<'a>(&self, open: &'a mut HashMap<Id, Open>, namespace: &Id) -> &'a Open {
        let known = open.entry(namespace.clone()).or_insert_with(|| Open {
            keeper: mpsc::channel(1).0,
            changes: Arc::new(watch::Sender::new(0)),
        });
        if known.keeper.is_closed() {
            let (keeper, inbox) = mpsc::channel(WAITING);
            let task = Keeper {
                log: Arc::clone(&self.log),
                namespace: namespace.clone(),
                clock: self.clock,
                stream_bytes: self.stream_bytes,
                changes: Arc::clone(&known.changes),
            };
            tokio::spawn(task.run(inbox));
            known.keeper = keeper;
        }
        known
    }
}

fn gone() -> LedgerError {
    LedgerError::Unavailable("its task has ended".to_owned())
}
