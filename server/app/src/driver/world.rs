//! What drivers share: the log, the outside that effects reach, and the clock.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use loopwright_core::{ids::Timestamp, retry::JITTER_ONE};
use loopwright_log::{Log, RecoveryReport, StreamKey};

use crate::{
    drain::DrainSignal, effects::model::Models, index::Index, ledger::Ledgers, redaction::Fields,
    sidecars::Sidecars, telemetry::Telemetry,
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

/// Bytes of sessions' logs that this start or an earlier one found torn and set aside, until somebody
/// has told the sessions.
#[derive(Debug, Default)]
pub struct CutTails(Mutex<HashMap<StreamKey, u64>>);

impl CutTails {
    /// Those that a recovery reports.
    #[must_use]
    pub fn of(report: &RecoveryReport) -> Self {
        let streams = report.torn().flat_map(|aside| &aside.streams);
        let cut = streams.filter_map(|(key, _)| Some((key.clone(), report.cut_bytes(key)?)));
        let mut cut: HashMap<_, _> = cut.collect();
        // With what earlier starts cut of the same session.
        cut.extend(report.owed.iter().cloned());
        Self(Mutex::new(cut))
    }

    /// What was cut from this session and not told yet.
    #[must_use]
    pub fn get(&self, key: &StreamKey) -> Option<u64> {
        self.lock().get(key).copied()
    }

    /// The session's log says it now.
    pub fn told(&self, key: &StreamKey) {
        self.lock().remove(key);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<StreamKey, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What every driver works with.
pub struct World {
    /// The log.
    pub log: Arc<dyn Log>,
    /// What lists show of sessions, and which of them are in trouble.
    pub index: Arc<Index>,
    /// What the start cut from sessions.
    pub cut: CutTails,
    /// The models.
    pub models: Arc<Models>,
    /// The tools.
    pub sidecars: Arc<Sidecars>,
    /// Budgets that sessions share.
    pub ledgers: Arc<Ledgers>,
    /// What of tools' arguments is not shown.
    pub fields: Fields,
    /// Spans and meters.
    pub telemetry: Telemetry,
    /// The time.
    pub clock: Clock,
    /// Whether the server is going down.
    pub drain: DrainSignal,
    /// Sessions that may be driven at once.
    pub max_active: usize,
    /// How long a session whose driver was lost waits for another one; it doubles with each loss in
    /// a row, up to a minute.
    pub first_wait: Duration,
    /// Bytes of a session's log at which it takes no more messages and its loop is ended.
    pub session_bytes: u64,
}
