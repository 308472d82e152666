//! Verification of one stream: how far it is good, what is wrong and where, and what lies beyond.
//!
//! Invariant: reads only. A verdict that [`Verdict::is_good`] means that every byte of the file
//! belongs to a record that its checksum, its seq and the checksum of the one before vouch for.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::engine::Engine;
use super::lines::Lines;
use super::report::{OpenError, SetAside};
use super::session_file::decode;
use super::stream::Mark;
use super::{JsonlLog, damage};
use crate::disk::{Disk, DiskFile, OpenAs};
use crate::key::StreamKey;
use crate::record::{Fault, Record, Seq};

/// What verification found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The file that was read.
    pub path: PathBuf,
    /// The last seq that can be read, from the file or the journal; 0 if there is none.
    pub good_through: Seq,
    /// Bytes of the file's good prefix.
    pub good_bytes: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Good records that stand only in the journal so far.
    pub in_journal: u64,
    /// The first fault of the file.
    pub fault: Option<Found>,
    /// Good records of this stream after the fault: with any, the file is damaged, not torn.
    pub good_after_fault: u64,
    /// The highest seq among them; 0 without.
    pub last_after_fault: Seq,
    /// Why the stream takes no appends, as a start has found it.
    pub condemned: Option<String>,
    /// Bytes that belong to no record; the next start sets them aside. Only of a log that is open
    /// for reading only: another start has done so already.
    pub torn: Vec<SetAside>,
    pub(crate) mark: Mark,
    pub(crate) epoch: u64,
}

/// A fault and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where the bad line begins, in bytes.
    pub offset: u64,
    /// Which line of the file it is, from 1.
    pub line: u64,
    /// The seq that was due there.
    pub seq: Seq,
    /// What is wrong with it.
    pub fault: Fault,
}

/// Verifies one stream of a data directory that may be in use, with what stands only in the
/// journal, changing nothing. A stream that does not exist is good and empty. For many streams,
/// open the log with [`JsonlLog::open_read_only`] and ask it for each. Blocks.
///
/// # Errors
/// As [`JsonlLog::open_read_only`].
pub fn verify_stream<D: Disk + Clone>(
    disk: &D,
    dir: &Path,
    key: &StreamKey,
) -> Result<Verdict, OpenError> {
    let (log, _) = JsonlLog::open_read_only_on(std::sync::Arc::new(disk.clone()), dir)?;
    log.verify(key).map_err(|error| OpenError::io(dir, error))
}

impl Engine {
    /// Verifies one stream of this log. `on_disk` is the size of its file below a log that is open
    /// for reading only.
    pub(super) fn verify(&self, key: &StreamKey, on_disk: Option<u64>) -> io::Result<Verdict> {
        let stream = self.stream(key);
        let loaded = self.load(&stream);
        let path = self.layout.file(key);
        let mut verdict = match self.disk.open(&path, OpenAs::Read) {
            Ok(file) => {
                let size = file.size()?;
                // What lies above is being written now. A stream that cannot be loaded, or goes no
                // further, is looked at as a whole.
                let whole = loaded.is_err() || stream.live.corrupt().is_some();
                let limit = if whole {
                    size
                } else {
                    size.min(stream.filed().bytes)
                };
                verify_up_to(&*file, &path, key, limit, on_disk.unwrap_or(limit))?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Verdict::new(&path, 0),
            Err(error) => return Err(error),
        };
        let found = stream.live.corrupt().map(|corruption| corruption.reason);
        verdict.condemned = damage::read(&*self.disk, &self.layout, key)?.or(found);
        let (tail, _) = stream.live.tail();
        if verdict.fault.is_none() && tail > verdict.good_through {
            verdict.in_journal += tail - verdict.good_through;
            verdict.good_through = tail;
        }
        Ok(verdict)
    }
}

/// Verifies a whole file.
pub(crate) fn verify_file(
    file: &dyn DiskFile,
    path: &Path,
    key: &StreamKey,
) -> io::Result<Verdict> {
    let size = file.size()?;
    verify_up_to(file, path, key, size, size)
}

/// Verifies a file up to a limit, counting the records above `on_disk` bytes.
fn verify_up_to(
    file: &dyn DiskFile,
    path: &Path,
    key: &StreamKey,
    limit: u64,
    on_disk: u64,
) -> io::Result<Verdict> {
    let mut verdict = Verdict::new(path, limit);
    let mut lines = Lines::new(file, 0, limit);
    let mut number = 0;
    while let Some(line) = lines.next()? {
        number += 1;
        if verdict.fault.is_some() {
            if let Ok(record) = Record::decode_of(line.bytes, key) {
                verdict.count_after_fault(&record);
            }
            continue;
        }
        match decode(line.bytes.clone(), key, verdict.mark) {
            Ok(record) => {
                verdict.in_journal += u64::from(line.end() > on_disk);
                verdict.epoch = record.epoch;
                verdict.mark = verdict.mark.after(&record);
                verdict.good_through = record.seq;
                verdict.good_bytes = line.end();
            }
            Err(fault) => {
                verdict.fault = Some(Found {
                    offset: line.offset,
                    line: number,
                    seq: verdict.mark.seq + 1,
                    fault,
                });
                // A good record, only not the one that was due.
                if let Ok(record) = Record::decode_of(line.bytes, key) {
                    verdict.count_after_fault(&record);
                }
            }
        }
    }
    Ok(verdict)
}

impl Verdict {
    fn new(path: &Path, file_bytes: u64) -> Verdict {
        Verdict {
            path: path.into(),
            good_through: 0,
            good_bytes: 0,
            file_bytes,
            in_journal: 0,
            fault: None,
            good_after_fault: 0,
            last_after_fault: 0,
            condemned: None,
            torn: Vec::new(),
            mark: Mark::default(),
            epoch: 0,
        }
    }

    /// Whether nothing is wrong: every record is there and can be trusted.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.fault.is_none() && self.condemned.is_none() && self.torn.is_empty()
    }

    fn count_after_fault(&mut self, record: &Record) {
        self.good_after_fault += 1;
        self.last_after_fault = self.last_after_fault.max(record.seq);
    }
}

/// What is wrong, where, and what can still be read, one sentence a line.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        if let Some(Found {
            offset,
            line,
            seq,
            fault,
        }) = &self.fault
        {
            writeln!(
                f,
                "{path}, line {line} (byte {offset}), where seq {seq} was due: {fault}"
            )?;
            match self.good_after_fault {
                0 => writeln!(f, "no good record comes after it")?,
                count => writeln!(
                    f,
                    "{count} good records come after it, up to seq {}; they stay in the file",
                    self.last_after_fault
                )?,
            }
        }
        if let Some(reason) = &self.condemned {
            writeln!(f, "the stream takes no appends: {reason}")?;
        }
        for SetAside {
            from,
            offset,
            bytes,
            ..
        } in &self.torn
        {
            writeln!(
                f,
                "{}, byte {offset}: {bytes} bytes of a write that was never acknowledged; the \
                 next start sets them aside",
                from.display()
            )?;
        }
        match self.good_through {
            0 => write!(f, "no record can be read")?,
            seq => write!(f, "seq 1 to {seq} can be read")?,
        }
        match self.in_journal {
            0 => Ok(()),
            count => write!(f, ", {count} of them from the journal only"),
        }
    }
}
