//! What happened: facts in the past tense, one struct each.
//!
//! An event is externally tagged in JSON, `{"ModelCallStarted":{..}}`. A kind that this version does
//! not know is kept to the letter as [`Unknown`] and written back unchanged.

use std::{fmt, sync::Arc};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, Visitor},
    ser::SerializeMap,
};
use serde_json::value::RawValue;

use crate::{
    agent::{Agent, Limits, ToolSet},
    budget::Bound,
    context::{CompactionTrigger, Recap, RecapAsk, RecapFallback, Shortened},
    ids::{Attempt, CallId, Epoch, LoopId, Seq, Timestamp},
    message::Parts,
    outcome::{AbandonReason, EndReason, ModelFailureKind, StopReason},
    usage::{Totals, Usage},
};

macro_rules! facts {
    ($($(#[$doc:meta])* $name:ident { $($body:tt)* })+) => {
        $($(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        pub struct $name { $($body)* })+
    };
}

mod budget;
mod control;
mod tool;
mod words;

pub use budget::{
    BudgetOverrun, BudgetReserved, BudgetSettled, BudgetWarning, SettlementAcknowledged,
};
pub use control::{LimitsUpdated, LoopPaused, LoopResumed};
pub use tool::{
    ApprovalRequested, ApprovalResolved, ToolCallCancelled, ToolCallCompleted, ToolCallFailed,
    ToolCallInDoubt, ToolCallRejected, ToolCallRequested, ToolCallResultLate, ToolCallStarted,
    ToolCallUnknown, UnknownResolved,
};
pub use words::{
    ApprovalOutcome, ApprovalReason, Nudge, Origin, RejectReason, UnknownResolution, effect_class,
};

macro_rules! events {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// One fact.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Event {
            $($(#[$doc])* $name($name),)+
            /// A kind that this version does not know.
            Unknown(Unknown),
        }

        impl Event {
            /// The kinds that this version knows, in the order of their declaration.
            pub const KINDS: &'static [&'static str] = &[$(stringify!($name)),+];

            /// The kind's name, as in the log.
            #[must_use]
            pub fn kind(&self) -> &str {
                match self {
                    $(Self::$name(_) => stringify!($name),)+
                    Self::Unknown(unknown) => &unknown.kind,
                }
            }
        }

        $(impl From<$name> for Event {
            fn from(event: $name) -> Self {
                Self::$name(event)
            }
        })+

        impl Serialize for Event {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut map = serializer.serialize_map(Some(1))?;
                match self {
                    $(Self::$name(event) => map.serialize_entry(stringify!($name), event)?,)+
                    Self::Unknown(unknown) => {
                        let raw: &RawValue =
                            serde_json::from_str(&unknown.json).map_err(serde::ser::Error::custom)?;
                        map.serialize_entry(&unknown.kind, raw)?;
                    }
                }
                map.end()
            }
        }

        impl<'de> Visitor<'de> for EventVisitor {
            type Value = Event;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an event: an object with one member, named by its kind")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Event, A::Error> {
                let kind: std::borrow::Cow<'de, str> =
                    map.next_key()?.ok_or_else(|| de::Error::custom("an event without a kind"))?;
                let event = match kind.as_ref() {
                    $(stringify!($name) => Event::$name(map.next_value()?),)+
                    _ => Event::Unknown(Unknown {
                        kind: kind.into_owned(),
                        json: map.next_value::<Box<RawValue>>()?.get().to_owned(),
                    }),
                };
                match map.next_key::<std::borrow::Cow<'de, str>>()? {
                    None => Ok(event),
                    Some(extra) => Err(de::Error::custom(format!(
                        "an event of two kinds, {} and {extra}", event.kind()
                    ))),
                }
            }
        }
    };
}

struct EventVisitor;

impl<'de> Deserialize<'de> for Event {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EventVisitor)
    }
}

