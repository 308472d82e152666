//! One record: one line of JSON with a fixed head and a fixed tail, so that it is checked without
//! parsing JSON.
//!
//! ```text
//! {"v":1,"stream":"session/acme/s1","seq":42,"at":"2026-11-22T11:11:39.123Z","epoch":3,
//!  "cause":{..},"events":[..],                                        the caller's body, opaque
//!  "prev":"7a01c3de","crc":"9f3c1a2b"}                                 CRC32C, eight hex digits
//! ```
//!
//! `crc` covers the raw bytes before `,"crc":"`; `prev` is the crc of the record before it in the
//! same stream (eight zeros for seq 1), so deleted, repeated and swapped lines show. A field that
//! this release does not know is part of the body and is kept. Invariant: the bytes of a record
//! never change once they are made; journal, file and readers use the same line.

mod parse;
mod time;

use std::fmt;
use std::ops::Range;
use std::sync::OnceLock;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::sync::watch;

use crate::error::AppendError;
use crate::fate::{Fate, Stage};
use crate::key::StreamKey;
use crate::progress::ProgressTopic;

pub(crate) use parse::{parse_hex8, peek_head};
pub use time::Timestamp;

/// Position of a record in its stream: dense from 1, assigned by the log; 0 stands for "before
/// the first record".
pub type Seq = u64;

/// Largest record, head and tail included: 900 KiB.
pub const MAX_RECORD_BYTES: usize = 900 * 1024;

/// The major version of the record format.
pub(crate) const VERSION: u32 = 1;

/// The body of a tombstone, which no caller can append.
const REMOVED: &[u8] = b"{\"removed\":true}";

/// `,"prev":"7a01c3de","crc":"9f3c1a2b"}`
const TAIL: usize = 36;
/// Head without stream, numbers and body, and tail and newline.
const FIXED: usize = 17 + 8 + 7 + 24 + 10 + TAIL + 1;
/// The same with both numbers at their longest.
const FRAME: usize = FIXED + 20 + 20;

/// A record that is to be appended.
#[derive(Clone, Debug)]
pub struct NewRecord {
    /// When, as the caller saw it.
    pub at: Timestamp,
    /// Generation of the driver that writes. A new one drops the progress of those before.
    pub epoch: u64,
    /// A JSON object as one line of text; its fields are spliced into the record.
    pub body: Bytes,
    /// Progress that this record makes obsolete.
    pub ends: Vec<ProgressTopic>,
    pub(crate) fate: Option<watch::Sender<Stage>>,
    pub(crate) behind: Vec<Fate>,
}

/// An acknowledged record.
pub struct Record {
    /// The stream that holds it.
    pub key: StreamKey,
    /// Its position.
    pub seq: Seq,
    /// When it was written, by the writer's clock.
    pub at: Timestamp,
    /// Generation of the driver that wrote it.
    pub epoch: u64,
    /// Checksum of the record before it; 0 for seq 1.
    pub prev: u32,
    /// Its own checksum.
    pub crc: u32,
    /// With its newline.
    raw: Bytes,
    /// The caller's fields within `raw`, without the commas round them.
    fields: Range<usize>,
    memo: OnceLock<Bytes>,
}

/// Why a line is not a good record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The bytes do not have the shape of a record.
    #[error("not a record")]
    Shape,
    /// The bytes have changed since they were written.
    #[error("checksum {computed:08x}, but the record says {recorded:08x}")]
    Checksum {
        /// What the record says.
        recorded: u32,
        /// What its bytes give.
        computed: u32,
    },
    /// A record of another stream.
    #[error("a record of stream {found:?}")]
    Stream {
        /// The stream it names.
        found: String,
    },
    /// A good record, but not the next one.
    #[error("seq {found} where {expected} was due")]
    Gap {
        /// Its seq.
        found: Seq,
        /// The seq that was due.
        expected: Seq,
    },
    /// A good record that does not follow the one before it.
    #[error("prev {found:08x} where {expected:08x} was due")]
    Chain {
        /// What the record says of the one before.
        found: u32,
        /// The checksum of the one before.
        expected: u32,
    },
    /// Written by a newer release.
    #[error("record version {found}, this release reads up to {VERSION}")]
    Version {
        /// The version found.
        found: u32,
    },
}

