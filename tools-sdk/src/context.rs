//! What a running tool knows of its call, and how it reports and learns that it is to stop.

use std::time::SystemTime;

use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

/// Most characters of a progress message; longer ones are cut.
const MAX_PROGRESS_CHARS: usize = 1024;

/// How far a call is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// Share done, 0 to 1; `None` where it is not known.
    pub fraction: Option<f64>,
    /// One line for a person.
    pub message: String,
}

/// One call as its tool sees it. Clones are the same call.
#[derive(Clone, Debug)]
pub struct ToolContext {
    pub(crate) call: CallIdentity,
    pub(crate) deadline: Option<SystemTime>,
    pub(crate) traceparent: Option<String>,
    pub(crate) progress: broadcast::Sender<Progress>,
    pub(crate) stop: CancellationToken,
}

/// Which call this is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CallIdentity {
    pub(crate) session_id: String,
    pub(crate) call: String,
    pub(crate) key: String,
    pub(crate) attempt: u32,
    pub(crate) epoch: u64,
}

impl ToolContext {
    /// Says how far the call is, and that it is alive: each progress starts the call's timeout anew.
    /// `fraction` is the share done, 0 to 1, or `None`; `message` is one line for a person, cut at 1,024
    /// characters. Never waits; what nobody reads in time is dropped.
    pub fn progress(&self, fraction: impl Into<Option<f64>>, message: impl Into<String>) {
        let share = fraction.into().filter(|share| share.is_finite());
        let message: String = message.into();
        let progress = Progress {
            fraction: share.map(|share| share.clamp(0.0, 1.0)),
            message: message
                .replace('\n', " ")
                .chars()
                .take(MAX_PROGRESS_CHARS)
                .collect(),
        };
        // Nobody listening is no fault: the caller of a deduplicated call may be gone.
        let _ = self.progress.send(progress);
    }

    /// Returns when the call is to stop: its caller dropped the stream, its deadline passed, or the
    /// sidecar goes down. The tool then has five seconds to end before it is dropped at its next await. A
    /// deduplicated tool is not stopped by its caller's going.
    pub async fn cancelled(&self) {
        self.stop.cancelled().await;
    }

    /// True where the call is to stop; for loops without an await.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// The session that calls.
    #[must_use]
    pub fn session_id(&self) -> &str {
        &self.call.session_id
    }

    /// The call's id ("c2"), unique within the session.
    #[must_use]
    pub fn call(&self) -> &str {
        &self.call.call
    }

    /// The key to deduplicate by, the same in every attempt.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.call.key
    }

    /// The attempt, from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.call.attempt
    }

    /// The generation of the driver that calls.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.call.epoch
    }

    /// When the caller gives up for good.
    #[must_use]
    pub fn deadline(&self) -> Option<SystemTime> {
        self.deadline
    }

    /// The W3C trace context of the call, to be sent on with requests that the tool makes.
    #[must_use]
    pub fn traceparent(&self) -> Option<&str> {
        self.traceparent.as_deref()
    }
}
