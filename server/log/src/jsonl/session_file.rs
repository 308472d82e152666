//! The file of one stream: its image behind the journal, as readers and recovery see it.
//!
//! Boundary: reads only; the filing thread and recovery write. Invariant: whatever is handed out
//! has been checked by checksum, stream, seq and chain.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::task::{JoinError, JoinHandle};

use super::lines::{self, Lines};
use super::stream::{Mark, Stream};
use super::verify::{Verdict, verify_file};
use crate::disk::{Disk, DiskFile, OpenAs};
use crate::error::{Corruption, LogError};
use crate::key::StreamKey;
use crate::reader::History;
use crate::record::{Fault, Record, Seq};

/// Records that a reader takes from the file at once, at most.
const TAKE: usize = 512;
/// Bytes that a reader takes from the file at once, about.
const TAKE_BYTES: u64 = 256 * 1024;

/// The past of one stream, for one reader.
pub(crate) struct FileHistory {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    stream: Arc<Stream>,
    cursor: Option<Cursor>,
    /// A block on its way, and the seq that it begins after.
    ahead: Option<(Seq, JoinHandle<Block>)>,
}

/// Records, and the place behind them.
type Block = Result<(Vec<Arc<Record>>, Cursor), LogError>;

/// A place in the file that was reached by reading.
struct Cursor {
    file: Arc<dyn DiskFile>,
    mark: Mark,
}

/// Why a block could not be read.
enum ReadFault {
    Io(io::Error),
    Bad { good_through: Seq, reason: String },
}

impl From<io::Error> for ReadFault {
    fn from(error: io::Error) -> ReadFault {
        ReadFault::Io(error)
    }
}

impl FileHistory {
    pub(crate) fn new(disk: Arc<dyn Disk>, path: PathBuf, stream: Arc<Stream>) -> FileHistory {
        FileHistory {
            disk,
            path,
            stream,
            cursor: None,
            ahead: None,
        }
    }

    /// Starts to read the block after `after`, which is where the cursor stands if there is one.
    fn read_block(&self, cursor: Option<Cursor>, after: Seq) -> JoinHandle<Block> {
        let (disk, path, stream) = (self.disk.clone(), self.path.clone(), self.stream.clone());
        tokio::task::spawn_blocking(move || {
            let end = stream.filed().bytes;
            let cursor = match cursor {
                Some(cursor) => Ok(cursor),
                None => seek(&*disk, &path, &stream.key, end, after),
            };
            cursor
                .and_then(|cursor| read_on(&stream.key, cursor, end))
                .map_err(|fault| FileHistory::fault(&stream, fault))
        })
    }

    fn fault(stream: &Stream, fault: ReadFault) -> LogError {
        if stream.live.is_removed() {
            return LogError::Removed;
        }
        match fault {
            ReadFault::Io(error) => {
                LogError::unavailable(format!("cannot read the file of {}: {error}", stream.key))
            }
            ReadFault::Bad {
                good_through,
                reason,
            } => {
                let corruption = Corruption {
                    stream: stream.key.clone(),
                    good_through,
                    reason,
                };
                stream.live.condemn(corruption.clone());
                corruption.into()
            }
        }
    }
}

