//! Data directories on the simulated disk, made and spoilt.

use std::path::Path;

use super::*;
use crate::disk::sim::SimDisk;
use crate::record::Timestamp;

pub(super) fn key(id: &str) -> StreamKey {
    StreamKey::parse(&format!("session/a/{id}")).unwrap()
}

pub(super) fn options() -> JsonlOptions {
    JsonlOptions::new("/state")
}

pub(super) fn start(disk: &SimDisk) -> Result<Parts, OpenError> {
    Parts::open(Arc::new(disk.clone()), options())
}

/// Appends one record as a batch of its own.
pub(super) fn append(parts: &mut Parts, id: &str) -> Result<Seq, AppendError> {
    let stream = parts.engine.stream(&key(id));
    parts.engine.load(&stream).unwrap();
    append_after(parts, id, stream.live.tail().0)
}

/// As [`append`], by somebody who takes this for the stream's last seq.
pub(super) fn append_after(parts: &mut Parts, id: &str, expected: Seq) -> Result<Seq, AppendError> {
    let stream = parts.engine.stream(&key(id));
    // Letters of two, three and four bytes, so that some cuts fall inside of one.
    let body = format!("{{\"events\":[{{\"N\":\"{id}-{expected} é€😀\"}}]}}");
    let record = NewRecord::new(Timestamp::default(), 1, body.into());
    let (done, mut answer) = oneshot::channel();
    parts.engine.write_batch(
        &mut parts.writer,
        vec![Pending {
            stream,
            expected,
            record,
            done,
        }],
    );
    answer.try_recv().unwrap()
}

/// A disk whose journal holds the records of these streams, in this order; the process was killed
/// before it filed any.
pub(super) fn journal_of(ids: &[&str]) -> SimDisk {
    let disk = SimDisk::default();
    let mut parts = start(&disk).unwrap();
    for id in ids {
        append(&mut parts, id).unwrap();
    }
    drop(parts);
    disk.kill();
    disk
}

/// A disk whose files hold the records, checkpointed.
pub(super) fn filed(ids: &[&str]) -> SimDisk {
    let disk = SimDisk::default();
    let mut parts = start(&disk).unwrap();
    for id in ids {
        append(&mut parts, id).unwrap();
    }
    parts
        .engine
        .filing
        .push_segment(parts.writer.segment().number);
    parts.engine.file_pass(&mut parts.filer);
    assert_eq!(parts.engine.stats().checkpoints, 1);
    drop(parts);
    disk.kill();
    disk
}

pub(super) fn segment() -> PathBuf {
    path::Layout::new("/state".into()).segment(1)
}

pub(super) fn file(id: &str) -> PathBuf {
    path::Layout::new("/state".into()).file(&key(id))
}

/// Where the n-th line with a record begins, from 1.
pub(super) fn line(content: &[u8], n: usize) -> usize {
    let mut starts = (0..content.len()).filter(|at| content[*at..].starts_with(b"{\"v\":1"));
    starts.nth(n - 1).unwrap()
}

pub(super) fn seqs(disk: &SimDisk, id: &str) -> Vec<Seq> {
    let content = disk.content(&file(id)).unwrap_or_default();
    let mut mark = stream::Mark::default();
    for line in content.split_inclusive(|byte| *byte == b'\n') {
        match session_file::decode(Bytes::copy_from_slice(line), &key(id), mark) {
            Ok(record) => mark = mark.after(&record),
            Err(_) => break,
        }
    }
    (1..=mark.seq).collect()
}

pub(super) fn spoil(disk: &SimDisk, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut content = disk.content(path).unwrap();
    change(&mut content);
    disk.put(path, &content);
}

/// `LOOPWRIGHT_RIG=full` takes every bit.
pub(super) fn full() -> bool {
    std::env::var("LOOPWRIGHT_RIG").is_ok_and(|size| size == "full")
}
