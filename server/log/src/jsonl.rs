//! The embedded log: plain JSON lines on a local disk, made for one process.
//!
//! A shared journal carries the acknowledgement; behind it, a second thread copies records to a
//! readable file per stream. Readers go through the log: the file as far as it goes, then memory.
//! What is where at any moment, and what a start makes of it, is told in `journal`, `filer` and
//! `recover`. Invariant: one process per data directory, by lock.

mod checkpoint;
mod damage;
mod engine;
mod filer;
mod journal;
mod lines;
mod look;
mod path;
mod queue;
mod recover;
mod remove;
mod repair;
mod report;
mod segment;
mod session_file;
pub mod simulation;
mod stream;
mod threads;
mod verify;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{self, BoxFuture};
use tokio::sync::oneshot;

use crate::blob::BlobRef;
use crate::disk::{Disk, RealDisk};
use crate::error::{AppendError, BlobError, Corruption, Failure, LogError};
use crate::key::{KeyPage, KeyQuery, StreamKey, StreamKind};
use crate::live::lock;
use crate::moves::Moves;
use crate::progress::Progress;
use crate::reader::{self, Opened};
use crate::record::{NewRecord, Seq};
use crate::stats::Stats;
use crate::{BackStream, Log, ReadMode, ReadStream};

use engine::Engine;
use look::Looking;
use queue::{Pending, Stop};
use remove::Removal;
use session_file::{FileHistory, blocking};
use stream::Stream;
use threads::{Held, Parts};

pub use look::held_by;
pub use repair::{Repaired, RepairedJournal, repair_journal, repair_stream};
pub use report::{OpenError, RecoveryReport, Remains, SetAside};
pub use verify::{Found, Verdict, verify_stream};

/// When an append is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncPolicy {
    /// Before it is acknowledged.
    Always,
    /// About this often; a loss of power takes the time since.
    Interval(Duration),
    /// When the operating system and the filing thread see fit.
    Never,
}

/// Settings of the embedded log.
#[derive(Clone, Debug)]
pub struct JsonlOptions {
    /// The data directory; made (mode 0700) if it is not there.
    pub dir: PathBuf,
    /// Default [`SyncPolicy::Always`].
    pub sync: SyncPolicy,
    /// Size at which a segment of the journal is closed; default 64 MiB.
    pub segment_bytes: u64,
    /// Largest log of one stream; default 4 GiB.
    pub session_bytes: u64,
    /// How long records gather before they are copied to the files of their streams; default 200 ms.
    pub gather: Duration,
    /// How long the state of a stream that nobody uses stays in memory; default 10 s.
    pub idle: Duration,
    /// Open although the journal is damaged in a place that may have held the last record of any
    /// stream; default false. The damaged bytes are set aside.
    pub accept_damage: bool,
}

/// The embedded log.
pub struct JsonlLog {
    engine: Arc<Engine>,
    held: Arc<Mutex<Held>>,
    /// What is looked at, if nothing may change.
    looking: Option<Looking>,
}

impl JsonlOptions {
    /// The defaults, in this directory.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> JsonlOptions {
        JsonlOptions {
            dir: dir.into(),
            sync: SyncPolicy::Always,
            segment_bytes: 64 * 1024 * 1024,
            session_bytes: 4 * 1024 * 1024 * 1024,
            gather: Duration::from_millis(200),
            idle: Duration::from_secs(10),
            accept_damage: false,
        }
    }
}

impl JsonlLog {
    /// Opens the log of a directory, recovering it first. Blocks.
    ///
    /// # Errors
    /// [`OpenError`]; nothing was changed but what recovery repeats the next time.
    pub fn open(options: JsonlOptions) -> Result<(Arc<JsonlLog>, RecoveryReport), OpenError> {
        JsonlLog::open_on(Arc::new(RealDisk), options)
    }

