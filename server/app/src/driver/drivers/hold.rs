//! Taking a session out of everybody's hands for a while: to delete it, to write a copy under its
//! id.
//!
//! Invariant: while a [`Hold`] lives, no driver has the session and none attaches; commands wait
//! for its end. A session whose loop is open is never held, unless no driver can end that loop any more.

use std::sync::Arc;

use futures_util::StreamExt as _;
use loopwright_log::{LogError, ReadMode, StreamKey};
use tokio::sync::{oneshot, watch};

use super::{super::Delivery, Drivers, start::Ending};

/// Why a session was not let go of.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseError {
    /// A loop of it is open.
    #[error("a loop is open; cancel it first, or wait for its end")]
    LoopOpen,
    /// The server is going down.
    #[error("the server is draining; try another replica, or again when it is back")]
    Draining,
}

/// A session that nobody drives. Dropping it lets drivers attach again.
pub struct Hold {
    drivers: Arc<Drivers>,
    key: StreamKey,
    /// Commands wait for its end.
    _free: watch::Sender<()>,
}

/// A session that is held.
pub(super) struct Held {
    /// Ends with the hold.
    pub(super) free: watch::Receiver<()>,
    /// Somebody would have attached a driver meanwhile.
    pub(super) wanted: bool,
}

impl Drivers {
    /// Detaches the session's driver, if there is one, and keeps others from attaching until the
    /// hold is dropped. A session that does not exist can be held too. Two holds of one session
    /// come one after the other.
    ///
    /// # Errors
    /// A loop of the session is open, and a driver can end it; nothing was changed. The server is
    /// going down.
    pub async fn release(self: &Arc<Self>, key: &StreamKey) -> Result<Hold, ReleaseError> {
        let (hold, inbox) = loop {
            if self.world.drain.is_draining() {
                return Err(ReleaseError::Draining);
            }
            let before = {
                let mut slots = self.slots();
                match slots.held.get(key).map(|held| held.free.clone()) {
                    Some(before) => before,
                    None => {
                        let (end, free) = watch::channel(());
                        let wanted = false;
                        slots.held.insert(key.clone(), Held { free, wanted });
                        let hold = Hold {
                            drivers: Arc::clone(self),
                            key: key.clone(),
                            _free: end,
                        };
                        break (hold, slots.by_key.get(key).map(|slot| slot.inbox.clone()));
                    }
                }
            };
            let_go(before).await;
        };
        if let Some(inbox) = inbox {
            let (refusal, refused) = oneshot::channel();
            // A driver that is ending takes nothing any more, and closes all the same.
            let sent = inbox.send(Delivery::Release(refusal)).await.is_ok();
            if sent && refused.await.is_ok() {
                return Err(ReleaseError::LoopOpen);
            }
            inbox.closed().await;
        }
        if self.ending(key).await == Ending::Open && !self.is_stuck(key).await {
            return Err(ReleaseError::LoopOpen);
        }
        Ok(hold)
    }

    /// Whether nobody can cancel its loop: its drivers were given up, or its log is damaged, as far as
    /// is known, or of a newer version.
    async fn is_stuck(&self, key: &StreamKey) -> bool {
        let trouble = self.world.index.troubles().of(key);
        if trouble.is_some_and(|trouble| trouble.given_up) {
            return true;
        }
        let log = &self.world.log;
        let behind = match log.tail(key).await {
            Ok(tail) => {
                log.read(key, tail.unwrap_or(0), ReadMode::ToTail)
                    .next()
                    .await
            }
            Err(error) => Some(Err(error)),
        };
        let lost = |error: &LogError| {
            matches!(error, LogError::Corrupt(_) | LogError::NewerVersion { .. })
        };
        behind.is_some_and(|item| item.is_err_and(|error| lost(&error)))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let held = self.drivers.slots().held.remove(&self.key);
        if held.is_some_and(|held| held.wanted) {
            self.drivers.attach(&self.key);
        }
    }
}

/// Waits for the end of a hold.
pub(super) async fn let_go(mut free: watch::Receiver<()>) {
    // Nothing is ever sent: the sender goes.
    let _ = free.changed().await;
}
