//! The second thread's work: acknowledged records go from memory to the file of their stream, many
//! in one write; checkpoints make the files durable and let segments of the journal go.
//!
//! Invariant: a file never runs ahead of the durable journal, so whatever is bad in it above the
//! last checkpoint can be written again from the journal.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::SyncPolicy;
use super::checkpoint::{self, Manifest};
use super::engine::Engine;
use super::queue::Work;
use super::recover::Recovered;
use super::remove::Doomed;
use super::stream::{Mark, Stream};
use crate::disk::{DiskFile, OpenAs, Unkept, append_all, is_as_left};
use crate::key::StreamKey;
use crate::stats::Counters;

/// Files kept open.
const OPEN_FILES: usize = 256;
/// Bytes of records that stay in memory for the readers of a stream after they are filed.
const KEEP_BYTES: u64 = 16 * 1024;

/// What the filing thread knows. One owner.
#[derive(Default)]
pub(crate) struct Filer {
    pub(super) files: HashMap<StreamKey, OpenFile>,
    clock: u64,
    /// Streams whose files were written since the last checkpoint.
    pub(super) dirty: Manifest,
    pub(super) unsynced_dirs: BTreeSet<PathBuf>,
    pub(super) manifest: Manifest,
    /// The first segment that the last checkpoint did not make superfluous.
    pub(super) next_segment: u64,
    /// Segments of earlier processes. They wait for the next occasion: a start has better to do.
    deferred: Vec<u64>,
    /// Segments that the next checkpoint makes superfluous.
    closed: Vec<u64>,
    /// Streams whose tombstone is durable, and still in the journal.
    pub(super) doomed: Vec<Doomed>,
}

pub(super) struct OpenFile {
    file: Arc<dyn DiskFile>,
    used: u64,
}

/// Why a stream was not filed.
pub(super) enum Trouble {
    /// Try again later: the records stay in memory and in the journal.
    Later(String),
    /// The log cannot go on.
    Final(String),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Trouble {
        Trouble::Later(format!("the files of streams cannot be written: {error}"))
    }
}

impl Filer {
    pub(crate) fn new(recovered: Recovered) -> Filer {
        Filer {
            manifest: recovered.manifest,
            dirty: recovered.dirty,
            unsynced_dirs: recovered.unsynced_dirs,
            deferred: recovered.segments,
            next_segment: recovered.next_segment,
            ..Filer::default()
        }
    }
}

impl Engine {
    /// Files what waits, and makes a checkpoint if a segment was closed.
    pub(crate) fn file_pass(&self, filer: &mut Filer) {
        if self.failed().is_some() {
            // After a failed sync, a good one proves nothing: the next start writes anew.
            return;
        }
        let Work {
            streams,
            closed,
            doomed,
        } = self.filing.take();
        filer.doom(doomed);
        if !closed.is_empty() || streams.is_empty() {
            filer.closed.append(&mut filer.deferred);
        }
        filer.closed.extend(closed);
        if !streams.is_empty() && self.options.sync != SyncPolicy::Always {
            let journal = self.journal();
            if journal.is_some_and(|file| self.sync_journal(&*file).is_err()) {
                return;
            }
        }
        let stalled = match self.file_all(filer, streams) {
            Ok(()) => None,
            Err(Trouble::Final(reason)) => return self.fail(reason),
            Err(Trouble::Later(reason)) => Some(reason),
        };
        if let Some(reason) = &stalled {
            tracing::warn!(reason, "filing waits");
            filer.excuse(reason);
        }
        self.filing.report(stalled);
    }

    /// Removes what is to be removed, which may make room; files the streams; and makes a
    /// checkpoint if it lets a segment go.
    fn file_all(&self, filer: &mut Filer, streams: Vec<Arc<Stream>>) -> Result<(), Trouble> {
        let mut stalled = self.erase_doomed(filer).err();
        for stream in streams {
            if stream.is_removed() {
                continue;
            }
            if stalled.is_some() {
                self.filing.push(stream);
                continue;
            }
            if let Err(trouble) = self.file_stream(filer, &stream) {
                stalled = Some(trouble);
                self.filing.push(stream);
            }
        }
        if let Some(trouble) = stalled {
            return Err(trouble);
        }
        if !filer.closed.is_empty() {
            self.checkpoint(filer)?;
            self.finish_doomed(filer);
        }
        Ok(())
    }