    /// As [`JsonlLog::open`], on any disk.
    ///
    /// # Errors
    /// As [`JsonlLog::open`].
    pub fn open_on(
        disk: Arc<dyn Disk>,
        options: JsonlOptions,
    ) -> Result<(Arc<JsonlLog>, RecoveryReport), OpenError> {
        let (engine, held, report) = Parts::open(disk, options)?.start()?;
        Ok((
            Arc::new(JsonlLog {
                engine,
                held: Arc::new(Mutex::new(held)),
                looking: None,
            }),
            report,
        ))
    }

    /// Verifies one stream, as [`verify_stream`] does, of this log. Blocks.
    ///
    /// # Errors
    /// As the disk says.
    pub fn verify(&self, key: &StreamKey) -> io::Result<Verdict> {
        match &self.looking {
            Some(looking) => looking.verify(&self.engine, key),
            None => self.engine.verify(key, None),
        }
    }

    /// The streams that are damaged as far as starts have found, and take no appends. Blocks; looks
    /// at the folder of every stream.
    ///
    /// # Errors
    /// As the disk says.
    pub fn condemned(&self) -> io::Result<Vec<Corruption>> {
        damage::all(&*self.engine.disk, &self.engine.layout)
    }

    fn loaded(
        engine: Arc<Engine>,
        key: &StreamKey,
    ) -> impl Future<Output = Result<Arc<Stream>, LogError>> + use<> {
        // Now, not when it is first polled: a removal meanwhile is told to whoever holds it.
        let stream = engine.stream(key);
        JsonlLog::made_ready(engine, stream)
    }

    async fn made_ready(engine: Arc<Engine>, stream: Arc<Stream>) -> Result<Arc<Stream>, LogError> {
        if stream.is_loaded() {
            return Ok(stream);
        }
        blocking(move || engine.load(&stream).map(|()| stream)).await
    }

    fn opened(&self, key: &StreamKey) -> impl Future<Output = Result<Opened, LogError>> + use<> {
        let engine = self.engine.clone();
        let path = engine.layout.file(key);
        let loaded = JsonlLog::loaded(engine.clone(), key);
        async move {
            let stream = loaded.await?;
            let live = stream.live.clone();
            let history = Box::new(FileHistory::new(engine.disk.clone(), path, stream));
            Ok(Opened { live, history })
        }
    }
}

