//! What can go wrong, typed for programs and in words for a tired person.
//!
//! Boundary: the one place that reads a gRPC status and its `google.rpc` details. A status that carries no
//! `ErrorInfo` was made on the way (a reset, a proxy, a refused connection), not by the server's word.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::fmt;
use std::time::Duration;

use loopwright_proto::v1::CommandStatus;
use prost::Message as _;
use tonic::{Code, Status};
use tonic_types::{RpcStatusExt as _, pb};

/// Why a command or a stream of the client failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An option of the client cannot be used.
    #[error("{field} = `{value}`: expected {expected}")]
    Options {
        /// The option.
        field: &'static str,
        /// Its value; never a secret.
        value: String,
        /// What would do.
        expected: String,
    },
    /// No connection, a lost one, or no answer in time.
    #[error("no answer from {url}: {cause}")]
    Unreachable {
        /// The server's address.
        url: String,
        /// What broke.
        cause: String,
    },
    /// The server refused.
    #[error("{0}")]
    Rejected(Box<Rejection>),
    /// The server sent entries with a hole in between; a watch has read them again before it says so.
    #[error(
        "the entries of session {session_id} do not follow on: after seq {after} came seq {got}. \
         Nothing was skipped: `loopwright log show {session_id}` shows what the log holds"
    )]
    Gap {
        /// The session.
        session_id: String,
        /// The last seq that was yielded.
        after: u64,
        /// The seq that came, or that the server said was sent.
        got: u64,
    },
    /// An entry that was read before the connection broke is another one, or gone, after it.
    #[error(
        "entry {seq} of session {session_id} is not the one that was read a moment ago: the log lost its last \
         entries, and may have written others in their place. Read it again from the start"
    )]
    Diverged {
        /// The session.
        session_id: String,
        /// The entry.
        seq: u64,
    },
    /// The session was deleted while it was watched.
    #[error("session {session_id} was deleted")]
    SessionDeleted {
        /// The session.
        session_id: String,
    },
    /// The server is shutting down, and said so; the stream goes on elsewhere.
    #[error("the server at {url} is shutting down")]
    Draining {
        /// The server's address.
        url: String,
    },
    /// Too many commands of a conversation wait for their replies.
    #[error("{limit} commands wait for their replies already; read them with `next` first")]
    TooManyCommands {
        /// The limit.
        limit: usize,
    },
}

/// The server's refusal of a command or a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The canonical gRPC code.
    pub code: Code,
    /// The reason by which programs tell refusals apart ("LOOP_RUNNING"); empty where none was given.
    pub reason: String,
    /// The refusal in words.
    pub message: String,
    /// More about the reason, such as `oldest_seq` or `tail_seq`.
    pub metadata: BTreeMap<String, String>,
    /// Every field that is wrong; empty unless the code is INVALID_ARGUMENT.
    pub fields: Vec<FieldViolation>,
    /// How long to wait before trying again; absent where trying again does not help.
    pub retry_after: Option<Duration>,
}

/// One wrong field of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldViolation {
    /// The field's path, such as `agent.limits.max_steps`.
    pub field: String,
    /// What is wrong with it.
    pub description: String,
}

impl Error {
    /// True where the same request may succeed later: nothing but the way or the moment was wrong.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Draining { .. } => true,
            Self::Rejected(rejection) => match rejection.code {
                Code::Unavailable => true,
                Code::ResourceExhausted | Code::Aborted => rejection.retry_after.is_some(),
                _ => false,
            },
            _ => false,
        }
    }

    /// The server's reason ("SESSION_NOT_FOUND"); absent where no server spoke.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Rejected(rejection) => Some(&rejection.reason),
            _ => None,
        }
    }

    /// The gRPC code of a refusal; absent where no server spoke.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Rejected(rejection) => Some(rejection.code),
            _ => None,
        }
    }

    /// The least wait before another try, as far as the server said.
    pub(crate) fn retry_after(&self) -> Duration {
        match self {
            Self::Rejected(rejection) => rejection.retry_after.unwrap_or_default(),
            _ => Duration::ZERO,
        }
    }

    pub(crate) fn from_status(status: &Status, url: &str) -> Self {
        let details = pb::Status::decode(status.details()).unwrap_or_default();
        let rejection = Rejection::new(status.code(), status.message(), &details);
        if rejection.reason.is_empty() && is_made_on_the_way(status.code()) {
            return Self::Unreachable {
                url: url.to_owned(),
                cause: causes(status),
            };
        }
        Self::Rejected(Box::new(rejection))
    }

    /// The error of a reply on a Converse stream; none where the command was accepted.
    pub(crate) fn from_reply(status: Option<CommandStatus>) -> Option<Self> {
        let status = status.unwrap_or_default();
        if status.code == Code::Ok as i32 {
            return None;
        }
        // The same fields and numbers as google.rpc.Status, so its bytes decode as one.
        let details = pb::Status::decode(status.encode_to_vec().as_slice()).unwrap_or_default();
        let code = Code::from_i32(status.code);
        Some(Self::Rejected(Box::new(Rejection::new(
            code,
            &status.message,
            &details,
        ))))
    }
}

impl Rejection {
    fn new(code: Code, message: &str, details: &pb::Status) -> Self {
        let info = details.get_details_error_info();
        let (reason, metadata) = info
            .map(|info| (info.reason, info.metadata.into_iter().collect()))
            .unwrap_or_default();
        let fields = details
            .get_details_bad_request()
            .map(|bad| bad.field_violations)
            .unwrap_or_default()
            .into_iter()
            .map(|violation| FieldViolation {
                field: violation.field,
                description: violation.description,
            })
            .collect();
        Self {
            code,
            reason,
            message: message.to_owned(),
            metadata,
            fields,
            retry_after: details
                .get_details_retry_info()
                .and_then(|info| info.retry_delay),
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.message.is_empty() {
            write!(f, "{}", self.code)?;
        } else {
            write!(f, "{}", self.message)?;
        }
        if !self.reason.is_empty() {
            write!(f, " ({})", self.reason)?;
        }
        for violation in &self.fields {
            write!(f, "\n  {}: {}", violation.field, violation.description)?;
        }
        if let Some(delay) = self.retry_after.filter(|delay| !delay.is_zero()) {
            write!(f, "\n  try again in {} s", delay.as_secs_f64().ceil())?;
        }
        Ok(())
    }
}

impl std::error::Error for Rejection {}

/// Codes that tonic and proxies make out of broken connections. Ours always come with an ErrorInfo.
fn is_made_on_the_way(code: Code) -> bool {
    matches!(
        code,
        Code::Unavailable
            | Code::Unknown
            | Code::Cancelled
            | Code::Internal
            | Code::DeadlineExceeded
            | Code::Aborted
    )
}

fn causes(status: &Status) -> String {
    let mut words = vec![status.message().to_owned()];
    let mut source = status.source();
    while let Some(error) = source {
        let text = error.to_string();
        if !words.iter().any(|known| known.contains(&text)) {
            words.push(text);
        }
        source = error.source();
    }
    words.retain(|text| !text.is_empty());
    if words.is_empty() {
        return status.code().to_string();
    }
    words.join(": ")
}