events! {
    /// The session began.
    SessionCreated,
    /// The session is a copy of another from here on: it closes the copied entries.
    SessionForked,
    /// The session is an exported one from here on: it closes the imported entries.
    SessionImported,
    /// A driver took the session; every fact after it is of its epoch.
    DriverAttached,
    /// The driver let go for a drain.
    DriverDetached,
    /// The log was cut back to its last good entry before this attach.
    LogRecovered,
    /// The tools that the model is offered from its next call on.
    ToolsChanged,
    /// A message was accepted.
    MessageAdded,
    /// A loop began.
    LoopStarted,
    /// A model call waits for its reservation on named budgets.
    ModelCallReserving,
    /// Tokens were set aside for a model call.
    BudgetReserved,
    /// The conversation was made smaller for the model; the log keeps all of it.
    ContextCompacted,
    /// The licence to make a model call.
    ModelCallStarted,
    /// A model answered.
    ModelCallCompleted,
    /// An attempt of a model call failed.
    ModelCallFailed,
    /// An attempt of a model call was given up: its text does not count.
    ModelCallAbandoned,
    /// A reservation was replaced by what was used.
    BudgetSettled,
    /// Named budgets have taken a settlement.
    SettlementAcknowledged,
    /// A budget passed its warning share.
    BudgetWarning,
    /// A provider counted more than was reserved.
    BudgetOverrun,
    /// The model asked for a tool.
    ToolCallRequested,
    /// A requested tool call was refused before it was dispatched.
    ToolCallRejected,
    /// A tool call waits for a person before it is dispatched.
    ApprovalRequested,
    /// The wait for a person's approval ended.
    ApprovalResolved,
    /// The licence to dispatch a tool call.
    ToolCallStarted,
    /// A tool answered.
    ToolCallCompleted,
    /// An attempt of a tool call failed.
    ToolCallFailed,
    /// It is not known whether a call that must not be repeated has run.
    ToolCallInDoubt,
    /// Nobody could say what became of a call in doubt.
    ToolCallUnknown,
    /// A person said what became of a call whose outcome was unknown, or the wait for that ended.
    UnknownResolved,
    /// A result came after its call had ended.
    ToolCallResultLate,
    /// A tool call was cancelled.
    ToolCallCancelled,
    /// A client moved the loop's limits.
    LimitsUpdated,
    /// The loop waits for something that is not its own to bring about.
    LoopPaused,
    /// A loop that waited goes on.
    LoopResumed,
    /// The loop ended.
    LoopEnded,
}

/// An event kind of a later version, kept as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown {
    /// Its kind.
    pub kind: String,
    /// Its JSON text.
    pub json: String,
}

impl Unknown {
    /// Whether its writer says that a reader that does not know it may skip it.
    #[must_use]
    pub fn is_ignorable(&self) -> bool {
        #[derive(Deserialize)]
        struct Mark {
            #[serde(default)]
            ignorable: bool,
        }
        let is_object = self.json.trim_start().starts_with('{');
        is_object && serde_json::from_str::<Mark>(&self.json).is_ok_and(|mark| mark.ignorable)
    }
}

