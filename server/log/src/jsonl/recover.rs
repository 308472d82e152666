//! Recovery: what the journal and the files of streams say after any end, made one again.
//!
//! Every start takes this path. The journal is read, and its last segment made durable; each stream
//! that it names, or that the last checkpoint names, gets its file written again above the last
//! checkpoint. With nothing damaged, the journal stays until the next checkpoint; else the files
//! are synced, with a note of what was found, and a checkpoint is made at once, and the segments go.
//! Nothing that may be good is ever cut: bytes that are not are set aside, and where acknowledged
//! records are missing the stream is condemned, its journal kept in quarantine. Invariant:
//! interrupted at any point, recovery run again ends the same way.

mod notes;
mod refile;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::checkpoint::{self, Found, Manifest};
use super::damage;
use super::path::Layout;
use super::remove;
use super::segment::{self, Traces};
use super::session_file;
use super::{OpenError, RecoveryReport, Remains, SetAside};
use crate::disk::{Disk, OpenAs, append_all, read_file, replace_file};
use crate::error::Corruption;
use crate::key::StreamKey;
use crate::record::{Record, Seq};

/// Files that are synced at once: each is an open descriptor.
const AT_ONCE: usize = 128;

/// Segments that are left for the next checkpoint. With more, as after many starts that did not get
/// that far, the checkpoint is made at once: each start would read all of them again.
const MANY_SEGMENTS: usize = 8;

/// What recovery hands to the log that opens.
pub(crate) struct Recovered {
    pub(crate) report: RecoveryReport,
    /// As it is on disk.
    pub(crate) manifest: Manifest,
    /// Streams whose files have been written since.
    pub(crate) dirty: Manifest,
    pub(crate) unsynced_dirs: BTreeSet<PathBuf>,
    /// Segments that a checkpoint will let go.
    pub(crate) segments: Vec<u64>,
    pub(crate) next_segment: u64,
}

struct Recovery<'a> {
    disk: &'a dyn Disk,
    layout: &'a Layout,
    report: RecoveryReport,
    before: Manifest,
    next_segment: u64,
    replay: BTreeMap<StreamKey, Vec<Record>>,
    /// Damaged stretches of the journal.
    rot: Vec<Rot>,
    /// Where each stream stands now.
    marks: Manifest,
    condemned: BTreeMap<StreamKey, Corruption>,
    /// `prev` of records that only the file still had.
    healed: HashSet<u32>,
    /// Streams whose files were written, and are not synced yet.
    touched: BTreeSet<StreamKey>,
    last_segment: Option<(PathBuf, Bytes)>,
    unsynced_dirs: BTreeSet<PathBuf>,
    /// Streams that the journal says are removed.
    removed: BTreeSet<StreamKey>,
    /// Segments that say so.
    tombstones: BTreeSet<u64>,
}

struct Rot {
    segment: PathBuf,
    offset: u64,
    bytes: Bytes,
}

/// Brings the data directory in order. With `settle`, nothing is left in the journal.
pub(crate) fn recover(
    disk: &dyn Disk,
    layout: &Layout,
    accept_damage: bool,
    settle: bool,
) -> Result<Recovered, OpenError> {
    let mut recovery = Recovery {
        disk,
        layout,
        report: RecoveryReport::default(),
        before: Manifest::new(),
        next_segment: 1,
        replay: BTreeMap::new(),
        rot: Vec::new(),
        marks: Manifest::new(),
        condemned: BTreeMap::new(),
        healed: HashSet::new(),
        touched: BTreeSet::new(),
        last_segment: None,
        unsynced_dirs: BTreeSet::new(),
        removed: BTreeSet::new(),
        tombstones: BTreeSet::new(),
    };
    let failed = |error| OpenError::io(layout.root(), error);
    recovery.read_manifest()?;
    let segments = layout.segments(disk).map_err(failed)?;
    let after_last = segments.last().map_or(1, |last| last + 1);
    recovery.next_segment = recovery.next_segment.max(after_last);
    for (number, place) in segments.iter().zip(1..) {
        recovery.read_segment(*number, place == segments.len())?;
    }
    recovery.keep_journal().map_err(failed)?;
    for key in &recovery.removed {
        remove::erase(disk, layout, key).map_err(|unkept| failed(unkept.into()))?;
    }
    let replay = std::mem::take(&mut recovery.replay);
    let named: BTreeSet<StreamKey> = replay
        .keys()
        .chain(recovery.before.keys())
        .cloned()
        .collect();
    for key in named {
        let records = replay.get(&key).map_or(&[][..], Vec::as_slice);
        recovery.refile(&key, records).map_err(failed)?;
    }
    recovery.attribute(accept_damage)?;
    if recovery.has_found() {
        recovery.open_notes().map_err(failed)?;
    }
    recovery.report.corrupt = recovery.condemned.values().cloned().collect();
    recovery.report.streams = recovery.marks.len() + recovery.condemned.len();
    // A tombstone must not be read twice: its stream's name may be in use again by then.
    let settle = settle || !recovery.tombstones.is_empty() || segments.len() > MANY_SEGMENTS;
    if recovery.report.is_clean() && !segments.is_empty() && !settle {
        recovery.report.owed = notes::owed(disk, layout).map_err(failed)?;
        return Ok(recovery.into_unsettled(segments));
    }
    recovery.settle(&segments).map_err(failed)?;
    recovery.report.owed = notes::owed(disk, layout).map_err(failed)?;
    Ok(Recovered {
        report: recovery.report,
        manifest: recovery.marks,
        dirty: Manifest::new(),
        unsynced_dirs: BTreeSet::new(),
        segments: Vec::new(),
        next_segment: recovery.next_segment,
    })
}

