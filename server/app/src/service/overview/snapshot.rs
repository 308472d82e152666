//! All loops that pass, in parts: one look at which sessions there are, then session by session.
//!
//! Invariant: a session is read when its turn comes, so that a snapshot holds the names of sessions and no
//! more, however slow it is read; what has moved since the look is a note anyway.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use loopwright_log::{Id, StreamKey};
use loopwright_proto::v1;
use prost::Message as _;
use tonic::Status;

use super::{
    hub::{Overview, Shown},
    note_inside, readable,
};
use crate::{
    index::LoopDigest,
    service::{
        convert::{questions::LoopFilter, summary},
        page::Place,
        status,
    },
};

/// Most loops of one part.
const PART_LOOPS: usize = 500;
/// Most bytes of one part, but for a loop that is larger.
const PART_BYTES: usize = 256 << 10;
/// Sessions read at once.
const READS_AT_ONCE: usize = 4;

/// What is left of a snapshot.
pub(super) struct Snapshot {
    sessions: BoxStream<'static, Result<Vec<Found>, Status>>,
    /// Loops of the session that is told now.
    waiting: VecDeque<Found>,
    told: u64,
}

struct Found {
    key: StreamKey,
    shown: Arc<Shown>,
    one: LoopDigest,
}

impl Snapshot {
    /// Looks which sessions there are.
    pub(super) async fn take(
        overview: &Arc<Overview>,
        namespace: &Id,
        filter: &LoopFilter,
    ) -> Result<Self, Status> {
        let places = overview.scan(namespace, |key, brief| {
            if !summary::has_labels(brief, &filter.labels) {
                return Vec::new();
            }
            let mut places = summary::places(key, brief, filter.agent.as_ref());
            let latest = places.by_ref().filter(|(_, state)| filter.wants(*state));
            let latest = latest.map(|(place, _)| place).min();
            latest
                .map(|place| (place, key.clone()))
                .into_iter()
                .collect()
        });
        let mut places: Vec<(Place, StreamKey)> =
            places.await.map_err(|error| status::log(&error))?;
        places.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        let (overview, filter) = (Arc::clone(overview), Arc::new(filter.clone()));
        let sessions = stream::iter(places).map(move |(_, key)| {
            let (overview, filter) = (Arc::clone(&overview), Arc::clone(&filter));
            async move { found(&overview, key, &filter).await }
        });
        Ok(Self {
            sessions: sessions.buffered(READS_AT_ONCE).boxed(),
            waiting: VecDeque::new(),
            told: 0,
        })
    }

    /// Loops told so far.
    pub(super) fn told(&self) -> u64 {
        self.told
    }

    /// The next part; `None` when all is told.
    pub(super) async fn part(
        &mut self,
        filter: &LoopFilter,
        inside: &mut HashMap<String, String>,
    ) -> Result<Option<v1::LoopsPart>, Status> {
        let (mut part, mut bytes) = (v1::LoopsPart::default(), 0);
        while part.loops.len() < PART_LOOPS {
            let Some(found) = self.waiting.pop_front() else {
                match self.sessions.next().await.transpose()? {
                    Some(found) => self.waiting.extend(found),
                    None => break,
                }
                continue;
            };
            let summary = found.shown.summary(&found.one);
            let size = summary.encoded_len();
            if bytes + size > PART_BYTES && !part.loops.is_empty() {
                self.waiting.push_front(found);
                break;
            }
            note_inside(inside, filter, &found.key, &found.one);
            bytes += size;
            part.loops.push(summary);
        }
        self.told += part.loops.len() as u64;
        Ok((!part.loops.is_empty()).then_some(part))
    }
}

/// The loops of a session that pass now, the latest first.
async fn found(
    overview: &Overview,
    key: StreamKey,
    filter: &LoopFilter,
) -> Result<Vec<Found>, Status> {
    let Some(shown) = readable(&key, overview.shown(&key).await)? else {
        return Ok(Vec::new());
    };
    // Those that a brief does not keep any more have all ended.
    let mut loops = if filter.wants(v1::LoopState::Ended) {
        let loops = overview.loops_since(&shown, 0).await;
        readable(&key, loops.map(Some))?.unwrap_or_default()
    } else {
        shown.brief.loops.iter().cloned().collect()
    };
    loops.retain(|one| {
        filter.wants(summary::loop_state(&shown.brief, one)) && filter.wants_agent(&one.agent)
    });
    let found = loops.into_iter().rev().map(|one| Found {
        key: key.clone(),
        shown: Arc::clone(&shown),
        one,
    });
    Ok(found.collect())
}
