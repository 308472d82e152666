//! The journal: one writer, one write and one sync a batch, for all streams. Its sync is the
//! acknowledgement.
//!
//! Two empty lines in a segment, a barrier, say: what stands before was durable when this was
//! written. A writer puts one at the beginning of each batch after a sync, so that recovery can
//! tell a batch that was torn (bad bytes with no barrier and good record after them) from rot in
//! one that was acknowledged. Invariant: a batch is acknowledged as a whole after its sync, or not
//! at all.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::oneshot;

use super::SyncPolicy;
use super::engine::Engine;
use super::path::Layout;
use super::queue::Pending;
use super::segment::BARRIER;
use super::stream::{Mark, Stream};
use crate::disk::{Disk, DiskFile, OpenAs, Unkept, append_all, is_as_left};
use crate::error::AppendError;
use crate::fate::Stage;
use crate::record::{NewRecord, Record, Seq};
use crate::stats::Counters;

/// Unfiled bytes at which the filing thread no longer waits for more.
const UNFILED_SOFT: u64 = 8 * 1024 * 1024;
/// Unfiled bytes at which appends wait for the filing thread.
const UNFILED_HARD: u64 = 64 * 1024 * 1024;

/// The journal's last segment. One owner: the writer's thread.
pub(crate) struct Writer {
    segment: Segment,
    size: u64,
    barrier_due: bool,
    /// Go on in a new segment, whatever the size.
    pub(super) rotation_due: bool,
}

/// A segment that takes records.
#[derive(Clone)]
pub(crate) struct Segment {
    pub(crate) number: u64,
    pub(crate) file: Arc<dyn DiskFile>,
}

struct Admitted {
    stream: Arc<Stream>,
    record: Arc<Record>,
    mark: Mark,
    new: NewRecord,
    done: oneshot::Sender<Result<Seq, AppendError>>,
}

impl Segment {
    /// Makes a segment, durable by name.
    pub(crate) fn create(disk: &dyn Disk, layout: &Layout, number: u64) -> Result<Segment, Unkept> {
        let file = disk.open(&layout.segment(number), OpenAs::Fresh);
        let file = file.map_err(Unkept::Write)?;
        disk.sync_dir(&layout.journal()).map_err(Unkept::Sync)?;
        Ok(Segment { number, file })
    }
}

impl Writer {
    pub(crate) fn new(segment: Segment) -> Writer {
        Writer {
            segment,
            size: 0,
            barrier_due: true,
            rotation_due: false,
        }
    }

    pub(crate) fn segment(&self) -> &Segment {
        &self.segment
    }
}

impl Engine {
    /// Blocks while too much is acknowledged and not filed.
    pub(crate) fn wait_for_room(&self) {
        self.filing.wait_for_room(|| {
            self.unfiled.load(Ordering::Relaxed) > UNFILED_HARD && self.failed().is_none()
        });
    }

    /// Writes one batch and answers each append of it.
    pub(crate) fn write_batch(&self, writer: &mut Writer, batch: Vec<Pending>) {
        let refusal = self.refusal();
        let mut admitted = Vec::with_capacity(batch.len());
        for Pending {
            stream,
            expected,
            record,
            done,
        } in batch
        {
            let made = match &refusal {
                Some(refusal) => Err(refusal.clone()),
                None => record
                    .may_follow()
                    .and_then(|()| stream.admit(expected, &record, self.options.session_bytes)),
            };
            match made {
                Ok((made, mark)) => {
                    record.set_stage(Stage::Taken);
                    admitted.push(Admitted {
                        stream,
                        record: made,
                        mark,
                        new: record,
                        done,
                    });
                }
                // A caller that has gone away needs no answer, here and below.
                Err(error) => drop(done.send(Err(error))),
            }
        }
        if admitted.is_empty() {
            return;
        }
        let lines = admitted.iter().map(|one| one.record.raw());
        let sync = self.options.sync == SyncPolicy::Always;
        match self.persist(writer, lines, sync) {
            Ok(bytes) => self.acknowledge(admitted, bytes),
            Err(error) => {
                for Admitted {
                    stream, new, done, ..
                } in admitted
                {
                    stream.roll_back();
                    new.set_stage(Stage::Refused);
                    drop(done.send(Err(error.clone())));
                }
            }
        }
        self.rotate_if_due(writer);
    }

