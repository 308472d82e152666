//! Verification of one stream's file: how far it is good, what is wrong, and what lies beyond.
//!
//! Invariant: reads only. A verdict with `fault: None` means that every byte of the file belongs
//! to a record that its checksum, its seq and the checksum of the one before vouch for.

use std::io;
use std::path::Path;

use super::lines::Lines;
use super::path::Layout;
use super::session_file::decode;
use super::stream::Mark;
use crate::disk::{Disk, DiskFile, OpenAs};
use crate::key::StreamKey;
use crate::record::{Fault, Record, Seq};

/// What verification found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The last seq of the good prefix; 0 if there is none.
    pub good_through: Seq,
    /// Bytes of the good prefix.
    pub good_bytes: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// The first fault.
    pub fault: Option<Found>,
    /// Good records of this stream after the fault: with any, the file is damaged, not torn.
    pub good_after_fault: u64,
    /// The highest seq among them; 0 without.
    pub last_after_fault: Seq,
    pub(crate) mark: Mark,
    pub(crate) epoch: u64,
}

/// A fault and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where the bad line begins.
    pub offset: u64,
    /// What is wrong with it.
    pub fault: Fault,
}

/// Verifies the file of one stream in a data directory, which may be in use. A stream without a
/// file is good and empty; records that are only in the journal are not looked at.
///
/// # Errors
/// As the disk says.
pub fn verify_stream(disk: &dyn Disk, dir: &Path, key: &StreamKey) -> io::Result<Verdict> {
    let path = Layout::new(dir.into()).file(key);
    match disk.open(&path, OpenAs::Read) {
        Ok(file) => verify_file(&*file, key),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Verdict::new(0)),
        Err(error) => Err(error),
    }
}

pub(crate) fn verify_file(file: &dyn DiskFile, key: &StreamKey) -> io::Result<Verdict> {
    let size = file.size()?;
    let mut verdict = Verdict::new(size);
    let mut lines = Lines::new(file, 0, size);
    while let Some(line) = lines.next()? {
        if verdict.fault.is_some() {
            if let Ok(record) = Record::decode_of(line.bytes, key) {
                verdict.good_after_fault += 1;
                verdict.last_after_fault = verdict.last_after_fault.max(record.seq);
            }
            continue;
        }
        match decode(line.bytes.clone(), key, verdict.mark) {
            Ok(record) => {
                verdict.epoch = record.epoch;
                verdict.mark = verdict.mark.after(&record);
                verdict.good_through = record.seq;
                verdict.good_bytes = line.end();
            }
            Err(fault) => {
                if matches!(fault, Fault::Gap { .. } | Fault::Chain { .. }) {
                    verdict.good_after_fault += 1;
                }
                verdict.fault = Some(Found {
                    offset: line.offset,
                    fault,
                });
            }
        }
    }
    Ok(verdict)
}

impl Verdict {
    fn new(file_bytes: u64) -> Verdict {
        Verdict {
            good_through: 0,
            good_bytes: 0,
            file_bytes,
            fault: None,
            good_after_fault: 0,
            last_after_fault: 0,
            mark: Mark::default(),
            epoch: 0,
        }
    }
}
