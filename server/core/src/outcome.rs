//! How effects end, and how loops do: the words that inputs and events share.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};

use crate::{
    budget::{Dimension, Shortfall},
    ids::CallId,
    message::{Parts, ToolOutput},
    usage::Usage,
};

/// A model's whole answer, as the edge read it.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelReply {
    /// What it said.
    pub parts: Parts,
    /// Why it stopped.
    pub stop: StopReason,
    /// What the provider counted, where it did.
    pub usage: Option<Usage>,
    /// The provider's id of the request.
    pub response_id: Option<String>,
    /// CRC32C of the request body, 8 hexadecimal digits.
    pub body_crc: String,
    /// From the request to the end of the reply, milliseconds.
    pub latency_ms: u64,
    /// From the request to the first content of the reply, milliseconds, where it was measured.
    pub first_token_ms: Option<u64>,
    /// What it cost, micro-USD, where the model has a price.
    pub cost_micro_usd: Option<u64>,
    /// What the edge found for each tool call among `parts`, in their order.
    pub verdicts: Vec<Verdict>,
}

/// What the edge found of one requested tool call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// First 64 bits of the SHA-256 of the arguments, 16 hexadecimal digits: one hash for all texts that
    /// say the same.
    pub args_hash: String,
    /// Why the arguments do not fit the tool's schema, where they do not.
    pub invalid: Option<String>,
}

/// Why a model stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// It said all it had to say.
    EndTurn,
    /// It waits for its tool calls.
    ToolUse,
    /// The output cap cut it.
    MaxTokens,
    /// A stop sequence ended it.
    StopSequence,
    /// It refused.
    Refusal,
    /// The provider's filter stopped it.
    ContentFilter,
    /// The window was full before it had finished.
    ContextFull,
    /// The provider paused a long turn; sending the conversation again goes on.
    Pause,
    /// A word that this version does not know.
    Other(String),
}

impl StopReason {
    /// Whether the tool calls of a reply that ended so are dispatched: none of a reply that was cut.
    #[must_use]
    pub fn lets_tools_run(&self) -> bool {
        match self {
            Self::EndTurn | Self::ToolUse | Self::StopSequence | Self::Pause | Self::Other(_) => {
                true
            }
            Self::MaxTokens | Self::Refusal | Self::ContentFilter | Self::ContextFull => false,
        }
    }
}

/// Why an attempt of a model call was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AbandonReason {
    /// A message interrupted it, or the tools changed while it was reserving.
    Interrupted,
    /// The loop was cancelled.
    Cancelled,
    /// The driver that made it is gone.
    DriverLost,
    /// The loop's time was up.
    Deadline,
    /// The loop was paused, or its limits moved, before the attempt was made.
    Paused,
    /// A budget does not cover it, and the loop goes on without it: of recaps alone.
    NotCovered,
}

/// How an attempt of a model call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFailure {
    /// In which way.
    pub kind: ModelFailureKind,
    /// In the provider's words.
    pub message: String,
    /// The least time to wait that the provider asks for, milliseconds.
    pub retry_after_ms: Option<u64>,
    /// The HTTP status of the provider's answer; 0 where there was none.
    pub http_status: u16,
    /// What the provider counted before it failed, where it did.
    pub usage: Option<Usage>,
    /// What that cost, micro-USD, where the model has a price.
    pub cost_micro_usd: Option<u64>,
    /// CRC32C of the request body, where one was sent.
    pub body_crc: String,
}

/// In which way a model call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelFailureKind {
    /// 429: too many requests.
    RateLimited,
    /// 529, or 503 in the provider's own words: it is overloaded, and refused the request.
    Overloaded,
    /// Another 5xx, 408, or an error inside a stream: the model may have run.
    Server,
    /// 409, 425: the provider asks to try again.
    TryAgain,
    /// The connection could not be made.
    Connect,
    /// The stream broke off before its end.
    Cut,
    /// Nothing came for the idle timeout.
    Stalled,
    /// The reply could not be read as the protocol has it.
    Malformed,
    /// The reply is larger than an entry may be.
    TooLarge,
    /// The prompt does not fit the model's window.
    ContextTooLong,
    /// The account's quota or credit is used up.
    Quota,
    /// 401 or 403: the key is not accepted.
    Auth,
    /// 404: no such model, or it is not configured.
    NoSuchModel,
    /// Another 4xx: the request is at fault.
    InvalidRequest,
}