impl Log for JsonlLog {
    fn append<'a>(
        &'a self,
        key: &'a StreamKey,
        expected: Seq,
        record: NewRecord,
    ) -> BoxFuture<'a, Result<Seq, AppendError>> {
        Box::pin(async move {
            record.check(key)?;
            if self.looking.is_some() {
                return Err(AppendError::unavailable(look::READ_ONLY));
            }
            let stream = JsonlLog::loaded(self.engine.clone(), key).await?;
            record.others_are_sent().await;
            let (done, answer) = oneshot::channel();
            self.engine.queue.push(Pending {
                stream,
                expected,
                record,
                done,
            })?;
            answer
                .await
                .unwrap_or_else(|_| Err(AppendError::ambiguous("the writer has stopped")))
        })
    }

    fn read(&self, key: &StreamKey, after: Seq, mode: ReadMode) -> ReadStream {
        reader::forward(self.opened(key), after, mode)
    }

    fn read_back(&self, key: &StreamKey, before: Seq) -> BackStream {
        reader::backward(self.opened(key), before)
    }

    fn tail<'a>(&'a self, key: &'a StreamKey) -> BoxFuture<'a, Result<Option<Seq>, LogError>> {
        Box::pin(async move {
            let stream = JsonlLog::loaded(self.engine.clone(), key).await?;
            let (tail, _) = stream.live.tail();
            Ok((tail > 0).then_some(tail))
        })
    }

    fn keys(&self, query: KeyQuery) -> BoxFuture<'_, Result<KeyPage, LogError>> {
        let engine = self.engine.clone();
        Box::pin(blocking(move || engine.keys(&query)))
    }

    fn moves(&self, kind: StreamKind) -> Moves {
        self.engine.bell.listen(kind)
    }

    fn remove<'a>(&'a self, key: &'a StreamKey) -> BoxFuture<'a, Result<bool, LogError>> {
        Box::pin(async move {
            if self.looking.is_some() {
                return Err(LogError::unavailable(look::READ_ONLY));
            }
            let stream = JsonlLog::loaded(self.engine.clone(), key).await?;
            let (done, answer) = oneshot::channel();
            self.engine.queue.push_removal(Removal { stream, done })?;
            // A log that fails answers no removal that is under way.
            match future::select(answer, self.wait_failed()).await {
                future::Either::Left((Ok(answer), _)) => answer,
                future::Either::Left((Err(_), _)) => {
                    Err(LogError::unavailable("the log was closed meanwhile"))
                }
                future::Either::Right((failure, _)) => {
                    Err(LogError::unavailable(failure.to_string()))
                }
            }
        })
    }

    fn inspect<'a>(
        &'a self,
        key: &'a StreamKey,
    ) -> BoxFuture<'a, Result<Option<Verdict>, LogError>> {
        let (engine, looking, key) = (self.engine.clone(), self.looking.clone(), key.clone());
        Box::pin(blocking(move || {
            let found = match &looking {
                Some(looking) => looking.verify(&engine, &key),
                None => engine.verify(&key, None),
            };
            let mut verdict = found.map_err(|error| {
                LogError::unavailable(format!("cannot read the file of {key}: {error}"))
            })?;
            if let Ok(below) = verdict.path.strip_prefix(engine.layout.root()) {
                verdict.path = below.to_owned();
            }
            Ok(Some(verdict))
        }))
    }

    fn publish(&self, key: &StreamKey, progress: Progress) {
        self.engine.stream(key).live.publish(progress);
    }

    fn put_blob<'a>(
        &'a self,
        key: &'a StreamKey,
        payload: Bytes,
    ) -> BoxFuture<'a, Result<BlobRef, BlobError>> {
        let (engine, key) = (self.engine.clone(), key.clone());
        let read_only = self.looking.is_some();
        Box::pin(async move {
            if read_only {
                let reason = look::READ_ONLY.into();
                return Err(BlobError::Unavailable { reason });
            }
            let kept = tokio::task::spawn_blocking(move || engine.put_blob(&key, payload)).await;
            kept.unwrap_or_else(|error| {
                Err(BlobError::Unavailable {
                    reason: error.to_string(),
                })
            })
        })
    }

    fn get_blob<'a>(
        &'a self,
        key: &'a StreamKey,
        blob: &'a BlobRef,
    ) -> BoxFuture<'a, Result<Bytes, BlobError>> {
        let (engine, key, blob) = (self.engine.clone(), key.clone(), blob.clone());
        Box::pin(async move {
            let found = tokio::task::spawn_blocking(move || engine.get_blob(&key, &blob)).await;
            found.unwrap_or_else(|error| {
                Err(BlobError::Unavailable {
                    reason: error.to_string(),
                })
            })
        })
    }

    fn stats(&self) -> Stats {
        self.engine.stats()
    }

    fn failed(&self) -> Option<Failure> {
        self.engine.failed()
    }

    fn wait_failed(&self) -> BoxFuture<'_, Failure> {
        let mut failure = self.engine.watch_failure();
        Box::pin(async move {
            match failure
                .wait_for(Option::is_some)
                .await
                .map(|failure| failure.clone())
            {
                Ok(Some(failure)) => failure,
                // The engine outlives the borrow of the log.
                _ => std::future::pending().await,
            }
        })
    }

    fn close(&self) -> BoxFuture<'_, Result<(), LogError>> {
        let (engine, held) = (self.engine.clone(), self.held.clone());
        Box::pin(blocking(move || {
            // A second caller waits here for the first.
            lock(&held).end(&engine, Stop::Clean);
            match engine.failed() {
                Some(failure) => Err(LogError::unavailable(failure.to_string())),
                None => Ok(()),
            }
        }))
    }
}

impl Drop for JsonlLog {
    fn drop(&mut self) {
        lock(&self.held).end(&self.engine, Stop::AtOnce);
    }
}

#[cfg(test)]
mod tests;
