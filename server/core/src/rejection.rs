//! Why a command was refused: an enum, a variant per reason.

use crate::ids::LoopId;

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
    /// Too many messages wait.
    #[error("{limit} messages wait already; wait until some have been taken up")]
    TooManyMessages {
        /// The limit.
        limit: u32,
    },
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
            Self::TooManyMessages { .. } => "QUEUE_FULL",
            Self::StaleEpoch { .. } => "STALE_EPOCH",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_its_own_constant_and_every_message_one_line() {
        let (named, running) = (LoopId(1), LoopId(2));
        let all = [
            Rejection::SessionNotFound,
            Rejection::SessionExists {
                session: "s".to_owned(),
            },
            Rejection::LoopRunning { running },
            Rejection::NoLoopRunning,
            Rejection::LoopMismatch { named, running },
            Rejection::TooManyMessages { limit: 1 },
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