impl ModelFailureKind {
    /// Whether the same request may do better later.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        match self {
            Self::RateLimited
            | Self::Overloaded
            | Self::Server
            | Self::TryAgain
            | Self::Connect
            | Self::Cut
            | Self::Stalled
            | Self::Malformed => true,
            Self::TooLarge
            | Self::ContextTooLong
            | Self::Quota
            | Self::Auth
            | Self::NoSuchModel
            | Self::InvalidRequest => false,
        }
    }

    /// Whether the provider may have generated, and charged, before it failed. Where not, it refused
    /// the request as a whole and nothing was consumed.
    #[must_use]
    pub fn may_have_run(self) -> bool {
        match self {
            Self::Server | Self::Cut | Self::Stalled | Self::Malformed | Self::TooLarge => true,
            Self::RateLimited
            | Self::Overloaded
            | Self::TryAgain
            | Self::Connect
            | Self::ContextTooLong
            | Self::Quota
            | Self::Auth
            | Self::NoSuchModel
            | Self::InvalidRequest => false,
        }
    }
}

/// How an attempt of a tool call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolFailure {
    /// In which way.
    pub kind: ToolFailureKind,
    /// In words.
    pub message: String,
    /// Whether trying again may help, where the tool surely did not run.
    pub retryable: bool,
    /// The least time to wait that the sidecar asks for, milliseconds.
    pub retry_after_ms: Option<u64>,
    /// What made it ambiguous, where that is known.
    pub cause: Option<DoubtCause>,
}

/// What keeps anybody from saying whether a tool call ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DoubtCause {
    /// No result and no progress came in time.
    Timeout,
    /// The connection or the sidecar was lost.
    Unavailable,
    /// The sidecar answered with an error of its own.
    Internal,
    /// The answer was too large or could not be read.
    BadReply,
}

/// In which way a tool call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolFailureKind {
    /// It surely did not run.
    NotExecuted,
    /// It may have run: the deadline passed, the connection broke, the reply could not be read.
    Ambiguous,
}

/// What a sidecar says of a call in doubt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LookupAnswer {
    /// It ended, with this.
    Completed(Arc<ToolOutput>),
    /// It never started, and no attempt up to the one that was asked about will.
    NeverStarted,
    /// The sidecar does not know, or could not be asked.
    NotKnown(String),
}

/// Why a loop ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// The model said all it had to say.
    Completed,
    /// It made as many model calls as it may.
    MaxSteps {
        /// The limit.
        limit: u32,
    },
    /// Its replies were cut by the output cap more often than it may recover.
    MaxOutput {
        /// The recoveries allowed.
        retries: u32,
        /// The cap that cut the last one, tokens; 0 in logs of versions that did not say.
        #[serde(default, skip_serializing_if = "crate::message::is_zero")]
        max_output_tokens: u64,
    },
    /// A budget does not cover its next call.
    BudgetExceeded {
        /// The budget, `loop` for the loop's own.
        budget: String,
        /// Its dimension.
        dimension: Dimension,
        /// Its limit.
        limit: u64,
        /// What is used of it.
        used: u64,
        /// What the next call asked for.
        requested: u64,
    },
    /// Its time is up.
    Deadline {
        /// Which clock ran out.
        kind: DeadlineKind,
    },
    /// Its steps brought nothing new.
    NoProgress {
        /// So many of them in a row.
        steps: u32,
    },
    /// The model refused.
    Refused,
    /// The conversation does not fit the model's window.
    ContextExhausted {
        /// What the next prompt was estimated at, tokens; 0 where it is not known.
        tokens: u64,
        /// What fits, tokens; 0 where it is not known.
        limit: u64,
    },
    /// Somebody cancelled it.
    Cancelled {
        /// Who.
        by: String,
        /// Why, in their words.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        reason: String,
    },
    /// The model could not be called.
    ModelFailed {
        /// How the last attempt failed.
        kind: ModelFailureKind,
        /// In its words.
        message: String,
    },
    /// A call that must not be repeated has an unknown outcome.
    UnknownOutcome {
        /// The call.
        call: CallId,
    },
    /// Something that no other reason names.
    Error {
        /// In words.
        message: String,
    },
}

