//! The ways into the two threads: appends that wait for the writer, streams that wait for filing.
//!
//! Invariant: bounded. A full queue refuses; nothing that was accepted is dropped without an answer.

use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::remove::{Doomed, Removal};
use super::stream::Stream;
use crate::error::{AppendError, LogError};
use crate::fate::Stage;
use crate::live::lock;
use crate::record::{NewRecord, Seq};

/// Bytes of bodies that may wait for the writer.
const WAITING_BYTES: u64 = 64 * 1024 * 1024;
/// Most records of one batch.
const BATCH: usize = 4096;
/// Most bytes of one batch, about.
const BATCH_BYTES: u64 = 8 * 1024 * 1024;
/// Removals that may wait for the writer.
const REMOVALS: usize = 4096;

/// One append on its way.
pub(crate) struct Pending {
    pub(crate) stream: Arc<Stream>,
    pub(crate) expected: Seq,
    pub(crate) record: NewRecord,
    pub(crate) done: oneshot::Sender<Result<Seq, AppendError>>,
}

/// What the writer is to do next.
pub(crate) struct Turn {
    pub(crate) batch: Vec<Pending>,
    pub(crate) removals: Vec<Removal>,
}

/// Appends and removals that wait for the writer.
#[derive(Default)]
pub(crate) struct Queue {
    state: Mutex<QueueState>,
    ready: Condvar,
}

#[derive(Default)]
struct QueueState {
    pending: Vec<Pending>,
    removals: Vec<Removal>,
    bytes: u64,
    closed: bool,
    /// The writer sleeps: only then a wake-up is worth its system call.
    asleep: bool,
}

/// Streams that wait for filing, and segments that wait for a checkpoint.
#[derive(Default)]
pub(crate) struct Filing {
    state: Mutex<FilingState>,
    ready: Condvar,
    room: Condvar,
}

#[derive(Default)]
struct FilingState {
    streams: Vec<Arc<Stream>>,
    closed: Vec<u64>,
    doomed: Vec<Doomed>,
    urgent: bool,
    stop: Option<Stop>,
    /// Why the files of streams cannot be written now.
    stalled: Option<String>,
}

/// How the filing thread is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// File everything and make a checkpoint.
    Clean,
    /// At once; the next start recovers.
    AtOnce,
}

/// What there is to file.
pub(crate) struct Work {
    pub(crate) streams: Vec<Arc<Stream>>,
    pub(crate) closed: Vec<u64>,
    pub(crate) doomed: Vec<Doomed>,
}

impl Queue {
    pub(crate) fn push(&self, pending: Pending) -> Result<(), AppendError> {
        let mut state = lock(&self.state);
        if state.closed {
            return Err(AppendError::unavailable("the log is closed"));
        }
        if state.bytes > WAITING_BYTES {
            return Err(AppendError::unavailable(
                "too many appends are waiting for the disk",
            ));
        }
        state.bytes += pending.record.body.len() as u64;
        // Under the lock: what waits for this place comes behind it.
        pending.record.set_stage(Stage::Sent);
        state.pending.push(pending);
        self.wake(state);
        Ok(())
    }

    pub(crate) fn push_removal(&self, removal: Removal) -> Result<(), LogError> {
        let mut state = lock(&self.state);
        if state.closed {
            return Err(LogError::unavailable("the log is closed"));
        }
        if state.removals.len() >= REMOVALS {
            return Err(LogError::unavailable(
                "too many streams wait for their removal",
            ));
        }
        state.removals.push(removal);
        self.wake(state);
        Ok(())
    }

    fn wake(&self, mut state: MutexGuard<'_, QueueState>) {
        if mem::take(&mut state.asleep) {
            drop(state);
            self.ready.notify_one();
        }
    }

    /// The next batch, in the order of arrival; `None` once closed and empty.
    pub(crate) fn take(&self) -> Option<Turn> {
        let mut state = lock(&self.state);
        while state.pending.is_empty() && state.removals.is_empty() {
            if state.closed {
                return None;
            }
            state.asleep = true;
            state = self
                .ready
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let mut size = 0;
        let count = state.pending.iter().take(BATCH).take_while(|pending| {
            let first = size == 0;
            size += pending.record.body.len() as u64;
            first || size <= BATCH_BYTES
        });
        let count = count.count();
        let rest = state.pending.split_off(count);
        let batch = mem::replace(&mut state.pending, rest);
        state.bytes -= batch
            .iter()
            .map(|pending| pending.record.body.len() as u64)
            .sum::<u64>();
        let removals = mem::take(&mut state.removals);
        Some(Turn { batch, removals })
    }

    pub(crate) fn close(&self) {
        lock(&self.state).closed = true;
        self.ready.notify_all();
    }
}

impl Filing {
    pub(crate) fn push(&self, stream: Arc<Stream>) {
        let mut state = lock(&self.state);
        state.streams.push(stream);
        if state.streams.len() == 1 {
            self.ready.notify_one();
        }
    }

    pub(crate) fn push_segment(&self, number: u64) {
        let mut state = lock(&self.state);
        state.closed.push(number);
        state.urgent = true;
        self.ready.notify_one();
    }

    pub(crate) fn push_doomed(&self, doomed: impl IntoIterator<Item = Doomed>) {
        lock(&self.state).doomed.extend(doomed);
        self.urge();
    }

    pub(crate) fn urge(&self) {
        let mut state = lock(&self.state);
        if !mem::replace(&mut state.urgent, true) {
            self.ready.notify_one();
        }
    }

    pub(crate) fn stop(&self, how: Stop) {
        lock(&self.state).stop = Some(how);
        self.ready.notify_one();
        self.room.notify_all();
    }

    /// Waits for work; then for more of it, so that one write takes many records. Returns early
    /// after `idle`, so that streams can be let go.
    pub(crate) fn wait(&self, gather: Duration, idle: Duration) -> Option<Stop> {
        let mut state = lock(&self.state);
        if state.streams.is_empty() && state.stop.is_none() && !state.urgent {
            state = self.pause(state, idle);
        }
        if !state.streams.is_empty() {
            let calm = |state: &mut FilingState| state.stop.is_none() && !state.urgent;
            let waited = self.ready.wait_timeout_while(state, gather, calm);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.urgent = false;
        state.stop
    }

    pub(crate) fn take(&self) -> Work {
        let mut state = lock(&self.state);
        Work {
            streams: mem::take(&mut state.streams),
            closed: mem::take(&mut state.closed),
            doomed: mem::take(&mut state.doomed),
        }
    }

    /// Tells how filing went, and lets a waiting writer look again.
    pub(crate) fn report(&self, stalled: Option<String>) {
        lock(&self.state).stalled = stalled;
        self.room.notify_all();
    }

    pub(crate) fn stalled(&self) -> Option<String> {
        lock(&self.state).stalled.clone()
    }

    /// Waits while `full`, unless filing is stalled or ends.
    pub(crate) fn wait_for_room(&self, full: impl Fn() -> bool) {
        if !full() {
            return;
        }
        self.urge();
        let mut state = lock(&self.state);
        while full() && state.stalled.is_none() && state.stop.is_none() {
            let waited = self.room.wait_timeout(state, Duration::from_millis(100));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn pause<'a>(
        &self,
        state: MutexGuard<'a, FilingState>,
        idle: Duration,
    ) -> MutexGuard<'a, FilingState> {
        self.ready
            .wait_timeout(state, idle)
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }
}
