//! What clients are told when a command or a read fails: the one place that makes a `Status`.
//!
//! Invariant: each carries `ErrorInfo{reason, domain}`; field errors a `BadRequest` with all of
//! them; whatever may go better later a `RetryInfo`. A status speaks of the command: failures of
//! models and tools are events.

pub mod sessions;

use std::{collections::HashMap, fmt::Display, time::Duration};

use loopwright_core::Rejection;
use loopwright_log::{AppendError, Corruption, LogError};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::convert::{entry::Unreadable, fields::Violations};
use crate::{driver::CommandError, index::IndexError};

#[cfg(test)]
mod tests;

/// The domain of all reasons.
pub const DOMAIN: &str = "loopwright";

/// When a log that is not available is worth another try.
const RETRY_LOG: Duration = Duration::from_secs(1);
/// When a server that shuts down may be back, or another one be found.
const RETRY_DRAINING: Duration = Duration::from_secs(2);
/// When a limit of the server may have room again.
const RETRY_FULL: Duration = Duration::from_secs(5);

/// A status in the making.
struct Draft {
    code: Code,
    reason: &'static str,
    message: String,
    metadata: Vec<(&'static str, String)>,
    retry: Option<Duration>,
}

impl Draft {
    fn new(code: Code, reason: &'static str, message: impl Display) -> Self {
        let message = message.to_string();
        Self {
            code,
            reason,
            message,
            metadata: Vec::new(),
            retry: None,
        }
    }

    fn with(mut self, key: &'static str, value: impl Display) -> Self {
        self.metadata.push((key, value.to_string()));
        self
    }

    fn retry(mut self, after: Duration) -> Self {
        self.retry = Some(after);
        self
    }

    fn details(&self) -> ErrorDetails {
        let metadata = self
            .metadata
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.clone()));
        let metadata: HashMap<String, String> = metadata.collect();
        let mut details = ErrorDetails::with_error_info(self.reason, DOMAIN, metadata);
        if let Some(after) = self.retry {
            details.set_retry_info(Some(after));
        }
        details
    }
}

impl From<Draft> for Status {
    fn from(draft: Draft) -> Self {
        let details = draft.details();
        Status::with_error_details(draft.code, draft.message, details)
    }
}

/// A request whose fields cannot be taken: all of them.
#[must_use]
pub fn invalid(violations: &Violations) -> Status {
    let told: Vec<String> = violations
        .0
        .iter()
        .map(|one| format!("{}: {}", one.field, one.problem))
        .collect();
    let message = format!("the request cannot be taken: {}", told.join("; "));
    let draft = Draft::new(Code::InvalidArgument, "INVALID_FIELDS", message);
    let mut details = draft.details();
    for one in &violations.0 {
        details.add_bad_request_violation(one.field.clone(), one.problem.clone());
    }
    Status::with_error_details(draft.code, draft.message, details)
}

/// A request with one field that cannot be taken.
#[must_use]
pub fn invalid_field(field: &str, problem: impl Display) -> Status {
    invalid(&Violations::one(field, problem.to_string()))
}

/// No credential, or one that nobody has.
#[must_use]
pub fn no_credential(problem: &str) -> Status {
    let way_out = "send `authorization: Bearer TOKEN` with a token of server.auth.token_file";
    Draft::new(
        Code::Unauthenticated,
        "NO_CREDENTIAL",
        format!("{problem}; {way_out}"),
    )
    .into()
}

/// A caller whose role does not reach so far.
#[must_use]
pub fn role_not_allowed(role: &str, path: &str) -> Status {
    let message = format!("the role {role} may not call {path}; use a token of another role");
    Draft::new(Code::PermissionDenied, "ROLE_NOT_ALLOWED", message)
        .with("role", role)
        .into()
}

/// No such session in the caller's namespace.
#[must_use]
pub fn session_not_found(session: &str) -> Status {
    let message = format!("there is no session {session:?}; start one with StartLoop");
    Draft::new(Code::NotFound, "SESSION_NOT_FOUND", message)
        .with("session_id", session)
        .into()
}

