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
mod path;
mod queue;
mod recover;
mod segment;
mod session_file;
mod stream;
mod verify;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

use crate::blob::BlobRef;
use crate::disk::{Disk, Lock, LockError, RealDisk};
use crate::error::{AppendError, BlobError, Corruption, Failure, LogError};
use crate::key::{KeyPage, KeyQuery, StreamKey};
use crate::live::lock;
use crate::progress::Progress;
use crate::reader::{self, Opened};
use crate::record::{NewRecord, Seq};
use crate::stats::Stats;
use crate::{BackStream, Log, ReadMode, ReadStream};

use engine::Engine;
use filer::Filer;
use journal::{Segment, Writer};
use queue::{Pending, Stop};
use session_file::{FileHistory, blocking};
use stream::Stream;

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

/// Why the log did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process serves the directory.
    #[error("{} is in use by {}; stop it, or give this one a directory of its own", dir.display(), holder(*pid))]
    Locked {
        /// The data directory.
        dir: PathBuf,
        /// The holder, where its lock file names it.
        pid: Option<u32>,
    },
    /// Written by a newer release.
    #[error("{} has format version {found}, this release reads up to 1; upgrade", path.display())]
    NewerVersion {
        /// The file.
        path: PathBuf,
        /// The version found.
        found: u32,
    },
    /// Acknowledged bytes of the journal are damaged, and nothing tells whose they were.
    #[error(
        "{bytes} bytes at {offset} of {} are damaged, and may have held the last record of any \
         session; restore the file, or accept the loss with `loopwright log repair`",
        path.display()
    )]
    Damaged {
        /// The segment.
        path: PathBuf,
        /// Where the damage begins.
        offset: u64,
        /// How long it is.
        bytes: u64,
    },
    /// The disk failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// What a start found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Segments of the journal that were read.
    pub segments: usize,
    /// Good records in them.
    pub records: u64,
    /// Streams whose files were looked at.
    pub streams: usize,
    /// Records that were written to those files.
    pub refiled: u64,
    /// Bytes that belong to no acknowledged record, kept aside.
    pub set_aside: Vec<SetAside>,
    /// Streams that have lost acknowledged records; they read up to there and take no appends.
    pub corrupt: Vec<Corruption>,
    /// The checkpoint manifest did not match its checksum; the journal alone was believed.
    pub manifest_damaged: bool,
}

/// Bytes that recovery has kept aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    /// The file that held them.
    pub from: PathBuf,
    /// Where they began.
    pub offset: u64,
    /// How many.
    pub bytes: u64,
    /// Where they are now.
    pub kept_in: PathBuf,
}

/// The embedded log.
pub struct JsonlLog {
    engine: Arc<Engine>,
    held: Arc<Mutex<Held>>,
}

/// What ends with the log.
struct Held {
    writer: Option<JoinHandle<u64>>,
    filer: Option<JoinHandle<()>>,
    lock: Option<Lock>,
}

/// The parts of an open log before its threads start.
struct Parts {
    engine: Arc<Engine>,
    writer: Writer,
    filer: Filer,
    lock: Lock,
    report: RecoveryReport,
}

/// Turns a panic of a thread into the end of the log.
struct Watchdog(Arc<Engine>);

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

impl RecoveryReport {
    /// Whether the last end left nothing behind that a person should know of.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.set_aside.is_empty() && self.corrupt.is_empty() && !self.manifest_damaged
    }
}

