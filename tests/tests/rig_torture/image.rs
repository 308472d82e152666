//! Data directories on the simulated disk: made once, then spoilt as often as one likes.
//!
//! Boundary: the log crate's public face. Invariant: an image is made the same way for every run, so
//! that the offset of a byte means the same record each time.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use loopwright_log::{
    JsonlLog, JsonlOptions, Log, NewRecord, StreamKey, Timestamp,
    disk::{Disk as _, sim::SimDisk},
};

/// Records of the log that every bit of is flipped.
pub(super) const RECORDS: usize = 200;
/// Streams that they belong to, in turn.
const STREAMS: usize = 4;
/// Records of one batch of the journal.
const BATCH: usize = 3;
/// Where the log lies.
pub(super) const DIR: &str = "/state";

/// The directories and files of a log.
#[derive(Clone, Debug)]
pub(super) struct Image {
    dirs: Vec<PathBuf>,
    files: BTreeMap<PathBuf, Vec<u8>>,
}

/// One record of an image, in the order in which they were acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// The stream's id.
    pub(super) stream: String,
    /// Its seq in the stream.
    pub(super) seq: usize,
    pub(super) body: String,
}

/// What was acknowledged.
#[derive(Clone, Debug)]
pub(super) struct Truth(pub(super) Vec<Known>);

/// Where in a file the lines of records are.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    /// Beginning and end, newline included.
    pub(super) ranges: Vec<std::ops::Range<usize>>,
}

impl Truth {
    /// The ids of all streams.
    pub(super) fn streams(&self) -> Vec<String> {
        let mut ids: Vec<String> = self.0.iter().map(|known| known.stream.clone()).collect();
        ids.sort();
        ids.dedup();
        ids
    }

    /// The bodies of a stream among the first `records` records.
    pub(super) fn bodies(&self, stream: &str, records: usize) -> Vec<&str> {
        let first = self.0.iter().take(records);
        let of_stream = first.filter(|known| known.stream == stream);
        of_stream.map(|known| known.body.as_str()).collect()
    }
}

impl Image {
    fn of(disk: &SimDisk) -> Self {
        let (files, dirs): (Vec<PathBuf>, Vec<PathBuf>) = disk
            .paths()
            .into_iter()
            .partition(|path| disk.content(path).is_some());
        let content = |path: PathBuf| disk.content(&path).map(|content| (path, content));
        Self {
            dirs,
            files: files.into_iter().filter_map(content).collect(),
        }
    }

    /// The content of a file.
    pub(super) fn file(&self, path: &Path) -> Result<&[u8]> {
        let found = self.files.get(path);
        found
            .map(Vec::as_slice)
            .with_context(|| format!("no {} in the image", path.display()))
    }

    /// The same with another content of one file.
    pub(super) fn with(&self, path: &Path, content: Vec<u8>) -> Self {
        let mut changed = self.clone();
        changed.files.insert(path.to_owned(), content);
        changed
    }

    /// A disk with this content, all of it durable.
    pub(super) fn disk(&self) -> Result<SimDisk> {
        let disk = SimDisk::default();
        for dir in &self.dirs {
            disk.create_dir(dir)?;
        }
        for dir in &self.dirs {
            disk.sync_dir(dir)?;
        }
        for (path, content) in &self.files {
            disk.put(path, content);
        }
        Ok(disk)
    }
}

impl Lines {
    /// Finds the records in a file.
    pub(super) fn of(content: &[u8]) -> Self {
        let mut ranges = Vec::new();
        let mut start = 0;
        for line in content.split_inclusive(|byte| *byte == b'\n') {
            if line.len() > 1 {
                ranges.push(start..start + line.len());
            }
            start += line.len();
        }
        Self { ranges }
    }

    /// The record that a byte belongs to; a barrier belongs to the record after it.
    pub(super) fn owner(&self, byte: usize) -> usize {
        self.ranges.partition_point(|range| range.end <= byte)
    }
}

/// The settings of every log here: nothing is filed by itself.
pub(super) fn options() -> JsonlOptions {
    JsonlOptions {
        gather: Duration::from_secs(3600),
        ..JsonlOptions::new(DIR)
    }
}

pub(super) fn key(stream: &str) -> StreamKey {
    StreamKey::parse(&format!("session/a/{stream}")).expect("a fixed shape")
}

/// The journal's first segment.
pub(super) fn segment() -> PathBuf {
    Path::new(DIR).join("journal/0000000001.jsonl")
}

/// The file of one stream.
pub(super) fn file(stream: &str) -> PathBuf {
    Path::new(DIR).join(format!("a/session/{stream}/log.jsonl"))
}

/// A journal that holds everything, of a process that was killed before it filed any of it.
pub(super) async fn journal() -> Result<(Image, Truth)> {
    let (disk, truth, log) = written(STREAMS).await?;
    drop(log);
    let image = Image::of(&disk);
    let batched = batches(image.file(&segment())?);
    ensure!(
        Lines::of(&batched).ranges.len() == RECORDS,
        "a journal of them all"
    );
    Ok((image.with(&segment(), batched), truth))
}

/// A session's file that holds everything, of a process that ended in order.
pub(super) async fn closed() -> Result<(Image, Truth)> {
    let (disk, truth, log) = written(1).await?;
    log.close().await?;
    drop(log);
    let image = Image::of(&disk);
    let lines = Lines::of(image.file(&file("s0"))?);
    ensure!(lines.ranges.len() == RECORDS, "a file of them all");
    Ok((image, truth))
}

async fn written(streams: usize) -> Result<(SimDisk, Truth, Arc<JsonlLog>)> {
    let disk = SimDisk::default();
    let (log, _) = JsonlLog::open_on(Arc::new(disk.clone()), options())?;
    let mut truth = Vec::new();
    for n in 0..RECORDS {
        let (stream, before) = (format!("s{}", n % streams), n / streams);
        let body = format!("{{\"events\":[{{\"N\":\"{stream}-{n}\"}}]}}");
        let new = NewRecord::new(Timestamp::default(), 1, body.clone().into());
        log.append(&key(&stream), before as u64, new).await?;
        truth.push(Known {
            stream,
            seq: before + 1,
            body,
        });
    }
    Ok((disk, Truth(truth), log))
}

/// Joins the batches of one record each to batches of three, as if they had come at once: a barrier
/// stands before the first record of a batch alone.
fn batches(journal: &[u8]) -> Vec<u8> {
    let mut joined = Vec::new();
    for (n, range) in Lines::of(journal).ranges.into_iter().enumerate() {
        if n % BATCH == 0 {
            joined.extend_from_slice(b"\n\n");
        }
        joined.extend_from_slice(&journal[range]);
    }
    joined
}

/// The first record of the last batch.
pub(super) fn last_batch() -> usize {
    (RECORDS - 1) / BATCH * BATCH
}