/// No such loop in the session.
#[must_use]
pub fn loop_not_found(session: &str, id: &str) -> Status {
    let message = if id.is_empty() {
        format!("session {session:?} has no loop yet; start one with StartLoop")
    } else {
        format!("session {session:?} has no loop {id:?}; leave loop_id empty for its last one")
    };
    Draft::new(Code::NotFound, "LOOP_NOT_FOUND", message)
        .with("loop_id", id)
        .into()
}

/// No model to call: the text names the ways out.
#[must_use]
pub fn no_model(problem: impl Display) -> Status {
    Draft::new(Code::FailedPrecondition, "NO_MODEL", problem).into()
}

/// A budget that an agent names and that is not there.
#[must_use]
pub fn budget_not_found(name: &str) -> Status {
    let message = format!(
        "there is no budget {name:?}; create it with CreateBudget, or leave it out of agent.budgets"
    );
    Draft::new(Code::FailedPrecondition, "BUDGET_NOT_FOUND", message)
        .with("budget", name)
        .into()
}

/// A model without a price under a budget that limits money.
#[must_use]
pub fn no_price(model: &str, budget: &str) -> Status {
    let message = format!(
        "budget {budget:?} limits cost, and model {model:?} has no price: describe it as models.<alias> \
         and set models.<alias>.price.input and .output in the server's configuration, or limit \
         tokens instead; `loopwright config prices` lists the prices that are known"
    );
    Draft::new(Code::FailedPrecondition, "NO_PRICE", message)
        .with("model", model)
        .with("budget", budget)
        .into()
}

/// Tools that no healthy sidecar of the namespace serves.
#[must_use]
pub fn tools_not_found(missing: &[String], known: usize) -> Status {
    let message = format!(
        "no healthy sidecar serves {}; {known} tools are there, see ListTools; start the sidecar, \
         or leave agent.tools out for all tools",
        missing.join(", ")
    );
    let draft = Draft::new(Code::FailedPrecondition, "TOOL_NOT_FOUND", message);
    draft.with("tools", missing.join(",")).into()
}

/// A request id that another request has had.
#[must_use]
pub fn request_id_reused(request_id: &str) -> Status {
    let message = format!(
        "the request_id {request_id:?} was given to this session with another request; take a new \
         one for a new request"
    );
    Draft::new(Code::AlreadyExists, "REQUEST_ID_REUSED", message).into()
}

/// As many streams watch as may.
#[must_use]
pub fn too_many_watchers(limit: u64, of: &str) -> Status {
    let message = format!("{limit} streams watch this {of} already, which is the limit; end one");
    let draft = Draft::new(Code::ResourceExhausted, "TOO_MANY_WATCHERS", message);
    draft.with("limit", limit).retry(RETRY_FULL).into()
}

/// A cursor past the last entry.
#[must_use]
pub fn cursor_past_tail(after: u64, tail: u64, agrees: Option<u64>) -> Status {
    let way_out = read_again(agrees);
    let message = format!(
        "after_seq {after} is past the last entry {tail}: entries that you saw are gone, or the \
         session is another one; {way_out}"
    );
    let draft = Draft::new(Code::DataLoss, "CURSOR_PAST_TAIL", message).with("tail_seq", tail);
    agreeing(draft, agrees).into()
}

/// A cursor at an entry that is not the one that the client saw there.
#[must_use]
pub fn cursor_diverged(after: u64, tail: u64, agrees: Option<u64>) -> Status {
    let way_out = read_again(agrees);
    let message = format!(
        "the entry at after_seq {after} is not the one that you saw: the log lost its last entries \
         and has written others in their place, or the session is another one of that id; {way_out}"
    );
    let draft = Draft::new(Code::DataLoss, "CURSOR_DIVERGED", message).with("tail_seq", tail);
    agreeing(draft, agrees).into()
}

/// The server shuts down.
#[must_use]
pub fn draining() -> Status {
    let message = "the server is shutting down; give the same request_id to the next one";
    Draft::new(Code::Unavailable, "DRAINING", message)
        .retry(RETRY_DRAINING)
        .into()
}

