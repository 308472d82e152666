//! Lines of a file, block by block, each a slice of its block: forward, backward, and by bisection.
//!
//! Boundary: finds lines and reads heads; whether a record is good is decided by who asks.
//! Invariant: memory is bounded by the longest line that can be a record, whatever the file holds.

use std::io;

use bytes::Bytes;
use memchr::{memchr, memrchr};

use crate::disk::{DiskFile, read_range};
use crate::record::{MAX_RECORD_BYTES, Seq, peek_head};

/// Bytes read at once.
const BLOCK: u64 = 64 * 1024;
/// Bytes read where one line is sought.
const SMALL_BLOCK: u64 = 2 * 1024;
/// No line that is longer can be a record.
const MAX_LINE: u64 = MAX_RECORD_BYTES as u64 + 1;

/// One line of a file.
#[derive(Debug)]
pub(crate) struct Line {
    /// Where it begins.
    pub(crate) offset: u64,
    /// With its newline, if it has one; a line without is the file's last, or too long.
    pub(crate) bytes: Bytes,
}

/// Lines from an offset up to a limit.
pub(crate) struct Lines<'a> {
    file: &'a dyn DiskFile,
    at: u64,
    limit: u64,
    block: Bytes,
}

impl Line {
    pub(crate) fn end(&self) -> u64 {
        self.offset + self.bytes.len() as u64
    }
}

impl<'a> Lines<'a> {
    /// `from` is the beginning of a line.
    pub(crate) fn new(file: &'a dyn DiskFile, from: u64, limit: u64) -> Lines<'a> {
        Lines {
            file,
            at: from,
            limit,
            block: Bytes::new(),
        }
    }

    pub(crate) fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            if let Some(len) = memchr(b'\n', &self.block) {
                return Ok(Some(self.take(len + 1)));
            }
            let held = self.block.len() as u64;
            let rest = self.limit.saturating_sub(self.at);
            if held >= rest || held >= MAX_LINE {
                let all = self.block.len();
                return Ok((all > 0).then(|| self.take(all)));
            }
            let want = (held * 2).clamp(BLOCK, 2 * MAX_LINE).min(rest);
            self.block = read_range(self.file, self.at, to_len(want))?;
            if (self.block.len() as u64) < want {
                self.limit = self.at + self.block.len() as u64;
            }
        }
    }

    /// Whether the next line is in memory already.
    pub(crate) fn is_buffered(&self) -> bool {
        memchr(b'\n', &self.block).is_some()
    }

    fn take(&mut self, len: usize) -> Line {
        let line = Line {
            offset: self.at,
            bytes: self.block.split_to(len),
        };
        self.at += len as u64;
        line
    }
}

/// Where the record `seq` begins, among lines of one stream that fill the file up to `end`.
/// `None` if it is not found, or a line on the way is not a record.
pub(crate) fn find(file: &dyn DiskFile, end: u64, seq: Seq) -> io::Result<Option<u64>> {
    // The line sought begins within low..=high, and low is the beginning of a line.
    let (mut low, mut high) = (0, end);
    while high - low > BLOCK {
        let middle = low + (high - low) / 2;
        match line_after(file, middle, end)? {
            Some(line) => match peek_head(&line.bytes) {
                Some((_, found)) if found <= seq => low = line.offset,
                Some(_) => high = middle,
                None => return Ok(None),
            },
            None => high = middle,
        }
    }
    let mut lines = Lines::new(file, low, end);
    while let Some(line) = lines.next()? {
        match peek_head(&line.bytes) {
            Some((_, found)) if found == seq => return Ok(Some(line.offset)),
            Some((_, found)) if found < seq => {}
            _ => return Ok(None),
        }
    }
    Ok(None)
}

/// The lines that end at `end` or before, newest first: those of one block, at least one.
/// Empty at the beginning of the file, and where no line ends within the longest record.
pub(crate) fn before(file: &dyn DiskFile, end: u64) -> io::Result<Vec<Line>> {
    before_by(file, end, BLOCK)
}

/// The line that ends at `end`.
pub(crate) fn last(file: &dyn DiskFile, end: u64) -> io::Result<Option<Line>> {
    Ok(before_by(file, end, SMALL_BLOCK)?.into_iter().next())
}

fn before_by(file: &dyn DiskFile, end: u64, mut want: u64) -> io::Result<Vec<Line>> {
    loop {
        let start = end.saturating_sub(want);
        let block = read_range(file, start, to_len(end - start))?;
        let mut lines = Vec::new();
        let mut stop = block.len();
        while stop > 0 {
            let from = match memrchr(b'\n', &block[..stop - 1]) {
                Some(newline) => newline + 1,
                None if start == 0 => 0,
                None => break,
            };
            let bytes = block.slice(from..stop);
            lines.push(Line {
                offset: start + from as u64,
                bytes,
            });
            stop = from;
        }
        if !lines.is_empty() || start == 0 || want > MAX_LINE {
            return Ok(lines);
        }
        want *= 4;
    }
}

/// The first line that begins after `offset`.
fn line_after(file: &dyn DiskFile, offset: u64, end: u64) -> io::Result<Option<Line>> {
    let mut lines = Lines::new(file, offset, end);
    if lines.next()?.is_none() {
        return Ok(None);
    }
    lines.next()
}

fn to_len(bytes: u64) -> usize {
    usize::try_from(bytes).expect("blocks are bounded by the longest record")
}
