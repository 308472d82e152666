//! What the two threads and the callers share: the streams in memory, the queues, the failure.
//!
//! Boundary: no thread and no future here; the simulated-disk tests drive the same code by hand.
//! Invariant: a failure is final. Once set, nothing is acknowledged any more.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::watch;

use super::JsonlOptions;
use super::damage;
use super::path::Layout;
use super::queue::{Filing, Queue};
use super::session_file;
use super::stream::Stream;
use crate::blob::BlobRef;
use crate::disk::{Disk, DiskFile, OpenAs, Unkept, append_all, read_file};
use crate::error::{BlobError, Corruption, Failure, LogError};
use crate::key::{Id, KeyPage, KeyQuery, StreamKey};
use crate::live::lock;
use crate::moves::Bell;
use crate::record::Fault;
use crate::stats::{Counters, Stats};

/// What the threads and the callers of one log share.
pub(crate) struct Engine {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) layout: Layout,
    pub(crate) options: JsonlOptions,
    pub(crate) queue: Queue,
    pub(crate) filing: Filing,
    pub(crate) counters: Counters,
    /// Rung for what is acknowledged.
    pub(crate) bell: Bell,
    /// Bytes acknowledged and not filed.
    pub(crate) unfiled: AtomicU64,
    streams: Mutex<HashMap<StreamKey, Arc<Stream>>>,
    failure: watch::Sender<Option<Failure>>,
    started: Instant,
    /// Seconds since the start, as the filing thread last saw them.
    now: AtomicU64,
    drafts: AtomicU64,
    /// The segment that takes records now, for syncs outside the writer.
    journal: Mutex<Option<Arc<dyn DiskFile>>>,
}

impl Engine {
    pub(crate) fn new(disk: Arc<dyn Disk>, options: JsonlOptions) -> Engine {
        Engine {
            disk,
            layout: Layout::new(options.dir.clone()),
            options,
            queue: Queue::default(),
            filing: Filing::default(),
            counters: Counters::default(),
            bell: Bell::default(),
            unfiled: AtomicU64::new(0),
            streams: Mutex::default(),
            failure: watch::Sender::new(None),
            started: Instant::now(),
            now: AtomicU64::new(0),
            drafts: AtomicU64::new(0),
            journal: Mutex::default(),
        }
    }

    /// The stream, perhaps not loaded yet.
    pub(crate) fn stream(&self, key: &StreamKey) -> Arc<Stream> {
        let mut streams = lock(&self.streams);
        let stream = match streams.get(key) {
            Some(stream) => stream.clone(),
            None => {
                let stream = Arc::new(Stream::new(key.clone()));
                streams.insert(key.clone(), stream.clone());
                stream
            }
        };
        stream.touch(self.now.load(Ordering::Relaxed));
        stream
    }

    /// Lets go of a removed stream: from here on, its key is another stream's.
    pub(crate) fn forget(&self, stream: &Arc<Stream>) {
        let mut streams = lock(&self.streams);
        if streams
            .get(&stream.key)
            .is_some_and(|one| Arc::ptr_eq(one, stream))
        {
            streams.remove(&stream.key);
        }
    }

    pub(crate) fn is_resident(&self, key: &StreamKey) -> bool {
        lock(&self.streams).contains_key(key)
    }

    /// Reads the end of the stream's file into memory, once.
    pub(crate) fn load(&self, stream: &Stream) -> Result<(), LogError> {
        if stream.is_loaded() {
            return Ok(());
        }
        let key = &stream.key;
        let failed =
            |error: io::Error| LogError::unavailable(format!("cannot read {key}: {error}"));
        let condemned = damage::read(&*self.disk, &self.layout, key).map_err(failed)?;
        let path = self.layout.file(key);
        let (mark, epoch, verdict) = session_file::load(&*self.disk, &path, key).map_err(failed)?;
        let fault = verdict.and_then(|verdict| verdict.fault);
        if let Some(Fault::Version { found }) = fault.as_ref().map(|found| &found.fault) {
            let supported = crate::record::VERSION;
            return Err(LogError::NewerVersion {
                found: *found,
                supported,
            });
        }
        let found = fault.map(|found| format!("at byte {}: {}", found.offset, found.fault));
        stream.load(mark, epoch);
        if let Some(reason) = condemned.or(found) {
            let good_through = mark.seq;
            stream.live.condemn(Corruption {
                stream: key.clone(),
                good_through,
                reason,
            });
        }
        Ok(())
    }

    /// Lets go of streams that nobody holds and nobody has asked for lately.
    pub(crate) fn evict(&self) {
        let now = self.started.elapsed().as_secs();
        self.now.store(now, Ordering::Relaxed);
        let patience = self.options.idle.as_secs();
        lock(&self.streams)
            .retain(|_, stream| Arc::strong_count(stream) > 1 || !stream.is_idle(now, patience));
    }

    pub(crate) fn set_journal(&self, file: Arc<dyn DiskFile>) {
        *lock(&self.journal) = Some(file);
    }

    pub(crate) fn journal(&self) -> Option<Arc<dyn DiskFile>> {
        lock(&self.journal).clone()
    }

    /// Ends the log for good; the first reason counts.
    pub(crate) fn fail(&self, reason: String) {
        tracing::error!(reason, "the log has stopped for good");
        self.failure.send_if_modified(|failure| {
            let first = failure.is_none();
            failure.get_or_insert(Failure { reason });
            first
        });
        self.queue.close();
    }

    pub(crate) fn failed(&self) -> Option<Failure> {
        self.failure.borrow().clone()
    }

