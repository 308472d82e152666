//! Removing a stream: a tombstone in the journal, the folder, a checkpoint; then its name is free.
//!
//! The tombstone is durable first: from there on every start removes what is left of the stream,
//! so that the folder may go file by file. The segment with the tombstone goes last, after every
//! segment before it: no record outlives the tombstone that buries it. Invariant: nothing is
//! written under the stream's name before that, so that a tombstone never meets another stream of
//! the same name.

use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::SystemTime;

use tokio::sync::oneshot;

use super::engine::Engine;
use super::filer::{Filer, Trouble};
use super::journal::Writer;
use super::path::Layout;
use super::stream::{Removing, Stream};
use crate::disk::{Disk, Unkept};
use crate::error::LogError;
use crate::key::StreamKey;
use crate::record::Record;

/// Who waits for a removal.
type Asker = oneshot::Sender<Result<bool, LogError>>;

/// A removal on its way.
pub(crate) struct Removal {
    pub(crate) stream: Arc<Stream>,
    pub(crate) done: Asker,
}

/// A stream whose tombstone is durable.
pub(crate) struct Doomed {
    stream: Arc<Stream>,
    /// The segment with the tombstone, or a later one.
    pub(super) segment: u64,
    erased: bool,
    /// Who is told when its name is free.
    askers: Vec<Asker>,
}

impl Engine {
    /// The writer's part: makes tombstones durable, whatever the sync policy, and closes their
    /// segment, so that the next checkpoint lets it go.
    pub(crate) fn write_tombstones(&self, writer: &mut Writer, removals: Vec<Removal>) {
        if removals.is_empty() {
            return;
        }
        let mut tombstones: Vec<Record> = Vec::new();
        let (mut new, mut known) = (Vec::new(), Vec::new());
        let at = SystemTime::now().into();
        for Removal { stream, done } in removals {
            match stream.begin_removal(at) {
                // A caller that has gone away needs no answer, here and below.
                Removing::Nothing => drop(done.send(Ok(false))),
                Removing::UnderWay => known.push((stream, done)),
                Removing::Tombstone(tombstone) => {
                    tombstones.push(tombstone);
                    new.push((stream, done));
                }
            }
        }
        let written = match self.failed() {
            Some(failure) => Err(failure.to_string()),
            None if tombstones.is_empty() => Ok(0),
            None => {
                let lines = tombstones.iter().map(Record::raw);
                let persisted = self.persist(writer, lines, true);
                persisted.map_err(|error| error.to_string())
            }
        };
        if let Err(reason) = written {
            new.iter().for_each(|(stream, _)| stream.roll_back());
            for (_, done) in new.into_iter().chain(known) {
                drop(done.send(Err(LogError::unavailable(reason.clone()))));
            }
            return;
        }
        for (stream, _) in &new {
            stream.live.remove();
            self.bell.removed(&stream.key);
        }
        let segment = writer.segment().number;
        let doom = |erased| {
            move |(stream, done)| Doomed {
                stream,
                segment,
                erased,
                askers: vec![done],
            }
        };
        // One that is known may be over by now, and its name in use: nothing more is erased for it.
        let doomed = new.into_iter().map(doom(false));
        let doomed = doomed.chain(known.into_iter().map(doom(true)));
        // Before the segment is closed: a checkpoint must know of them.
        self.filing.push_doomed(doomed);
        writer.rotation_due = true;
        self.rotate_if_due(writer);
    }

    /// The filing thread's part: the folders go, durably.
    pub(super) fn erase_doomed(&self, filer: &mut Filer) -> Result<(), Trouble> {
        for doomed in filer.doomed.iter_mut().filter(|doomed| !doomed.erased) {
            let (stream, key) = (&doomed.stream, &doomed.stream.key);
            filer.files.remove(key);
            filer.dirty.remove(key);
            filer.manifest.remove(key);
            let folder = self.layout.stream(key);
            filer.unsynced_dirs.retain(|dir| !dir.starts_with(&folder));
            {
                let _nobody_adds = stream
                    .folder
                    .write()
                    .unwrap_or_else(PoisonError::into_inner);
                let erased = erase(&*self.disk, &self.layout, key);
                erased.map_err(|unkept| match unkept {
                    Unkept::Write(error) => {
                        Trouble::Later(format!("the folder of {key} cannot be removed: {error}"))
                    }
                    Unkept::Sync(error) => Trouble::Final(format!(
                        "the removal of the folder of {key} cannot be synced: {error}"
                    )),
                })?;
            }
            self.unfiled.fetch_sub(stream.abandon(), Ordering::Relaxed);
            doomed.erased = true;
        }
        Ok(())
    }

    /// After a checkpoint: the names of streams whose tombstones are gone are free.
    pub(super) fn finish_doomed(&self, filer: &mut Filer) {
        let next_segment = filer.next_segment;
        let gone = |doomed: &mut Doomed| doomed.segment < next_segment;
        for doomed in filer.doomed.extract_if(.., gone) {
            self.forget(&doomed.stream);
            for done in doomed.askers {
                drop(done.send(Ok(true)));
            }
        }
    }
}

impl Filer {
    /// Takes over what the writer has buried.
    pub(super) fn doom(&mut self, doomed: Vec<Doomed>) {
        for one in doomed {
            let known = self
                .doomed
                .iter_mut()
                .find(|known| Arc::ptr_eq(&known.stream, &one.stream));
            match known {
                Some(known) => known.askers.extend(one.askers),
                None => self.doomed.push(one),
            }
        }
    }

    /// Lets those who wait for a removal go, while the removal itself goes on.
    pub(super) fn excuse(&mut self, reason: &str) {
        for done in self
            .doomed
            .iter_mut()
            .flat_map(|doomed| doomed.askers.drain(..))
        {
            let reason = format!("the removal is not over: {reason}");
            drop(done.send(Err(LogError::unavailable(reason))));
        }
    }
}

/// Removes the folder of a stream, durably, and what was set aside of it alone; one that is gone
/// already, too, for whoever removed it may have died before the sync. Pieces of the journal that are in
/// quarantine are of many streams, and stay.
pub(super) fn erase(disk: &dyn Disk, layout: &Layout, key: &StreamKey) -> Result<(), Unkept> {
    remove_tree(disk, &layout.stream(key)).map_err(Unkept::Write)?;
    let above = layout.kind(key.namespace(), key.kind());
    if disk.exists(&above).map_err(Unkept::Write)? {
        disk.sync_dir(&above).map_err(Unkept::Sync)?;
    }
    erase_aside(disk, layout, key)
}

fn erase_aside(disk: &dyn Disk, layout: &Layout, key: &StreamKey) -> Result<(), Unkept> {
    let dir = layout.quarantine();
    let aside = disk.list(&dir).map_err(Unkept::Write)?;
    let mut own = aside
        .iter()
        .filter(|entry| !entry.is_dir && layout.is_aside_of(&entry.name, key))
        .peekable();
    if own.peek().is_none() {
        return Ok(());
    }
    for entry in own {
        disk.remove(&dir.join(&entry.name)).map_err(Unkept::Write)?;
    }
    disk.sync_dir(&dir).map_err(Unkept::Sync)
}

fn remove_tree(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    if !disk.exists(dir)? {
        return Ok(());
    }
    for entry in disk.list(dir)? {
        let path = dir.join(&entry.name);
        if entry.is_dir {
            remove_tree(disk, &path)?;
        } else {
            disk.remove(&path)?;
        }
    }
    disk.remove_dir(dir)
}
