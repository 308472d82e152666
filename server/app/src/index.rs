//! What lists and gets show of sessions: digests, each a fold of its session's log.
//!
//! Boundary: reads the log, and nothing else; knows no wire. Invariant (law 1): never the truth. A
//! digest is as of one seq of its log and is folded on from there when the log has moved; dropping
//! all of them costs time and nothing else.

mod digest;

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use futures_util::{StreamExt as _, stream};
use loopwright_core::ids::LoopId;
use loopwright_log::{
    Id, KeyQuery, Log, LogError, ReadItem, ReadMode, Record, Seq, StreamKey, StreamKind,
};

use crate::service::convert::entry::{self, Unreadable};

pub use digest::{Digest, LOOPS_KEPT, LoopDigest};

/// Digests kept; a quarter goes when there are more.
const MAX_KEPT: usize = 2_048;
/// Keys read from the log at a time.
const KEY_PAGE: usize = 1_000;
/// Sessions folded at once for one list.
const FOLDS_AT_ONCE: usize = 8;

/// Why there is no digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// An entry is not of this or an earlier version.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
}

/// Digests of sessions.
pub struct Index {
    log: Arc<dyn Log>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    digests: HashMap<StreamKey, (u64, Arc<Digest>)>,
    clock: u64,
}

impl Index {
    /// An empty index over `log`.
    #[must_use]
    pub fn new(log: Arc<dyn Log>) -> Arc<Self> {
        Arc::new(Self {
            log,
            kept: Mutex::default(),
        })
    }

    /// Where a session stands, as of its tail; `None` where there is no such session. A damaged one
    /// has a digest as of its last good entry, with the damage in it.
    ///
    /// # Errors
    /// The log cannot be read, or not by this version.
    pub async fn digest(&self, key: &StreamKey) -> Result<Option<Arc<Digest>>, IndexError> {
        let known = self.lock().get(key);
        match self.log.tail(key).await {
            Ok(None) => return Ok(None),
            Ok(Some(tail)) => {
                if let Some(known) = known.as_ref().filter(|known| known.seq == tail) {
                    return Ok(Some(Arc::clone(known)));
                }
            }
            // It reads up to the damage; the read says so again.
            Err(LogError::Corrupt(_)) => {}
            Err(error) => return Err(error.into()),
        }
        let mut digest = known.filter(|known| known.damage.is_none()).map_or_else(
            || Digest::new(LOOPS_KEPT, None),
            |known| Digest::clone(&known),
        );
        self.fold(key, &mut digest).await?;
        let digest = Arc::new(digest);
        self.lock().put(key, Arc::clone(&digest));
        Ok(Some(digest))
    }

    /// Forgets a session that has been removed from the log.
    pub fn forget(&self, key: &StreamKey) {
        self.lock().digests.remove(key);
    }

    /// One loop of a session; `None` where it never was. Loops that the digest does not keep any
    /// more are read from the log.
    ///
    /// # Errors
    /// As [`Index::digest`].
    pub async fn find_loop(
        &self,
        key: &StreamKey,
        digest: &Digest,
        id: LoopId,
    ) -> Result<Option<LoopDigest>, IndexError> {
        if let Some(found) = digest.loops.iter().find(|one| one.id == id) {
            return Ok(Some(found.clone()));
        }
        if digest.loops.front().is_none_or(|oldest| id > oldest.id) {
            return Ok(None);
        }
        let mut whole = Digest::new(1, Some(id));
        self.fold(key, &mut whole).await?;
        Ok(whole.loops.into_iter().next())
    }

    /// The sessions of a namespace, in the order of their ids.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn sessions(&self, namespace: &Id) -> Result<Vec<StreamKey>, LogError> {
        let mut all: Vec<StreamKey> = Vec::new();
        loop {
            let query = KeyQuery {
                namespace: Some(namespace.clone()),
                kind: StreamKind::Session,
                after: all.last().cloned(),
                limit: KEY_PAGE,
            };
            let page = self.log.keys(query).await?;
            let end = !page.more || page.keys.is_empty();
            all.extend(page.keys);
            if end {
                return Ok(all);
            }
        }
    }

    /// What `pick` takes from the digest of each of these sessions, in no order. One that this
    /// version cannot read is left out; it is told where it is asked for by name.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn scan<T>(
        &self,
        keys: Vec<StreamKey>,
        mut pick: impl FnMut(&StreamKey, &Digest) -> Vec<T>,
    ) -> Result<Vec<T>, LogError> {
        let mut folds = stream::iter(keys)
            .map(|key| async move { (self.digest(&key).await, key) })
            .buffer_unordered(FOLDS_AT_ONCE);
        let mut picked = Vec::new();
        while let Some((digest, key)) = folds.next().await {
            match digest {
                Ok(Some(digest)) => picked.extend(pick(&key, &digest)),
                Ok(None) => {}
                Err(IndexError::Unreadable(unreadable)) => {
                    tracing::warn!(%unreadable, "left out of a list");
                }
                Err(IndexError::Log(LogError::NewerVersion { .. })) => {
                    tracing::warn!(session = %key, "written by a newer version, left out of a list");
                }
                Err(IndexError::Log(error)) => return Err(error),
            }
        }
        Ok(picked)
    }

    async fn fold(&self, key: &StreamKey, digest: &mut Digest) -> Result<(), IndexError> {
        let mut items = self.log.read(key, digest.seq, ReadMode::ToTail);
        while let Some(item) = items.next().await {
            match item {
                Ok(ReadItem::Fact(record)) => digest.apply(&record, &entry::parse(&record)?),
                Ok(ReadItem::Progress(_) | ReadItem::CompleteThrough(_)) => {}
                Err(LogError::Corrupt(damage)) => {
                    digest.damage = Some(damage);
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn get(&mut self, key: &StreamKey) -> Option<Arc<Digest>> {
        self.clock += 1;
        let (used, digest) = self.digests.get_mut(key)?;
        *used = self.clock;
        Some(Arc::clone(digest))
    }

    fn put(&mut self, key: &StreamKey, digest: Arc<Digest>) {
        self.clock += 1;
        self.digests.insert(key.clone(), (self.clock, digest));
        if self.digests.len() <= MAX_KEPT {
            return;
        }
        let mut used: Vec<u64> = self.digests.values().map(|(used, _)| *used).collect();
        used.sort_unstable();
        let oldest = used[used.len() / 4];
        self.digests.retain(|_, (used, _)| *used > oldest);
    }
}

/// What ties a digest to one state of one log: equal for equal logs.
#[must_use]
pub fn state_hash(seq: Seq, crc: u32) -> String {
    format!("{seq:x}-{crc:08x}")
}

/// A record's instant as the core counts time.
fn at(record: &Record) -> loopwright_core::ids::Timestamp {
    loopwright_core::ids::Timestamp(record.at.unix_ms())
}