    pub(crate) fn watch_failure(&self) -> watch::Receiver<Option<Failure>> {
        self.failure.subscribe()
    }

    pub(crate) fn stats(&self) -> Stats {
        let resident = lock(&self.streams).len() as u64;
        self.counters
            .snapshot(resident, self.unfiled.load(Ordering::Relaxed))
    }

    pub(crate) fn keys(&self, query: &KeyQuery) -> Result<KeyPage, LogError> {
        let failed = |error: io::Error| LogError::unavailable(format!("cannot list keys: {error}"));
        let mut found = self.keys_on_disk(query).map_err(failed)?;
        let in_scope = |key: &StreamKey| {
            key.kind() == query.kind
                && query
                    .namespace
                    .as_ref()
                    .is_none_or(|only| only.as_str() == key.namespace())
        };
        {
            let streams = lock(&self.streams);
            let fresh = streams.iter().filter(|(key, _)| in_scope(key));
            found.extend(
                fresh
                    .filter(|(_, s)| s.live.tail().0 > 0)
                    .map(|(key, _)| key.clone()),
            );
        }
        found.retain(|key| query.after.as_ref().is_none_or(|after| key > after));
        found.sort_unstable();
        found.dedup();
        let mut page = KeyPage::default();
        for key in found {
            if page.keys.len() == query.limit {
                page.more = true;
                break;
            }
            // The file of a stream in use may be behind; that of a damaged one may be ahead.
            let resident = lock(&self.streams)
                .get(&key)
                .filter(|s| s.live.tail().0 > 0 && s.live.corrupt().is_none())
                .map(|s| s.acked().bytes);
            let size = match resident {
                Some(size) => Some(size),
                None => self.disk.size(&self.layout.file(&key)).map_err(failed)?,
            };
            if let Some(size) = size {
                page.keys.push(key);
                page.sizes.push(size);
            }
        }
        Ok(page)
    }

    fn keys_on_disk(&self, query: &KeyQuery) -> io::Result<Vec<StreamKey>> {
        let namespaces = match &query.namespace {
            Some(namespace) => vec![namespace.clone()],
            None => self.ids_in(self.layout.root().into())?,
        };
        let mut keys = Vec::new();
        for namespace in namespaces {
            let ids = self.ids_in(self.layout.kind(namespace.as_str(), query.kind))?;
            keys.extend(
                ids.iter()
                    .map(|id| StreamKey::new(query.kind, &namespace, id)),
            );
        }
        Ok(keys)
    }

    fn ids_in(&self, dir: PathBuf) -> io::Result<Vec<Id>> {
        let listed = self.disk.list(&dir)?;
        let dirs = listed.iter().filter(|entry| entry.is_dir);
        Ok(dirs
            .filter_map(|entry| Id::parse(&entry.name).ok())
            .collect())
    }

    pub(crate) fn put_blob(&self, key: &StreamKey, payload: Bytes) -> Result<BlobRef, BlobError> {
        let blob = BlobRef::of(&payload)?;
        let stream = self.stream(key);
        let _folder = stream
            .folder
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if stream.is_removed() {
            return Err(BlobError::Unavailable {
                reason: format!("{key} is being removed"),
            });
        }
        match self.keep_blob(key, &blob, payload) {
            Ok(()) => Ok(blob),
            Err(unkept) => {
                if let Unkept::Sync(error) = &unkept {
                    self.fail(format!("a blob of {key} cannot be synced: {error}"));
                }
                let error = io::Error::from(unkept);
                let reason = format!("cannot keep a blob of {key}: {error}");
                Err(BlobError::Unavailable { reason })
            }
        }
    }

    fn keep_blob(&self, key: &StreamKey, blob: &BlobRef, payload: Bytes) -> Result<(), Unkept> {
        let (disk, path, dir) = (
            &*self.disk,
            self.layout.blob(key, blob),
            self.layout.blobs(key),
        );
        if !disk.exists(&path).map_err(Unkept::Write)? {
            let made = self.layout.create_dirs(disk, &dir);
            made.map_err(Unkept::Write)?;
            self.write_blob(&dir, &path, &payload)?;
        }
        // One that is there already, too: who has put it there may have died before this.
        let mut chain = self.layout.chain(&dir);
        chain.try_for_each(|at| disk.sync_dir(&at).map_err(Unkept::Sync))
    }

    fn write_blob(&self, dir: &Path, path: &Path, payload: &[u8]) -> Result<(), Unkept> {
        let disk = &*self.disk;
        let number = self.drafts.fetch_add(1, Ordering::Relaxed);
        let draft = dir.join(format!("draft-{number}"));
        let file = disk.open(&draft, OpenAs::Fresh).map_err(Unkept::Write)?;
        let written = append_all(&*file, &[payload])
            .map_err(Unkept::Write)
            .and_then(|()| file.sync().map_err(Unkept::Sync))
            .and_then(|()| disk.rename(&draft, path).map_err(Unkept::Write));
        if written.is_err() {
            // Best effort: a draft that stays takes room and harms nothing.
            let _ = disk.remove(&draft);
        }
        written
    }

    pub(crate) fn get_blob(&self, key: &StreamKey, blob: &BlobRef) -> Result<Bytes, BlobError> {
        if !blob.is_well_formed() {
            return Err(blob.missing());
        }
        match read_file(&*self.disk, &self.layout.blob(key, blob)) {
            Ok(payload) => blob.check(payload),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(blob.missing()),
            Err(error) => Err(BlobError::Unavailable {
                reason: error.to_string(),
            }),
        }
    }
}
