//! One running call: its task, those who listen to it, and how it is stopped.
//!
//! A call has exactly one outcome. Whoever listens gets the progress that comes from then on and the
//! outcome, also after the call ended. What the leaving of a listener means is said by [`Leaving`].

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::answer::{Answer, Outcome, ToolError};
use crate::connection::Connection;
use crate::context::Progress;

/// Progress messages kept for a slow listener; older ones are dropped.
const PROGRESS_KEPT: usize = 64;
/// How long a call that was told to stop may take to end.
pub(crate) const STOP_GRACE: Duration = Duration::from_secs(5);

/// Longest wait for word that a connection was lost, once a listener on it is gone.
const LOSS_NOTICED: Duration = Duration::from_millis(500);

/// What it means for a call that a listener is dropped before the outcome.
pub(crate) enum Leaving {
    /// Nothing: the call runs on, for the repeat that will ask for its outcome.
    Nothing,
    /// The call is to stop.
    Stops,
    /// The call is to stop, unless the listener's connection was lost, or others listen: whoever lost it
    /// may come back and ask.
    StopsUnlessLost(Connection),
}

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
    /// Whether it had been told to stop.
    pub(crate) stopped: bool,
}

/// Hears one call to its end.
pub(crate) struct Listener {
    progress: broadcast::Receiver<Progress>,
    outcome: watch::Receiver<Option<Outcome>>,
    progress_over: bool,
    _departure: Departure,
}

/// Does what the leaving of a listener means.
struct Departure {
    running: Option<Arc<Running>>,
    stop: CancellationToken,
    leaving: Leaving,
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

    /// A listener.
    pub(crate) fn listen(self: &Arc<Self>, leaving: Leaving) -> Listener {
        let shared = matches!(leaving, Leaving::StopsUnlessLost(_));
        Listener {
            progress: self.progress.subscribe(),
            outcome: self.outcome.subscribe(),
            progress_over: false,
            _departure: Departure {
                running: shared.then(|| Arc::clone(self)),
                stop: self.stop.clone(),
                leaving,
            },
        }
    }

    /// The outcome, where there is one yet.
    pub(crate) fn outcome(&self) -> Option<Outcome> {
        self.outcome.borrow().clone()
    }

    /// Whether it was told to stop before it ended.
    pub(crate) fn was_stopped(&self) -> bool {
        self.ended().is_some_and(|ended| ended.stopped)
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
            stopped: self.stop.is_cancelled(),
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

impl Drop for Departure {
    fn drop(&mut self) {
        let lost = match &self.leaving {
            Leaving::Nothing => return,
            Leaving::Stops => return self.stop.cancel(),
            Leaving::StopsUnlessLost(connection) => connection.clone(),
        };
        let (stop, Some(running)) = (self.stop.clone(), self.running.take()) else {
            return self.stop.cancel();
        };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return stop.cancel();
        };
        runtime.spawn(async move {
            let lost = tokio::time::timeout(LOSS_NOTICED, lost.lost()).await;
            let alone = running.outcome.receiver_count() == 0;
            if lost.is_err() && alone {
                stop.cancel();
            }
        });
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
