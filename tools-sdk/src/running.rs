//! One running call: its task, those who listen to it, and how it is stopped.
//!
//! A call has exactly one outcome. Whoever listens gets the progress that comes from then on and the
//! outcome, also after the call ended. A listener that is dropped stops the call, unless the tool is
//! deduplicated: then it runs on for the repeat that will ask for its outcome.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::answer::{Answer, Outcome, ToolError};
use crate::context::Progress;

/// Progress messages kept for a slow listener; older ones are dropped.
const PROGRESS_KEPT: usize = 64;
/// How long a call that was told to stop may take to end.
pub(crate) const STOP_GRACE: Duration = Duration::from_secs(5);

/// A call that was started; it may have ended.
pub(crate) struct Running {
    pub(crate) progress: broadcast::Sender<Progress>,
    pub(crate) stop: CancellationToken,
    outcome: watch::Sender<Option<Outcome>>,
    ended: OnceLock<Ended>,
}

/// How a call ended, as far as a memory must know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    pub(crate) at: Instant,
    pub(crate) bytes: usize,
    pub(crate) did_nothing: bool,
}

/// Hears one call to its end.
pub(crate) struct Listener {
    progress: broadcast::Receiver<Progress>,
    outcome: watch::Receiver<Option<Outcome>>,
    progress_over: bool,
    _stop_on_drop: Option<DropGuard>,
}

/// What a listener hears next.
pub(crate) enum Heard {
    Progress(Progress),
    Outcome(Outcome),
    /// The call's task is gone without an outcome: the process goes down.
    Lost,
}

impl Running {
    pub(crate) fn new(stop: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            progress: broadcast::Sender::new(PROGRESS_KEPT),
            stop,
            outcome: watch::Sender::new(None),
            ended: OnceLock::new(),
        })
    }

    /// A listener; `stops` says whether the call ends with it.
    pub(crate) fn listen(&self, stops: bool) -> Listener {
        Listener {
            progress: self.progress.subscribe(),
            outcome: self.outcome.subscribe(),
            progress_over: false,
            _stop_on_drop: stops.then(|| self.stop.clone().drop_guard()),
        }
    }

    /// A call that ended before, at `at`.
    pub(crate) fn over(outcome: Outcome, at: Instant) -> Arc<Self> {
        let running = Self::new(CancellationToken::new());
        running.publish_at(outcome, at);
        running
    }

    /// Runs `work` to its end, or until it was told to stop and had its grace.
    pub(crate) async fn run_to_end(
        &self,
        work: impl Future<Output = Result<Answer, ToolError>>,
        deadline: Option<Instant>,
    ) -> Outcome {
        let work = AssertUnwindSafe(work).catch_unwind();
        tokio::select! {
            biased;
            ended = work => ended.map_or_else(
                |_| Outcome::failed("The tool crashed and may have done a part of its work."),
                Outcome::from,
            ),
            () = self.overstayed(deadline) => Outcome::failed(
                "The tool was stopped before its end and may have done a part of its work.",
            ),
        }
    }

    /// Tells the outcome to all who listen. The first one stands.
    pub(crate) fn publish(&self, outcome: Outcome) {
        self.publish_at(outcome, Instant::now());
    }

    fn publish_at(&self, outcome: Outcome, at: Instant) {
        // First this: who sees the outcome may ask for it.
        let _ = self.ended.set(Ended {
            at,
            bytes: outcome.bytes(),
            did_nothing: outcome.is_not_executed(),
        });
        self.outcome.send_replace(Some(outcome));
    }

    /// How the call ended; `None` while it runs.
    pub(crate) fn ended(&self) -> Option<Ended> {
        self.ended.get().copied()
    }

    async fn overstayed(&self, deadline: Option<Instant>) {
        match deadline {
            Some(deadline) => tokio::select! {
                () = self.stop.cancelled() => (),
                () = tokio::time::sleep_until(deadline) => self.stop.cancel(),
            },
            None => self.stop.cancelled().await,
        }
        tokio::time::sleep(STOP_GRACE).await;
    }
}

impl Listener {
    /// What comes next; after `Outcome` or `Lost` nothing does.
    pub(crate) async fn next(&mut self) -> Heard {
        loop {
            let over = self.progress_over;
            tokio::select! {
                // Progress first, so that the outcome is the last that is heard.
                biased;
                progress = self.progress.recv(), if !over => match progress {
                    Ok(progress) => return Heard::Progress(progress),
                    Err(broadcast::error::RecvError::Lagged(_)) => (),
                    Err(broadcast::error::RecvError::Closed) => self.progress_over = true,
                },
                ended = ended(&mut self.outcome) => {
                    return ended.map_or(Heard::Lost, Heard::Outcome);
                }
            }
        }
    }

    /// The outcome; `None` where the call is lost.
    pub(crate) async fn outcome(mut self) -> Option<Outcome> {
        ended(&mut self.outcome).await
    }
}

async fn ended(outcome: &mut watch::Receiver<Option<Outcome>>) -> Option<Outcome> {
    outcome
        .wait_for(Option::is_some)
        .await
        .ok()
        .and_then(|outcome| outcome.clone())
}

#[cfg(test)]
mod tests;
