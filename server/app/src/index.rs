//! What lists and gets show of sessions: digests, each a fold of its session's log, and briefs, what
//! of a digest is kept on disk for every session.
//!
//! Boundary: reads the log, and nothing else; knows no wire. Invariant (law 1): never the truth. A
//! digest is as of one seq of its log and is folded on from there when the log has moved; a brief
//! counts while the log has as many bytes as when it was made. Dropping all of them costs time and
//! nothing else. What is kept in memory is bounded, however many sessions there are.

mod brief;
mod clerk;
mod digest;
mod shelf;
mod survey;
mod trouble;

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use futures_util::{StreamExt as _, stream};
use loopwright_core::ids::LoopId;
use loopwright_log::{Id, Log, LogError, ReadItem, ReadMode, Record, Seq, StreamKey};

use crate::service::convert::entry::{self, Unreadable};

pub use brief::{Brief, PendingCall, Standing, Waits};
pub use digest::{Digest, LOOPS_KEPT, LoopDigest};
pub use survey::Survey;
pub use trouble::{MAX_LOSSES, Trouble, Troubles};

use clerk::Clerk;
use shelf::{Change, Kept, Shelf};

/// Digests in memory, most of them of sessions whose loops are open; a quarter goes when there are
/// more.
const MAX_KEPT: usize = 2_048;
/// Keys read from the log at a time.
const KEY_PAGE: usize = 100_000;
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

/// Digests and briefs of sessions.
pub struct Index {
    log: Arc<dyn Log>,
    recent: Mutex<Recent>,
    shelf: Option<Arc<Shelf>>,
    clerk: Clerk,
    folds: AtomicU64,
    troubles: Troubles,
}

/// The digests in memory.
#[derive(Default)]
struct Recent {
    digests: HashMap<StreamKey, (u64, Arc<Digest>)>,
    clock: u64,
    /// Sessions forgotten so far: a fold that began before one of them is not kept.
    forgotten: u64,
}

/// Which sessions a list is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Those of a namespace.
    Namespace(Id),
    /// This one, if there is one.
    Session(StreamKey),
}

impl Index {
    /// An index over `log` that keeps nothing on disk.
    #[must_use]
    pub fn new(log: Arc<dyn Log>) -> Arc<Self> {
        Arc::new(Self {
            log,
            recent: Mutex::default(),
            shelf: None,
            clerk: Clerk::none(),
            folds: AtomicU64::new(0),
            troubles: Troubles::default(),
        })
    }

    /// An index over `log` with its briefs in this file, which is made, or made anew, where it is
    /// not what it should be; without one where that fails.
    pub async fn open(log: Arc<dyn Log>, path: &Path) -> Arc<Self> {
        let path = path.to_owned();
        let opened = tokio::task::spawn_blocking(move || Shelf::open(&path)).await;
        let Some(shelf) = opened.ok().flatten().map(Arc::new) else {
            return Self::new(log);
        };
        Arc::new_cyclic(|index| Self {
            log,
            recent: Mutex::default(),
            clerk: Clerk::employ(index.clone(), Arc::clone(&shelf)),
            shelf: Some(shelf),
            folds: AtomicU64::new(0),
            troubles: Troubles::default(),
        })
    }

    /// Where a session stands, as of its tail; `None` where there is no such session. A damaged one
    /// has a digest as of its last good entry, with the damage in it. A copy that is not brought to
    /// its end is no session.
    ///
    /// # Errors
    /// The log cannot be read, or not by this version.
    pub async fn digest(&self, key: &StreamKey) -> Result<Option<Arc<Digest>>, IndexError> {
        let digest = self.folded(key).await?;
        Ok(digest.filter(|digest| !digest.state.copied))
    }

    /// What lists show of a session, as [`Index::digest`].
    ///
    /// # Errors
    /// As [`Index::digest`].
    pub async fn brief(&self, key: &StreamKey) -> Result<Option<Brief>, IndexError> {
        let is_in_memory = self.lock().digests.contains_key(key);
        if let Some(shelf) = self.shelf.clone().filter(|_| !is_in_memory)
            && let Ok(tail) = self.log.tail(key).await
        {
            let of = key.clone();
            let kept = tokio::task::spawn_blocking(move || shelf.get(&of)).await;
            let kept = kept.ok().flatten().map(|kept| kept.brief);
            let current = |brief: &Brief| Some(brief.seq) == tail && !brief.damaged;
            if let Some(brief) = kept.filter(current) {
                let is_session = !brief.standing.unfinished;
                return Ok(is_session.then(|| self.with_trouble(key, brief)));
            }
        }
        let digest = self.digest(key).await?;
        Ok(digest.map(|digest| self.shown(key, &digest)))
    }

    /// What lists show of a session with this digest.
    #[must_use]
    pub fn shown(&self, key: &StreamKey, digest: &Digest) -> Brief {
        self.with_trouble(key, digest.brief())
    }

    /// Forgets a session that has been removed from the log.
    pub fn forget(&self, key: &StreamKey) {
        {
            let mut recent = self.lock();
            recent.forgotten += 1;
            recent.digests.remove(key);
        }
        self.troubles.over(key);
        self.clerk.forget(key);
    }

    /// Has what is on disk of a session brought up to its log, soon; its digest is let go of where
    /// no loop of it is open.
    pub fn refresh(&self, key: &StreamKey) {
        self.clerk.refresh(key);
    }

    /// Writes what waits to be written, and closes the file. From here on nothing is kept.
    pub async fn close(&self) {
        self.clerk.dismiss().await;
    }