    fn refusal(&self) -> Option<AppendError> {
        if let Some(failure) = self.failed() {
            return Some(AppendError::unavailable(failure.to_string()));
        }
        if self.unfiled.load(Ordering::Relaxed) <= UNFILED_HARD {
            return None;
        }
        self.filing.stalled().map(AppendError::unavailable)
    }

    /// One write and, if asked for, one sync. On an error of the write the segment is cut back to
    /// where it was.
    pub(super) fn persist<'a>(
        &self,
        writer: &mut Writer,
        lines: impl ExactSizeIterator<Item = &'a [u8]>,
        sync: bool,
    ) -> Result<u64, AppendError> {
        let mut parts = Vec::with_capacity(lines.len() + 1);
        if writer.barrier_due {
            parts.push(BARRIER);
        }
        parts.extend(lines);
        let bytes: u64 = parts.iter().map(|part| part.len() as u64).sum();
        let file = &*writer.segment.file;
        match is_as_left(file, writer.size) {
            Ok(true) => {}
            Ok(false) => {
                let reason = format!(
                    "the journal does not end at byte {}, where it was left: something else \
                     writes to it",
                    writer.size
                );
                self.fail(reason.clone());
                return Err(AppendError::unavailable(reason));
            }
            Err(error) => {
                let reason = format!("the journal cannot be read: {error}");
                return Err(AppendError::unavailable(reason));
            }
        }
        if let Err(error) = append_all(file, &parts) {
            let reason = format!("the journal cannot be written: {error}");
            if let Err(cut) = file.cut(writer.size) {
                self.fail(format!("{reason}; and cannot be cut back: {cut}"));
                return Err(AppendError::ambiguous(reason));
            }
            return Err(AppendError::unavailable(reason));
        }
        writer.size += bytes;
        writer.barrier_due = false;
        Counters::add(&self.counters.batches, 1);
        Counters::add(&self.counters.journal_bytes, bytes);
        if sync {
            self.sync_journal(file).map_err(AppendError::ambiguous)?;
            writer.barrier_due = true;
        }
        Ok(bytes)
    }

    /// A failed sync is final: what it left unwritten counts as clean from then on.
    pub(crate) fn sync_journal(&self, file: &dyn DiskFile) -> Result<(), String> {
        Counters::add(&self.counters.syncs, 1);
        file.sync().map_err(|error| {
            let reason = format!("the journal cannot be synced: {error}");
            self.fail(reason.clone());
            reason
        })
    }

    fn acknowledge(&self, admitted: Vec<Admitted>, bytes: u64) {
        Counters::add(&self.counters.appends, admitted.len() as u64);
        let unfiled = self.unfiled.fetch_add(
            admitted.iter().map(|one| one.record.stored_bytes()).sum(),
            Ordering::Relaxed,
        );
        for Admitted {
            stream,
            record,
            mark,
            new,
            done,
        } in admitted
        {
            let seq = record.seq;
            let to_be_filed = stream.acknowledge(record, mark, &new.ends);
            self.bell.appended(&stream.key, seq);
            if to_be_filed {
                self.filing.push(stream);
            }
            drop(done.send(Ok(seq)));
        }
        if unfiled + bytes > UNFILED_SOFT {
            self.filing.urge();
        }
    }

    pub(super) fn rotate_if_due(&self, writer: &mut Writer) {
        let due = writer.rotation_due || writer.size >= self.options.segment_bytes;
        if due && self.failed().is_none() {
            self.rotate(writer);
        }
    }

    /// Goes on in a new segment. Without room for one, the old one goes on.
    fn rotate(&self, writer: &mut Writer) {
        // Only the last segment may be torn.
        let durable = self.options.sync == SyncPolicy::Always
            || self.sync_journal(&*writer.segment.file).is_ok();
        if !durable {
            return;
        }
        match Segment::create(&*self.disk, &self.layout, writer.segment.number + 1) {
            Ok(segment) => {
                let closed = writer.segment.number;
                *writer = Writer::new(segment);
                self.set_journal(writer.segment.file.clone());
                self.filing.push_segment(closed);
            }
            Err(Unkept::Write(error)) => {
                tracing::warn!(%error, "no new journal segment can be made");
            }
            Err(Unkept::Sync(error)) => {
                self.fail(format!("the journal's directory cannot be synced: {error}"));
            }
        }
    }
}
