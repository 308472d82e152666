//! How a call failed, in the core's words.
//!
//! Boundary: statuses and time in, [`ToolFailure`] out. Invariant: only what surely did not run is
//! `NotExecuted`.

use loopwright_core::outcome::{DoubtCause, ToolFailure, ToolFailureKind};
use tonic::{Code, Status};

use super::deadline::Silence;
use crate::redaction::Redaction;
use crate::sidecars::channel::{in_words, was_not_sent};

/// What a status means that came in the place of an answer.
pub(super) fn refused(status: &Status, redaction: Redaction) -> ToolFailure {
    if was_not_sent(status) {
        return not_executed(
            "the connection was lost before the call was sent".to_owned(),
            true,
        );
    }
    if status.code() == Code::Unimplemented && !is_of_our_own(status) {
        return not_executed(in_words(status, redaction), false);
    }
    ambiguous_status(status, redaction)
}

/// What a status means that came after the call had begun.
pub(super) fn ambiguous_status(status: &Status, redaction: Redaction) -> ToolFailure {
    let cause = match status.code() {
        _ if is_of_our_own(status) => DoubtCause::BadReply,
        // Too large for us; a sidecar has no reason to say so.
        Code::OutOfRange => DoubtCause::BadReply,
        Code::Unavailable | Code::Cancelled => DoubtCause::Unavailable,
        // Made by our own transport, of an error of the connection.
        _ if std::error::Error::source(status).is_some() => DoubtCause::Unavailable,
        Code::DeadlineExceeded => DoubtCause::Timeout,
        _ => DoubtCause::Internal,
    };
    ambiguous(cause, in_words(status, redaction))
}

/// The wait was too long.
pub(super) fn expired(silence: Silence) -> ToolFailure {
    let words = match silence {
        Silence::Longest(limit) => format!("no answer and no progress within {limit:?}"),
        Silence::Whole(limit) => format!("no answer within {limit:?} in all (tools.absolute_cap)"),
    };
    ambiguous(DoubtCause::Timeout, words)
}

/// The answer is none.
pub(super) fn bad_reply(message: String) -> ToolFailure {
    ambiguous(DoubtCause::BadReply, message)
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
        cause: None,
    }
}

fn ambiguous(cause: DoubtCause, message: String) -> ToolFailure {
    ToolFailure {
        kind: ToolFailureKind::Ambiguous,
        message,
        retryable: false,
        retry_after_ms: None,
        cause: Some(cause),
    }
}

/// Whether our own side made the status, of an answer that it cannot unpack or read.
fn is_of_our_own(status: &Status) -> bool {
    let ours = [
        "Content is compressed",
        "failed to decode Protobuf message",
        "Unexpected EOF decoding stream",
    ];
    ours.iter().any(|words| status.message().starts_with(words))
}