    /// The sessions whose drivers were lost.
    #[must_use]
    pub fn troubles(&self) -> &Troubles {
        &self.troubles
    }

    /// Digests in memory.
    #[must_use]
    pub fn digests(&self) -> usize {
        self.lock().digests.len()
    }

    /// Logs that were read for a digest, in whole or from where one stood.
    #[must_use]
    pub fn folds(&self) -> u64 {
        self.folds.load(Ordering::Relaxed)
    }

    /// One loop of a session; `None` where it never was. Loops that a brief does not keep any more
    /// are read from the log.
    ///
    /// # Errors
    /// As [`Index::digest`].
    pub async fn find_loop(
        &self,
        key: &StreamKey,
        brief: &Brief,
        id: LoopId,
    ) -> Result<Option<LoopDigest>, IndexError> {
        if let Some(found) = brief.loops.iter().find(|one| one.id == id) {
            return Ok(Some(found.clone()));
        }
        if brief.loops.front().is_none_or(|oldest| id > oldest.id) {
            return Ok(None);
        }
        let mut whole = Digest::new(1, Some(id));
        self.fold(key, &mut whole).await?;
        Ok(whole.loops.into_iter().next())
    }

    /// Loops of a session of which an entry after `after` tells something new, oldest first; those that
    /// `brief` does not keep any more are read from the log.
    ///
    /// # Errors
    /// As [`Index::digest`].
    pub async fn loops_since(
        &self,
        key: &StreamKey,
        brief: &Brief,
        after: Seq,
    ) -> Result<Vec<LoopDigest>, IndexError> {
        let mut loops = Vec::new();
        if brief.misses_loops_since(after) {
            let mut whole = Digest::new(usize::MAX, None);
            self.fold(key, &mut whole).await?;
            let after = if after < brief.born { 0 } else { after };
            let oldest = brief.loops.front().map(|oldest| oldest.id);
            let older = |one: &LoopDigest| oldest.is_none_or(|oldest| one.id < oldest);
            let missing = whole.loops.into_iter().take_while(older);
            loops.extend(missing.filter(|one| one.ended_after(after)));
        }
        loops.extend(brief.loops_since(after).cloned());
        Ok(loops)
    }

    /// What `pick` takes from the brief of each session of `scope`, in no order. One that this
    /// version cannot read is left out; it is told where it is asked for by name. A session whose
    /// brief on disk is current is not read.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn scan<T>(
        &self,
        scope: Scope,
        mut pick: impl FnMut(&StreamKey, &Brief) -> Vec<T>,
    ) -> Result<Vec<T>, LogError> {
        let mut picked = Vec::new();
        let unknown = match scope {
            Scope::Session(key) => vec![(key, 0)],
            Scope::Namespace(namespace) => {
                let matched = self.matched(Some(&namespace)).await?;
                for (key, brief) in matched.known {
                    if !brief.standing.unfinished {
                        picked.extend(pick(&key, &self.with_trouble(&key, brief)));
                    }
                }
                matched.unknown
            }
        };
        let mut folds = stream::iter(unknown)
            .map(|(key, size)| async move { (self.digest(&key).await, key, size) })
            .buffer_unordered(FOLDS_AT_ONCE);
        while let Some((digest, key, size)) = folds.next().await {
            match digest {
                Ok(Some(digest)) => {
                    let brief = self.shown(&key, &digest);
                    picked.extend(pick(&key, &brief));
                    // A damaged stream takes no appends: it stays as large as it was listed.
                    let bytes = digest.damage.as_ref().map_or(digest.bytes, |_| size);
                    self.clerk.keep(key, bytes, brief);
                }
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

    /// The digest of whatever there is under the key.
    async fn folded(&self, key: &StreamKey) -> Result<Option<Arc<Digest>>, IndexError> {
        let (known, forgotten) = {
            let mut recent = self.lock();
            (recent.get(key), recent.forgotten)
        };
        let tail = match self.log.tail(key).await {
            Ok(None) => return Ok(None),
            Ok(Some(tail)) => tail,
            // It reads up to the damage; the read says so again.
            Err(LogError::Corrupt(_)) => 0,
            Err(error) => return Err(error.into()),
        };
        if let Some(known) = known.as_ref().filter(|known| known.seq == tail) {
            return Ok(Some(Arc::clone(known)));
        }
        let goes_on = |known: &Arc<Digest>| known.damage.is_none() && known.seq <= tail;
        let mut digest = known.filter(goes_on).map_or_else(
            || Digest::new(LOOPS_KEPT, None),
            |known| Digest::clone(&known),
        );
        self.fold(key, &mut digest).await?;
        let digest = Arc::new(digest);
        let mut recent = self.lock();
        if recent.forgotten == forgotten {
            recent.put(key, Arc::clone(&digest));
        }
        Ok(Some(digest))
    }

    fn with_trouble(&self, key: &StreamKey, mut brief: Brief) -> Brief {
        brief.trouble = self.troubles.of(key);
        brief
    }

    /// Lets go of a digest that a driver has no more use for.
    fn let_go(&self, key: &StreamKey, digest: &Arc<Digest>) {
        let mut recent = self.lock();
        let same = |kept: &(u64, Arc<Digest>)| Arc::ptr_eq(&kept.1, digest);
        if digest.state.active.is_none() && recent.digests.get(key).is_some_and(same) {
            recent.digests.remove(key);
        }
    }

    async fn fold(&self, key: &StreamKey, digest: &mut Digest) -> Result<(), IndexError> {
        self.folds.fetch_add(1, Ordering::Relaxed);
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

    fn lock(&self) -> std::sync::MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recent {
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
