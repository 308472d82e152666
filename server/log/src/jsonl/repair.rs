//! Repair with nobody serving: of the journal, so that the log opens again, and of a damaged stream,
//! which goes on after its good prefix.
//!
//! Invariant: only what verification does not vouch for is cut, and it is set aside first.

use std::io;
use std::path::{Path, PathBuf};

use super::checkpoint;
use super::damage;
use super::path::Layout;
use super::recover;
use super::report::{OpenError, RecoveryReport, Remains, SetAside};
use super::threads::take_lock;
use super::verify::{Found, verify_file};
use crate::disk::{Disk, OpenAs, append_all, read_range};
use crate::error::Corruption;
use crate::key::StreamKey;
use crate::record::{Fault, Seq};

/// What repair has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// The last seq of the stream now; 0 if nothing could be kept.
    pub tail: Seq,
    /// What was cut, if anything.
    pub set_aside: Option<SetAside>,
    /// What was wrong with the file, if anything, and where.
    pub found: Option<Found>,
    /// Why the stream took no appends, if so.
    pub condemned: Option<String>,
    /// What the recovery before has found in the whole directory.
    pub recovery: RecoveryReport,
}

/// What a repair of the journal has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepairedJournal {
    /// What the recovery has found and set aside.
    pub recovery: RecoveryReport,
    /// All streams that are damaged now, those that were before included.
    pub condemned: Vec<Corruption>,
}

/// Recovers the directory, accepting damage of the journal: bytes that may have held the last record
/// of any stream are set aside, and the log opens again. Streams that are known to have lost records
/// are damaged from here on. Blocks.
///
/// # Errors
/// [`OpenError::Locked`] while a process serves the directory; else as the disk says.
pub fn repair_journal(disk: &dyn Disk, dir: &Path) -> Result<RepairedJournal, OpenError> {
    let layout = Layout::new(dir.into());
    let failed = |error| OpenError::io(layout.root(), error);
    recover::make_root(disk, &layout).map_err(failed)?;
    let _lock = take_lock(disk, &layout)?;
    let recovery = recover::recover(disk, &layout, true, true)?.report;
    let condemned = damage::all(disk, &layout).map_err(failed)?;
    Ok(RepairedJournal {
        recovery,
        condemned,
    })
}

/// Cuts a stream back to its good prefix and lifts its condemnation, so that it takes appends
/// again. Recovers the directory first, accepting damage of the journal. A client's cursor past
/// the new tail is told so. Blocks.
///
/// # Errors
/// [`OpenError::Locked`] while a process serves the directory; [`OpenError::NewerVersion`] for a
/// stream of a newer release; else as the disk says.
pub fn repair_stream(disk: &dyn Disk, dir: &Path, key: &StreamKey) -> Result<Repaired, OpenError> {
    let layout = Layout::new(dir.into());
    let failed = |error| OpenError::io(&layout.stream(key), error);
    recover::make_root(disk, &layout).map_err(failed)?;
    let _lock = take_lock(disk, &layout)?;
    refuse_newer(disk, &layout, key)?;
    let recovered = recover::recover(disk, &layout, true, true)?;
    let number = recovered.next_segment;
    let mut repaired = Repaired {
        recovery: recovered.report,
        ..Repaired::default()
    };
    cut(disk, &layout, key, number, &mut repaired).map_err(failed)?;
    Ok(repaired)
}

/// What a newer release has written is no damage.
fn refuse_newer(disk: &dyn Disk, layout: &Layout, key: &StreamKey) -> Result<(), OpenError> {
    let path = layout.file(key);
    let verdict = match disk.open(&path, OpenAs::Read) {
        Ok(file) => verify_file(&*file, &path, key),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => Err(error),
    };
    let verdict = verdict.map_err(|error| OpenError::io(&path, error))?;
    match verdict.fault.map(|found| found.fault) {
        Some(Fault::Version { found }) => Err(OpenError::NewerVersion { path, found }),
        _ => Ok(()),
    }
}

fn cut(
    disk: &dyn Disk,
    layout: &Layout,
    key: &StreamKey,
    number: u64,
    repaired: &mut Repaired,
) -> io::Result<()> {
    let path = layout.file(key);
    repaired.condemned = damage::read(disk, layout, key)?;
    let file = match disk.open(&path, OpenAs::Read) {
        Ok(_) => disk.open(&path, OpenAs::Append)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return lift(disk, layout, key);
        }
        Err(error) => return Err(error),
    };
    let verdict = verify_file(&*file, &path, key)?;
    repaired.tail = verdict.good_through;
    repaired.found = verdict.fault;
    if verdict.good_bytes < verdict.file_bytes {
        let bytes = verdict.file_bytes - verdict.good_bytes;
        let kept_in = spare_name(disk, layout, key, number)?;
        let copy = disk.open(&kept_in, OpenAs::Fresh)?;
        let mut at = verdict.good_bytes;
        while at < verdict.file_bytes {
            let block = read_range(&*file, at, 1 << 20)?;
            if block.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            append_all(&*copy, &[&block])?;
            at += block.len() as u64;
        }
        copy.sync()?;
        disk.sync_dir(&layout.quarantine())?;
        repaired.set_aside = Some(SetAside {
            remains: Remains::Rotten,
            from: path,
            offset: verdict.good_bytes,
            bytes,
            kept_in,
            streams: vec![(key.clone(), bytes)],
        });
        file.cut(verdict.good_bytes)?;
    }
    file.sync()?;
    lift(disk, layout, key)
}

/// Forgets what the manifest and the damage note say of a stream.
fn lift(disk: &dyn Disk, layout: &Layout, key: &StreamKey) -> io::Result<()> {
    if let checkpoint::Found::Good(mut manifest, next_segment) = checkpoint::read(disk, layout)?
        && manifest.remove(key).is_some()
    {
        checkpoint::write(disk, layout, &manifest, next_segment)?;
    }
    if disk.exists(&layout.damage(key))? {
        disk.remove(&layout.damage(key))?;
        disk.sync_dir(&layout.stream(key))?;
    }
    Ok(())
}

/// A name in quarantine that is not taken yet.
fn spare_name(
    disk: &dyn Disk,
    layout: &Layout,
    key: &StreamKey,
    number: u64,
) -> io::Result<PathBuf> {
    disk.create_dir(&layout.quarantine())?;
    disk.sync_dir(layout.root())?;
    let mut count = 0;
    loop {
        let path = layout.cut_of(key, number, count);
        if !disk.exists(&path)? {
            return Ok(path);
        }
        count += 1;
    }
}
