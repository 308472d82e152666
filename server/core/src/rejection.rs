//! Why a command was refused: an enum, a variant per reason.

use crate::{
    budget::Shortfall,
    ids::{CallId, LoopId},
};

/// A refused command. Nothing was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The session does not exist.
    #[error("the session does not exist; start one with StartLoop")]
    SessionNotFound,
    /// The session exists with other terms.
    #[error("session `{session}` exists already")]
    SessionExists {
        /// Its id.
        session: String,
    },
    /// A loop is running already.
    #[error("loop {running} is running; send it a message with SendMessage, or cancel it first")]
    LoopRunning {
        /// The loop.
        running: LoopId,
    },
    /// No loop is running.
    #[error("no loop is running in this session")]
    NoLoopRunning,
    /// Another loop than the one named is running, or ran last.
    #[error("loop_id names {named}, but the session is at {running}")]
    LoopMismatch {
        /// The one named.
        named: LoopId,
        /// The one that runs, or ran last.
        running: LoopId,
    },
    /// A client paused the loop already.
    #[error("loop {running} is paused already, by {by}; let it go on with ResumeLoop")]
    AlreadyPaused {
        /// The loop.
        running: LoopId,
        /// Who paused it.
        by: String,
    },
    /// No client paused the loop, and no limit of its own.
    #[error("loop {running} is not paused{}", waiting(.budget.as_deref()))]
    NotPaused {
        /// The loop.
        running: LoopId,
        /// The shared budget that it waits for, where it does.
        budget: Option<String>,
    },
    /// The limit that the loop waits for does not cover its next step.
    #[error(
        "budget `{budget}` of loop {running} does not cover its next step: {dimension} limit {limit}, \
         used {used}, needed {requested}; raise it with UpdateLimits, and the loop goes on by itself",
        dimension = .short.dimension, limit = .short.limit, used = .short.used,
        requested = .short.requested
    )]
    StillShort {
        /// The loop.
        running: LoopId,
        /// Whose limit: `loop` or `session`.
        budget: String,
        /// How it stands.
        short: Shortfall,
    },
    /// Too many messages wait.
    #[error(
        "{limit} messages wait already; wait until some have been taken up, or go on in another \
         session"
    )]
    TooManyMessages {
        /// The limit.
        limit: u32,
    },
    /// The session has not had the call yet.
    #[error("the session has no call {call}; GetLoop lists the pending ones of loop {running}")]
    NoSuchCall {
        /// The call.
        call: CallId,
        /// The loop that runs, or ran last.
        running: LoopId,
    },
    /// The call does not wait for what the command answers.
    #[error("{call} does not wait for {awaited}: {phase}")]
    NotWaiting {
        /// The call.
        call: CallId,
        /// What the command answers, in words.
        awaited: &'static str,
        /// How far the call is, in words.
        phase: &'static str,
    },
    /// What became of a call is told as something that only the server says.
    #[error(
        "cancelled is what the server says of {call} when its loop ends; say HAPPENED, \
         DID_NOT_HAPPEN, RUN_AGAIN or TELL_MODEL"
    )]
    NoResolution {
        /// The call.
        call: CallId,
    },
    /// The session's log was copied from another one, and not closed.
    #[error(
        "the session is an unfinished copy; give the request that makes it again, or delete it"
    )]
    Unfinished,
    /// An attach with a generation that is not the next one.
    #[error("epoch {epoch} does not follow {current}")]
    StaleEpoch {
        /// The one given.
        epoch: u64,
        /// The state's.
        current: u64,
    },
}

impl Rejection {
    /// The variant's name for `ErrorInfo.reason`.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::SessionNotFound => "SESSION_NOT_FOUND",
            Self::SessionExists { .. } => "SESSION_EXISTS",
            Self::LoopRunning { .. } => "LOOP_RUNNING",
            Self::NoLoopRunning => "NO_LOOP",
            Self::LoopMismatch { .. } => "LOOP_MISMATCH",
            Self::AlreadyPaused { .. } => "LOOP_PAUSED",
            Self::NotPaused { .. } => "LOOP_NOT_PAUSED",
            Self::StillShort { .. } => "BUDGET_EXHAUSTED",
            Self::TooManyMessages { .. } => "QUEUE_FULL",
            Self::NoSuchCall { .. } => "CALL_NOT_FOUND",
            Self::NotWaiting { .. } => "CALL_NOT_WAITING",
            Self::NoResolution { .. } => "NO_RESOLUTION",
            Self::Unfinished => "SESSION_UNFINISHED",
            Self::StaleEpoch { .. } => "STALE_EPOCH",
        }
    }
}

/// What a loop that nobody paused waits for, where it is a shared budget.
fn waiting(budget: Option<&str>) -> String {
    budget.map_or_else(String::new, |budget| {
        format!("; it waits for budget `{budget}`, and goes on when that has room")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Dimension;

    #[test]
    fn every_reason_is_its_own_constant_and_every_message_one_line() {
        let (named, running, call) = (LoopId(1), LoopId(2), CallId(3));
        let all = [
            Rejection::SessionNotFound,
            Rejection::SessionExists {
                session: "s".to_owned(),
            },
            Rejection::LoopRunning { running },
            Rejection::NoLoopRunning,
            Rejection::LoopMismatch { named, running },
            Rejection::AlreadyPaused {
                running,
                by: "ann".to_owned(),
            },
            Rejection::NotPaused {
                running,
                budget: None,
            },
            Rejection::StillShort {
                running,
                budget: "loop".to_owned(),
                short: Shortfall {
                    dimension: Dimension::ModelCalls,
                    limit: 1,
                    used: 1,
                    requested: 1,
                },
            },
            Rejection::TooManyMessages { limit: 1 },
            Rejection::NoSuchCall { call, running },
            Rejection::NotWaiting {
                call,
                awaited: "approval",
                phase: "it runs",
            },
            Rejection::NoResolution { call },
            Rejection::Unfinished,
            Rejection::StaleEpoch {
                epoch: 1,
                current: 1,
            },
        ];
        let mut reasons = all.each_ref().map(Rejection::reason);
        reasons.sort_unstable();
        assert!(reasons.windows(2).all(|pair| pair[0] != pair[1]));
        for (reason, rejection) in reasons.iter().zip(&all) {
            let upper = |c: char| c.is_ascii_uppercase() || c == '_';
            assert!(reason.chars().all(upper), "{reason}");
            assert!(!rejection.to_string().contains('\n'));
        }
    }
}
