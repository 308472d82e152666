//! A log in memory: for tests, `--local` trials and the simulator. It forgets at exit.
//!
//! Invariant: the behaviour is that of the durable backends; only durability is missing.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::future::{self, BoxFuture, FutureExt};

use crate::blob::BlobRef;
use crate::error::{AppendError, BlobError, Failure, LogError};
use crate::fate::Stage;
use crate::key::{KeyPage, KeyQuery, StreamKey, StreamKind};
use crate::live::{Live, lock};
use crate::moves::{Bell, Moves};
use crate::progress::Progress;
use crate::reader::{self, NoHistory, Opened};
use crate::record::{NewRecord, Record, Seq};
use crate::stats::{Counters, Stats};
use crate::{BackStream, Log, ReadMode, ReadStream};

/// Default of [`MemoryLog::with_limit`]: 1 GiB.
const DEFAULT_LIMIT: u64 = 1 << 30;

/// A log in memory.
#[derive(Debug)]
pub struct MemoryLog {
    streams: Mutex<BTreeMap<StreamKey, Arc<Live>>>,
    blobs: Mutex<HashMap<(StreamKey, String), Bytes>>,
    bytes: AtomicU64,
    limit: u64,
    closed: AtomicBool,
    counters: Counters,
    bell: Bell,
}

impl Default for MemoryLog {
    fn default() -> MemoryLog {
        MemoryLog::with_limit(DEFAULT_LIMIT)
    }
}

impl MemoryLog {
    /// An empty log that takes up to 1 GiB.
    #[must_use]
    pub fn new() -> Arc<MemoryLog> {
        Arc::new(MemoryLog::default())
    }

    /// An empty log that takes up to `limit` bytes of records and blobs.
    #[must_use]
    pub fn with_limit(limit: u64) -> MemoryLog {
        MemoryLog {
            streams: Mutex::default(),
            blobs: Mutex::default(),
            bytes: AtomicU64::new(0),
            limit,
            closed: AtomicBool::new(false),
            counters: Counters::default(),
            bell: Bell::default(),
        }
    }

    fn live(&self, key: &StreamKey) -> Arc<Live> {
        let mut streams = lock(&self.streams);
        match streams.get(key) {
            Some(live) => live.clone(),
            None => streams.entry(key.clone()).or_default().clone(),
        }
    }

    fn opened(&self, key: &StreamKey) -> future::Ready<Result<Opened, LogError>> {
        future::ready(Ok(Opened {
            live: self.live(key),
            history: Box::new(NoHistory),
        }))
    }

    fn take_room(&self, size: u64) -> Result<(), String> {
        let held = self.bytes.fetch_add(size, Ordering::Relaxed);
        if held + size <= self.limit {
            return Ok(());
        }
        self.bytes.fetch_sub(size, Ordering::Relaxed);
        Err(format!(
            "the log in memory is full: {held} of {} bytes",
            self.limit
        ))
    }

    fn append_now(
        &self,
        key: &StreamKey,
        expected: Seq,
        new: &NewRecord,
    ) -> Result<Seq, AppendError> {
        new.check(key)?;
        if self.closed.load(Ordering::Relaxed) {
            return Err(AppendError::unavailable("the log is closed"));
        }
        // One append at a time: the map's lock orders the look and the commit.
        let mut streams = lock(&self.streams);
        new.may_follow()?;
        let live = streams.entry(key.clone()).or_default();
        let (tail, crc) = live.tail();
        if tail != expected {
            return Err(AppendError::Conflict { tail });
        }
        let record = Record::encode(key, tail + 1, new, crc);
        self.take_room(record.stored_bytes())
            .map_err(AppendError::unavailable)?;
        Counters::add(&self.counters.appends, 1);
        live.commit(Arc::new(record), &new.ends);
        new.set_stage(Stage::Taken);
        self.bell.appended(key, tail + 1);
        Ok(tail + 1)
    }

    fn remove_now(&self, key: &StreamKey) -> Result<bool, LogError> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(LogError::unavailable("the log is closed"));
        }
        let mut streams = lock(&self.streams);
        let Some(live) = streams.get(key).filter(|live| live.tail().0 > 0) else {
            return Ok(false);
        };
        let records = live
            .since(0)
            .into_iter()
            .map(|record| record.stored_bytes());
        let mut freed: u64 = records.sum();
        live.remove();
        streams.remove(key);
        lock(&self.blobs).retain(|(owner, _), payload| {
            let goes = owner == key;
            freed += if goes { payload.len() as u64 } else { 0 };
            !goes
        });
        self.bytes.fetch_sub(freed, Ordering::Relaxed);
        self.bell.removed(key);
        Ok(true)
    }

    fn page(&self, query: &KeyQuery) -> KeyPage {
        let streams = lock(&self.streams);
        let found: Vec<_> = streams
            .iter()
            .filter(|(key, _)| key.kind() == query.kind)
            .filter(|(key, _)| {
                query
                    .namespace
                    .as_ref()
                    .is_none_or(|only| only.as_str() == key.namespace())
            })
            .filter(|(key, _)| query.after.as_ref().is_none_or(|after| *key > after))
            .filter(|(_, live)| live.tail().0 > 0)
            .take(query.limit.saturating_add(1))
            .collect();
        let page = || found.iter().take(query.limit);
        KeyPage {
            keys: page().map(|(key, _)| (*key).clone()).collect(),
            sizes: page().map(|(_, live)| live.bytes()).collect(),
            more: found.len() > query.limit,
        }
    }
}

