//! What clients are told of sessions that cannot be copied, moved or shown.

use std::fmt::Display;

use loopwright_core::ids::{Attempt, CallId};
use tonic::{Code, Status};

use super::{Draft, RETRY_FULL};
use crate::driver::ReleaseError;

/// The log has no such attempt of a model call.
#[must_use]
pub fn call_not_found(session: &str, call: Option<CallId>, attempt: Attempt) -> Status {
    let message = match (call, attempt) {
        (None, 0) => format!("no model was called in session {session:?} yet"),
        (None, _) => format!("no model call of session {session:?} had an attempt {attempt}"),
        (Some(call), 0) => format!("session {session:?} has no model call {call}"),
        (Some(call), _) => {
            format!("session {session:?} has no attempt {attempt} of a model call {call}")
        }
    };
    let message = format!("{message}; its log names them in ModelCallStarted");
    Draft::new(Code::NotFound, "CALL_NOT_FOUND", message).into()
}

/// A seq past the tail.
#[must_use]
pub fn seq_past_tail(seq: u64, tail: u64) -> Status {
    let message = format!("seq {seq} is past the last entry {tail}; leave it out for the tail");
    Draft::new(Code::OutOfRange, "SEQ_PAST_TAIL", message)
        .with("tail_seq", tail)
        .into()
}

/// An id that a session has.
#[must_use]
pub fn session_exists(session: &str) -> Status {
    let message = format!("session {session:?} exists already; take another id, or delete it");
    Draft::new(Code::AlreadyExists, "SESSION_EXISTS", message)
        .with("session_id", session)
        .into()
}

/// A session whose log was copied and not closed.
#[must_use]
pub fn session_unfinished(session: &str) -> Status {
    let message = format!(
        "session {session:?} is an unfinished copy (SESSION_UNFINISHED): wait for the request that \
         makes it, or give that again"
    );
    Draft::new(Code::NotFound, "SESSION_NOT_FOUND", message)
        .with("session_id", session)
        .into()
}

/// A session that drivers do not let go of.
#[must_use]
pub fn release(error: &ReleaseError, session: &str) -> Status {
    match error {
        ReleaseError::LoopOpen => {
            let message = format!("session {session:?}: {error}");
            Draft::new(Code::FailedPrecondition, "LOOP_RUNNING", message).into()
        }
        ReleaseError::Draining => super::draining(),
    }
}

/// A session with events of a later version.
#[must_use]
pub fn session_newer(problem: impl Display, line: u64) -> Status {
    let message = format!("{problem}; upgrade the server");
    Draft::new(Code::FailedPrecondition, "SESSION_NEWER", message)
        .with("line", line)
        .into()
}

/// A session that is larger than the limit.
#[must_use]
pub fn session_too_large(what: &str, limit: u64) -> Status {
    let message = format!("{what} are more than limits.session_bytes = {limit} bytes");
    Draft::new(Code::ResourceExhausted, "SESSION_TOO_LARGE", message)
        .with("limit", limit)
        .into()
}

/// More payloads than one request looks after.
#[must_use]
pub fn too_many_blobs(limit: usize) -> Status {
    let message = format!("the session names more than {limit} payloads, which is the limit");
    Draft::new(Code::ResourceExhausted, "SESSION_TOO_LARGE", message)
        .with("limit", limit)
        .into()
}

/// As many sessions are copied, exported and imported as may.
#[must_use]
pub fn too_many_transfers(limit: usize) -> Status {
    let message = format!(
        "{limit} sessions are being copied, exported or imported, as many as may; try again"
    );
    Draft::new(Code::ResourceExhausted, "TOO_MANY_TRANSFERS", message)
        .with("limit", limit)
        .retry(RETRY_FULL)
        .into()
}

/// Lines that no export has.
#[must_use]
pub fn not_an_export(line: u64, problem: impl Display) -> Status {
    let message = format!("line {line}: {problem}");
    Draft::new(Code::InvalidArgument, "NOT_AN_EXPORT", message)
        .with("line", line)
        .into()
}

/// Lines that are not as they were exported.
#[must_use]
pub fn export_damaged(line: u64, problem: impl Display) -> Status {
    let message = format!("line {line}: {problem}; export the session again");
    Draft::new(Code::DataLoss, "EXPORT_DAMAGED", message)
        .with("line", line)
        .into()
}

/// A payload that the log keeps beside a session could not be read or written.
#[must_use]
pub fn blob(error: &loopwright_log::BlobError) -> Status {
    use loopwright_log::BlobError;
    let (code, reason) = match error {
        BlobError::Unavailable { .. } => (Code::Unavailable, "LOG_UNAVAILABLE"),
        BlobError::TooLarge { .. } => (Code::ResourceExhausted, "ENTRY_TOO_LARGE"),
        BlobError::Missing { .. } | BlobError::Damaged { .. } => (Code::DataLoss, "BLOB_MISSING"),
    };
    Draft::new(code, reason, error).into()
}
