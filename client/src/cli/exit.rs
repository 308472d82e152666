//! How a command ends, as the code of its process.
//!
//! Boundary: pure; scripts rely on the numbers, which never change. Invariant: every way in which a loop
//! can end has one code.

use loopwright_proto::v1::{EndReason, LoopEnded};
use tonic::Code;

use crate::Error;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Exit {
    /// 0: it did what it was to do; a loop completed.
    Completed,
    /// 1: an error, of this program, the way or the server.
    Error,
    /// 2: the command cannot mean anything: a wrong flag, or a field that the server refuses.
    Usage,
    /// 3: a budget was exhausted.
    Budget,
    /// 4: another limit: steps, output, deadline, context, no progress.
    Limit,
    /// 5: the model failed or refused.
    Model,
    /// 6: it cannot be known whether a tool call ran.
    Unknown,
    /// 7: a session's log is damaged, or of a newer version; said by `log verify` alone.
    Damaged,
    /// 130: cancelled, or left with Ctrl-C.
    Cancelled,
}

impl Exit {
    /// Every way to end.
    pub const ALL: [Self; 9] = [
        Self::Completed,
        Self::Error,
        Self::Usage,
        Self::Budget,
        Self::Limit,
        Self::Model,
        Self::Unknown,
        Self::Damaged,
        Self::Cancelled,
    ];

    /// The code of the process.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Completed => 0,
            Self::Error => 1,
            Self::Usage => 2,
            Self::Budget => 3,
            Self::Limit => 4,
            Self::Model => 5,
            Self::Unknown => 6,
            Self::Damaged => 7,
            Self::Cancelled => 130,
        }
    }

    /// For a loop that ended. A reason of a newer server is an error: it is not known to be a success.
    #[must_use]
    pub fn of_end(end: &LoopEnded) -> Self {
        Self::of_reason(EndReason::try_from(end.reason).unwrap_or(EndReason::Unspecified))
    }

    /// For the reason of a loop's end.
    #[must_use]
    pub const fn of_reason(reason: EndReason) -> Self {
        match reason {
            EndReason::Completed => Self::Completed,
            EndReason::BudgetExceeded => Self::Budget,
            EndReason::MaxSteps
            | EndReason::MaxOutput
            | EndReason::Deadline
            | EndReason::NoProgress
            | EndReason::ContextExhausted => Self::Limit,
            EndReason::ModelFailed | EndReason::Refused => Self::Model,
            EndReason::UnknownOutcome => Self::Unknown,
            EndReason::Cancelled => Self::Cancelled,
            EndReason::Error | EndReason::Unspecified => Self::Error,
        }
    }

    /// For a command that failed.
    #[must_use]
    pub fn of_error(error: &Error) -> Self {
        match error {
            Error::Options { .. } => Self::Usage,
            Error::Rejected(rejection) if rejection.code == Code::InvalidArgument => Self::Usage,
            _ => Self::Error,
        }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests;
