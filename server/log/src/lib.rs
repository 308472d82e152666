//! Durable streams of records, and the progress that flows beside them.
//!
//! The log is the truth of the server: a session's state is a fold of its stream. This crate knows
//! streams, records and progress, and nothing of what the bodies mean; it knows no network either.
//!
//! One stream, with the offsets that the words of this crate stand for:
//!
//! ```text
//!               file of the stream                 in memory            not yet
//!      |--------------------------------------|------------------|- - - - - - - - -|
//! seq  1                                 filed               tail  tail+1 ...
//!      ^ oldest                               ^                  ^
//!      |                                      |                  acknowledged: durable in the journal
//!      |                                      the second thread has copied it behind the journal
//!      after=0 reads from here
//!
//!      checkpoint <= filed <= tail      records up to `checkpoint` need no journal any more
//!
//! progress       . . . . . . . . . . . . . . . . . . . . . . . . . . . {anchor, call, attempt}
//!                droppable, has no seq, lives only until a record ends it; shown to readers at the tail
//! ```
//!
//! Invariants, held by every backend through [`conformance`]:
//! - `seq` counts facts only, dense from 1; the log assigns it (`expected + 1`), a caller never does.
//! - A record is atomic, and durable before `append` answers `Ok`.
//! - `append` names the last seq that the caller has seen. A wrong one changes nothing.
//! - A reader gets every fact once and in order, however slow it is; it costs no memory while it waits.
//! - Dropping every [`Progress`] changes no fact.

mod blob;
pub mod conformance;
pub mod disk;
mod error;
mod fate;
mod jsonl;
mod key;
mod live;
mod memory;
mod moves;
mod progress;
mod reader;
mod record;
mod stats;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;

pub use blob::{BlobRef, MAX_BLOB_BYTES};
pub use error::{AppendError, BlobError, Corruption, Failure, LogError};
pub use fate::Fate;
pub use jsonl::simulation;
pub use jsonl::{
    Found, JsonlLog, JsonlOptions, OpenError, RecoveryReport, Remains, Repaired, RepairedJournal,
    SetAside, SyncPolicy, Verdict, held_by, repair_journal, repair_stream, verify_stream,
};
pub use key::{Id, InvalidId, KeyPage, KeyQuery, StreamKey, StreamKind};
pub use memory::MemoryLog;
pub use moves::{Move, Moves};
pub use progress::{Keep, Progress, ProgressTopic};
pub use record::{Fault, MAX_RECORD_BYTES, NewRecord, Record, Seq, Timestamp};
pub use stats::Stats;

/// How long a read goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadMode {
    /// The stream ends after [`ReadItem::CompleteThrough`].
    ToTail,
    /// After [`ReadItem::CompleteThrough`] the reader waits for what comes, without end.
    Follow,
}

/// What a reader gets.
#[derive(Clone, Debug)]
pub enum ReadItem {
    /// The next fact. Readers at the tail share one allocation.
    Fact(Arc<Record>),
    /// Progress of a call in flight; only in [`ReadMode::Follow`], only at the tail.
    Progress(Arc<Progress>),
    /// Every fact up to this seq has been delivered. Comes once in a read: when it first caught up.
    CompleteThrough(Seq),
}

/// Facts, live progress and the mark between history and presence, of one stream.
pub type ReadStream = BoxStream<'static, Result<ReadItem, LogError>>;

/// Facts of one stream, newest first.
pub type BackStream = BoxStream<'static, Result<Arc<Record>, LogError>>;

