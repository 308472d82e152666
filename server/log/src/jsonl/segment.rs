//! What a segment of the journal holds, good and bad.
//!
//! Boundary: reads one segment's bytes; what to do about damage is recovery's. Invariant: a record
//! is handed out only if its line is whole, its checksum is good, and it is not part of a torn tail.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use memchr::memchr;

use crate::key::StreamKey;
use crate::record::{Fault, Record, Seq, parse_hex8, peek_head};

/// Two empty lines: what stands before was durable when this was written. Two, so that no single
/// flipped bit takes it away.
pub(crate) const BARRIER: &[u8] = b"\n\n";

/// One segment, read.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// Good records in their order.
    pub(crate) records: Vec<Record>,
    /// Bad bytes before good ones that were acknowledged: rot.
    pub(crate) bad: Vec<Range<usize>>,
    /// Where the last batch is torn; everything from here on was never acknowledged.
    pub(crate) torn_from: Option<usize>,
}

/// What a damaged stretch of the journal says of the records that were in it.
#[derive(Debug, Default)]
pub(crate) struct Traces {
    /// Stream and seq at the beginning of what looks like a record.
    pub(crate) heads: Vec<(String, Seq)>,
    /// Checksums of the records before.
    pub(crate) prevs: Vec<u32>,
}

/// Reads a segment; only the last one can have a torn tail.
///
/// # Errors
/// The version of a record that a newer release has written.
pub(crate) fn scan(bytes: &Bytes, is_last: bool) -> Result<Scan, u32> {
    let mut found: Vec<(usize, Record)> = Vec::new();
    let mut bad: Vec<Range<usize>> = Vec::new();
    // What stands before this offset was durable: a barrier ends there, and a good record comes
    // after it.
    let mut durable = if is_last { 0 } else { bytes.len() };
    let (mut at, mut barrier) = (0, None);
    while at < bytes.len() {
        let newline = memchr(b'\n', &bytes[at..]);
        let end = newline.map_or(bytes.len(), |newline| at + newline + 1);
        let line = bytes.slice(at..end);
        if line == "\n"[..] {
            barrier = Some(at);
        } else {
            match Record::decode(line) {
                Ok(record) if newline.is_some() => {
                    found.push((at, record));
                    durable = durable.max(barrier.take().unwrap_or(0));
                }
                Err(Fault::Version { found }) => return Err(found),
                _ if end - at <= BARRIER.len() && newline.is_some() => {
                    // One half of a barrier is bad, and nothing else.
                    bad.push(at..end);
                    barrier = Some(end);
                }
                _ => match bad.last_mut() {
                    Some(last) if last.end == at => last.end = end,
                    _ => bad.push(at..end),
                },
            }
        }
        at = end;
    }
    let torn_from = bad
        .iter()
        .find(|range| range.start >= durable)
        .map(|range| range.start);
    let end = torn_from.unwrap_or(bytes.len());
    bad.retain(|range| range.start < end);
    let records = found
        .into_iter()
        .filter(|(at, _)| *at < end)
        .map(|(_, record)| record);
    Ok(Scan {
        records: records.collect(),
        bad,
        torn_from,
    })
}

/// Whose bytes these are, as the beginnings of their lines say.
pub(crate) fn owners(bytes: &[u8]) -> Vec<(StreamKey, u64)> {
    let mut owners: BTreeMap<StreamKey, u64> = BTreeMap::new();
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let owner = peek_head(line).and_then(|(stream, _)| StreamKey::parse(stream).ok());
        if let Some(owner) = owner {
            *owners.entry(owner).or_default() += line.len() as u64;
        }
    }
    owners.into_iter().collect()
}

/// Looks for what a damaged stretch still tells of its records.
pub(crate) fn traces(bytes: &[u8]) -> Traces {
    const HEAD: &[u8] = b"{\"v\":";
    const PREV: &[u8] = b",\"prev\":\"";
    let mut traces = Traces::default();
    for at in 0..bytes.len() {
        let rest = &bytes[at..];
        if rest.starts_with(HEAD) {
            traces
                .heads
                .extend(peek_head(rest).map(|(stream, seq)| (stream.to_owned(), seq)));
        } else if let Some(digits) = rest.strip_prefix(PREV) {
            traces.prevs.extend(digits.get(..8).and_then(parse_hex8));
        }
    }
    traces
}

#[cfg(test)]
mod tests;