facts! {
    /// See [`Event::SessionCreated`].
    SessionCreated {
        /// The session's id.
        pub session: String,
        /// The tenant that it belongs to.
        pub namespace: String,
        /// When.
        pub at: Timestamp,
        /// Who answers.
        pub agent: Arc<Agent>,
        /// Within which limits.
        pub limits: Arc<Limits>,
        /// The creator's labels.
        #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
        pub labels: std::collections::BTreeMap<String, String>,
    }
    /// See [`Event::SessionForked`].
    SessionForked {
        /// The copy's id.
        pub session: String,
        /// The tenant that it belongs to.
        pub namespace: String,
        /// When.
        pub at: Timestamp,
        /// The session that was copied.
        pub from: String,
        /// The last entry that was copied.
        pub from_seq: Seq,
        /// The copy's labels.
        #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
        pub labels: std::collections::BTreeMap<String, String>,
    }
    /// See [`Event::SessionImported`].
    SessionImported {
        /// The session's id from here on.
        pub session: String,
        /// The tenant that it belongs to from here on.
        pub namespace: String,
        /// When.
        pub at: Timestamp,
        /// What it was exported as, `namespace/session`.
        pub from: String,
        /// The last entry that was imported.
        pub from_seq: Seq,
    }
    /// See [`Event::DriverAttached`].
    DriverAttached {
        /// Its generation.
        pub epoch: Epoch,
        /// The version of its server; empty in logs of versions that did not say.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        pub server: String,
    }
    /// See [`Event::DriverDetached`].
    DriverDetached {}
    /// See [`Event::LogRecovered`].
    LogRecovered {
        /// Bytes that were set aside.
        pub cut_bytes: u64,
    }
    /// See [`Event::ToolsChanged`].
    ToolsChanged {
        /// All of them.
        pub tools: Arc<ToolSet>,
    }
    /// See [`Event::MessageAdded`].
    MessageAdded {
        /// Where it came from and where it goes.
        pub origin: Origin,
        /// What it says.
        pub parts: Parts,
        /// Why the loop itself says it, where that is kept; absent where it has a cut reply go on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub nudge: Option<Nudge>,
    }
    /// See [`Event::LoopStarted`].
    LoopStarted {
        /// Its id.
        #[serde(rename = "loop")]
        pub id: LoopId,
        /// When.
        pub at: Timestamp,
        /// The trace that all of its spans belong to, as a W3C `traceparent`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub traceparent: Option<String>,
        /// The agent from here on, where it is not the one before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub agent: Option<Arc<Agent>>,
        /// The limits from here on, where they are not the ones before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub limits: Option<Arc<Limits>>,
    }
    /// See [`Event::ModelCallReserving`].
    ModelCallReserving {
        /// The call.
        pub call: CallId,
        /// Its attempt.
        pub attempt: Attempt,
        /// What recap it is to write, where it is no step of the loop.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub recap: Option<RecapAsk>,
    }
    /// See [`Event::ContextCompacted`].
    ContextCompacted {
        /// Why now.
        pub trigger: CompactionTrigger,
        /// Turns that the model no longer sees, from the first on, an older recap among them; 0 where
        /// only results are shortened.
        pub dropped: u32,
        /// The first entry of what was dropped or shortened.
        #[serde(default)]
        pub from_seq: Seq,
        /// The last entry of what was dropped or shortened.
        #[serde(default)]
        pub through_seq: Seq,
        /// Estimated tokens of the next prompt before.
        pub tokens_before: u64,
        /// Estimated tokens of the next prompt after.
        pub tokens_after: u64,
        /// Whether it got down to its target.
        pub target_met: bool,
        /// What the model is told in the place of what was dropped.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub recap: Option<Arc<Recap>>,
        /// Results that are told shorter from now on.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pub shortened: Vec<Shortened>,
        /// Whether a model wrote the recap.
        #[serde(default, skip_serializing_if = "crate::message::is_false")]
        pub by_model: bool,
        /// Why none did, where one was to.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub fallback: Option<RecapFallback>,
    }
    /// See [`Event::ModelCallStarted`].
    ModelCallStarted {
        /// The call.
        pub call: CallId,
        /// Its attempt, from 1.
        pub attempt: Attempt,
        /// Which step of its loop it is, from 1.
        #[serde(default)]
        pub step: u32,
        /// When.
        pub at: Timestamp,
        /// The model that is called.
        pub model: String,
        /// Its output cap, tokens.
        pub max_output_tokens: u64,
        /// What set the cap.
        #[serde(default, skip_serializing_if = "Bound::is_configured")]
        pub bound: Bound,
        /// What recap it is to write, where it is no step of the loop.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub recap: Option<RecapAsk>,
    }
    /// See [`Event::ModelCallCompleted`].
    ModelCallCompleted {
        /// The call.
        pub call: CallId,
        /// The attempt that answered.
        pub attempt: Attempt,
        /// What it said.
        pub parts: Parts,
        /// Why it stopped.
        pub stop: StopReason,
        /// What the provider counted, where it did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub usage: Option<Usage>,
        /// The provider's id of the request, where it gave one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub response_id: Option<String>,
        /// CRC32C of the request body, 8 hexadecimal digits.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        pub body_crc: String,
        /// From the request to the end of the reply, milliseconds.
        #[serde(default)]
        pub latency_ms: u64,
        /// From the request to the first content of the reply, milliseconds, where it was measured.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub first_token_ms: Option<u64>,
        /// What it cost, micro-USD, where the model has a price.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub cost_micro_usd: Option<u64>,
        /// Whether it wrote a recap, which is no part of the conversation.
        #[serde(default, skip_serializing_if = "crate::message::is_false")]
        pub recap: bool,
    }
    /// See [`Event::ModelCallFailed`].
    ModelCallFailed {
        /// The call.
        pub call: CallId,
        /// The attempt that failed.
        pub attempt: Attempt,
        /// In which way.
        pub kind: ModelFailureKind,
        /// In the provider's words, clamped.
        pub message: String,
        /// When it is tried again; absent: it is not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub retry_at: Option<Timestamp>,
        /// The model of the next attempt, where it is another one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub fallback: Option<u32>,
        /// The HTTP status of the provider's answer; 0 where there was none.
        #[serde(default, skip_serializing_if = "is_zero")]
        pub http_status: u16,
        /// What the provider counted before it failed, where it did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub usage: Option<Usage>,
        /// What that costs, micro-USD, where nothing was reserved: else its settlement says it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub cost_micro_usd: Option<u64>,
        /// CRC32C of the request body, where one was sent.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        pub body_crc: String,
    }
    /// See [`Event::ModelCallAbandoned`].
    ModelCallAbandoned {
        /// The call.
        pub call: CallId,
        /// The attempt that is given up.
        pub attempt: Attempt,
        /// Why.
        pub reason: AbandonReason,
    }
    /// See [`Event::LoopEnded`].
    LoopEnded {
        /// The loop.
        #[serde(rename = "loop")]
        pub id: LoopId,
        /// When.
        pub at: Timestamp,
        /// Why.
        #[serde(deserialize_with = "crate::outcome::read_end")]
        pub reason: EndReason,
        /// What it said last: the result, or as much of it as there is; clamped to 64 KiB.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        pub text: String,
        /// What it consumed.
        pub totals: Totals,
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it by reference"
)]
fn is_zero(status: &u16) -> bool {
    *status == 0
}

#[cfg(test)]
mod tests;
