//! WatchLoops: every loop of a namespace in short, then what changes.
//!
//! ```text
//! log --which sessions moved--> hub: one task folds each once --note--> inbox of a watcher --> its stream
//! ```
//!
//! Boundary: reads the log through the index and nothing else, so that any replica serves it. Invariant:
//! what a watcher costs does not grow with what it has not read: at most one note for a session. What it
//! is told of a session is never older than what it was told before, and no end of a loop is left out.

mod hub;
mod snapshot;

#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use loopwright_log::{Id, Move, StreamKey};
use loopwright_proto::v1::{self, watch_loops_response::Item};
use tokio::time::{Instant, sleep_until};
use tonic::Status;

use super::{
    ServiceState,
    convert::{questions::LoopFilter, summary},
    status,
    watch::{Seat, goodbye, heartbeat},
    wire::{Encoded, EncodedStream},
};
use crate::{
    drain::DrainSignal,
    index::{IndexError, LoopDigest},
};

pub use hub::Overview;

use hub::{Inbox, Shown};
use snapshot::Snapshot;

/// Silence after which a heartbeat is sent.
const IDLE: Duration = Duration::from_secs(15);

type Told = Encoded<v1::WatchLoopsResponse>;

/// Starts to watch all loops of a namespace that pass a filter.
///
/// # Errors
/// As WatchLoops names them.
pub async fn open(
    state: &ServiceState,
    namespace: &Id,
    filter: LoopFilter,
) -> Result<EncodedStream<v1::WatchLoopsResponse>, Status> {
    let seat = state.seats.take_overview(namespace)?;
    let overview = Arc::clone(&state.overview);
    // Before the look: what moves from here on is a note.
    let inbox = overview.join(namespace);
    let snapshot = Snapshot::take(&overview, namespace, &filter).await?;
    let watch = Watch {
        overview,
        inbox,
        filter,
        snapshot: Some(snapshot),
        inside: HashMap::new(),
        ready: VecDeque::new(),
        drain: state.drain.clone(),
        over: false,
        _seat: seat,
    };
    Ok(stream::unfold(watch, Watch::next).boxed())
}

/// One watcher.
struct Watch {
    overview: Arc<Overview>,
    inbox: Arc<Inbox>,
    filter: LoopFilter,
    /// What is left of the snapshot.
    snapshot: Option<Snapshot>,
    /// With a filter by state: the loop of each session that was told and may still leave the filter.
    inside: HashMap<String, String>,
    /// To be sent next: what became of one session.
    ready: VecDeque<Told>,
    drain: DrainSignal,
    over: bool,
    _seat: Seat,
}

impl Watch {
    async fn next(mut self) -> Option<(Result<Told, Status>, Self)> {
        if self.over {
            return None;
        }
        let item = self.item().await;
        self.over |= item.is_err();
        Some((item, self))
    }

    async fn item(&mut self) -> Result<Told, Status> {
        let mut drain = self.drain.clone();
        let silent_until = Instant::now() + IDLE;
        loop {
            if drain.is_draining() {
                self.over = true;
                return Ok(encoded(Item::Goodbye(goodbye(0))));
            }
            if let Some(ready) = self.ready.pop_front() {
                return Ok(ready);
            }
            if Instant::now() >= silent_until {
                return Ok(encoded(Item::Heartbeat(heartbeat(0))));
            }
            // A filter may hold back whatever comes.
            tokio::task::consume_budget().await;
            if let Some(snapshot) = &mut self.snapshot {
                match snapshot.part(&self.filter, &mut self.inside).await? {
                    Some(part) => return Ok(encoded(Item::Snapshot(part))),
                    None => {
                        let end = v1::SnapshotEnd {
                            loops: snapshot.told(),
                        };
                        self.snapshot = None;
                        return Ok(encoded(Item::SnapshotEnd(end)));
                    }
                }
            }
            if let Some((key, news)) = self.inbox.take() {
                self.tell(&key, news).await?;
                continue;
            }
            tokio::select! {
                () = drain.wait() => {}
                () = self.inbox.filled() => {}
                () = sleep_until(silent_until) => {}
            }
        }
    }

    /// Makes ready what a watcher is told of a session that moved.
    async fn tell(&mut self, key: &StreamKey, news: Move) -> Result<(), Status> {
        if news.removed {
            self.inside.remove(key.id());
            let deleted = Item::DeletedSessionId(key.id().to_owned());
            self.ready.push_back(encoded(deleted));
        }
        let Some(shown) = readable(key, self.overview.shown(key).await)? else {
            return Ok(());
        };
        if !summary::has_labels(&shown.brief, &self.filter.labels) {
            return Ok(());
        }
        let loops = self.overview.loops_since(&shown, news.after).await;
        let loops = readable(key, loops.map(Some))?.unwrap_or_default();
        for one in loops {
            if self.is_told(key, &shown, &one) {
                self.ready.push_back(shown.changed(&one));
            }
        }
        Ok(())
    }

    /// Whether a loop passes, or did when it was told last.
    fn is_told(&mut self, key: &StreamKey, shown: &Shown, one: &LoopDigest) -> bool {
        if !self.filter.wants_agent(&one.agent) {
            return false;
        }
        let left = match self.inside.get(key.id()) {
            Some(inside) if *inside == one.id.to_string() => self.inside.remove(key.id()).is_some(),
            _ => false,
        };
        let passes = self.filter.wants(summary::loop_state(&shown.brief, one));
        if passes {
            note_inside(&mut self.inside, &self.filter, key, one);
        }
        passes || left
    }
}

/// A loop that was told and may leave the filter.
fn note_inside(
    inside: &mut HashMap<String, String>,
    filter: &LoopFilter,
    key: &StreamKey,
    one: &LoopDigest,
) {
    if one.ended.is_none() && !filter.states.is_empty() {
        inside.insert(key.id().to_owned(), one.id.to_string());
    }
}

/// Leaves out a session that this version cannot read: whoever asks for it by name is told why.
fn readable<T>(key: &StreamKey, read: Result<Option<T>, IndexError>) -> Result<Option<T>, Status> {
    use loopwright_log::LogError;
    match read {
        Err(IndexError::Unreadable(unreadable)) => {
            tracing::warn!(session = %key, %unreadable, "left out of what dashboards see");
            Ok(None)
        }
        Err(IndexError::Log(LogError::NewerVersion { .. })) => {
            tracing::warn!(session = %key, "written by a newer version, left out of what dashboards see");
            Ok(None)
        }
        // Its deletion is a note of its own.
        Err(IndexError::Log(LogError::Removed)) => Ok(None),
        read => read.map_err(|error| status::index(&error)),
    }
}

fn encoded(item: Item) -> Told {
    Encoded::new(&v1::WatchLoopsResponse { item: Some(item) })
}