impl NewRecord {
    /// A record that ends no progress, and was sent behind no other.
    #[must_use]
    pub fn new(at: Timestamp, epoch: u64, body: Bytes) -> NewRecord {
        NewRecord {
            at,
            epoch,
            body,
            ends: Vec::new(),
            fate: None,
            behind: Vec::new(),
        }
    }

    /// Checks shape and size; the JSON itself is the caller's word.
    pub(crate) fn check(&self, key: &StreamKey) -> Result<(), AppendError> {
        let size = FRAME + key.as_str().len() + self.body.len();
        if size > MAX_RECORD_BYTES {
            let limit = MAX_RECORD_BYTES as u64;
            return Err(AppendError::TooLarge {
                size: size as u64,
                limit,
            });
        }
        match &*self.body {
            REMOVED => Err(AppendError::Malformed {
                reason: "it is what the log itself writes when a stream is removed",
            }),
            [b'{', inner @ .., b'}'] if memchr::memchr(b'\n', inner).is_none() => Ok(()),
            [b'{', .., b'}'] => Err(AppendError::Malformed {
                reason: "it spans several lines",
            }),
            _ => Err(AppendError::Malformed {
                reason: "it is not a JSON object",
            }),
        }
    }
}

impl Record {
    /// Makes the bytes of a record: one allocation of the very size, one copy of the body. `new` has
    /// been checked.
    pub(crate) fn encode(key: &StreamKey, seq: Seq, new: &NewRecord, prev: u32) -> Record {
        let inner = &new.body[1..new.body.len() - 1];
        let blank = inner.iter().all(u8::is_ascii_whitespace);
        let body = if blank { 0 } else { 1 + inner.len() };
        let numbers = decimals(seq) + decimals(new.epoch);
        let mut raw = Vec::with_capacity(FIXED + key.as_str().len() + numbers + body);
        raw.put_slice(b"{\"v\":1,\"stream\":\"");
        raw.put_slice(key.as_str().as_bytes());
        raw.put_slice(b"\",\"seq\":");
        put_decimal(&mut raw, seq);
        raw.put_slice(b",\"at\":\"");
        raw.put_slice(&new.at.to_text());
        raw.put_slice(b"\",\"epoch\":");
        put_decimal(&mut raw, new.epoch);
        let start = raw.len() + 1;
        if !blank {
            raw.put_u8(b',');
            raw.put_slice(inner);
        }
        let fields = if blank { 0..0 } else { start..raw.len() };
        raw.put_slice(b",\"prev\":\"");
        raw.put_slice(&hex8(prev));
        raw.put_u8(b'"');
        let crc = crc32c::crc32c(&raw);
        raw.put_slice(b",\"crc\":\"");
        raw.put_slice(&hex8(crc));
        raw.put_slice(b"\"}\n");
        debug_assert_eq!(raw.len(), raw.capacity(), "no second allocation");
        let at = new.at;
        let (raw, memo) = (Bytes::from(raw), OnceLock::new());
        Record {
            key: key.clone(),
            seq,
            at,
            epoch: new.epoch,
            prev,
            crc,
            raw,
            fields,
            memo,
        }
    }

    /// What the journal says of a stream that is removed. It stands in no other place.
    pub(crate) fn tombstone(key: &StreamKey, seq: Seq, at: Timestamp, prev: u32) -> Record {
        let body = Bytes::from_static(REMOVED);
        Record::encode(key, seq, &NewRecord::new(at, 0, body), prev)
    }

    pub(crate) fn is_tombstone(&self) -> bool {
        self.raw[self.fields.clone()] == REMOVED[1..REMOVED.len() - 1]
    }