    fn file_stream(&self, filer: &mut Filer, stream: &Arc<Stream>) -> Result<(), Trouble> {
        let mut mark = stream.begin_filing();
        let records = stream.live.since(mark.seq);
        if records.is_empty() {
            return Ok(());
        }
        let file = self.open_file(filer, stream, mark)?;
        if !is_as_left(&*file, mark.bytes)? {
            // Recovery sorts it out; going on would let the journal go that it needs.
            return Err(Trouble::Final(format!(
                "the file of {} does not end at byte {}, where it was left: something else writes \
                 to it",
                stream.key, mark.bytes
            )));
        }
        let lines: Vec<&[u8]> = records.iter().map(|record| record.raw()).collect();
        if let Err(error) = append_all(&*file, &lines) {
            return Err(match file.cut(mark.bytes) {
                Ok(()) => error.into(),
                Err(cut) => Trouble::Final(format!(
                    "the file of {} cannot be written: {error}; and cannot be cut back: {cut}",
                    stream.key
                )),
            });
        }
        let before = mark.bytes;
        for record in &records {
            mark = mark.after(record);
        }
        stream.set_filed(mark);
        stream.live.forget(mark.seq, KEEP_BYTES);
        filer.dirty.insert(stream.key.clone(), mark);
        self.unfiled
            .fetch_sub(mark.bytes - before, Ordering::Relaxed);
        Counters::add(&self.counters.filed_bytes, mark.bytes - before);
        Ok(())
    }

    /// The stream's file, open.
    fn open_file(
        &self,
        filer: &mut Filer,
        stream: &Stream,
        mark: Mark,
    ) -> Result<Arc<dyn DiskFile>, Trouble> {
        filer.clock += 1;
        if let Some(open) = filer.files.get_mut(&stream.key) {
            open.used = filer.clock;
            return Ok(open.file.clone());
        }
        let (disk, key) = (&*self.disk, &stream.key);
        if mark.seq == 0 {
            let dir = self.layout.stream(key);
            self.layout.create_dirs(disk, &dir)?;
            filer.unsynced_dirs.extend(self.layout.chain(&dir));
        }
        let file = disk.open(&self.layout.file(key), OpenAs::Append)?;
        if filer.files.len() >= OPEN_FILES {
            filer.close_oldest();
        }
        filer.files.insert(
            key.clone(),
            OpenFile {
                file: file.clone(),
                used: filer.clock,
            },
        );
        Ok(file)
    }

    /// Makes all files durable, says so in the manifest, and lets the closed segments go.
    fn checkpoint(&self, filer: &mut Filer) -> Result<(), Trouble> {
        let last = |what: &str, error: io::Error| Trouble::Final(format!("{what}: {error}"));
        let dirty: Vec<&StreamKey> = filer.dirty.keys().collect();
        for keys in dirty.chunks(OPEN_FILES) {
            let files = keys.iter().map(|key| match filer.files.get(*key) {
                Some(open) => Ok(open.file.clone()),
                None => self.disk.open(&self.layout.file(key), OpenAs::Append),
            });
            let synced = self
                .disk
                .sync_files(&files.collect::<io::Result<Vec<_>>>()?);
            synced.map_err(|error| last("the files of streams cannot be synced", error))?;
        }
        for dir in &filer.unsynced_dirs {
            let synced = self.disk.sync_dir(dir);
            synced.map_err(|error| last("a directory cannot be synced", error))?;
        }
        let mut manifest: Manifest = filer
            .manifest
            .iter()
            .filter(|(key, _)| self.is_resident(key))
            .map(|(key, mark)| (key.clone(), *mark))
            .collect();
        manifest.extend(filer.dirty.iter().map(|(key, mark)| (key.clone(), *mark)));
        filer.next_segment = filer
            .closed
            .iter()
            .map(|n| n + 1)
            .fold(filer.next_segment, u64::max);
        let written = checkpoint::write(&*self.disk, &self.layout, &manifest, filer.next_segment);
        written.map_err(|unkept| match unkept {
            Unkept::Write(error) => error.into(),
            Unkept::Sync(error) => last("the checkpoint cannot be synced", error),
        })?;
        filer.manifest = manifest;
        filer.dirty = BTreeMap::new();
        filer.unsynced_dirs.clear();
        Counters::add(&self.counters.checkpoints, 1);
        // In order, so that what a crash leaves is the journal's newest part.
        filer.closed.sort_unstable();
        let sync = || self.disk.sync_dir(&self.layout.journal());
        let sync =
            || sync().map_err(|error| last("the journal's directory cannot be synced", error));
        while let Some(number) = filer.closed.first() {
            if filer.doomed.iter().any(|doomed| doomed.segment == *number) {
                // A tombstone goes after the last record that it buries.
                sync()?;
            }
            self.disk.remove(&self.layout.segment(*number))?;
            filer.closed.remove(0);
        }
        sync()
    }
}

impl Filer {
    fn close_oldest(&mut self) {
        let mut used: Vec<u64> = self.files.values().map(|open| open.used).collect();
        used.sort_unstable();
        let middle = used[used.len() / 2];
        self.files.retain(|_, open| open.used > middle);
    }
}
