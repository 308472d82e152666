//! A stream with state in memory, and the marks that say how far it has come.
//!
//! Invariant: `filed <= acked <= written`, each a prefix of the one after it. There is at most one
//! `Stream` for a key: the map hands out clones, and lets go only of one that nobody holds.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use crate::error::AppendError;
use crate::key::StreamKey;
use crate::live::{Live, lock};
use crate::progress::ProgressTopic;
use crate::record::{NewRecord, Record, Seq, Timestamp};

/// A position between two records of a stream's file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The record before it; 0 at the beginning.
    pub(crate) seq: Seq,
    /// That record's checksum.
    pub(crate) crc: u32,
    /// Bytes of the file up to here.
    pub(crate) bytes: u64,
}

/// A stream with state in memory.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) key: StreamKey,
    pub(crate) live: Arc<Live>,
    /// Read by who puts a blob into the stream's folder, written by who removes the folder.
    pub(crate) folder: RwLock<()>,
    marks: Mutex<Marks>,
    /// Seconds of the engine's clock when somebody last asked for it.
    touched: AtomicU64,
}

#[derive(Debug, Default)]
struct Marks {
    loaded: bool,
    written: Mark,
    acked: Mark,
    filed: Mark,
    queued: bool,
    /// A tombstone is on its way, or durable.
    removed: bool,
}

/// How the removal of a stream begins.
pub(crate) enum Removing {
    /// There is no such stream.
    Nothing,
    /// Somebody else removes it.
    UnderWay,
    /// This is to be written.
    Tombstone(Record),
}

impl Mark {
    /// The position after a record that begins here.
    pub(crate) fn after(self, record: &Record) -> Mark {
        let bytes = self.bytes + record.stored_bytes();
        Mark {
            seq: record.seq,
            crc: record.crc,
            bytes,
        }
    }
}

impl Stream {
    pub(crate) fn new(key: StreamKey) -> Stream {
        Stream {
            key,
            live: Arc::default(),
            folder: RwLock::default(),
            marks: Mutex::default(),
            touched: AtomicU64::new(0),
        }
    }

    pub(crate) fn touch(&self, now: u64) {
        self.touched.store(now, Ordering::Relaxed);
    }

    pub(crate) fn is_loaded(&self) -> bool {
        lock(&self.marks).loaded
    }

    /// Takes over what the disk says, unless somebody was faster.
    pub(crate) fn load(&self, mark: Mark, epoch: u64) {
        let mut marks = lock(&self.marks);
        if !marks.loaded {
            let queued = marks.queued;
            *marks = Marks {
                loaded: true,
                written: mark,
                acked: mark,
                filed: mark,
                queued,
                removed: false,
            };
            self.live.restore(mark.seq, mark.crc, epoch);
        }
    }

    /// Makes the next record, if the fence and the limits let it.
    pub(crate) fn admit(
        &self,
        expected: Seq,
        new: &NewRecord,
        limit: u64,
    ) -> Result<(Arc<Record>, Mark), AppendError> {
        let mut marks = lock(&self.marks);
        if marks.removed {
            return Err(if expected > 0 {
                AppendError::Conflict { tail: 0 }
            } else {
                AppendError::unavailable("the stream of this name is being removed")
            });
        }
        if let Some(corruption) = self.live.corrupt() {
            return Err(corruption.into());
        }
        if marks.written.seq != expected {
            return Err(AppendError::Conflict {
                tail: marks.written.seq,
            });
        }
        let record = Record::encode(&self.key, expected + 1, new, marks.written.crc);
        let mark = marks.written.after(&record);
        if mark.bytes > limit {
            return Err(AppendError::TooLarge {
                size: mark.bytes,
                limit,
            });
        }
        marks.written = mark;
        Ok((Arc::new(record), mark))
    }

    /// Forgets what was admitted and not acknowledged.
    pub(crate) fn roll_back(&self) {
        let mut marks = lock(&self.marks);
        marks.written = marks.acked;
        marks.removed = false;
    }

    /// Makes the tombstone. From here on, nothing is appended.
    pub(crate) fn begin_removal(&self, at: Timestamp) -> Removing {
        let mut marks = lock(&self.marks);
        if marks.removed {
            return Removing::UnderWay;
        }
        if marks.written.seq == 0 && self.live.corrupt().is_none() {
            return Removing::Nothing;
        }
        marks.removed = true;
        let Mark { seq, crc, .. } = marks.written;
        Removing::Tombstone(Record::tombstone(&self.key, seq + 1, at, crc))
    }

    pub(crate) fn is_removed(&self) -> bool {
        lock(&self.marks).removed
    }

    /// Gives up what is not filed, and says how many bytes that was.
    pub(crate) fn abandon(&self) -> u64 {
        let mut marks = lock(&self.marks);
        let unfiled = marks.acked.bytes - marks.filed.bytes;
        marks.filed = marks.acked;
        unfiled
    }

    /// Shows an acknowledged record to readers; says whether the stream is to be queued for filing.
    pub(crate) fn acknowledge(
        &self,
        record: Arc<Record>,
        mark: Mark,
        ends: &[ProgressTopic],
    ) -> bool {
        let queue = {
            let mut marks = lock(&self.marks);
            marks.acked = mark;
            !std::mem::replace(&mut marks.queued, true)
        };
        self.live.commit(record, ends);
        queue
    }

    /// How far the file goes. Also takes the stream out of the queue: what is acknowledged from
    /// here on queues it again.
    pub(crate) fn begin_filing(&self) -> Mark {
        let mut marks = lock(&self.marks);
        marks.queued = false;
        marks.filed
    }

    pub(crate) fn acked(&self) -> Mark {
        lock(&self.marks).acked
    }

    pub(crate) fn filed(&self) -> Mark {
        lock(&self.marks).filed
    }

    pub(crate) fn set_filed(&self, mark: Mark) {
        lock(&self.marks).filed = mark;
    }

    /// Whether the state in memory can go: nothing in it, and not asked for lately.
    pub(crate) fn is_idle(&self, now: u64, patience: u64) -> bool {
        let marks = lock(&self.marks);
        let filed = marks.filed == marks.written && !marks.queued;
        // With nobody reading, nothing is kept for readers.
        self.live.forget(marks.filed.seq, u64::MAX);
        filed
            && now.saturating_sub(self.touched.load(Ordering::Relaxed)) >= patience
            && self.live.is_idle()
    }
}