    /// The same record with another body, behind a record with checksum `prev`: for a copy that does
    /// not hold all that this one holds.
    ///
    /// # Errors
    /// The body is no JSON object of one line, or too large.
    pub fn rewritten(&self, body: Bytes, prev: u32) -> Result<Record, AppendError> {
        let new = NewRecord::new(self.at, self.epoch, body);
        new.check(&self.key)?;
        Ok(Record::encode(&self.key, self.seq, &new, prev))
    }

    /// Reads one line, with or without its newline, and checks its checksum.
    ///
    /// # Errors
    /// The [`Fault`]; [`Fault::Version`] only where the checksum is good.
    pub fn decode(line: Bytes) -> Result<Record, Fault> {
        Record::decode_in(line, None)
    }

    /// As [`Record::decode`], for a line that ought to be of this stream.
    pub(crate) fn decode_of(line: Bytes, key: &StreamKey) -> Result<Record, Fault> {
        Record::decode_in(line, Some(key))
    }

    fn decode_in(raw: Bytes, key: Option<&StreamKey>) -> Result<Record, Fault> {
        let line = raw.strip_suffix(b"\n").unwrap_or(&raw);
        let (covered, crc) = parse::checked(line)?;
        let head = parse::head(covered)?;
        let (prev, fields) = parse::prev(covered, head.end)?;
        let key = match key {
            Some(key) if key.as_str().as_bytes() == head.stream => key.clone(),
            Some(_) => {
                let found = String::from_utf8_lossy(head.stream).into();
                return Err(Fault::Stream { found });
            }
            None => std::str::from_utf8(head.stream)
                .ok()
                .and_then(|text| StreamKey::parse(text).ok())
                .ok_or(Fault::Shape)?,
        };
        let (seq, at, epoch, memo) = (head.seq, head.at, head.epoch, OnceLock::new());
        Ok(Record {
            key,
            seq,
            at,
            epoch,
            prev,
            crc,
            raw,
            fields,
            memo,
        })
    }

    /// The record as it stands in the file, without the newline: a JSON object that holds the
    /// body's fields among the log's own.
    #[must_use]
    pub fn line(&self) -> &[u8] {
        self.raw.strip_suffix(b"\n").unwrap_or(&self.raw)
    }

    /// The caller's body, a JSON object again. Copies; a reader that ignores unknown fields may
    /// parse [`Record::line`] instead.
    #[must_use]
    pub fn body(&self) -> Bytes {
        let mut body = BytesMut::with_capacity(self.fields.len() + 2);
        body.put_u8(b'{');
        body.put_slice(&self.raw[self.fields.clone()]);
        body.put_u8(b'}');
        body.freeze()
    }

    /// A derived encoding that all readers of this record share: made at most once.
    pub fn memo(&self, make: impl FnOnce() -> Bytes) -> Bytes {
        self.memo.get_or_init(make).clone()
    }

    /// Bytes in a file, newline included.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.line().len() as u64 + 1
    }

    /// The line with its newline, as the disk gets it.
    pub(crate) fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// Whether this record follows the one with (`seq`, `crc`); (0, 0) stands for the beginning.
    pub(crate) fn follows(&self, seq: Seq, crc: u32) -> Result<(), Fault> {
        if self.seq != seq + 1 {
            return Err(Fault::Gap {
                found: self.seq,
                expected: seq + 1,
            });
        }
        if self.prev != crc {
            return Err(Fault::Chain {
                found: self.prev,
                expected: crc,
            });
        }
        Ok(())
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.line()))
    }
}

impl PartialEq for Record {
    fn eq(&self, other: &Record) -> bool {
        self.line() == other.line()
    }
}

impl Eq for Record {}

fn hex8(value: u32) -> [u8; 8] {
    std::array::from_fn(|i| b"0123456789abcdef"[(value >> (28 - 4 * i)) as usize & 15])
}

/// Digits of a number.
fn decimals(value: u64) -> usize {
    1 + value.checked_ilog10().unwrap_or(0) as usize
}

fn put_decimal(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0u8; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + u8::try_from(value % 10).expect("a remainder of ten is a digit");
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.put_slice(&digits[start..]);
}

#[cfg(test)]
mod tests;
