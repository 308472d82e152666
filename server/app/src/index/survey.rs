//! Which briefs on disk are as of their log, which are not: one listing of the log against one
//! reading of the file, and no log is opened.

use std::time::Duration;

use loopwright_log::{Id, KeyQuery, LogError, StreamKey, StreamKind};
use tokio::time::Instant;

use super::{Brief, Index, KEY_PAGE, Standing};

/// How often a long rebuild says how far it is.
const SAY_EVERY: Duration = Duration::from_secs(2);

/// What a start finds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Sessions in the log.
    pub sessions: usize,
    /// Those that somebody has to see to, of the ones whose brief is current.
    pub known: Vec<(StreamKey, Standing)>,
    /// Those without a current brief.
    pub unknown: Vec<StreamKey>,
}

/// The sessions of a log, and what is known of them.
#[derive(Default)]
pub(super) struct Matched {
    pub(super) known: Vec<(StreamKey, Brief)>,
    /// Those without a current brief, with the bytes that they have.
    pub(super) unknown: Vec<(StreamKey, u64)>,
}

impl Index {
    /// What a start must know of all sessions.
    ///
    /// # Errors
    /// The log cannot list its sessions.
    pub async fn survey(&self) -> Result<Survey, LogError> {
        let matched = self.matched(None).await?;
        let sessions = matched.known.len() + matched.unknown.len();
        let standing = matched.known.into_iter();
        let standing = standing.map(|(key, brief)| (key, brief.standing));
        Ok(Survey {
            sessions,
            known: standing
                .filter(|(_, s)| s.runnable || s.unfinished || s.wake_at.is_some())
                .collect(),
            unknown: matched.unknown.into_iter().map(|(key, _)| key).collect(),
        })
    }

    /// Makes briefs of these sessions, one after the other, while others work; says now and then
    /// how far it is. Answers which of them a driver has to see to.
    pub async fn catch_up(&self, keys: Vec<StreamKey>) -> Vec<StreamKey> {
        let (all, began) = (keys.len(), Instant::now());
        let (mut said, mut runnable) = (began, Vec::new());
        for (done, key) in keys.into_iter().enumerate() {
            // One that cannot be read is told of where it is asked for.
            if let Ok(Some(digest)) = self.folded(&key).await {
                self.let_go(&key, &digest);
                if Standing::of(&digest.state).runnable {
                    runnable.push(key.clone());
                }
                if !self.clerk.keep_in_turn(key, &digest).await {
                    return runnable;
                }
            }
            if said.elapsed() >= SAY_EVERY {
                said = Instant::now();
                tracing::info!(done, all, "making the index of sessions");
            }
        }
        let took = began.elapsed();
        tracing::info!(all, ?took, "the index of sessions is up to the log");
        runnable
    }

    pub(super) async fn matched(&self, namespace: Option<&Id>) -> Result<Matched, LogError> {
        // First the file: what is written into it meanwhile is not older than the listing.
        let kept = match self.shelf.clone() {
            Some(shelf) => {
                let of = namespace.cloned();
                let all = tokio::task::spawn_blocking(move || shelf.all(of.as_ref()));
                all.await.unwrap_or_default()
            }
            None => Vec::new(),
        };
        let mut kept = kept.into_iter().peekable();
        let mut matched = Matched::default();
        for (key, size) in self.listed(namespace).await? {
            while let Some((gone, _)) = kept.next_if(|(at, _)| *at < key) {
                self.clerk.forget(&gone);
            }
            match kept.next_if(|(at, _)| *at == key) {
                Some((_, kept)) if kept.bytes == size => matched.known.push((key, kept.brief)),
                _ => matched.unknown.push((key, size)),
            }
        }
        for (gone, _) in kept {
            self.clerk.forget(&gone);
        }
        Ok(matched)
    }

    async fn listed(&self, namespace: Option<&Id>) -> Result<Vec<(StreamKey, u64)>, LogError> {
        let mut all: Vec<(StreamKey, u64)> = Vec::new();
        loop {
            let query = KeyQuery {
                namespace: namespace.cloned(),
                kind: StreamKind::Session,
                after: all.last().map(|(key, _)| key.clone()),
                limit: KEY_PAGE,
            };
            let page = self.log.keys(query).await?;
            let end = !page.more || page.keys.is_empty();
            all.extend(page.keys.into_iter().zip(page.sizes));
            if end {
                return Ok(all);
            }
        }
    }
}