/// Streams of records. See the crate's page for the invariants.
///
/// Futures and streams of this trait want a tokio runtime.
pub trait Log: Send + Sync + 'static {
    /// Appends one record if the stream's last seq is `expected` (0: the stream is empty), and
    /// answers its seq once it is durable as the backend's sync policy says.
    ///
    /// A record that was sent [behind](NewRecord::behind) others waits until each of them has its place,
    /// is refused as unavailable where one of them was not taken, and is durable only with all of them.
    ///
    /// A caller that drops the future does not know whether the record was written; the next
    /// `append` or `tail` tells.
    fn append<'a>(
        &'a self,
        key: &'a StreamKey,
        expected: Seq,
        record: NewRecord,
    ) -> BoxFuture<'a, Result<Seq, AppendError>>;

    /// Reads the facts after `after`, in order. A cursor past the tail gets [`LogError::PastTail`].
    /// A damaged stream yields its good prefix, then [`LogError::Corrupt`]. What is read is the
    /// stream that has the key when this is called, not when the first item is asked for: one that
    /// is removed in between ends with [`LogError::Removed`].
    fn read(&self, key: &StreamKey, after: Seq, mode: ReadMode) -> ReadStream;

    /// Reads the facts with a seq below `before`, newest first; `Seq::MAX` starts at the tail. The
    /// stream is that of the call, as in [`Log::read`].
    fn read_back(&self, key: &StreamKey, before: Seq) -> BackStream;

    /// The last acknowledged seq; `None` for a stream without a record.
    fn tail<'a>(&'a self, key: &'a StreamKey) -> BoxFuture<'a, Result<Option<Seq>, LogError>>;

    /// Keys of streams that hold a record, in the order of (namespace, id).
    fn keys(&self, query: KeyQuery) -> BoxFuture<'_, Result<KeyPage, LogError>>;

    /// Hears which streams of a kind move from here on. What a reader sees before this returns is
    /// not told; whatever comes later is, once for all that came since it was last asked.
    fn moves(&self, kind: StreamKind) -> Moves;

    /// Removes a stream with its blobs: `true` once no restart can bring it back, `false` if there
    /// is none. A damaged stream can be removed, too. Its readers end with [`LogError::Removed`],
    /// appends that expect its records with [`AppendError::Conflict`]. Then the key may be used
    /// anew, from seq 1; until then an append that expects nothing is [`AppendError::Unavailable`].
    ///
    /// A caller that drops the future, or gets [`LogError::Unavailable`], does not know; asking
    /// again is safe.
    fn remove<'a>(&'a self, key: &'a StreamKey) -> BoxFuture<'a, Result<bool, LogError>>;

    /// Verifies a stream where it is kept, for people: where damage lies, and what lies behind it.
    /// The path is relative to the data directory. `None` where the backend keeps no files. Changes
    /// nothing.
    fn inspect<'a>(
        &'a self,
        _key: &'a StreamKey,
    ) -> BoxFuture<'a, Result<Option<Verdict>, LogError>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Shows progress to the readers at the tail. Best effort: never waits, never fails.
    fn publish(&self, key: &StreamKey, progress: Progress);

    /// Keeps a payload beside the stream under its SHA-256, durable before `Ok`. The same bytes
    /// twice are kept once. At most [`MAX_BLOB_BYTES`].
    fn put_blob<'a>(
        &'a self,
        key: &'a StreamKey,
        payload: Bytes,
    ) -> BoxFuture<'a, Result<BlobRef, BlobError>>;

    /// The payload of a reference, checked against its hash.
    fn get_blob<'a>(
        &'a self,
        key: &'a StreamKey,
        blob: &'a BlobRef,
    ) -> BoxFuture<'a, Result<Bytes, BlobError>>;

    /// Counters since the log was opened.
    fn stats(&self) -> Stats;

    /// Why the log takes no more appends, if so. A failed sync is final: the process is to stop
    /// serving and exit; the next start recovers.
    fn failed(&self) -> Option<Failure>;

    /// Ends when the log fails for good, and not before.
    fn wait_failed(&self) -> BoxFuture<'_, Failure>;

    /// Refuses new appends, finishes those that were accepted, and leaves the log so that the next
    /// start has nothing to recover. Idempotent.
    fn close(&self) -> BoxFuture<'_, Result<(), LogError>>;
}