/// Makes the data directory and what it always holds, durable by name.
pub(crate) fn make_root(disk: &dyn Disk, layout: &Layout) -> io::Result<()> {
    let root = layout.root();
    let above = root.ancestors().filter(|at| !at.as_os_str().is_empty());
    for dir in above.collect::<Vec<_>>().into_iter().rev() {
        let new = !disk.exists(dir)? && disk.create_dir(dir)?;
        let parent = match dir.parent() {
            Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
            Some(parent) => parent,
            None => continue,
        };
        // One that is there already, too: who has made it may have died before the sync.
        match disk.sync_dir(parent) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && !new => {}
            synced => synced?,
        }
    }
    disk.create_dir(&layout.journal())?;
    disk.sync_dir(root)
}

impl Recovery<'_> {
    fn read_manifest(&mut self) -> Result<(), OpenError> {
        let path = self.layout.checkpoint();
        match checkpoint::read(self.disk, self.layout) {
            Ok(Found::Missing) => {}
            Ok(Found::Good(manifest, next_segment)) => {
                self.before = manifest;
                self.next_segment = next_segment.max(1);
            }
            Ok(Found::Newer(found)) => return Err(OpenError::NewerVersion { path, found }),
            // The journal alone says enough, but for the loss of what it no longer has.
            Ok(Found::Damaged) => self.report.manifest_damaged = true,
            Err(error) => return Err(OpenError::io(&path, error)),
        }
        Ok(())
    }

    fn read_segment(&mut self, number: u64, is_last: bool) -> Result<(), OpenError> {
        let path = self.layout.segment(number);
        let failed = |error| OpenError::io(&path, error);
        let bytes = read_file(self.disk, &path).map_err(failed)?;
        let scan = segment::scan(&bytes, is_last).map_err(|found| OpenError::NewerVersion {
            path: path.clone(),
            found,
        })?;
        self.report.segments += 1;
        self.report.records += scan.records.len() as u64;
        for record in scan.records {
            if record.is_tombstone() {
                self.bury(&record.key);
                self.tombstones.insert(number);
                continue;
            }
            self.replay
                .entry(record.key.clone())
                .or_default()
                .push(record);
        }
        if let Some(from) = scan.torn_from {
            let name = format!("segment-{number:010}-at-{from}.torn");
            let torn = bytes.slice(from..);
            let torn = (Remains::Torn, &torn);
            let set_aside = self.set_aside(&name, path.clone(), from as u64, torn, None);
            set_aside.map_err(failed)?;
        }
        let rot = scan.bad.into_iter().map(|range| Rot {
            segment: path.clone(),
            offset: range.start as u64,
            bytes: bytes.slice(range),
        });
        self.rot.extend(rot);
        if is_last {
            self.last_segment = Some((path, bytes));
        }
        Ok(())
    }

    /// Forgets all that stands before a tombstone.
    fn bury(&mut self, key: &StreamKey) {
        // The damage that these explain is a gone stream's.
        let filed = self.before.remove(key).map(|mark| mark.crc);
        let replayed = self.replay.remove(key).unwrap_or_default();
        let replayed = replayed.iter().map(|record| record.crc);
        self.healed.extend(replayed.chain(filed));
        self.removed.insert(key.clone());
    }

    /// Keeps bytes in quarantine under a name that a repeated recovery gives again.
    fn set_aside(
        &mut self,
        name: &str,
        from: PathBuf,
        offset: u64,
        (remains, bytes): (Remains, &Bytes),
        owner: Option<&StreamKey>,
    ) -> io::Result<()> {
        let dir = self.layout.quarantine();
        self.disk.create_dir(&dir)?;
        self.disk.sync_dir(self.layout.root())?;
        let path = dir.join(name);
        let file = self.disk.open(&path, OpenAs::Fresh)?;
        append_all(&*file, &[bytes])?;
        file.sync()?;
        self.disk.sync_dir(&dir)?;
        let size = bytes.len() as u64;
        self.report.set_aside.push(SetAside {
            remains,
            from,
            offset,
            bytes: size,
            kept_in: path,
            streams: match owner {
                Some(owner) => vec![(owner.clone(), size)],
                None => segment::owners(bytes),
            },
        });
        Ok(())
    }

    /// Whether there is something that a person should know of.
    fn has_found(&self) -> bool {
        !self.report.is_clean() || !self.condemned.is_empty()
    }

    fn condemn(&mut self, key: &StreamKey, good_through: Seq, reason: String) {
        self.marks.remove(key);
        if let Some(known) = self.condemned.get_mut(key) {
            if !known.reason.contains(&reason) {
                known.reason = format!("{}; {reason}", known.reason);
            }
            return;
        }
        let corruption = Corruption {
            stream: key.clone(),
            good_through,
            reason,
        };
        self.condemned.insert(key.clone(), corruption);
    }

    /// Says whose the records in the damaged stretches were. A damaged stretch that is nobody's may
    /// have held the last record of any stream, so the log does not open on it unasked.
    fn attribute(&mut self, accept_damage: bool) -> Result<(), OpenError> {
        for Rot {
            segment,
            offset,
            bytes,
        } in std::mem::take(&mut self.rot)
        {
            let traces = segment::traces(&bytes);
            let place = format!(
                "{} bytes are damaged in {} at byte {offset}",
                bytes.len(),
                segment.display()
            );
            let failed = |error| OpenError::io(&segment, error);
            let owned = bytes.len() <= segment::BARRIER.len()
                || self.owned_by_prev(&traces, &place)
                || self.owned_by_head(&traces, &place).map_err(failed)?;
            let size = bytes.len() as u64;
            if !owned && !accept_damage {
                return Err(OpenError::Damaged {
                    dir: self.layout.root().into(),
                    path: segment,
                    offset,
                    bytes: size,
                });
            }
            let number = segment
                .file_stem()
                .map(|stem| stem.to_string_lossy().into_owned());
            let name = format!("segment-{}-at-{offset}.damaged", number.unwrap_or_default());
            let remains = if owned {
                Remains::Rotten
            } else {
                Remains::Nobodys
            };
            self.set_aside(&name, segment.clone(), offset, (remains, &bytes), None)
                .map_err(failed)?;
        }
        Ok(())
    }

    /// By the checksum of the record before: whose chain ends there?
    fn owned_by_prev(&mut self, traces: &Traces, place: &str) -> bool {
        let mut owned = !traces.prevs.is_empty();
        for prev in &traces.prevs {
            let ends_here = |found: &(&StreamKey, &super::stream::Mark)| found.1.crc == *prev;
            let owner = self
                .marks
                .iter()
                .find(ends_here)
                .map(|(key, mark)| (key.clone(), mark.seq));
            match owner {
                Some((key, seq)) => self.condemn(&key, seq, place.into()),
                _ if self.healed.contains(prev) => {}
                _ => match self.gap_after(*prev) {
                    Some((key, seq)) => self.condemn(&key, seq, place.into()),
                    None => owned = false,
                },
            }
        }
        owned
    }

    /// The condemned stream that is known to miss the record after the one with this checksum.
    fn gap_after(&self, prev: u32) -> Option<(StreamKey, Seq)> {
        let misses_it = |corruption: &&Corruption| {
            if corruption.good_through == 0 {
                return prev == 0;
            }
            let key = &corruption.stream;
            let end = session_file::load(self.disk, &self.layout.file(key), key);
            prev != 0 && end.is_ok_and(|(mark, _, _)| mark.crc == prev)
        };
        let found = self.condemned.values().find(misses_it)?;
        Some((found.stream.clone(), found.good_through))
    }

    /// By the stream and seq that it begins with: a record that the stream ought to have.
    fn owned_by_head(&mut self, traces: &Traces, place: &str) -> io::Result<bool> {
        let mut owned = !traces.heads.is_empty();
        for (name, seq) in &traces.heads {
            let Ok(key) = StreamKey::parse(name) else {
                owned = false;
                continue;
            };
            if self.removed.contains(&key) {
                continue;
            }
            let condemned = self.condemned.get(&key);
            let tail = match (condemned, self.marks.get(&key)) {
                (Some(corruption), _) => corruption.good_through,
                (None, Some(mark)) => mark.seq,
                (None, None) => {
                    let path = self.layout.file(&key);
                    session_file::load(self.disk, &path, &key)?.0.seq
                }
            };
            // The first record of a stream has nothing before it that would name it.
            let known = condemned.is_some() || tail > 0 || *seq == 1;
            if known && *seq > tail {
                self.condemn(&key, tail, place.into());
            } else {
                owned = false;
            }
        }
        Ok(owned)
    }

    /// Makes the last segment durable, before anything is done on its word: a failed sync may have
    /// left there what reads as good and is not on the disk, and what is written or removed for it
    /// must not outlive it. Written anew, for another sync of the same bytes would prove nothing.
    fn keep_journal(&mut self) -> io::Result<()> {
        if let Some((path, bytes)) = self.last_segment.take() {
            replace_file(self.disk, &path, &bytes)?;
        }
        Ok(())
    }

    fn into_unsettled(self, segments: Vec<u64>) -> Recovered {
        let written = |key: &StreamKey| self.touched.contains(key);
        Recovered {
            report: self.report,
            dirty: self
                .marks
                .into_iter()
                .filter(|(key, _)| written(key))
                .collect(),
            manifest: self.before,
            unsynced_dirs: self.unsynced_dirs,
            segments,
            next_segment: self.next_segment,
        }
    }

    fn sync_touched(&self) -> io::Result<()> {
        let touched: Vec<&StreamKey> = self.touched.iter().collect();
        touched.chunks(AT_ONCE).try_for_each(|keys| {
            let open = |key: &&StreamKey| self.disk.open(&self.layout.file(key), OpenAs::Append);
            let files: Vec<_> = keys.iter().map(open).collect::<io::Result<_>>()?;
            self.disk.sync_files(&files)
        })
    }

    /// After damage: makes everything durable at once, in the order that lets a crash between any
    /// two steps repeat all of it.
    fn settle(&mut self, segments: &[u64]) -> io::Result<()> {
        self.note()?;
        self.sync_touched()?;
        for corruption in self.condemned.values() {
            let dir = self.layout.stream(&corruption.stream);
            self.layout.create_dirs(self.disk, &dir)?;
            self.unsynced_dirs.extend(self.layout.chain(&dir));
            damage::write(self.disk, self.layout, corruption)?;
        }
        for dir in &self.unsynced_dirs {
            self.disk.sync_dir(dir)?;
        }
        checkpoint::write(self.disk, self.layout, &self.marks, self.next_segment)?;
        // A journal that has damage in it is evidence.
        let keep = !self.condemned.is_empty() && !segments.is_empty();
        if keep {
            self.disk.create_dir(&self.layout.quarantine())?;
            self.disk.sync_dir(self.layout.root())?;
        }
        for number in segments {
            let path = self.layout.segment(*number);
            if self.tombstones.contains(number) {
                // A tombstone goes after the last record that it buries.
                self.disk.sync_dir(&self.layout.journal())?;
            }
            if keep {
                let name = format!("segment-{number:010}.jsonl");
                self.disk
                    .rename(&path, &self.layout.quarantine().join(name))?;
            } else {
                self.disk.remove(&path)?;
            }
        }
        if keep {
            self.disk.sync_dir(&self.layout.quarantine())?;
        }
        self.disk.sync_dir(&self.layout.journal())?;
        Ok(())
    }
}