/// A command on a Converse stream that has no session yet.
#[must_use]
pub fn not_attached() -> Status {
    let message = "the stream has no session yet; send start or attach first";
    Draft::new(Code::FailedPrecondition, "NOT_ATTACHED", message).into()
}

/// A start or attach on a Converse stream that has its session.
#[must_use]
pub fn already_attached(session: &str) -> Status {
    let message = format!("the stream is attached to session {session:?}; open another stream");
    Draft::new(Code::FailedPrecondition, "ALREADY_ATTACHED", message).into()
}

/// A command on a Converse stream that names another session.
#[must_use]
pub fn session_mismatch(named: &str, session: &str) -> Status {
    let message = format!(
        "session_id names {named:?}, and the stream is attached to {session:?}; leave it empty, or \
         open another stream"
    );
    Draft::new(Code::FailedPrecondition, "SESSION_MISMATCH", message).into()
}

/// A path that is no rpc of this server.
#[must_use]
pub fn unimplemented(path: &str) -> Status {
    let message = format!("there is no rpc {path} here; list them by reflection");
    Draft::new(Code::Unimplemented, "NO_SUCH_RPC", message).into()
}

/// The ledger of the budgets cannot be read or written now.
#[must_use]
pub fn ledger_unavailable(error: impl Display) -> Status {
    Draft::new(Code::Unavailable, "LOG_UNAVAILABLE", error)
        .retry(RETRY_LOG)
        .into()
}

