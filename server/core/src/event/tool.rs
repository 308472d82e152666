//! What happens to a tool call, from the model's wish to its one end.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::words::{ApprovalOutcome, ApprovalReason, RejectReason, UnknownResolution};
use crate::{
    agent::UnknownPolicy,
    ids::{Attempt, CallId, Timestamp},
    message::ToolOutput,
    outcome::{DoubtCause, ToolFailureKind},
};

facts! {
    /// See [`super::Event::ToolCallRequested`].
    ToolCallRequested {
        /// Our id of it.
        pub call: CallId,
        /// Its place among the parts of the reply, from 0.
        pub index: u32,
        /// What stands for its arguments: first 64 bits of the SHA-256 of their one form as JSON, 16
        /// hexadecimal digits. In logs of versions before, that of the text as the model wrote it.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        pub args_hash: String,
    }
    /// See [`super::Event::ToolCallRejected`].
    ToolCallRejected {
        /// The call.
        pub call: CallId,
        /// Why.
        pub reason: RejectReason,
        /// In words, for the model.
        pub message: String,
    }
    /// See [`super::Event::ApprovalRequested`].
    ApprovalRequested {
        /// The call.
        pub call: CallId,
        /// Why it waits.
        pub reason: ApprovalReason,
        /// Since when.
        pub at: Timestamp,
        /// When the default applies; absent: it waits without end.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub expires_at: Option<Timestamp>,
        /// The default: true = dispatch, false = deny.
        #[serde(default, skip_serializing_if = "crate::message::is_false")]
        pub allow_on_expiry: bool,
    }
    /// See [`super::Event::ApprovalResolved`].
    ApprovalResolved {
        /// The call.
        pub call: CallId,
        /// How the wait ended.
        pub outcome: ApprovalOutcome,
        /// Whether the call is dispatched.
        #[serde(default, skip_serializing_if = "crate::message::is_false")]
        pub allowed: bool,
        /// When.
        pub at: Timestamp,
        /// Who decided; empty where nobody did.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        pub by: String,
        /// Why, in their words.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        pub reason: String,
    }
    /// See [`super::Event::ToolCallStarted`].
    ToolCallStarted {
        /// The call.
        pub call: CallId,
        /// Its attempt, from 1.
        pub attempt: Attempt,
        /// When.
        pub at: Timestamp,
        /// When it times out unless it reports progress; absent in logs of versions that did not
        /// say.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub deadline: Option<Timestamp>,
        /// The instance of its sidecar that it is meant for, and that alone is sent it: of a tool whose
        /// sidecar can be asked what became of its calls. Empty where none is known.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        pub sidecar_instance: String,
    }
    /// See [`super::Event::ToolCallCompleted`].
    ToolCallCompleted {
        /// The call.
        pub call: CallId,
        /// The attempt that answered.
        pub attempt: Attempt,
        /// What it gave back.
        pub output: Arc<ToolOutput>,
    }
    /// See [`super::Event::ToolCallFailed`].
    ToolCallFailed {
        /// The call.
        pub call: CallId,
        /// The attempt that failed.
        pub attempt: Attempt,
        /// In which way.
        pub kind: ToolFailureKind,
        /// In words.
        pub message: String,
        /// When it is tried again; absent: it is not, and the call has ended.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub retry_at: Option<Timestamp>,
        /// What made it ambiguous, where that is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub cause: Option<DoubtCause>,
    }
    /// See [`super::Event::ToolCallInDoubt`].
    ToolCallInDoubt {
        /// The call.
        pub call: CallId,
        /// The attempt whose end nobody saw.
        pub attempt: Attempt,
        /// In words.
        pub message: String,
        /// True where the attempt failed just now, so that it counts towards the retry policy; false
        /// where the driver that made it was lost.
        #[serde(default, skip_serializing_if = "crate::message::is_false")]
        pub failed: bool,
    }
    /// See [`super::Event::ToolCallUnknown`].
    ToolCallUnknown {
        /// The call; ended by this, unless a person is asked.
        pub call: CallId,
        /// The attempt that nobody can tell of; 0 in logs of versions that did not say.
        #[serde(default, skip_serializing_if = "crate::entry::is_zero")]
        pub attempt: Attempt,
        /// In words, for the model and for people.
        pub message: String,
        /// What follows.
        #[serde(default, skip_serializing_if = "UnknownPolicy::tells_model")]
        pub policy: UnknownPolicy,
        /// Since when a person is asked, where one is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub asked_at: Option<Timestamp>,
    }
    /// See [`super::Event::UnknownResolved`].
    UnknownResolved {
        /// The call; ended by this, unless it runs again.
        pub call: CallId,
        /// What became of it.
        pub resolution: UnknownResolution,
        /// What it gave back, where it happened and the person knows.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub output: Option<Arc<ToolOutput>>,
        /// When.
        pub at: Timestamp,
        /// Who said so; empty where nobody did.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        pub by: String,
        /// Why, in their words.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        pub reason: String,
    }
    /// See [`super::Event::ToolCallResultLate`].
    ToolCallResultLate {
        /// The call.
        pub call: CallId,
        /// The attempt that answered late.
        pub attempt: Attempt,
        /// What it gave back: for people, never for the model.
        pub output: Arc<ToolOutput>,
    }
    /// See [`super::Event::ToolCallCancelled`].
    ToolCallCancelled {
        /// The call, ended by this.
        pub call: CallId,
        /// True where it had been dispatched and so may have run.
        #[serde(default, skip_serializing_if = "crate::message::is_false")]
        pub dispatched: bool,
    }
}
