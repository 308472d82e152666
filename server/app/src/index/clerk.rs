//! The one task that writes the index's file: off the way of commands, several changes at a time.
//!
//! Invariant: changes are written in the order in which they came. A change that finds no room is
//! lost: the brief is then behind its log, and the next list or start sees that and makes it anew.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use loopwright_log::StreamKey;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};

use super::{Brief, Change, Digest, Index, Kept, Shelf};

/// Jobs that wait.
const MAX_JOBS: usize = 8_192;
/// How long changes gather before they are written: each write waits for the disk.
const GATHER: Duration = Duration::from_secs(2);
/// Changes in one write.
const MAX_CHANGES: usize = 1_024;

/// Where to send what is to be written.
pub(super) struct Clerk(Option<mpsc::Sender<Job>>);

pub(super) enum Job {
    Refresh(StreamKey),
    Change(Change),
    Dismiss(oneshot::Sender<()>),
}

impl Clerk {
    /// Nobody: there is no file.
    pub(super) fn none() -> Self {
        Self(None)
    }

    /// One that writes to `shelf` for as long as the index lives.
    pub(super) fn employ(index: Weak<Index>, shelf: Arc<Shelf>) -> Self {
        let (sender, jobs) = mpsc::channel(MAX_JOBS);
        tokio::spawn(work(index, shelf, jobs));
        Self(Some(sender))
    }

    pub(super) fn refresh(&self, key: &StreamKey) {
        self.send(Job::Refresh(key.clone()));
    }

    pub(super) fn forget(&self, key: &StreamKey) {
        self.send(Job::Change(Change::Forget(key.clone())));
    }

    /// Keeps a brief whose stream has `bytes`.
    pub(super) fn keep(&self, key: StreamKey, bytes: u64, brief: Brief) {
        let kept = Kept { bytes, brief };
        self.send(Job::Change(Change::Keep(key, Box::new(kept))));
    }

    /// Keeps what lists show of a digest, once there is room; `false` where the clerk has gone. Without
    /// a file there is nothing to keep.
    pub(super) async fn keep_in_turn(&self, key: StreamKey, digest: &Digest) -> bool {
        match (&self.0, kept(key, digest)) {
            (Some(jobs), Some(change)) => jobs.send(Job::Change(change)).await.is_ok(),
            _ => true,
        }
    }

    /// Has everything written that was sent before, and the file closed.
    pub(super) async fn dismiss(&self) {
        let (done, is_done) = oneshot::channel();
        if let Some(jobs) = &self.0
            && jobs.send(Job::Dismiss(done)).await.is_ok()
        {
            // An error says that it is gone already.
            let _ = is_done.await;
        }
    }

    fn send(&self, job: Job) {
        if let Some(jobs) = &self.0 {
            // See the module's invariant.
            let _ = jobs.try_send(job);
        }
    }
}

async fn work(index: Weak<Index>, shelf: Arc<Shelf>, mut jobs: mpsc::Receiver<Job>) {
    while let Some(first) = jobs.recv().await {
        let until = Instant::now() + GATHER;
        let mut changes = Vec::new();
        let mut next = Some(first);
        let mut dismissed = None;
        while let Some(job) = next.take() {
            match job {
                Job::Refresh(key) => changes.extend(refreshed(&index, key).await),
                Job::Change(change) => changes.push(change),
                Job::Dismiss(done) => dismissed = Some(done),
            }
            if dismissed.is_none() && changes.len() < MAX_CHANGES {
                next = timeout_at(until, jobs.recv()).await.ok().flatten();
            }
        }
        let (file, last) = (Arc::clone(&shelf), dismissed.is_some());
        let written = tokio::task::spawn_blocking(move || {
            if !changes.is_empty() {
                file.write(&changes);
            }
            if last {
                file.close();
            }
        });
        if let Err(error) = written.await {
            tracing::warn!(%error, "the index was not written");
        }
        if let Some(done) = dismissed {
            // Who dismissed may have gone.
            let _ = done.send(());
            return;
        }
    }
}

/// What the file is to say of a session now; nothing where it cannot be read, which whoever asks
/// for it by name is told.
async fn refreshed(index: &Weak<Index>, key: StreamKey) -> Option<Change> {
    let index = index.upgrade()?;
    let Some(digest) = index.folded(&key).await.ok()? else {
        return Some(Change::Forget(key));
    };
    index.let_go(&key, &digest);
    kept(key, &digest)
}

/// What is kept of a digest; nothing of a damaged session, of which more is there than was folded.
fn kept(key: StreamKey, digest: &Digest) -> Option<Change> {
    let kept = Kept {
        bytes: digest.bytes,
        brief: digest.brief(),
    };
    let whole = digest.damage.is_none();
    whole.then(|| Change::Keep(key, Box::new(kept)))
}