/// Any other error of this server's own: a subsystem names its code and reason.
#[must_use]
pub fn other(
    code: Code,
    reason: &'static str,
    message: impl Display,
    metadata: Vec<(&'static str, String)>,
    retry: Option<Duration>,
) -> Status {
    let message = message.to_string();
    Draft {
        code,
        reason,
        message,
        metadata,
        retry,
    }
    .into()
}

/// Why a command was not taken. `session` is the one that it addresses.
#[must_use]
pub fn command(error: &CommandError, session: &str) -> Status {
    match error {
        CommandError::Rejected(rejection) => rejected(rejection, session),
        CommandError::NotFound => session_not_found(session),
        CommandError::Draining => draining(),
        CommandError::TooManySessions { limit } => {
            let message = format!("{limit} sessions run on this server, which is limits.sessions");
            let draft = Draft::new(Code::ResourceExhausted, "TOO_MANY_SESSIONS", message);
            draft.with("limit", limit).retry(RETRY_FULL).into()
        }
        CommandError::Log(error) => append(error),
        CommandError::Read(error) => log(error),
        CommandError::Newer { kind } => {
            let message = format!(
                "session {session:?} holds events of kind {kind:?}, which this version does not \
                 know; upgrade the server"
            );
            Draft::new(Code::FailedPrecondition, "SESSION_NEWER", message).into()
        }
    }
}

/// Why the log could not be read.
#[must_use]
pub fn log(error: &LogError) -> Status {
    match error {
        LogError::Unavailable { .. } => Draft::new(Code::Unavailable, "LOG_UNAVAILABLE", error)
            .retry(RETRY_LOG)
            .into(),
        LogError::Corrupt(damage) => corrupt(damage),
        LogError::Trimmed { oldest } => trimmed(*oldest),
        &LogError::PastTail { after, tail } => cursor_past_tail(after, tail, None),
        LogError::Removed => Draft::new(Code::NotFound, "SESSION_NOT_FOUND", error).into(),
        LogError::NewerVersion { .. } => {
            Draft::new(Code::FailedPrecondition, "SESSION_NEWER", error).into()
        }
    }
}

/// An entry that this version cannot read.
#[must_use]
pub fn unreadable(error: &Unreadable) -> Status {
    Draft::new(Code::FailedPrecondition, "SESSION_NEWER", error)
        .with("seq", error.seq)
        .into()
}

/// Why there is no digest of a session.
#[must_use]
pub fn index(error: &IndexError) -> Status {
    match error {
        IndexError::Log(error) => log(error),
        IndexError::Unreadable(error) => unreadable(error),
    }
}

/// Bytes that are no message of the type that the rpc takes: the fault of a client's library.
#[must_use]
pub fn undecodable(error: &prost::DecodeError) -> Status {
    Draft::new(Code::Internal, "NOT_A_MESSAGE", error).into()
}

/// Why a session refused a command.
#[must_use]
pub fn rejected(rejection: &Rejection, session: &str) -> Status {
    let code = match rejection {
        Rejection::SessionNotFound => return session_not_found(session),
        Rejection::SessionExists { .. } => Code::AlreadyExists,
        Rejection::LoopRunning { .. }
        | Rejection::NoLoopRunning
        | Rejection::LoopMismatch { .. }
        | Rejection::AlreadyPaused { .. }
        | Rejection::NotPaused { .. }
        | Rejection::StillShort { .. }
        | Rejection::NotWaiting { .. } => Code::FailedPrecondition,
        Rejection::NoSuchCall { .. } | Rejection::Unfinished => Code::NotFound,
        Rejection::NoResolution { .. } => Code::InvalidArgument,
        Rejection::TooManyMessages { .. } => Code::ResourceExhausted,
        Rejection::StaleEpoch { .. } => Code::Aborted,
    };
    let draft = Draft::new(code, rejection.reason(), rejection);
    match rejection {
        Rejection::LoopRunning { running }
        | Rejection::LoopMismatch { running, .. }
        | Rejection::AlreadyPaused { running, .. }
        | Rejection::NotPaused { running, .. }
        | Rejection::StillShort { running, .. }
        | Rejection::NoSuchCall { running, .. } => draft.with("loop_id", running).into(),
        Rejection::NotWaiting { call, phase, .. } => {
            draft.with("call", call).with("state", phase).into()
        }
        Rejection::TooManyMessages { limit } => draft.with("limit", limit).retry(RETRY_FULL).into(),
        _ => draft.into(),
    }
}

/// Why the log did not take an entry.
#[must_use]
pub fn append(error: &AppendError) -> Status {
    match error {
        AppendError::Conflict { .. } | AppendError::Unavailable { .. } => {
            let message = format!("{error}; give the same request_id again");
            Draft::new(Code::Unavailable, "LOG_UNAVAILABLE", message)
                .retry(RETRY_LOG)
                .into()
        }
        AppendError::TooLarge { size, limit } => {
            let draft = Draft::new(Code::ResourceExhausted, "ENTRY_TOO_LARGE", error);
            draft.with("size", size).with("limit", limit).into()
        }
        AppendError::Malformed { .. } => {
            Draft::new(Code::Internal, "ENTRY_MALFORMED", error).into()
        }
        AppendError::Corrupt(damage) => corrupt(damage),
        AppendError::Trimmed { oldest } => trimmed(*oldest),
    }
}

fn corrupt(damage: &Corruption) -> Status {
    let draft = Draft::new(Code::DataLoss, "SESSION_CORRUPT", damage);
    draft.with("tail_seq", damage.good_through).into()
}

/// What a client does whose entries are gone; `agrees` is the last one that can still be the same.
fn read_again(agrees: Option<u64>) -> String {
    match agrees {
        None | Some(0) => "forget them and read the session again from 0".to_owned(),
        Some(agrees) => format!(
            "none above {agrees} is what you saw: forget those and read again after {agrees}, with \
             the epoch and the committed_at of the entry that you have there, or from 0"
        ),
    }
}

fn agreeing(draft: Draft, agrees: Option<u64>) -> Draft {
    match agrees {
        Some(agrees) => draft.with("agrees_through", agrees),
        None => draft,
    }
}

fn trimmed(oldest: u64) -> Status {
    let message = format!(
        "entries before {oldest} are gone; read from after_seq {}",
        oldest.max(1) - 1
    );
    Draft::new(Code::OutOfRange, "CURSOR_TRIMMED", message)
        .with("oldest_seq", oldest)
        .into()
}
