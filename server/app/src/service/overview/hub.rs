//! What is done once for all who watch: hearing which sessions moved, folding them, encoding them.
//!
//! Boundary: watchers come and go by their inboxes; no filter is known here. Invariant: a round's moves are
//! taken before its cache is emptied and its inboxes are listed. So whoever joins either gets a note of a
//! move or reads what is not older than it.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use loopwright_log::{Id, Log, Move, Moves, Seq, StreamKey, StreamKind};
use loopwright_proto::v1::{self, watch_loops_response::Item};
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

use super::Told;
use crate::{
    drain::DrainSignal,
    driver::Clock,
    index::{Brief, Index, IndexError, LoopDigest, Scope},
    service::{convert::summary, wire::Encoded},
};

/// How long changes gather at least.
const GATHER: Duration = Duration::from_millis(100);
/// A round is followed by a rest of this many times its length: dashboards take a fifth of a core at
/// most.
const REST: u32 = 4;
/// Sessions folded at once.
const FOLDS_AT_ONCE: usize = 4;
/// Sessions of a round that are kept ready for all watchers.
const MAX_READY: usize = 1_024;

/// What all dashboards of this server share.
pub struct Overview {
    log: Arc<dyn Log>,
    index: Arc<Index>,
    drain: DrainSignal,
    hub: Mutex<Hub>,
    /// An inbox has gone.
    left: Arc<Notify>,
}

#[derive(Default)]
struct Hub {
    inboxes: Vec<Weak<Inbox>>,
    /// The task that hears moves is there.
    runs: bool,
    ready: HashMap<StreamKey, Arc<Shown>>,
    /// Times that `ready` was emptied: what was read before is not put into it.
    emptied: u64,
}

/// A session as watchers are told of it.
pub(super) struct Shown {
    key: StreamKey,
    pub(super) brief: Brief,
    /// The message that tells its last loop.
    last: OnceLock<bytes::Bytes>,
}

/// The notes of one watcher.
pub(super) struct Inbox {
    namespace: Id,
    notes: Mutex<Notes>,
    filled: Notify,
    left: Arc<Notify>,
}

/// Those who watch, by namespace.
type Inboxes = HashMap<String, Vec<Arc<Inbox>>>;

#[derive(Default)]
struct Notes {
    by_key: HashMap<StreamKey, Move>,
    /// The order in which sessions are told of: that of their first note.
    order: VecDeque<StreamKey>,
}

impl Overview {
    /// Nobody watches yet, and nothing is done.
    #[must_use]
    pub fn new(log: Arc<dyn Log>, index: Arc<Index>, drain: DrainSignal) -> Arc<Self> {
        Arc::new(Self {
            log,
            index,
            drain,
            hub: Mutex::default(),
            left: Arc::default(),
        })
    }

    /// A place for notes of what moves from here on. Must be called within a tokio runtime.
    pub(super) fn join(self: &Arc<Self>, namespace: &Id) -> Arc<Inbox> {
        let inbox = Arc::new(Inbox {
            namespace: namespace.clone(),
            notes: Mutex::default(),
            filled: Notify::new(),
            left: Arc::clone(&self.left),
        });
        let mut hub = self.hub();
        hub.inboxes.push(Arc::downgrade(&inbox));
        if !std::mem::replace(&mut hub.runs, true) {
            let moves = self.log.moves(StreamKind::Session);
            tokio::spawn(run(
                Arc::downgrade(self),
                Arc::clone(&self.left),
                self.drain.clone(),
                moves,
            ));
        }
        inbox
    }

    /// What a watcher is told of a session, not older than any note of it that was given out; `None`
    /// where there is none, or it is a copy that is not finished.
    pub(super) async fn shown(&self, key: &StreamKey) -> Result<Option<Arc<Shown>>, IndexError> {
        let emptied = {
            let hub = self.hub();
            if let Some(shown) = hub.ready.get(key) {
                return Ok(Some(Arc::clone(shown)));
            }
            hub.emptied
        };
        let Some(brief) = self.index.brief(key).await? else {
            return Ok(None);
        };
        let shown = Arc::new(Shown {
            key: key.clone(),
            brief,
            last: OnceLock::new(),
        });
        let mut hub = self.hub();
        if hub.emptied != emptied {
            return Ok(Some(shown));
        }
        if let Some(other) = hub.ready.get(key)
            && other.brief.seq >= shown.brief.seq
        {
            return Ok(Some(Arc::clone(other)));
        }
        if hub.ready.len() >= MAX_READY {
            hub.empty();
        }
        hub.ready.insert(key.clone(), Arc::clone(&shown));
        Ok(Some(shown))
    }

    /// See [`Index::loops_since`].
    pub(super) async fn loops_since(
        &self,
        shown: &Shown,
        after: Seq,
    ) -> Result<Vec<LoopDigest>, IndexError> {
        let (key, brief) = (&shown.key, &shown.brief);
        self.index.loops_since(key, brief, after).await
    }