impl OpenError {
    fn io(path: &Path, source: io::Error) -> OpenError {
        OpenError::Io {
            path: path.into(),
            source,
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
        let dir = options.dir.clone();
        let Parts {
            engine,
            writer,
            filer,
            lock,
            report,
        } = assemble(disk, options)?;
        let failed = |error| OpenError::io(&dir, error);
        let writer = spawn("log-writer", &engine, |engine| write_on(engine, writer));
        let writer = writer.map_err(failed)?;
        let filer = spawn("log-filer", &engine, |engine| file_on(engine, filer)).map_err(failed)?;
        let held = Held {
            writer: Some(writer),
            filer: Some(filer),
            lock: Some(lock),
        };
        Ok((
            Arc::new(JsonlLog {
                engine,
                held: Arc::new(Mutex::new(held)),
            }),
            report,
        ))
    }

    /// Checks the file of one stream; see [`verify_stream`]. Blocks.
    ///
    /// # Errors
    /// As the disk says.
    pub fn verify(&self, key: &StreamKey) -> io::Result<Verdict> {
        verify_stream(&*self.engine.disk, self.engine.layout.root(), key)
    }

    async fn loaded(engine: Arc<Engine>, key: &StreamKey) -> Result<Arc<Stream>, LogError> {
        let stream = engine.stream(key);
        if stream.is_loaded() {
            return Ok(stream);
        }
        blocking(move || engine.load(&stream).map(|()| stream)).await
    }

    fn opened(&self, key: &StreamKey) -> impl Future<Output = Result<Opened, LogError>> + use<> {
        let (engine, key) = (self.engine.clone(), key.clone());
        async move {
            let stream = JsonlLog::loaded(engine.clone(), &key).await?;
            let live = stream.live.clone();
            let path = engine.layout.file(&key);
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
            let stream = JsonlLog::loaded(self.engine.clone(), key).await?;
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

    fn publish(&self, key: &StreamKey, progress: Progress) {
        self.engine.stream(key).live.publish(progress);
    }

    fn put_blob<'a>(
        &'a self,
        key: &'a StreamKey,
        payload: Bytes,
    ) -> BoxFuture<'a, Result<BlobRef, BlobError>> {
        let (engine, key) = (self.engine.clone(), key.clone());
        Box::pin(async move {
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
            end(&engine, &held, Stop::Clean);
            match engine.failed() {
                Some(failure) => Err(LogError::unavailable(failure.to_string())),
                None => Ok(()),
            }
        }))
    }
}

impl Drop for JsonlLog {
    fn drop(&mut self) {
        end(&self.engine, &self.held, Stop::AtOnce);
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.fail(format!(
                "a thread of the log panicked: {:?}",
                thread::current().name()
            ));
        }
    }
}

/// Locks, recovers, and makes the first segment.
fn assemble(disk: Arc<dyn Disk>, options: JsonlOptions) -> Result<Parts, OpenError> {
    let engine = Engine::new(disk, options);
    let (disk, layout) = (&*engine.disk, &engine.layout);
    let failed = |error| OpenError::io(layout.root(), error);
    recover::make_root(disk, layout).map_err(failed)?;
    let lock = disk.lock(&layout.lock()).map_err(|error| match error {
        LockError::Held { pid } => OpenError::Locked {
            dir: layout.root().into(),
            pid,
        },
        LockError::Io(source) => OpenError::io(&layout.lock(), source),
    })?;
    let recovered = recover::recover(disk, layout, engine.options.accept_damage)?;
    let segment = Segment::create(disk, layout, recovered.next_segment).map_err(failed)?;
    engine.set_journal(segment.file.clone());
    let (writer, filer) = (Writer::new(segment), Filer::new(recovered.manifest));
    Ok(Parts {
        engine: Arc::new(engine),
        writer,
        filer,
        lock,
        report: recovered.report,
    })
}

fn spawn<T: Send + 'static>(
    name: &str,
    engine: &Arc<Engine>,
    work: impl FnOnce(&Arc<Engine>) -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    let watchdog = Watchdog(engine.clone());
    thread::Builder::new()
        .name(name.into())
        .spawn(move || work(&watchdog.0))
}

/// The writer's thread: answers the number of the last segment.
fn write_on(engine: &Arc<Engine>, mut writer: Writer) -> u64 {
    while let Some(batch) = engine.queue.take() {
        engine.wait_for_room();
        engine.write_batch(&mut writer, batch);
    }
    writer.segment().number
}

fn file_on(engine: &Arc<Engine>, mut filer: Filer) {
    /// How often streams are looked over while nothing happens.
    const IDLE: Duration = Duration::from_secs(5);
    let gather = match engine.options.sync {
        SyncPolicy::Interval(interval) => interval.min(engine.options.gather),
        SyncPolicy::Always | SyncPolicy::Never => engine.options.gather,
    };
    loop {
        match engine.filing.wait(gather, IDLE) {
            Some(Stop::AtOnce) => return,
            Some(Stop::Clean) => return engine.file_pass(&mut filer),
            None => {
                engine.file_pass(&mut filer);
                engine.evict();
            }
        }
    }
}

/// Ends the threads in order, then frees the lock. The second caller waits for the first.
fn end(engine: &Engine, held: &Mutex<Held>, how: Stop) {
    let mut held = lock(held);
    engine.queue.close();
    if let Some(writer) = held.writer.take() {
        if let Ok(last_segment) = writer.join()
            && how == Stop::Clean
            && engine.failed().is_none()
        {
            engine.filing.push_segment(last_segment);
        }
        engine.filing.stop(how);
    }
    if let Some(filer) = held.filer.take() {
        // A panic there has been told by the watchdog.
        drop(filer.join());
    }
    held.lock = None;
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".into(), |pid| format!("process {pid}"))
}

#[cfg(test)]
mod tests;
