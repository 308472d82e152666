//! Sessions that wait for a time: no driver, no task, one line each in an ordered set.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use loopwright_core::ids::Timestamp;
use loopwright_log::StreamKey;
use tokio::sync::Notify;

use super::Clock;

/// Longest sleep at a stretch: a clock that is set forward is noticed, and the register let go.
const LONGEST: Duration = Duration::from_secs(30);

/// When to look at which session again.
#[derive(Default)]
pub(super) struct Wake {
    due: Mutex<BTreeSet<(Timestamp, StreamKey)>>,
    sooner: std::sync::Arc<Notify>,
}

impl Wake {
    /// Has `key` woken at `at`. A session may wait for several times; each is looked at.
    pub(super) fn set(&self, key: StreamKey, at: Timestamp) {
        self.due().insert((at, key));
        self.sooner.notify_one();
    }

    /// Takes the next session whose time has come; `None` from time to time where there is none.
    pub(super) fn next(&self, clock: Clock) -> impl Future<Output = Option<StreamKey>> + use<> {
        let mut due = self.due();
        let first = due.first().map(|(at, _)| clock.until(*at));
        let ready = match first {
            Some(left) if left.is_zero() => due.pop_first().map(|(_, key)| key),
            Some(_) | None => None,
        };
        let wait = first.unwrap_or(LONGEST).min(LONGEST);
        let sooner = std::sync::Arc::clone(&self.sooner);
        async move {
            if ready.is_none() {
                let _ = tokio::time::timeout(wait, sooner.notified()).await;
            }
            ready
        }
    }

    /// Forgets every session that waits; how many there were.
    #[cfg(test)]
    pub(super) fn forget(&self) -> usize {
        std::mem::take(&mut *self.due()).len()
    }

    fn due(&self) -> std::sync::MutexGuard<'_, BTreeSet<(Timestamp, StreamKey)>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