    /// See [`Index::scan`].
    pub(super) async fn scan<T>(
        &self,
        namespace: &Id,
        pick: impl FnMut(&StreamKey, &Brief) -> Vec<T>,
    ) -> Result<Vec<T>, loopwright_log::LogError> {
        let scope = Scope::Namespace(namespace.clone());
        self.index.scan(scope, pick).await
    }

    /// Those who are to be told of a round's moves; `None` where nobody is left, and the task is over.
    fn begin_round(&self) -> Option<Inboxes> {
        let mut hub = self.hub();
        hub.empty();
        let mut inboxes = Inboxes::new();
        for inbox in hub.inboxes.iter().filter_map(Weak::upgrade) {
            let namespace = inbox.namespace.as_str().to_owned();
            inboxes.entry(namespace).or_default().push(inbox);
        }
        hub.inboxes.retain(|inbox| inbox.strong_count() > 0);
        hub.runs = !hub.inboxes.is_empty();
        hub.runs.then_some(inboxes)
    }

    /// Folds each session that moved, once, and puts a note of it into the inboxes.
    async fn tell(&self, moved: HashMap<StreamKey, Move>, to: &Inboxes) {
        let watched = moved
            .into_iter()
            .filter(|(key, _)| to.contains_key(key.namespace()));
        let watched: Vec<_> = watched.collect();
        let folds = stream::iter(watched).map(|(key, news)| async move {
            // An error is told by the watcher, who reads it again.
            let _warmed = self.shown(&key).await;
            (key, news)
        });
        let mut folds = folds.buffer_unordered(FOLDS_AT_ONCE);
        while let Some((key, news)) = folds.next().await {
            for inbox in to.get(key.namespace()).into_iter().flatten() {
                inbox.put(&key, news);
            }
        }
    }

    /// Notes that nobody has read yet.
    #[cfg(test)]
    pub(super) fn notes(&self) -> usize {
        let hub = self.hub();
        let inboxes = hub.inboxes.iter().filter_map(Weak::upgrade);
        inboxes.map(|inbox| inbox.notes().order.len()).sum()
    }

    /// Whether the task that hears moves is there.
    #[cfg(test)]
    pub(super) fn runs(&self) -> bool {
        self.hub().runs
    }

    fn hub(&self) -> MutexGuard<'_, Hub> {
        self.hub.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hub {
    fn empty(&mut self) {
        self.emptied += 1;
        self.ready.clear();
    }
}

impl Shown {
    /// The message that tells one of its loops.
    pub(super) fn changed(&self, one: &LoopDigest) -> Told {
        let encode = || {
            let changed = Item::Changed(self.summary(one));
            super::encoded(changed).bytes().clone()
        };
        let is_last = self.brief.current().is_some_and(|last| last.id == one.id);
        Encoded::raw(if is_last {
            self.last.get_or_init(encode).clone()
        } else {
            encode()
        })
    }

    /// One of its loops in short.
    pub(super) fn summary(&self, one: &LoopDigest) -> v1::LoopSummary {
        summary::of_loop(&self.key, &self.brief, one, Clock.now())
    }
}

impl Inbox {
    /// The session of the oldest note.
    pub(super) fn take(&self) -> Option<(StreamKey, Move)> {
        let mut notes = self.notes();
        let key = notes.order.pop_front()?;
        let news = notes.by_key.remove(&key)?;
        Some((key, news))
    }

    /// Ends when a note came since it ended last. May be dropped while it waits.
    pub(super) async fn filled(&self) {
        self.filled.notified().await;
    }

    fn put(&self, key: &StreamKey, news: Move) {
        let mut notes = self.notes();
        match notes.by_key.get_mut(key) {
            Some(known) => *known = known.and(news),
            None => {
                notes.by_key.insert(key.clone(), news);
                notes.order.push_back(key.clone());
            }
        }
        drop(notes);
        self.filled.notify_one();
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.left.notify_one();
    }
}

/// Rounds, until nobody watches any more.
async fn run(
    overview: Weak<Overview>,
    left: Arc<Notify>,
    mut drain: DrainSignal,
    mut moves: Moves,
) {
    loop {
        let moved = tokio::select! {
            moved = moves.next() => moved,
            () = left.notified() => HashMap::new(),
            () = drain.wait() => return,
        };
        let Some(overview) = overview.upgrade() else {
            return;
        };
        let began = Instant::now();
        let Some(inboxes) = overview.begin_round() else {
            return;
        };
        overview.tell(moved, &inboxes).await;
        drop((overview, inboxes));
        tokio::select! {
            () = sleep(GATHER.max(began.elapsed() * REST)) => {}
            () = drain.wait() => return,
        }
    }
}