impl History for FileHistory {
    fn next(
        &mut self,
        after: Seq,
        ahead: bool,
    ) -> BoxFuture<'_, Result<Vec<Arc<Record>>, LogError>> {
        Box::pin(async move {
            // A reader that took records from memory in between has passed it.
            let under_way = self.ahead.take().filter(|(from, _)| *from == after);
            let cursor = self.cursor.take().filter(|cursor| cursor.mark.seq == after);
            let block = match under_way {
                Some((_, block)) => block,
                None => self.read_block(cursor, after),
            };
            let (records, cursor) = joined(block.await)?;
            let next = cursor.mark;
            if ahead && next.bytes < self.stream.filed().bytes {
                self.ahead = Some((next.seq, self.read_block(Some(cursor), next.seq)));
            } else {
                self.cursor = Some(cursor);
            }
            Ok(records)
        })
    }

    fn back(&mut self, before: Seq) -> BoxFuture<'_, Result<Vec<Arc<Record>>, LogError>> {
        let (disk, path, stream) = (self.disk.clone(), self.path.clone(), self.stream.clone());
        // For a reader backward, the mark stands before the record that it was given last.
        let cursor = self
            .cursor
            .take()
            .filter(|cursor| cursor.mark.seq + 1 == before);
        Box::pin(async move {
            let (records, cursor) = blocking(move || {
                let cursor = match cursor {
                    Some(cursor) => Ok(cursor),
                    None => seek_back(&*disk, &path, stream.filed(), before),
                };
                cursor
                    .and_then(|cursor| read_back(&path, &stream.key, cursor))
                    .map_err(|fault| FileHistory::fault(&stream, fault))
            })
            .await?;
            self.cursor = Some(cursor);
            Ok(records)
        })
    }
}

/// What the disk says of a stream that is not in memory: how far its good records go, the epoch
/// of the last one, and what is wrong if something is. Reads one block of a good file.
pub(crate) fn load(
    disk: &dyn Disk,
    path: &Path,
    key: &StreamKey,
) -> io::Result<(Mark, u64, Option<Verdict>)> {
    let file = match disk.open(path, OpenAs::Read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok((Mark::default(), 0, None));
        }
        file => file?,
    };
    let size = file.size()?;
    if size == 0 {
        return Ok((Mark::default(), 0, None));
    }
    let last = lines::last(&*file, size)?;
    let whole = last.filter(|line| line.bytes.ends_with(b"\n"));
    if let Some(record) = whole.and_then(|line| Record::decode_of(line.bytes, key).ok()) {
        let mark = Mark {
            seq: record.seq,
            crc: record.crc,
            bytes: size,
        };
        return Ok((mark, record.epoch, None));
    }
    let verdict = verify_file(&*file, path, key)?;
    Ok((verdict.mark, verdict.epoch, Some(verdict)))
}

/// The mark after the record `seq`, which the file holds below `end`.
fn seek(
    disk: &dyn Disk,
    path: &Path,
    key: &StreamKey,
    end: u64,
    seq: Seq,
) -> Result<Cursor, ReadFault> {
    let file = disk.open(path, OpenAs::Read)?;
    if seq == 0 {
        return Ok(Cursor {
            file,
            mark: Mark::default(),
        });
    }
    let lost = |reason: String| ReadFault::Bad {
        good_through: 0,
        reason,
    };
    let Some(offset) = lines::find(&*file, end, seq)? else {
        return Err(prefix_fault(
            &*file,
            path,
            key,
            format!("record {seq} is not found in the file"),
        )?);
    };
    let line = Lines::new(&*file, offset, end).next()?;
    let line = line.ok_or_else(|| lost(format!("record {seq} is cut")))?;
    match Record::decode_of(line.bytes, key) {
        Ok(record) => {
            let mark = Mark {
                seq,
                crc: record.crc,
                bytes: offset + record.stored_bytes(),
            };
            Ok(Cursor { file, mark })
        }
        Err(fault) => Err(prefix_fault(
            &*file,
            path,
            key,
            format!("record {seq}: {fault}"),
        )?),
    }
}

/// A fault in the middle of the file: how far is it good?
fn prefix_fault(
    file: &dyn DiskFile,
    path: &Path,
    key: &StreamKey,
    reason: String,
) -> io::Result<ReadFault> {
    let verdict = verify_file(file, path, key)?;
    Ok(ReadFault::Bad {
        good_through: verdict.mark.seq,
        reason,
    })
}

