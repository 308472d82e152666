//! Room for watchers: counted, and given back when the stream is dropped.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use loopwright_log::{Id, StreamKey, StreamKind};
use tonic::Status;

use crate::{
    service::status,
    telemetry::{Tally, Telemetry},
};

/// Streams that may watch one session at once.
pub const SEATS_OF_SESSION: u32 = 1_000;
/// Streams that may watch all loops of one namespace at once.
pub const SEATS_OF_NAMESPACE: u32 = 100;

/// The watchers of this server.
#[derive(Debug)]
pub struct Seats {
    limit: u32,
    telemetry: Telemetry,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: u32,
    by_session: HashMap<StreamKey, u32>,
}

/// One watcher's room.
#[derive(Debug)]
pub struct Seat {
    seats: Arc<Seats>,
    key: StreamKey,
    _counted: Tally,
}

impl Seats {
    /// Room for `limit` watchers (`limits.watchers`), counted in the meters.
    #[must_use]
    pub fn new(limit: u32, telemetry: Telemetry) -> Arc<Self> {
        Arc::new(Self {
            limit,
            telemetry,
            taken: Mutex::default(),
        })
    }

    /// Room for one more.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED, TOO_MANY_WATCHERS.
    pub fn take(self: &Arc<Self>, key: &StreamKey) -> Result<Seat, Status> {
        self.take_of(key, SEATS_OF_SESSION, "session")
    }

    /// Room for one more who watches all loops of a namespace.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED, TOO_MANY_WATCHERS.
    pub fn take_overview(self: &Arc<Self>, namespace: &Id) -> Result<Seat, Status> {
        // No stream of that name is ever watched.
        let id = Id::parse("overview").expect("a word is an id");
        let key = StreamKey::new(StreamKind::Log, namespace, &id);
        self.take_of(&key, SEATS_OF_NAMESPACE, "namespace")
    }

    fn take_of(self: &Arc<Self>, key: &StreamKey, limit: u32, of: &str) -> Result<Seat, Status> {
        let mut taken = self.lock();
        if taken.all >= self.limit {
            return Err(status::too_many_watchers(self.limit.into(), "server"));
        }
        let seated = taken.by_session.get(key).copied().unwrap_or(0);
        if seated >= limit {
            return Err(status::too_many_watchers(limit.into(), of));
        }
        taken.by_session.insert(key.clone(), seated + 1);
        taken.all += 1;
        Ok(Seat {
            seats: Arc::clone(self),
            key: key.clone(),
            _counted: self.telemetry.metrics().watcher(),
        })
    }

    /// Streams that watch now.
    #[must_use]
    pub fn taken(&self) -> u32 {
        self.lock().all
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.lock();
        taken.all = taken.all.saturating_sub(1);
        if let Some(of_session) = taken.by_session.get_mut(&self.key) {
            *of_session -= 1;
            if *of_session == 0 {
                taken.by_session.remove(&self.key);
            }
        }
    }
}
