//! Reads the stream that answers a call, up to its one last message.
//!
//! Boundary: messages and time only. Invariants: each progress starts the wait for the next message
//! anew, never past the whole time of the attempt; only a last message is an answer.

use std::time::Duration;

use futures_util::{Stream, StreamExt};
use loopwright_core::message::clamp;
use loopwright_core::outcome::ToolFailure;
use loopwright_proto::v1::{
    AttachCallResponse, CallNotKnown, CallToolResponse, NotExecuted, ToolProgress, ToolResult,
    attach_call_response, call_tool_response,
};
use tokio::time::{Instant, timeout};
use tonic::Status;

use super::deadline::Deadline;
use super::failure::{ambiguous_status, bad_reply, expired, not_executed, refused};
use crate::effects::progress::ProgressSink;
use crate::redaction::Redaction;

/// Least time between two progress messages that watchers are shown.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);
/// Longest progress text.
const MAX_PROGRESS_BYTES: usize = 1024;
/// Longest reason that is passed on.
const MAX_REASON_BYTES: usize = 1024;
/// Longest wait for the end of the stream after its last message.
const END_WAIT: Duration = Duration::from_millis(100);

/// One message of a stream that answers a call.
pub(super) trait Message {
    /// What the last message says.
    type Last;

    fn said(self, redaction: Redaction) -> Said<Self::Last>;
}

/// What a message says.
pub(super) enum Said<L> {
    Progress(ToolProgress),
    Last(L),
    /// A kind of a later version: no sign that this version could go by.
    Unheard,
}

/// What a rejoined call says last.
pub(super) enum Rejoined {
    Result(ToolResult),
    NeverStarted,
    NotKnown(String),
}

impl Message for CallToolResponse {
    type Last = Result<ToolResult, ToolFailure>;

    fn said(self, redaction: Redaction) -> Said<Self::Last> {
        use call_tool_response::Kind;
        match self.kind {
            Some(Kind::Progress(progress)) => Said::Progress(progress),
            Some(Kind::Result(result)) => Said::Last(Ok(result)),
            Some(Kind::NotExecuted(refusal)) => Said::Last(Err(its_own_word(refusal, redaction))),
            None => Said::Unheard,
        }
    }
}

impl Message for AttachCallResponse {
    type Last = Rejoined;

    fn said(self, redaction: Redaction) -> Said<Self::Last> {
        use attach_call_response::Kind;
        match self.kind {
            Some(Kind::Progress(progress)) => Said::Progress(progress),
            Some(Kind::Result(result)) => Said::Last(Rejoined::Result(result)),
            Some(Kind::NeverStarted(_)) => Said::Last(Rejoined::NeverStarted),
            Some(Kind::NotKnown(why)) => Said::Last(Rejoined::NotKnown(reason_of(&why, redaction))),
            None => Said::Unheard,
        }
    }
}

/// The last message, or how the stream failed.
pub(super) async fn collect<M: Message>(
    mut messages: impl Stream<Item = Result<M, Status>> + Unpin,
    deadline: &mut Deadline,
    sink: &mut ProgressSink,
    redaction: Redaction,
) -> Result<M::Last, ToolFailure> {
    let mut shown: Option<Instant> = None;
    loop {
        let message = tokio::select! {
            biased;
            message = messages.next() => message,
            silence = deadline.passed() => return Err(expired(silence)),
        };
        let said = match message {
            Some(Ok(message)) => message.said(redaction),
            // Whatever it says now: it had begun.
            Some(Err(status)) if deadline.was_alive() => {
                return Err(ambiguous_status(&status, redaction));
            }
            Some(Err(status)) => return Err(refused(&status, redaction)),
            None => return Err(bad_reply("the stream ended without an answer".to_owned())),
        };
        match said {
            Said::Progress(progress) => {
                deadline.start_anew().map_err(expired)?;
                if shown.is_none_or(|at| at.elapsed() >= PROGRESS_EVERY) {
                    shown = Some(Instant::now());
                    show(&progress, sink, redaction);
                }
            }
            Said::Last(last) => {
                sink.flight().answered();
                let_it_end(&mut messages).await;
                return Ok(last);
            }
            Said::Unheard => {}
        }
    }
}

/// Why a sidecar does not know, in its words.
pub(super) fn reason_of(why: &CallNotKnown, redaction: Redaction) -> String {
    match clamp(&redaction.text(&why.reason), MAX_REASON_BYTES) {
        "" => "it does not know what became of the call".to_owned(),
        reason => reason.to_owned(),
    }
}

/// A stream that is dropped before its end is reset, which would look like a cancel over there.
async fn let_it_end(messages: &mut (impl Stream + Unpin)) {
    drop(timeout(END_WAIT, messages.next()).await);
}

fn show(progress: &ToolProgress, sink: &mut ProgressSink, redaction: Redaction) {
    let fraction = progress
        .fraction
        .filter(|f| f.is_finite())
        .map(|f| f.clamp(0.0, 1.0));
    let message = redaction.text(&progress.message);
    sink.tool(fraction, clamp(&message, MAX_PROGRESS_BYTES));
}

fn its_own_word(refusal: NotExecuted, redaction: Redaction) -> ToolFailure {
    let said = redaction.text(&refusal.reason);
    let reason = match clamp(&said, MAX_REASON_BYTES) {
        "" => "it says that it did not run the call",
        reason => reason,
    };
    let retry_after = refusal.retry_after.map(Duration::try_from);
    // A negative one is no time to wait for.
    let wait = retry_after.map(|wait| wait.unwrap_or(Duration::ZERO).as_millis());
    ToolFailure {
        retry_after_ms: wait.map(|ms| u64::try_from(ms).unwrap_or(u64::MAX)),
        ..not_executed(reason.to_owned(), wait.is_some())
    }
}
