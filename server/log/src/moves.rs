//! Which streams moved: one signal for whoever follows many streams at once.
//!
//! Boundary: says that there is something to read and where from, never what. Invariant (law 7): bounded by
//! the number of streams, for moves of one stream that nobody has taken yet are one; what moved after a
//! listener began is told to it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

use tokio::sync::Notify;

use crate::key::{StreamKey, StreamKind};
use crate::live::lock;
use crate::record::Seq;

/// What happened to a stream since its moves were last taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// Records after this one are new.
    pub after: Seq,
    /// The stream was removed. What is under its key now, if anything, is another one, and all of it is
    /// new.
    pub removed: bool,
}

/// Hears which streams of one kind move, from when it was made until it is dropped.
#[derive(Debug)]
pub struct Moves(Arc<Listener>);

#[derive(Debug)]
struct Listener {
    kind: StreamKind,
    moved: Mutex<HashMap<StreamKey, Move>>,
    ready: Notify,
}

/// A backend's end: who is to hear.
#[derive(Debug, Default)]
pub(crate) struct Bell(Mutex<Vec<Weak<Listener>>>);

impl Move {
    /// This, and then `later`.
    #[must_use]
    pub fn and(self, later: Move) -> Move {
        if later.removed {
            return later;
        }
        Move {
            after: self.after.min(later.after),
            removed: self.removed,
        }
    }
}

impl Moves {
    /// All that moved since the last call; waits until something has. May be dropped while it waits.
    pub async fn next(&mut self) -> HashMap<StreamKey, Move> {
        loop {
            let moved = std::mem::take(&mut *lock(&self.0.moved));
            if !moved.is_empty() {
                return moved;
            }
            self.0.ready.notified().await;
        }
    }
}

impl Bell {
    /// Hears from here on.
    pub(crate) fn listen(&self, kind: StreamKind) -> Moves {
        let listener = Arc::new(Listener {
            kind,
            moved: Mutex::default(),
            ready: Notify::new(),
        });
        let mut listeners = lock(&self.0);
        listeners.retain(|one| one.strong_count() > 0);
        listeners.push(Arc::downgrade(&listener));
        Moves(listener)
    }

    /// A record was acknowledged, and readers see it.
    pub(crate) fn appended(&self, key: &StreamKey, seq: Seq) {
        let after = seq.saturating_sub(1);
        self.ring(
            key,
            Move {
                after,
                removed: false,
            },
        );
    }

    /// A stream was removed, and readers see it.
    pub(crate) fn removed(&self, key: &StreamKey) {
        self.ring(
            key,
            Move {
                after: 0,
                removed: true,
            },
        );
    }

    fn ring(&self, key: &StreamKey, news: Move) {
        let listeners = lock(&self.0);
        for listener in listeners.iter().filter_map(Weak::upgrade) {
            if listener.kind != key.kind() {
                continue;
            }
            let mut moved = lock(&listener.moved);
            match moved.get_mut(key) {
                Some(known) => *known = known.and(news),
                None => {
                    moved.insert(key.clone(), news);
                }
            }
            drop(moved);
            listener.ready.notify_one();
        }
    }
}
