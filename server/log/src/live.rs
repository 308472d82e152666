//! The end of a stream that is in memory: acknowledged records, progress, and the signal that the
//! tail moved. Every backend keeps its streams' ends here, and every reader reads from here.
//!
//! Invariant: `recent` holds the records `floor + 1 ..= tail` without a hole; only acknowledged
//! records get in. A reader holds no place here: what it has not read is in the file or in `recent`.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::error::{Corruption, LogError};
use crate::progress::{Board, Progress, ProgressTopic, Shown};
use crate::record::{Record, Seq};

/// Most records that a reader takes at once.
const PULL: usize = 64;

/// The end of one stream.
#[derive(Debug, Default)]
pub(crate) struct Live {
    state: Mutex<LiveState>,
    moved: Notify,
    readers: AtomicUsize,
}

#[derive(Debug, Default)]
struct LiveState {
    tail: Seq,
    crc: u32,
    epoch: u64,
    floor: Seq,
    recent: VecDeque<Arc<Record>>,
    board: Board,
    corrupt: Option<Corruption>,
    removed: bool,
}

/// What there is for a reader after its cursor.
#[derive(Debug)]
pub(crate) enum Pull {
    /// The next records, at least one.
    Facts(Vec<Arc<Record>>),
    /// The next record is no longer in memory.
    Older,
    /// The cursor is at the tail, and there is news in flight.
    Progress(Vec<Arc<Progress>>),
    /// The cursor is at the tail.
    AtTail,
}

/// Counts a reader for as long as it lives.
#[derive(Debug)]
pub(crate) struct Presence(Arc<Live>);

impl Live {
    /// A stream whose records up to `tail` are not in memory.
    pub(crate) fn restore(&self, tail: Seq, crc: u32, epoch: u64) {
        let mut state = lock(&self.state);
        (state.tail, state.floor, state.crc, state.epoch) = (tail, tail, crc, epoch);
    }

    /// Adds an acknowledged record and wakes the readers of this stream.
    pub(crate) fn commit(&self, record: Arc<Record>, ends: &[ProgressTopic]) {
        {
            let mut state = lock(&self.state);
            if record.epoch != state.epoch {
                state.board.clear();
            }
            state.board.end(ends);
            (state.tail, state.crc, state.epoch) = (record.seq, record.crc, record.epoch);
            state.recent.push_back(record);
        }
        self.moved.notify_waiters();
    }

    /// Takes a piece of progress and wakes the readers if it is news.
    pub(crate) fn publish(&self, progress: Progress) {
        let mut state = lock(&self.state);
        if !state.removed && state.board.publish(progress) {
            drop(state);
            self.moved.notify_waiters();
        }
    }

    /// Ends every reader; what comes under the same key is another stream.
    pub(crate) fn remove(&self) {
        let removed = LiveState {
            removed: true,
            ..LiveState::default()
        };
        *lock(&self.state) = removed;
        self.moved.notify_waiters();
    }

    pub(crate) fn is_removed(&self) -> bool {
        lock(&self.state).removed
    }

    /// Refuses the stream from here on: readers get its good prefix, then this.
    pub(crate) fn condemn(&self, corruption: Corruption) {
        lock(&self.state).corrupt.get_or_insert(corruption);
        self.moved.notify_waiters();
    }

    pub(crate) fn corrupt(&self) -> Option<Corruption> {
        lock(&self.state).corrupt.clone()
    }

    /// The last acknowledged record's seq and checksum; (0, 0) without one.
    pub(crate) fn tail(&self) -> (Seq, u32) {
        let state = lock(&self.state);
        (state.tail, state.crc)
    }

    /// The bytes of the records in memory.
    pub(crate) fn bytes(&self) -> u64 {
        let state = lock(&self.state);
        state
            .recent
            .iter()
            .map(|record| record.stored_bytes())
            .sum()
    }

    /// The next records after `after`, or what else a reader there is to do. With `shown`, news
    /// in flight counts.
    pub(crate) fn pull(&self, after: Seq, shown: Option<&mut Shown>) -> Result<Pull, LogError> {
        let state = lock(&self.state);
        if state.removed {
            return Err(LogError::Removed);
        }
        if after > state.tail {
            return Err(LogError::PastTail {
                after,
                tail: state.tail,
            });
        }
        if after < state.floor {
            return Ok(Pull::Older);
        }
        let skip = usize::try_from(after - state.floor).expect("records in memory are countable");
        if skip < state.recent.len() {
            let facts = state.recent.range(skip..).take(PULL).cloned().collect();
            return Ok(Pull::Facts(facts));
        }
        if let Some(corruption) = &state.corrupt {
            return Err(corruption.clone().into());
        }
        let news = shown
            .map(|shown| state.board.unseen(shown, after))
            .unwrap_or_default();
        Ok(if news.is_empty() {
            Pull::AtTail
        } else {
            Pull::Progress(news)
        })
    }

    /// Records in memory with a seq below `before`, newest first; whether older ones exist
    /// elsewhere.
    pub(crate) fn pull_back(&self, before: Seq) -> Result<(Vec<Arc<Record>>, bool), LogError> {
        let state = lock(&self.state);
        if state.removed {
            return Err(LogError::Removed);
        }
        let end = before.saturating_sub(1).min(state.tail);
        let count = usize::try_from(end.saturating_sub(state.floor)).unwrap_or(usize::MAX);
        let count = count.min(state.recent.len());
        let facts = state
            .recent
            .range(..count)
            .rev()
            .take(PULL)
            .cloned()
            .collect();
        Ok((facts, state.floor > 0))
    }

    /// Acknowledged records after `after`, for the thread that files them.
    pub(crate) fn since(&self, after: Seq) -> Vec<Arc<Record>> {
        let state = lock(&self.state);
        let skip = usize::try_from(after.saturating_sub(state.floor)).unwrap_or(usize::MAX);
        state.recent.iter().skip(skip).cloned().collect()
    }

    /// Lets go of records up to `through` that the file has, but for the last `keep_bytes` while
    /// somebody reads.
    pub(crate) fn forget(&self, through: Seq, keep_bytes: u64) {
        let keep = if self.readers.load(Ordering::Relaxed) == 0 {
            0
        } else {
            keep_bytes
        };
        let mut state = lock(&self.state);
        let mut held: u64 = state
            .recent
            .iter()
            .map(|record| record.stored_bytes())
            .sum();
        while held > keep
            && state
                .recent
                .front()
                .is_some_and(|first| first.seq <= through)
        {
            if let Some(first) = state.recent.pop_front() {
                held -= first.stored_bytes();
                state.floor = first.seq;
            }
        }
        if state.recent.is_empty() {
            state.recent.shrink_to_fit();
        }
    }

    /// Whether nothing here would be missed: no record, no progress, no reader.
    pub(crate) fn is_idle(&self) -> bool {
        let state = lock(&self.state);
        state.recent.is_empty()
            && state.board.is_empty()
            && self.readers.load(Ordering::Relaxed) == 0
    }

    /// Resolves at the next move after this call, awaited or not.
    pub(crate) fn moved(&self) -> Notified<'_> {
        self.moved.notified()
    }
}

impl Presence {
    pub(crate) fn new(live: Arc<Live>) -> Presence {
        live.readers.fetch_add(1, Ordering::Relaxed);
        Presence(live)
    }

    pub(crate) fn live(&self) -> &Live {
        &self.0
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.readers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Locks; a panic elsewhere does not spread, for no code panics between two halves of a change.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
