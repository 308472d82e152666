//! Counters of a log: what the metrics page shows and the benches gate.
//!
//! Boundary: counts only; rates and percentiles are the reader's business.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a log has done since it was opened, and what it holds now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Records acknowledged.
    pub appends: u64,
    /// Writes to the journal, each of one batch.
    pub batches: u64,
    /// Syncs of the journal; `appends / syncs` is the gain of group commit.
    pub syncs: u64,
    /// Bytes written to the journal.
    pub journal_bytes: u64,
    /// Bytes copied to the files of streams.
    pub filed_bytes: u64,
    /// Checkpoints completed.
    pub checkpoints: u64,
    /// Streams with state in memory now.
    pub resident_streams: u64,
    /// Bytes acknowledged and not yet in the files of streams.
    pub unfiled_bytes: u64,
}

/// The live form of [`Stats`]; the last two fields are measured on demand.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) appends: AtomicU64,
    pub(crate) batches: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) journal_bytes: AtomicU64,
    pub(crate) filed_bytes: AtomicU64,
    pub(crate) checkpoints: AtomicU64,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, by: u64) {
        counter.fetch_add(by, Ordering::Relaxed);
    }

    pub(crate) fn snapshot(&self, resident_streams: u64, unfiled_bytes: u64) -> Stats {
        Stats {
            appends: self.appends.load(Ordering::Relaxed),
            batches: self.batches.load(Ordering::Relaxed),
            syncs: self.syncs.load(Ordering::Relaxed),
            journal_bytes: self.journal_bytes.load(Ordering::Relaxed),
            filed_bytes: self.filed_bytes.load(Ordering::Relaxed),
            checkpoints: self.checkpoints.load(Ordering::Relaxed),
            resident_streams,
            unfiled_bytes,
        }
    }
}
