//! One stream in recovery: its file below the checkpoint, what the file holds above it, and what
//! the journal holds, joined to one chain.
//!
//! Invariant: the file is cut only above the last record that the journal does not have, so that a
//! crash after the cut loses nothing; all above the checkpoint is written anew, for bytes that a
//! failed sync left behind read as good and may never reach the disk.

use std::io;

use super::Recovery;
use crate::disk::{DiskFile, OpenAs, append_all, read_range, renew_file};
use crate::jsonl::Remains;
use crate::jsonl::lines::{self, Lines};
use crate::jsonl::session_file::decode;
use crate::jsonl::stream::Mark;
use crate::jsonl::verify::verify_file;
use crate::key::StreamKey;
use crate::record::{Fault, Record, Seq};

/// A stream's chain from its base on.
struct Chain<'a> {
    /// The end of the last record that must stay in the file as it is.
    keep: Mark,
    /// Lines to be written after it, from the journal.
    pending: Vec<&'a [u8]>,
    end: Mark,
    /// A line of the file is not the record that was due there.
    bad_line: bool,
    /// Bytes at the end of the file that belong to no record and that nothing replaces.
    ragged: bool,
    /// The first record of the journal that has no place in the chain.
    gap: Option<Seq>,
}

impl Recovery<'_> {
    /// Brings one stream's file in order, or condemns the stream.
    pub(super) fn refile(&mut self, key: &StreamKey, journal: &[Record]) -> io::Result<()> {
        let dir = self.layout.stream(key);
        let path = self.layout.file(key);
        if !self.before.contains_key(key) {
            self.unsynced_dirs.extend(self.layout.chain(&dir));
        }
        let file = match self.disk.open(&path, OpenAs::Append) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.layout.create_dirs(self.disk, &dir)?;
                self.disk.open(&path, OpenAs::Append)?
            }
            file => file?,
        };
        let size = file.size()?;
        let base = match base(&*file, size, key, self.before.get(key).copied(), journal)? {
            Ok(base) => base,
            Err(reason) => {
                let good_through = verify_file(&*file, &path, key)?.good_through;
                self.condemn(key, good_through, reason);
                return Ok(());
            }
        };
        let chain = self.join(&*file, size, key, base, journal)?;
        if chain.bad_line
            && let Some(seq) = good_beyond(&*file, size, key, chain.end, chain.keep)?
        {
            // Whatever it is, no crash leaves it, and cutting would lose a record.
            let verdict = verify_file(&*file, &path, key)?;
            let due = verdict.good_through + 1;
            let reason = format!("its file has record {seq}, and no good record {due} before it");
            self.condemn(key, verdict.good_through, reason);
            return Ok(());
        }
        if chain.ragged {
            let at = chain.end.bytes;
            let bytes = read_range(&*file, at, usize::try_from(size - at).unwrap_or(usize::MAX))?;
            let name = self.layout.torn_of(key, self.next_segment, at);
            let torn = (Remains::Torn, &bytes);
            self.set_aside(&name, path.clone(), at, torn, Some(key))?;
        }
        if chain.gap.is_none()
            && chain.end == base
            && size == base.bytes
            && self.before.contains_key(key)
        {
            self.marks.insert(key.clone(), base);
            return Ok(());
        }
        let file = if chain.keep != base {
            renew_file(self.disk, &path, chain.keep.bytes)?;
            self.disk.open(&path, OpenAs::Append)?
        } else {
            if size != base.bytes {
                file.cut(base.bytes)?;
            }
            file
        };
        append_all(&*file, &chain.pending)?;
        self.finish_stream(key, &chain);
        Ok(())
    }

    fn finish_stream(&mut self, key: &StreamKey, chain: &Chain<'_>) {
        self.touched.insert(key.clone());
        self.report.refiled += chain.pending.len() as u64;
        match chain.gap {
            Some(seq) => {
                let due = chain.end.seq + 1;
                self.condemn(
                    key,
                    chain.end.seq,
                    format!("the journal has record {seq} and no record {due} that it follows"),
                );
            }
            None if chain.end.seq > 0 => {
                self.marks.insert(key.clone(), chain.end);
            }
            // That of the notes, before the first one.
            None => {}
        }
    }

    fn join<'a>(
        &mut self,
        file: &dyn DiskFile,
        size: u64,
        key: &StreamKey,
        base: Mark,
        journal: &'a [Record],
    ) -> io::Result<Chain<'a>> {
        let mut lines = Lines::new(file, base.bytes, size);
        let mut in_file = true;
        let mut journal = journal.iter().peekable();
        let (mut keep, mut end, mut pending) = (base, base, Vec::new());
        let (mut bad_line, mut ragged) = (false, false);
        loop {
            while journal.next_if(|record| record.seq <= end.seq).is_some() {}
            let filed = match lines.next()?.filter(|_| in_file) {
                Some(line) => decode(line.bytes, key, end).ok(),
                None => None,
            };
            let bad = in_file && filed.is_none() && size > end.bytes;
            bad_line |= bad;
            ragged |= bad;
            in_file &= filed.is_some();
            let acknowledged = journal.next_if(|record| record.follows(end.seq, end.crc).is_ok());
            match (acknowledged, filed) {
                (Some(record), _) => {
                    pending.push(record.raw());
                    end = end.after(record);
                    // What the file had in its place is replaced.
                    ragged = false;
                }
                (None, Some(record)) => {
                    self.healed.insert(record.prev);
                    end = end.after(&record);
                    (keep, pending) = (end, Vec::new());
                }
                (None, None) => break,
            }
        }
        let gap = journal.peek().map(|record| record.seq);
        Ok(Chain {
            keep,
            pending,
            end,
            bad_line,
            ragged,
            gap,
        })
    }
}