fn read_on(
    key: &StreamKey,
    mut cursor: Cursor,
    end: u64,
) -> Result<(Vec<Arc<Record>>, Cursor), ReadFault> {
    let start = cursor.mark;
    let mut records = Vec::new();
    let file = cursor.file.clone();
    let mut lines = Lines::new(&*file, start.bytes, end);
    while records.len() < TAKE && cursor.mark.bytes - start.bytes < TAKE_BYTES {
        if !records.is_empty() && !lines.is_buffered() {
            break;
        }
        let Some(line) = lines.next()? else { break };
        let record = match decode(line.bytes, key, cursor.mark) {
            Ok(record) => record,
            Err(_) if !records.is_empty() => break,
            Err(fault) => {
                let good_through = cursor.mark.seq;
                let reason = format!("at byte {}: {fault}", line.offset);
                return Err(ReadFault::Bad {
                    good_through,
                    reason,
                });
            }
        };
        cursor.mark = cursor.mark.after(&record);
        records.push(Arc::new(record));
    }
    if records.is_empty() {
        let good_through = cursor.mark.seq;
        let reason = format!("the file ends at byte {}, {end} were written", start.bytes);
        return Err(ReadFault::Bad {
            good_through,
            reason,
        });
    }
    Ok((records, cursor))
}

/// Decodes the record that is to follow a mark.
pub(crate) fn decode(line: bytes::Bytes, key: &StreamKey, mark: Mark) -> Result<Record, Fault> {
    if !line.ends_with(b"\n") {
        return Err(Fault::Shape);
    }
    let record = Record::decode_of(line, key)?;
    record.follows(mark.seq, mark.crc)?;
    Ok(record)
}

fn seek_back(disk: &dyn Disk, path: &Path, filed: Mark, before: Seq) -> Result<Cursor, ReadFault> {
    let file = disk.open(path, OpenAs::Read)?;
    let seq = (before - 1).min(filed.seq);
    let bytes = if before > filed.seq {
        filed.bytes
    } else {
        lines::find(&*file, filed.bytes, before)?.ok_or_else(|| ReadFault::Bad {
            good_through: 0,
            reason: format!("record {before} is not found in the file"),
        })?
    };
    Ok(Cursor {
        file,
        mark: Mark { seq, crc: 0, bytes },
    })
}

fn read_back(
    path: &Path,
    key: &StreamKey,
    mut cursor: Cursor,
) -> Result<(Vec<Arc<Record>>, Cursor), ReadFault> {
    let mut records: Vec<Arc<Record>> = Vec::new();
    for line in lines::before(&*cursor.file, cursor.mark.bytes)? {
        let offset = line.offset;
        let record = Record::decode_of(line.bytes, key).and_then(|record| {
            let due = records
                .last()
                .map_or(cursor.mark.seq, |newer| newer.seq - 1);
            match records.last() {
                Some(newer) if newer.prev != record.crc => Err(Fault::Chain {
                    found: newer.prev,
                    expected: record.crc,
                }),
                _ if record.seq != due => Err(Fault::Gap {
                    found: record.seq,
                    expected: due,
                }),
                _ => Ok(record),
            }
        });
        match record {
            Ok(record) => records.push(Arc::new(record)),
            Err(_) if !records.is_empty() => break,
            Err(fault) => {
                let reason = format!("at byte {offset}: {fault}");
                return Err(prefix_fault(&*cursor.file, path, key, reason)?);
            }
        }
        cursor.mark.bytes = offset;
    }
    match records.last() {
        Some(oldest) => cursor.mark.seq = oldest.seq - 1,
        None => {
            let reason = format!("no line ends before byte {}", cursor.mark.bytes);
            return Err(prefix_fault(&*cursor.file, path, key, reason)?);
        }
    }
    Ok((records, cursor))
}

/// Runs on the threads that may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, LogError> {
    joined(tokio::task::spawn_blocking(work).await)
}

fn joined<T>(done: Result<Result<T, LogError>, JoinError>) -> Result<T, LogError> {
    done.unwrap_or_else(|error| {
        Err(LogError::unavailable(format!(
            "the read was interrupted: {error}"
        )))
    })
}
