//! What drivers share: the log, the outside that effects reach, and the clock.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use loopwright_core::{ids::Timestamp, retry::JITTER_ONE};
use loopwright_log::Log;

use crate::{
    drain::DrainSignal, effects::model::Models, ledger::Ledgers, sidecars::Sidecars,
    telemetry::Telemetry,
};

/// Where drivers get the time: the one place that reads the system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock;

impl Clock {
    /// Now.
    #[must_use]
    pub fn now(self) -> Timestamp {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    /// How long from now until `at`.
    #[must_use]
    pub fn until(self, at: Timestamp) -> Duration {
        Duration::from_millis(at.since(self.now()))
    }

    /// A share of a backoff, drawn from 0..=`JITTER_ONE`.
    #[must_use]
    pub fn jitter(self) -> u32 {
        // Chance is only to spread retries: without any, they come as late as they may.
        let random = getrandom::u32().unwrap_or(JITTER_ONE);
        random % (JITTER_ONE + 1)
    }
}

/// What every driver works with.
pub struct World {
    /// The log.
    pub log: Arc<dyn Log>,
    /// The models.
    pub models: Arc<Models>,
    /// The tools.
    pub sidecars: Arc<Sidecars>,
    /// Budgets that sessions share.
    pub ledgers: Arc<Ledgers>,
    /// Spans and meters.
    pub telemetry: Telemetry,
    /// The time.
    pub clock: Clock,
    /// Whether the server is going down.
    pub drain: DrainSignal,
    /// Sessions that may be driven at once.
    pub max_active: usize,
    /// Bytes of a session's log at which it takes no more messages and its loop is ended.
    pub session_bytes: u64,
}