/// The seq of a good record that the file holds in or after bad lines, and the chain does not.
fn good_beyond(
    file: &dyn DiskFile,
    size: u64,
    key: &StreamKey,
    end: Mark,
    keep: Mark,
) -> io::Result<Option<Seq>> {
    let mut lines = Lines::new(file, keep.bytes, size);
    while let Some(line) = lines.next()? {
        match Record::decode_of(line.bytes, key) {
            Ok(record) if record.seq > end.seq => return Ok(Some(record.seq)),
            // A newer release knows what it is.
            Err(Fault::Version { .. }) => return Ok(Some(end.seq + 1)),
            _ => {}
        }
    }
    Ok(None)
}

/// The position from which the journal takes over, checked against the file; or why it is not
/// there.
fn base(
    file: &dyn DiskFile,
    size: u64,
    key: &StreamKey,
    checkpoint: Option<Mark>,
    journal: &[Record],
) -> io::Result<Result<Mark, String>> {
    if let Some(mark) = checkpoint {
        if size < mark.bytes {
            let durable = mark.bytes;
            return Ok(Err(format!(
                "its file has {size} bytes, the checkpoint says {durable}"
            )));
        }
        let last = lines::last(file, mark.bytes)?;
        let record = last.and_then(|line| Record::decode_of(line.bytes, key).ok());
        let good = record.is_some_and(|found| (found.seq, found.crc) == (mark.seq, mark.crc));
        let Mark { seq, bytes, .. } = mark;
        return Ok(if good {
            Ok(mark)
        } else {
            Err(format!(
                "record {seq} does not end at byte {bytes}, the checkpoint says it does"
            ))
        });
    }
    let Some(first) = journal.first().filter(|first| first.seq > 1) else {
        return Ok(Ok(Mark::default()));
    };
    let before = first.seq - 1;
    let found = match lines::find(file, size, before)? {
        Some(offset) => Lines::new(file, offset, size).next()?,
        None => None,
    };
    let mark = found.and_then(|line| {
        let record = Record::decode_of(line.bytes.clone(), key).ok()?;
        let mark = Mark {
            seq: record.seq,
            crc: record.crc,
            bytes: line.end(),
        };
        (record.crc == first.prev && line.bytes.ends_with(b"\n")).then_some(mark)
    });
    Ok(mark.ok_or_else(|| {
        format!(
            "the journal goes on at record {}, the file lacks {before}",
            first.seq
        )
    }))
}
