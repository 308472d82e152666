//! Progress: what a call in flight has to show before its fact exists.
//!
//! Invariant (law 8): droppable. A board keeps what a late reader needs, bounded, only while the
//! call is in flight; removing all of it changes no fact.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};

use crate::record::Seq;

/// Bytes kept of one topic; the oldest go first, and the offset of what is left says so.
pub(crate) const TOPIC_BYTES: usize = 256 * 1024;
/// Topics kept of one stream; more are not shown.
pub(crate) const TOPICS: usize = 256;
/// Pieces of one topic before they are joined.
const PIECES: usize = 64;
/// Ended topics that are remembered, so that a late word does not bring one back.
const ENDED: usize = 32;

/// What progress is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProgressTopic {
    /// Seq of the record that started the call.
    pub anchor: Seq,
    /// The call within its session.
    pub call: u32,
    /// The attempt of the call.
    pub attempt: u32,
    /// Which of several texts of the call; the caller defines the numbers.
    pub channel: u16,
}

/// How pieces of one topic add up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// A growing text: pieces are joined.
    Append,
    /// A state: only the last piece counts.
    Latest,
}

/// One piece of progress.
#[derive(Debug)]
pub struct Progress {
    /// What it is about.
    pub topic: ProgressTopic,
    /// Position of the payload's first byte in the topic's text; for [`Keep::Latest`] the caller's.
    pub offset: u64,
    /// The piece.
    pub payload: Bytes,
    /// How pieces add up.
    pub keep: Keep,
    memo: OnceLock<Bytes>,
}

/// The live topics of one stream.
#[derive(Debug, Default)]
pub(crate) struct Board {
    topics: BTreeMap<ProgressTopic, Topic>,
    ended: VecDeque<ProgressTopic>,
}

/// How far one reader has been shown each topic.
#[derive(Debug, Default)]
pub(crate) struct Shown(Vec<(ProgressTopic, u64)>);

#[derive(Debug, Default)]
struct Topic {
    pieces: VecDeque<Arc<Progress>>,
    bytes: usize,
    /// Pieces published: what [`Shown`] counts for `Latest`.
    version: u64,
}

impl Progress {
    /// A piece of progress.
    #[must_use]
    pub fn new(topic: ProgressTopic, offset: u64, payload: Bytes, keep: Keep) -> Progress {
        Progress {
            topic,
            offset,
            payload,
            keep,
            memo: OnceLock::new(),
        }
    }

    /// A derived encoding that readers of the same piece share: made at most once.
    pub fn memo(&self, make: impl FnOnce() -> Bytes) -> Bytes {
        self.memo.get_or_init(make).clone()
    }

    fn end(&self) -> u64 {
        self.offset + self.payload.len() as u64
    }
}

impl Clone for Progress {
    fn clone(&self) -> Progress {
        Progress::new(self.topic, self.offset, self.payload.clone(), self.keep)
    }
}

impl PartialEq for Progress {
    fn eq(&self, other: &Progress) -> bool {
        (self.topic, self.offset, &self.payload, self.keep)
            == (other.topic, other.offset, &other.payload, other.keep)
    }
}

impl Eq for Progress {}

impl Board {
    pub(crate) fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// Takes a piece; says whether there is something new to show.
    pub(crate) fn publish(&mut self, progress: Progress) -> bool {
        let known = self.topics.contains_key(&progress.topic);
        if self.ended.contains(&progress.topic) || (!known && self.topics.len() >= TOPICS) {
            return false;
        }
        self.topics
            .entry(progress.topic)
            .or_default()
            .push(progress)
    }

    pub(crate) fn end(&mut self, topics: &[ProgressTopic]) {
        for topic in topics {
            self.topics.remove(topic);
            if self.ended.len() >= ENDED {
                self.ended.pop_front();
            }
            self.ended.push_back(*topic);
        }
    }

    /// A new driver: nothing of the one before goes on.
    pub(crate) fn clear(&mut self) {
        self.topics.clear();
    }

