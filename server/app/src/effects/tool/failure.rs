//! How a call failed, in the core's words.
//!
//! Boundary: statuses and time in, [`ToolFailure`] out. Invariant: only what surely did not run is
//! `NotExecuted`.

use loopwright_core::outcome::{ToolFailure, ToolFailureKind};
use tonic::{Code, Status};

use super::deadline::Silence;
use crate::sidecars::channel::{in_words, was_not_sent};

/// What a status means that came in the place of an answer.
pub(super) fn refused(status: &Status) -> ToolFailure {
    if was_not_sent(status) {
        return not_executed(
            "the connection was lost before the call was sent".to_owned(),
            true,
        );
    }
    if status.code() == Code::Unimplemented && !is_of_our_own(status) {
        return not_executed(in_words(status), false);
    }
    ambiguous_status(status)
}

/// What a status means that came after the call had begun.
pub(super) fn ambiguous_status(status: &Status) -> ToolFailure {
    ambiguous(in_words(status))
}

/// The wait was too long.
pub(super) fn expired(silence: Silence) -> ToolFailure {
    ambiguous(match silence {
        Silence::Longest(limit) => format!("no answer and no progress within {limit:?}"),
        Silence::Whole(limit) => format!("no answer within {limit:?} in all (tools.absolute_cap)"),
    })
}

/// The answer is none.
pub(super) fn bad_reply(message: String) -> ToolFailure {
    ambiguous(message)
}

/// The same, with the name of who failed.
pub(super) fn of_sidecar(sidecar: &str, failure: ToolFailure) -> ToolFailure {
    ToolFailure {
        message: format!("sidecar `{sidecar}`: {}", failure.message),
        ..failure
    }
}

/// It surely did not run.
pub(super) fn not_executed(message: String, retryable: bool) -> ToolFailure {
    ToolFailure {
        kind: ToolFailureKind::NotExecuted,
        message,
        retryable,
        retry_after_ms: None,
    }
}

fn ambiguous(message: String) -> ToolFailure {
    ToolFailure {
        kind: ToolFailureKind::Ambiguous,
        message,
        retryable: false,
        retry_after_ms: None,
    }
}

/// Whether our own side made the status, of an answer that it cannot unpack.
fn is_of_our_own(status: &Status) -> bool {
    status.message().starts_with("Content is compressed")
}
