//! Reading a line as a record: by position and literal, never as JSON.
//!
//! Invariant: total. Any bytes give a record's parts or a fault; nothing is read past the line.

use std::ops::Range;

use super::{Fault, Seq, Timestamp, VERSION};

/// `,"crc":"9f3c1a2b"}`
const CRC_TAIL: usize = 18;
/// `,"prev":"7a01c3de"`
const PREV_TAIL: usize = 18;

/// What a line begins with.
pub(super) struct Head<'a> {
    pub(super) stream: &'a [u8],
    pub(super) seq: Seq,
    pub(super) at: Timestamp,
    pub(super) epoch: u64,
    /// Where the caller's fields begin.
    pub(super) end: usize,
}

/// The bytes that the checksum of a line covers, and the checksum, which they match.
pub(super) fn checked(line: &[u8]) -> Result<(&[u8], u32), Fault> {
    let (covered, tail) = line
        .split_at_checked(line.len().saturating_sub(CRC_TAIL))
        .ok_or(Fault::Shape)?;
    let recorded = tail
        .strip_prefix(b",\"crc\":\"")
        .and_then(|tail| tail.strip_suffix(b"\"}"))
        .and_then(parse_hex8)
        .ok_or(Fault::Shape)?;
    let computed = crc32c::crc32c(covered);
    if computed == recorded {
        Ok((covered, recorded))
    } else {
        Err(Fault::Checksum { recorded, computed })
    }
}

/// The head of a line whose checksum is good: then even an unknown version is what it says.
pub(super) fn head(covered: &[u8]) -> Result<Head<'_>, Fault> {
    let mut cursor = Cursor {
        bytes: covered,
        at: 0,
    };
    let version = cursor.number(b"{\"v\":").ok_or(Fault::Shape)?;
    if version > u64::from(VERSION) {
        return Err(Fault::Version {
            found: u32::try_from(version).unwrap_or(u32::MAX),
        });
    }
    let mut rest = || {
        let stream = cursor.text(b",\"stream\":\"")?;
        let seq = cursor.number(b",\"seq\":")?;
        let at = Timestamp::parse(cursor.text(b",\"at\":\"")?)?;
        let epoch = cursor.number(b",\"epoch\":")?;
        Some(Head {
            stream,
            seq,
            at,
            epoch,
            end: cursor.at,
        })
    };
    rest().ok_or(Fault::Shape)
}

/// The checksum of the record before, and where the caller's fields are.
pub(super) fn prev(covered: &[u8], head_end: usize) -> Result<(u32, Range<usize>), Fault> {
    let end = covered.len().checked_sub(PREV_TAIL).ok_or(Fault::Shape)?;
    let prev = covered[end..]
        .strip_prefix(b",\"prev\":\"")
        .and_then(|tail| tail.strip_suffix(b"\""))
        .and_then(parse_hex8)
        .ok_or(Fault::Shape)?;
    match covered.get(head_end..end) {
        Some([]) => Ok((prev, 0..0)),
        Some([b',', ..]) => Ok((prev, head_end + 1..end)),
        _ => Err(Fault::Shape),
    }
}

/// The stream and seq that the beginning of a line names, good or not: to find a place in a file
/// and to say whose a damaged line was.
pub(crate) fn peek_head(line: &[u8]) -> Option<(&str, Seq)> {
    let mut cursor = Cursor { bytes: line, at: 0 };
    cursor.number(b"{\"v\":")?;
    let stream = cursor.text(b",\"stream\":\"")?;
    let seq = cursor.number(b",\"seq\":")?;
    Some((std::str::from_utf8(stream).ok()?, seq))
}

/// Eight lower-case hex digits.
pub(crate) fn parse_hex8(text: &[u8]) -> Option<u32> {
    let digits: &[u8; 8] = text.try_into().ok()?;
    digits.iter().try_fold(0u32, |value, digit| {
        let nibble = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u32::from(nibble))
    })
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn after(&mut self, literal: &[u8]) -> Option<&'a [u8]> {
        let rest = self.bytes[self.at..].strip_prefix(literal)?;
        self.at += literal.len();
        Some(rest)
    }

    /// A decimal number as it is written here: no sign, no leading zero.
    fn number(&mut self, literal: &[u8]) -> Option<u64> {
        let rest = self.after(literal)?;
        let len = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let canonical = len == 1 || (len > 1 && rest[0] != b'0');
        let value = rest[..len].iter().try_fold(0u64, |value, digit| {
            value.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
        });
        self.at += len;
        value.filter(|_| canonical)
    }

    /// The text up to the next quote.
    fn text(&mut self, literal: &[u8]) -> Option<&'a [u8]> {
        let rest = self.after(literal)?;
        let len = memchr::memchr(b'"', rest)?;
        self.at += len + 1;
        Some(&rest[..len])
    }
}