/// What a paused loop waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitsFor {
    /// A shared budget that covers its next call: it is raised, or begins anew.
    Budget {
        /// The budget.
        budget: String,
        /// How it stood.
        short: Shortfall,
    },
    /// A client that says to go on.
    Client {
        /// Who paused it.
        by: String,
    },
    /// A limit of its own that covers its next step: UpdateLimits.
    Limit {
        /// Whose limit: `loop` or `session`.
        budget: String,
        /// How it stood.
        short: Shortfall,
    },
}

impl WaitsFor {
    /// What a loop waits for that could end for this reason, where it is one of its own limits.
    #[must_use]
    pub fn limit(reason: &EndReason) -> Option<Self> {
        let &EndReason::BudgetExceeded {
            ref budget,
            dimension,
            limit,
            used,
            requested,
        } = reason
        else {
            return None;
        };
        let short = Shortfall {
            dimension,
            limit,
            used,
            requested,
        };
        let budget = budget.clone();
        Some(Self::Limit { budget, short })
    }
}

/// Reads a reason, also of versions that did not say what did not fit.
pub(crate) fn read_end<'de, D: Deserializer<'de>>(from: D) -> Result<EndReason, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Whole(EndReason),
        Bare(Bare),
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Bare {
        ContextExhausted,
    }
    Ok(match Written::deserialize(from)? {
        Written::Whole(reason) => reason,
        Written::Bare(Bare::ContextExhausted) => EndReason::ContextExhausted {
            tokens: 0,
            limit: 0,
        },
    })
}

/// Which clock of a loop ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeadlineKind {
    /// The loop's wall clock.
    Loop,
    /// The wait for a person.
    Idle,
}

impl EndReason {
    /// The reason's name, as in the API: stable.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::MaxSteps { .. } => "max_steps",
            Self::MaxOutput { .. } => "max_output",
            Self::BudgetExceeded { .. } => "budget_exceeded",
            Self::Deadline { .. } => "deadline",
            Self::NoProgress { .. } => "no_progress",
            Self::Refused => "refused",
            Self::ContextExhausted { .. } => "context_exhausted",
            Self::Cancelled { .. } => "cancelled",
            Self::ModelFailed { .. } => "model_failed",
            Self::UnknownOutcome { .. } => "unknown_outcome",
            Self::Error { .. } => "error",
        }
    }

    /// One line for a person.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Completed => "the model finished".to_owned(),
            Self::MaxSteps { limit } => {
                format!("reached loop.max_steps = {limit} model calls")
            }
            Self::MaxOutput { retries, .. } => {
                format!("replies kept hitting the output cap after {retries} recoveries")
            }
            Self::BudgetExceeded {
                budget,
                dimension,
                limit,
                used,
                requested,
            } => format!(
                "budget `{budget}` does not cover the next call: {dimension} limit {limit}, \
                 used {used}, next call needs {requested}"
            ),
            Self::Deadline {
                kind: DeadlineKind::Loop,
            } => "loop.deadline has passed".to_owned(),
            Self::Deadline {
                kind: DeadlineKind::Idle,
            } => "loop.idle_timeout has passed while it waited for a person".to_owned(),
            Self::NoProgress { steps } => {
                format!("{steps} steps in a row brought no new call and no new result")
            }
            Self::Refused => "the model refused to answer".to_owned(),
            Self::ContextExhausted { .. } => {
                "the conversation does not fit the model's context window".to_owned()
            }
            Self::Cancelled { by, reason } if reason.is_empty() => format!("cancelled by {by}"),
            Self::Cancelled { by, reason } => format!("cancelled by {by}: {reason}"),
            Self::ModelFailed { message, .. } => format!("the model call failed: {message}"),
            Self::UnknownOutcome { call } => {
                format!("nobody can say whether tool call {call} ran, and it must not be repeated")
            }
            Self::Error { message } => message.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
