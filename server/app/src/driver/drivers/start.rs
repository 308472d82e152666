//! The start: every session that has something to do gets its driver, those that wait get their
//! alarm, copies that were never brought to their end are removed.
//!
//! Boundary: the index says which sessions those are; only those that it does not know, as of their
//! log, are read, from their ends back. Without an index that is all of them: meanwhile commands are
//! served like ever, each attaches its session by itself, and the server's own log says how far the
//! reading is.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream};
use loopwright_core::{Entry, Event};
use loopwright_log::{LogError, Seq, StreamKey};
use tokio::time::Instant;

use super::{super::name_of, Drivers};
use crate::index::Standing;

/// Sessions read together.
const READ_AT_ONCE: usize = 16;
/// How often a long reading says how far it is.
const SAY_EVERY: Duration = Duration::from_secs(2);

/// What the end of a session's log says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// No loop is open, or it cannot be read.
    Closed,
    /// A loop has begun and not ended.
    Open,
    /// Its last entry was copied: it is no session yet.
    Unfinished,
}

impl Drivers {
    /// Attaches every session whose loop had not ended and has something to do; answers how many.
    ///
    /// # Errors
    /// Where the log cannot list its sessions; one that cannot be read is reported and left alone.
    pub async fn recover(self: &Arc<Self>) -> Result<usize, LogError> {
        let began = Instant::now();
        let survey = self.world.index.survey().await?;
        let mut found = 0;
        for (key, standing) in survey.known {
            found += usize::from(self.take_up(&key, standing).await);
        }
        let (sessions, unknown) = (survey.sessions, survey.unknown.len());
        tracing::info!(sessions, unknown, resumed = found, took = ?began.elapsed(), "sessions are known");
        if unknown == 0 {
            return Ok(found);
        }
        let mut closed = Vec::new();
        let mut read = stream::iter(survey.unknown)
            .map(|key| async move { (self.ending(&key).await, key) })
            .buffer_unordered(READ_AT_ONCE);
        let (mut done, mut said) = (0_usize, Instant::now());
        while let Some((ending, key)) = read.next().await {
            match ending {
                Ending::Closed => closed.push(key),
                Ending::Unfinished => self.discard(&key).await,
                Ending::Open => {
                    found += 1;
                    self.attach(&key);
                }
            }
            done += 1;
            if said.elapsed() >= SAY_EVERY {
                said = Instant::now();
                tracing::info!(done, unknown, "reading the ends of sessions");
            }
        }
        drop(read);
        tracing::info!(unknown, resumed = found, took = ?began.elapsed(), "all sessions are known");
        let drivers = Arc::downgrade(self);
        let index = Arc::clone(&self.world.index);
        tokio::spawn(async move {
            // A loop that has ended may have left settlements that nobody has taken yet.
            let runnable = index.catch_up(closed).await;
            if let Some(drivers) = drivers.upgrade() {
                runnable.iter().for_each(|key| drivers.attach(key));
            }
        });
        Ok(found)
    }

    async fn take_up(self: &Arc<Self>, key: &StreamKey, standing: Standing) -> bool {
        if standing.unfinished {
            self.discard(key).await;
        } else if standing.runnable {
            self.attach(key);
            return true;
        } else if let Some(at) = standing.wake_at {
            self.wake.set(key.clone(), at);
        }
        false
    }

    /// Removes a copy that nobody will bring to its end any more.
    async fn discard(self: &Arc<Self>, key: &StreamKey) {
        let Ok(_hold) = self.release(key).await else {
            return;
        };
        // Whoever copies it anew meanwhile has held it before.
        if self.ending(key).await != Ending::Unfinished {
            return;
        }
        match self.world.log.remove(key).await {
            Ok(_) => {
                self.world.index.forget(key);
                tracing::info!(session = name_of(key), "an unfinished copy was removed");
            }
            Err(error) => {
                tracing::warn!(session = name_of(key), %error, "an unfinished copy stays");
            }
        }
    }

    /// What the session's log ends with, read from its tail back.
    pub(super) async fn ending(&self, key: &StreamKey) -> Ending {
        let mut records = self.world.log.read_back(key, Seq::MAX);
        let mut last = true;
        while let Some(record) = records.next().await {
            let entry = record.map_err(|error| error.to_string()).and_then(|r| {
                serde_json::from_slice::<Entry>(&r.body()).map_err(|e| e.to_string())
            });
            match entry {
                Err(reason) => {
                    tracing::error!(session = name_of(key), %reason, "the session cannot be read");
                    return Ending::Closed;
                }
                Ok(entry) if last && entry.copied => return Ending::Unfinished,
                Ok(entry) => {
                    if let Some(ending) = entry.events.iter().rev().find_map(opens_or_ends) {
                        return ending;
                    }
                }
            }
            last = false;
        }
        Ending::Closed
    }
}

/// Whether an event says that a loop is open, or that it has ended; most say neither.
fn opens_or_ends(event: &Event) -> Option<Ending> {
    match event {
        Event::LoopEnded(_) => Some(Ending::Closed),
        Event::LoopStarted(_)
        | Event::ModelCallStarted(_)
        | Event::ModelCallCompleted(_)
        | Event::ToolCallStarted(_)
        | Event::ToolCallCompleted(_) => Some(Ending::Open),
        _ => None,
    }
}