    /// What a reader at `tail` has not been shown yet, one piece a topic; marks it as shown.
    pub(crate) fn unseen(&self, shown: &mut Shown, tail: Seq) -> Vec<Arc<Progress>> {
        shown.0.retain(|(topic, _)| self.topics.contains_key(topic));
        let mut fresh = Vec::new();
        for (name, topic) in self.topics.iter().filter(|(name, _)| name.anchor <= tail) {
            let index = shown
                .0
                .iter()
                .position(|(seen, _)| seen == name)
                .unwrap_or_else(|| {
                    shown.0.push((*name, 0));
                    shown.0.len() - 1
                });
            fresh.extend(topic.unseen(&mut shown.0[index].1));
        }
        fresh
    }
}

impl Topic {
    fn push(&mut self, mut progress: Progress) -> bool {
        if progress.payload.len() > TOPIC_BYTES {
            return false;
        }
        if progress.keep == Keep::Latest {
            self.pieces.clear();
            self.bytes = 0;
        } else if let Some(last) = self.pieces.back() {
            let end = last.end();
            if progress.end() <= end {
                return false;
            }
            if progress.offset > end {
                // A hole: what came before it is of no use to a late reader.
                self.pieces.clear();
                self.bytes = 0;
            } else {
                let known = usize::try_from(end - progress.offset)
                    .expect("the overlap is shorter than the payload");
                progress.payload = progress.payload.slice(known..);
                progress.offset = end;
            }
        }
        self.bytes += progress.payload.len();
        self.version += 1;
        self.pieces.push_back(Arc::new(progress));
        if self.pieces.len() > PIECES || self.bytes > TOPIC_BYTES {
            self.shrink();
        }
        true
    }

    fn shrink(&mut self) {
        let Some(whole) = join(self.pieces.iter()) else {
            return;
        };
        let mut cut = whole.payload.len().saturating_sub(TOPIC_BYTES / 2);
        if self.bytes <= TOPIC_BYTES {
            cut = 0;
        }
        // Never begin within a character.
        while cut > 0
            && whole
                .payload
                .get(cut)
                .is_some_and(|byte| byte & 0xC0 == 0x80)
        {
            cut += 1;
        }
        let kept = Progress::new(
            whole.topic,
            whole.offset + cut as u64,
            whole.payload.slice(cut..),
            whole.keep,
        );
        self.bytes = kept.payload.len();
        self.pieces = VecDeque::from([Arc::new(kept)]);
    }

    fn unseen(&self, shown: &mut u64) -> Option<Arc<Progress>> {
        let last = self.pieces.back()?;
        let now = if last.keep == Keep::Latest {
            self.version
        } else {
            last.end()
        };
        if *shown >= now {
            return None;
        }
        let from = std::mem::replace(shown, now);
        if last.keep == Keep::Latest {
            return Some(last.clone());
        }
        let first = self.pieces.iter().position(|piece| piece.end() > from)?;
        let whole = join(self.pieces.iter().skip(first))?;
        let known = usize::try_from(from.saturating_sub(whole.offset))
            .expect("what was shown lies within the kept bytes");
        if known == 0 {
            return Some(whole);
        }
        let rest = whole.payload.slice(known..);
        Some(Arc::new(Progress::new(whole.topic, from, rest, whole.keep)))
    }
}

/// The pieces as one; a single one is shared, not copied.
fn join<'a>(
    mut pieces: impl ExactSizeIterator<Item = &'a Arc<Progress>> + Clone,
) -> Option<Arc<Progress>> {
    if pieces.len() == 1 {
        return pieces.next().cloned();
    }
    let first = pieces.clone().next()?.clone();
    let mut payload = BytesMut::with_capacity(pieces.clone().map(|p| p.payload.len()).sum());
    for piece in pieces {
        payload.extend_from_slice(&piece.payload);
    }
    Some(Arc::new(Progress::new(
        first.topic,
        first.offset,
        payload.freeze(),
        first.keep,
    )))
}

#[cfg(test)]
mod tests;
