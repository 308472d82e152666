//! The behaviour that every backend shows, as one suite that a backend's tests run.
//!
//! Boundary: only the [`Log`] trait, never a backend. A behaviour panics with what it saw; it gets
//! a namespace of its own, so that all of them can share one log.

mod append;
mod blobs;
mod keys;
mod live;
mod moves;
mod reads;
mod remove;
mod restart;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;

use crate::{
    Id, Keep, Log, LogError, NewRecord, Progress, ProgressTopic, ReadItem, ReadMode, ReadStream,
    Record, Seq, StreamKey, Timestamp,
};

/// A log under test.
pub struct Subject {
    /// The log, empty or not.
    pub log: Arc<dyn Log>,
    /// Opens what the closed log left; absent where nothing stays.
    pub reopen: Option<Reopen>,
}

/// Opens a log again.
pub type Reopen = Box<dyn Fn() -> BoxFuture<'static, Arc<dyn Log>> + Send + Sync>;

/// Runs every behaviour, each on a subject of its own.
///
/// # Panics
/// With the name of the behaviour and what was seen, at the first one that fails.
pub async fn run<F, Fut>(subject: F)
where
    F: Fn() -> Fut,
    Fut: Future<Output = Subject>,
{
    append::run(&subject().await).await;
    reads::run(&subject().await).await;
    live::run(&subject().await).await;
    moves::run(&subject().await).await;
    keys::run(&subject().await).await;
    blobs::run(&subject().await).await;
    remove::run(subject().await).await;
    restart::run(subject().await).await;
}

/// A stream of a namespace.
fn key(namespace: &str, id: &str) -> StreamKey {
    let parse = |text| Id::parse(text).expect("the suite uses good ids");
    StreamKey::session(&parse(namespace), &parse(id))
}

/// The n-th record of the suite.
fn record(n: u64) -> NewRecord {
    let body = format!("{{\"cause\":\"suite\",\"events\":[{{\"N\":{n}}}]}}");
    NewRecord::new(
        Timestamp::from_unix_ms(1_700_000_000_000 + n),
        1,
        body.into(),
    )
}

async fn fill(log: &dyn Log, key: &StreamKey, count: u64) {
    let tail = log.tail(key).await.expect("tail").unwrap_or(0);
    for seq in tail..tail + count {
        assert_eq!(
            log.append(key, seq, record(seq + 1)).await,
            Ok(seq + 1),
            "append to {key}"
        );
    }
}

/// Reads to the tail: the facts, and the seq of the completion mark.
async fn read_all(log: &dyn Log, key: &StreamKey, after: Seq) -> (Vec<Arc<Record>>, Seq) {
    let mut reader = log.read(key, after, ReadMode::ToTail);
    let (mut facts, mut complete) = (Vec::new(), None);
    while let Some(item) = reader.next().await {
        assert_eq!(complete, None, "nothing comes after the completion mark");
        match item.expect("a good stream") {
            ReadItem::Fact(fact) => facts.push(fact),
            ReadItem::CompleteThrough(seq) => complete = Some(seq),
            ReadItem::Progress(progress) => panic!("progress in a read to the tail: {progress:?}"),
        }
    }
    (facts, complete.expect("a completion mark"))
}

/// The next item, within a time that only a hang exceeds.
async fn next(reader: &mut ReadStream) -> Result<ReadItem, LogError> {
    tokio::time::timeout(Duration::from_secs(60), reader.next())
        .await
        .expect("the reader was not woken")
        .expect("the reader ended")
}

async fn next_seq(reader: &mut ReadStream) -> Seq {
    match next(reader).await.expect("a fact") {
        ReadItem::Fact(fact) => fact.seq,
        other => panic!("a fact was due, got {other:?}"),
    }
}

async fn next_text(reader: &mut ReadStream) -> (u64, Bytes) {
    match next(reader).await.expect("progress") {
        ReadItem::Progress(progress) => (progress.offset, progress.payload.clone()),
        other => panic!("progress was due, got {other:?}"),
    }
}

/// Checks that nothing is ready now.
fn quiet(reader: &mut ReadStream) {
    use futures_util::FutureExt;
    let ready = reader.next().now_or_never();
    assert!(ready.is_none(), "nothing was due, got {ready:?}");
}

fn topic(anchor: Seq, call: u32) -> ProgressTopic {
    ProgressTopic {
        anchor,
        call,
        attempt: 1,
        channel: 0,
    }
}

fn text(topic: ProgressTopic, offset: u64, text: &'static str) -> Progress {
    Progress::new(
        topic,
        offset,
        Bytes::from_static(text.as_bytes()),
        Keep::Append,
    )
}
