//! A log in memory whose writes go wrong as a test wants it.
//!
//! Boundary: for tests alone. Invariant: everything but the fate of a write is the log's own.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use loopwright_log::{
    AppendError, BackStream, BlobError, BlobRef, Failure, KeyPage, KeyQuery, Log, LogError,
    MemoryLog, Moves, NewRecord, Progress, ReadMode, ReadStream, Seq, Stats, StreamKey, StreamKind,
};

/// A write to the log, which happens when it is awaited and not before.
pub(crate) type Write<'a, T, E> = BoxFuture<'a, Result<T, E>>;

/// What becomes of writes.
pub(crate) trait Fault: Send + Sync + 'static {
    /// Carries out an append, or does not.
    fn append<'a>(
        &'a self,
        key: &'a StreamKey,
        write: Write<'a, Seq, AppendError>,
    ) -> Write<'a, Seq, AppendError>;

    /// Why the log does not take this record, if it does not.
    fn refuses(&self, _: &NewRecord) -> Option<AppendError> {
        None
    }

    /// Carries out a removal, or does not.
    fn remove<'a>(&'a self, write: Write<'a, bool, LogError>) -> Write<'a, bool, LogError> {
        write
    }
}

/// A log with a fault.
pub(crate) struct Faulty<F> {
    pub(crate) log: Arc<MemoryLog>,
    pub(crate) fault: F,
}

impl<F: Fault> Log for Faulty<F> {
    fn append<'a>(
        &'a self,
        key: &'a StreamKey,
        expected: Seq,
        record: NewRecord,
    ) -> BoxFuture<'a, Result<Seq, AppendError>> {
        let write = async move {
            match self.fault.refuses(&record) {
                Some(error) => Err(error),
                None => self.log.append(key, expected, record).await,
            }
        };
        self.fault.append(key, Box::pin(write))
    }

    fn read(&self, key: &StreamKey, after: Seq, mode: ReadMode) -> ReadStream {
        self.log.read(key, after, mode)
    }

    fn read_back(&self, key: &StreamKey, before: Seq) -> BackStream {
        self.log.read_back(key, before)
    }

    fn tail<'a>(&'a self, key: &'a StreamKey) -> BoxFuture<'a, Result<Option<Seq>, LogError>> {
        self.log.tail(key)
    }

    fn keys(&self, query: KeyQuery) -> BoxFuture<'_, Result<KeyPage, LogError>> {
        self.log.keys(query)
    }

    fn moves(&self, kind: StreamKind) -> Moves {
        self.log.moves(kind)
    }

    fn remove<'a>(&'a self, key: &'a StreamKey) -> BoxFuture<'a, Result<bool, LogError>> {
        let write = async move { self.log.remove(key).await };
        self.fault.remove(Box::pin(write))
    }

    fn publish(&self, key: &StreamKey, progress: Progress) {
        self.log.publish(key, progress);
    }

    fn put_blob<'a>(
        &'a self,
        key: &'a StreamKey,
        payload: Bytes,
    ) -> BoxFuture<'a, Result<BlobRef, BlobError>> {
        self.log.put_blob(key, payload)
    }

    fn get_blob<'a>(
        &'a self,
        key: &'a StreamKey,
        blob: &'a BlobRef,
    ) -> BoxFuture<'a, Result<Bytes, BlobError>> {
        self.log.get_blob(key, blob)
    }

    fn stats(&self) -> Stats {
        self.log.stats()
    }

    fn failed(&self) -> Option<Failure> {
        self.log.failed()
    }

    fn wait_failed(&self) -> BoxFuture<'_, Failure> {
        self.log.wait_failed()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), LogError>> {
        self.log.close()
    }
}