impl Log for MemoryLog {
    fn append<'a>(
        &'a self,
        key: &'a StreamKey,
        expected: Seq,
        record: NewRecord,
    ) -> BoxFuture<'a, Result<Seq, AppendError>> {
        Box::pin(async move { self.append_now(key, expected, &record) })
    }

    fn read(&self, key: &StreamKey, after: Seq, mode: ReadMode) -> ReadStream {
        reader::forward(self.opened(key), after, mode)
    }

    fn read_back(&self, key: &StreamKey, before: Seq) -> BackStream {
        reader::backward(self.opened(key), before)
    }

    fn tail<'a>(&'a self, key: &'a StreamKey) -> BoxFuture<'a, Result<Option<Seq>, LogError>> {
        let tail = lock(&self.streams).get(key).map_or(0, |live| live.tail().0);
        future::ready(Ok((tail > 0).then_some(tail))).boxed()
    }

    fn keys(&self, query: KeyQuery) -> BoxFuture<'_, Result<KeyPage, LogError>> {
        future::ready(Ok(self.page(&query))).boxed()
    }

    fn moves(&self, kind: StreamKind) -> Moves {
        self.bell.listen(kind)
    }

    fn remove<'a>(&'a self, key: &'a StreamKey) -> BoxFuture<'a, Result<bool, LogError>> {
        future::ready(self.remove_now(key)).boxed()
    }

    fn publish(&self, key: &StreamKey, progress: Progress) {
        self.live(key).publish(progress);
    }

    fn put_blob<'a>(
        &'a self,
        key: &'a StreamKey,
        payload: Bytes,
    ) -> BoxFuture<'a, Result<BlobRef, BlobError>> {
        Box::pin(async move {
            let blob = BlobRef::of(&payload)?;
            let name = (key.clone(), blob.sha256.clone());
            if !lock(&self.blobs).contains_key(&name) {
                let room = self.take_room(blob.bytes);
                room.map_err(|reason| BlobError::Unavailable { reason })?;
                lock(&self.blobs).insert(name, payload);
            }
            Ok(blob)
        })
    }

    fn get_blob<'a>(
        &'a self,
        key: &'a StreamKey,
        blob: &'a BlobRef,
    ) -> BoxFuture<'a, Result<Bytes, BlobError>> {
        let found = lock(&self.blobs)
            .get(&(key.clone(), blob.sha256.clone()))
            .cloned();
        future::ready(
            found
                .ok_or_else(|| blob.missing())
                .and_then(|p| blob.check(p)),
        )
        .boxed()
    }

    fn stats(&self) -> Stats {
        self.counters.snapshot(lock(&self.streams).len() as u64, 0)
    }

    fn failed(&self) -> Option<Failure> {
        None
    }

    fn wait_failed(&self) -> BoxFuture<'_, Failure> {
        future::pending().boxed()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), LogError>> {
        self.closed.store(true, Ordering::Relaxed);
        future::ready(Ok(())).boxed()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::conformance::{self, Subject};
    use crate::record::Timestamp;

    #[tokio::test]
    async fn conforms() {
        conformance::run(|| async {
            Subject {
                log: MemoryLog::new(),
                reopen: None,
            }
        })
        .await;
    }

    #[tokio::test]
    async fn a_full_log_takes_no_more() {
        let log = MemoryLog::with_limit(300);
        let key = StreamKey::parse("session/a/s").unwrap();
        let new = || NewRecord::new(Timestamp::default(), 1, Bytes::from_static(b"{\"x\":1}"));
        assert_eq!(log.append(&key, 0, new()).await, Ok(1));
        let full = log.append(&key, 1, new()).await;
        assert!(matches!(
            full,
            Ok(2)
                | Err(AppendError::Unavailable {
                    ambiguous: false,
                    ..
                })
        ));
        let payload = Bytes::from(vec![0; 400]);
        assert!(matches!(
            log.put_blob(&key, payload).await,
            Err(BlobError::Unavailable { .. })
        ));
        assert_eq!(log.failed(), None);
        assert!(log.wait_failed().now_or_never().is_none());
    }
}
