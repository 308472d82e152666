//! What a start makes of a data directory, as its readers see it.
//!
//! Invariant: everything is read through the log's public face; nothing here knows what was spoilt.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::{Result, bail};
use futures_util::StreamExt as _;
use loopwright_log::{
    JsonlLog, JsonlOptions, Log as _, LogError, NewRecord, OpenError, ReadItem, ReadMode,
    RecoveryReport, Seq, Timestamp, disk::sim::SimDisk,
};

use super::image::{key, options};

/// What a start found.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// The start was refused, with these words, and was made again, accepting the damage.
    pub(super) refused: Option<String>,
    pub(super) report: RecoveryReport,
    /// What can be read, by stream.
    pub(super) streams: BTreeMap<String, Read>,
}

/// One stream, read to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) bodies: Vec<String>,
    pub(super) end: End,
}

/// How a read ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// At the tail.
    Whole,
    /// In damage, after this seq.
    Corrupt(Seq),
}

/// Starts a log on the disk, and reads the streams.
pub(super) async fn look(disk: &SimDisk, streams: &[String]) -> Result<Seen> {
    let mut refused = None;
    let opened = match open(disk, false) {
        Err(error @ OpenError::Damaged { .. }) => {
            refused = Some(error.to_string());
            open(disk, true)
        }
        opened => opened,
    };
    let (log, report) = opened?;
    let mut read = BTreeMap::new();
    for stream in streams {
        read.insert(stream.clone(), read_stream(&log, stream).await?);
    }
    drop(log);
    Ok(Seen {
        refused,
        report,
        streams: read,
    })
}

/// Starts a log on what recovery has left: it appends to each of these streams after so many records,
/// and is told of a cursor past the tail.
pub(super) async fn goes_on(disk: &SimDisk, kept: &BTreeMap<&str, usize>) -> Result<()> {
    let (log, report) = open(disk, false)?;
    if !report.is_clean() {
        bail!("the second start still finds something: {report:?}");
    }
    for (stream, kept) in kept {
        let tail = *kept as u64;
        let past = log
            .read(&key(stream), tail + 1, ReadMode::ToTail)
            .next()
            .await;
        if !matches!(past, Some(Err(LogError::PastTail { .. }))) {
            bail!("{stream}: a cursor at {} of {tail} gets {past:?}", tail + 1);
        }
        let new = NewRecord::new(Timestamp::default(), 2, "{\"after\":true}".into());
        let seq = log.append(&key(stream), tail, new).await?;
        let read = read_stream(&log, stream).await?;
        if seq != tail + 1 || read.bodies.len() != kept + 1 || read.end != End::Whole {
            bail!("{stream} does not go on after {tail}: appended {seq}, reads {read:?}");
        }
    }
    Ok(())
}

fn open(disk: &SimDisk, accept_damage: bool) -> Result<(Arc<JsonlLog>, RecoveryReport), OpenError> {
    let options = JsonlOptions {
        accept_damage,
        ..options()
    };
    JsonlLog::open_on(Arc::new(disk.clone()), options)
}

async fn read_stream(log: &JsonlLog, stream: &str) -> Result<Read> {
    let mut reader = log.read(&key(stream), 0, ReadMode::ToTail);
    let mut bodies = Vec::new();
    while let Some(item) = reader.next().await {
        match item {
            Ok(ReadItem::Fact(fact)) => {
                if fact.seq != bodies.len() as Seq + 1 {
                    bail!("{stream}: seq {} after {}", fact.seq, bodies.len());
                }
                bodies.push(String::from_utf8(fact.body().to_vec())?);
            }
            Ok(_) => {}
            Err(LogError::Corrupt(damage)) => {
                let end = End::Corrupt(damage.good_through);
                return Ok(Read { bodies, end });
            }
            Err(other) => bail!("{stream}: {other}"),
        }
    }
    let end = End::Whole;
    Ok(Read { bodies, end })
}
