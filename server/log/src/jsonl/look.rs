//! A look at a data directory that changes nothing there, whether a server runs in it or none does.
//!
//! It is a start like any other, over an overlay: what recovery would write stays in memory, so a
//! reader sees what the next start would, with what stands only in the journal. A directory in use
//! moves under the look; what is seen only once is motion, not damage. Invariant: nothing is
//! written, and no lock is taken.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::engine::Engine;
use super::path::Layout;
use super::report::{OpenError, RecoveryReport};
use super::threads::Parts;
use super::verify::Verdict;
use super::{JsonlLog, JsonlOptions};
use crate::disk::{Disk, OpenAs, RealDisk};
use crate::key::StreamKey;

/// Why such a log takes no changes.
pub(super) const READ_ONLY: &str = "it is open for reading only";

/// How often a directory that moves is looked at.
const LOOKS: usize = 5;
/// Time between two looks: more than one write takes.
const PAUSE: Duration = Duration::from_millis(20);

/// What a log that is open for reading only knows of the directory.
#[derive(Clone)]
pub(super) struct Looking {
    below: Arc<dyn Disk>,
    report: RecoveryReport,
}

impl JsonlLog {
    /// Opens the log of a directory for reading only: nothing is changed and no lock is needed, so
    /// a server may run there. Shows what the directory holds now, with the records that stand only
    /// in the journal; streams that grow later may or may not show it. The report says what a start
    /// would do. Blocks; holds the journal's records in memory.
    ///
    /// # Errors
    /// [`OpenError::Io`], as `NotFound` if there is no log in the directory;
    /// [`OpenError::NewerVersion`].
    pub fn open_read_only(dir: &Path) -> Result<(Arc<JsonlLog>, RecoveryReport), OpenError> {
        JsonlLog::open_read_only_on(Arc::new(RealDisk), dir)
    }

    /// As [`JsonlLog::open_read_only`], on any disk.
    ///
    /// # Errors
    /// As [`JsonlLog::open_read_only`].
    pub fn open_read_only_on(
        disk: Arc<dyn Disk>,
        dir: &Path,
    ) -> Result<(Arc<JsonlLog>, RecoveryReport), OpenError> {
        let (parts, report) = steady(&disk, dir)?;
        let (engine, held, _) = parts.start()?;
        let looking = Looking {
            below: disk,
            report: report.clone(),
        };
        let log = JsonlLog {
            engine,
            held: Arc::new(Mutex::new(held)),
            looking: Some(looking),
        };
        Ok((Arc::new(log), report))
    }
}

/// Which process serves the log of a directory now: `None` if none does; the process is `None` where
/// the directory does not name it. Changes nothing, but a process that starts there in the very same
/// instant may be refused.
///
/// # Errors
/// As the disk says.
pub fn held_by(dir: &Path) -> io::Result<Option<Option<u32>>> {
    crate::disk::held_by(&Layout::new(dir.into()).lock())
}

impl Looking {
    pub(super) fn verify(&self, engine: &Engine, key: &StreamKey) -> io::Result<Verdict> {
        let on_disk = match self.below.open(&engine.layout.file(key), OpenAs::Read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            file => file?.size()?,
        };
        let mut verdict = engine.verify(key, Some(on_disk))?;
        let torn = self.report.torn();
        let torn = torn.filter(|aside| aside.streams.iter().any(|(owner, _)| owner == key));
        verdict.torn = torn.cloned().collect();
        Ok(verdict)
    }
}

/// Looks until two looks say the same, or nothing is wrong.
fn steady(disk: &Arc<dyn Disk>, dir: &Path) -> Result<(Parts, RecoveryReport), OpenError> {
    let journal = Layout::new(PathBuf::from(dir)).journal();
    if !disk.exists(&journal).unwrap_or(false) {
        let missing = io::Error::new(io::ErrorKind::NotFound, "there is no log in this directory");
        return Err(OpenError::io(dir, missing));
    }
    let mut before: Option<RecoveryReport> = None;
    for look in 1.. {
        let last = look == LOOKS;
        match Parts::look(disk.clone(), JsonlOptions::new(dir)) {
            // A file went between its listing and its reading.
            Err(OpenError::Io { source, .. })
                if source.kind() == io::ErrorKind::NotFound && !last => {}
            Err(error) => return Err(error),
            Ok(parts) => {
                let seen = wrong(&parts.report);
                let steady =
                    parts.report.is_clean() || before.as_ref().is_some_and(|it| *it == seen);
                if steady || last {
                    let report = common(&parts.report, before.filter(|_| !steady));
                    return Ok((parts, report));
                }
                before = Some(seen);
            }
        }
        thread::sleep(PAUSE);
    }
    unreachable!("the last look answers")
}

/// What a report says is wrong, without the counts.
fn wrong(report: &RecoveryReport) -> RecoveryReport {
    RecoveryReport {
        segments: 0,
        records: 0,
        streams: 0,
        refiled: 0,
        ..report.clone()
    }
}

/// What was seen twice.
fn common(report: &RecoveryReport, before: Option<RecoveryReport>) -> RecoveryReport {
    let mut report = report.clone();
    if let Some(before) = before {
        report
            .set_aside
            .retain(|one| before.set_aside.contains(one));
        report.corrupt.retain(|one| before.corrupt.contains(one));
    }
    report
}
