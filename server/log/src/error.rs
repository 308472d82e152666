//! What can go wrong, in words that hold for every backend: no type of a disk or a broker in it.
//!
//! Boundary: `Unavailable` carries a text for people; programs decide by the variant alone.

use crate::key::StreamKey;
use crate::record::Seq;

/// A stream that cannot be trusted past a point: a valid record follows bad bytes, or bytes that
/// were once durable are gone. It stays readable up to `good_through` and takes no appends.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "stream {stream} is damaged after seq {good_through}: {reason}; it reads up to there; \
     `loopwright log verify` shows the place, `loopwright log repair` cuts it"
)]
pub struct Corruption {
    /// Which stream.
    pub stream: StreamKey,
    /// The last seq that can be trusted.
    pub good_through: Seq,
    /// What is wrong, for people.
    pub reason: String,
}

/// Why the log as a whole takes no more appends.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the log has stopped for good: {reason}; restart the server to recover")]
pub struct Failure {
    /// What happened, for people.
    pub reason: String,
}

/// Why a record was not appended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The fence: the stream's last seq is not the expected one. Nothing was written.
    #[error("the stream's last seq is {tail}, not the expected one")]
    Conflict {
        /// The last seq, including one that is being written now.
        tail: Seq,
    },
    /// The backend could not do it now, or not any more.
    #[error("the log is unavailable: {reason}")]
    Unavailable {
        /// For people.
        reason: String,
        /// Whether the record may come to light nevertheless.
        ambiguous: bool,
    },
    /// The record or its stream would exceed a limit. Nothing was written.
    #[error("{size} bytes are over the limit of {limit} bytes; keep large payloads as blobs")]
    TooLarge {
        /// Bytes that it would take.
        size: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// The body is not one line with a JSON object. Nothing was written.
    #[error("the body of the record is malformed: {reason}")]
    Malformed {
        /// What is wrong.
        reason: &'static str,
    },
    /// The stream is damaged and takes no appends.
    #[error(transparent)]
    Corrupt(#[from] Corruption),
    /// The stream no longer holds the expected position.
    #[error("the stream was trimmed; its oldest seq is {oldest}")]
    Trimmed {
        /// The oldest seq kept.
        oldest: Seq,
    },
}

/// Why a read, a listing or a close failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The backend could not do it now.
    #[error("the log is unavailable: {reason}")]
    Unavailable {
        /// For people.
        reason: String,
    },
    /// The stream is damaged; what can be trusted was delivered.
    #[error(transparent)]
    Corrupt(#[from] Corruption),
    /// The cursor lies below what is kept.
    #[error("the stream was trimmed; its oldest seq is {oldest}")]
    Trimmed {
        /// The oldest seq kept.
        oldest: Seq,
    },
    /// The cursor names records that the log does not have: they were lost, or never written.
    #[error("the cursor {after} is past the last seq {tail}")]
    PastTail {
        /// The cursor.
        after: Seq,
        /// The last seq.
        tail: Seq,
    },
    /// The stream was removed while it was read, or just before.
    #[error("the stream was removed")]
    Removed,
    /// The stream was written by a newer release.
    #[error("the stream has record version {found}, this release reads up to {supported}; upgrade")]
    NewerVersion {
        /// The version found.
        found: u32,
        /// The newest version that this release reads.
        supported: u32,
    },
}

/// Why a blob was not kept or not found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlobError {
    /// The backend could not do it now.
    #[error("the log is unavailable: {reason}")]
    Unavailable {
        /// For people.
        reason: String,
    },
    /// The payload exceeds the limit.
    #[error("a blob of {size} bytes is over the limit of {limit} bytes")]
    TooLarge {
        /// Bytes given.
        size: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// No such blob beside this stream.
    #[error("blob {sha256} is missing")]
    Missing {
        /// The hash asked for.
        sha256: String,
    },
    /// The bytes kept do not have the hash.
    #[error("blob {sha256} is damaged")]
    Damaged {
        /// The hash asked for.
        sha256: String,
    },
}

impl AppendError {
    /// Nothing was written, and trying again may help.
    pub(crate) fn unavailable(reason: impl Into<String>) -> AppendError {
        AppendError::Unavailable {
            reason: reason.into(),
            ambiguous: false,
        }
    }

    /// The record may or may not be in the log.
    pub(crate) fn ambiguous(reason: impl Into<String>) -> AppendError {
        AppendError::Unavailable {
            reason: reason.into(),
            ambiguous: true,
        }
    }
}

impl LogError {
    /// The backend failed with this word.
    pub(crate) fn unavailable(reason: impl Into<String>) -> LogError {
        LogError::Unavailable {
            reason: reason.into(),
        }
    }
}

impl From<LogError> for AppendError {
    fn from(error: LogError) -> AppendError {
        match error {
            LogError::Corrupt(corruption) => AppendError::Corrupt(corruption),
            LogError::Trimmed { oldest } => AppendError::Trimmed { oldest },
            LogError::Removed => AppendError::Conflict { tail: 0 },
            other => AppendError::unavailable(other.to_string()),
        }
    }
}
