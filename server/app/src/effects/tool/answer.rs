//! Reads the stream that answers a call, up to its one last message.
//!
//! Boundary: messages and time only. Invariants: each progress starts the wait for the next message
//! anew, never past the whole time of the attempt; only a last message is an answer.

use std::pin::Pin;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use loopwright_core::message::clamp;
use loopwright_core::outcome::ToolFailure;
use loopwright_proto::v1::{
    CallToolResponse, NotExecuted, ToolProgress, ToolResult, call_tool_response::Kind,
};
use tokio::time::{Instant, Sleep, timeout};
use tonic::Status;

use super::{ambiguous, expired, not_executed, refused};
use crate::effects::progress::ProgressSink;
use crate::sidecars::channel::in_words;

/// Least time between two progress messages that watchers are shown.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);
/// Longest progress text.
const MAX_PROGRESS_BYTES: usize = 1024;
/// Longest reason that is passed on.
const MAX_REASON_BYTES: usize = 1024;
/// Longest wait for the end of the stream after its last message.
const END_WAIT: Duration = Duration::from_millis(100);

/// When to give up.
pub(super) struct Deadline {
    patience: Duration,
    whole: Duration,
    ends: Instant,
    sleep: Pin<Box<Sleep>>,
}

/// Which wait was too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Silence {
    /// The one between two messages.
    Longest(Duration),
    /// The one in all.
    Whole(Duration),
}

impl Deadline {
    /// From now on: `patience` for the next message, `whole` for all of them.
    pub(super) fn starting_now(patience: Duration, whole: Duration) -> Self {
        let now = Instant::now();
        let ends = now + whole;
        let sleep = Box::pin(tokio::time::sleep_until(ends.min(now + patience)));
        Self {
            patience,
            whole,
            ends,
            sleep,
        }
    }

    /// Ends when the wait has been too long.
    pub(super) async fn passed(&mut self) -> Silence {
        self.sleep.as_mut().await;
        if Instant::now() >= self.ends {
            Silence::Whole(self.whole)
        } else {
            Silence::Longest(self.patience)
        }
    }

    /// There was a sign of life. Says so where it came after the end all the same.
    fn start_anew(&mut self) -> Result<(), Silence> {
        let now = Instant::now();
        if now >= self.ends {
            return Err(Silence::Whole(self.whole));
        }
        self.sleep
            .as_mut()
            .reset(self.ends.min(now + self.patience));
        Ok(())
    }
}

/// The answer, or how the call failed.
pub(super) async fn collect(
    mut messages: impl Stream<Item = Result<CallToolResponse, Status>> + Unpin,
    mut deadline: Deadline,
    sink: &mut ProgressSink,
) -> Result<ToolResult, ToolFailure> {
    let mut shown: Option<Instant> = None;
    let mut alive = false;
    loop {
        let message = tokio::select! {
            biased;
            message = messages.next() => message,
            silence = deadline.passed() => return Err(expired(silence)),
        };
        let kind = match message {
            Some(Ok(message)) => message.kind,
            // Whatever it says now: it had begun.
            Some(Err(status)) if alive => return Err(ambiguous(in_words(&status))),
            Some(Err(status)) => return Err(refused(&status)),
            None => return Err(ambiguous("the stream ended without an answer".to_owned())),
        };
        match kind {
            Some(Kind::Progress(progress)) => {
                alive = true;
                deadline.start_anew().map_err(expired)?;
                if shown.is_none_or(|at| at.elapsed() >= PROGRESS_EVERY) {
                    shown = Some(Instant::now());
                    show(&progress, sink);
                }
            }
            Some(Kind::Result(result)) => {
                let_it_end(&mut messages).await;
                return Ok(result);
            }
            Some(Kind::NotExecuted(refusal)) => {
                let_it_end(&mut messages).await;
                return Err(its_own_word(refusal));
            }
            // A kind of a later version: no sign that this version could go by.
            None => {}
        }
    }
}

/// A stream that is dropped before its end is reset, which would look like a cancel over there.
async fn let_it_end(messages: &mut (impl Stream + Unpin)) {
    drop(timeout(END_WAIT, messages.next()).await);
}

fn show(progress: &ToolProgress, sink: &mut ProgressSink) {
    let fraction = progress
        .fraction
        .filter(|f| f.is_finite())
        .map(|f| f.clamp(0.0, 1.0));
    sink.tool(fraction, clamp(&progress.message, MAX_PROGRESS_BYTES));
}

fn its_own_word(refusal: NotExecuted) -> ToolFailure {
    let reason = match clamp(&refusal.reason, MAX_REASON_BYTES) {
        "" => "it says that it did not run the call",
        reason => reason,
    };
    not_executed(reason.to_owned(), refusal.retry_after.is_some())
}
