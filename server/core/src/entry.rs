//! The atomic commit of one transition: what caused it and what happened.
//!
//! An entry is the body of one record of the log. Whatever an input carried that its events do not
//! say stands in the cause, so that the input can be read back (`Input::from_entry`).

use serde::{Deserialize, Serialize};

use crate::{
    event::Event,
    ids::{Attempt, CallId, LoopId},
    input::{Command, Mode, TimerWhy},
};

/// One entry of a session's log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// What caused it.
    pub cause: Cause,
    /// What happened, in order; never empty.
    pub events: Vec<Event>,
    /// True where it was copied from another log. A log whose last entry was is unfinished.
    #[serde(default, skip_serializing_if = "crate::message::is_false")]
    pub copied: bool,
}

/// What reached the driver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// A session was created for a command.
    Create(Command),
    /// StartLoop.
    StartLoop(Command),
    /// SendMessage.
    SendMessage {
        /// Who and under which request.
        by: Command,
        /// How the message joins.
        mode: Mode,
        /// The loop that it was meant for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        guard: Option<LoopId>,
    },
    /// CancelLoop.
    CancelLoop {
        /// Who and under which request.
        by: Command,
        /// The loop that it was meant for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        guard: Option<LoopId>,
    },
    /// PauseLoop.
    PauseLoop {
        /// Who and under which request.
        by: Command,
        /// The loop that it was meant for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        guard: Option<LoopId>,
    },
    /// ResumeLoop.
    ResumeLoop {
        /// Who and under which request.
        by: Command,
        /// The loop that it was meant for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        guard: Option<LoopId>,
    },
    /// UpdateLimits.
    UpdateLimits {
        /// Who and under which request.
        by: Command,
        /// The loop that it was meant for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        guard: Option<LoopId>,
    },
    /// ResolveApproval.
    ResolveApproval {
        /// Who and under which request.
        by: Command,
        /// The loop that it was meant for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        guard: Option<LoopId>,
    },
    /// ResolveUnknown.
    ResolveUnknown {
        /// Who and under which request.
        by: Command,
        /// The loop that it was meant for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        guard: Option<LoopId>,
    },
    /// A log of copied entries was closed for a command.
    Adopt(Command),
    /// A driver took the session.
    Attach,
    /// The driver was told to let go.
    Detach,
    /// The catalog of tools changed.
    Tools,
    /// A model call ended.
    Model {
        /// The call.
        call: CallId,
        /// Its attempt.
        attempt: Attempt,
        /// The share of the backoff that was drawn, in millionths.
        #[serde(default, skip_serializing_if = "is_zero")]
        jitter: u32,
        /// The floor that the provider set, milliseconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u64>,
    },
    /// A tool call ended.
    Tool {
        /// The call.
        call: CallId,
        /// Its attempt.
        attempt: Attempt,
        /// The share of the backoff that was drawn, in millionths.
        #[serde(default, skip_serializing_if = "is_zero")]
        jitter: u32,
        /// Whether the edge held a repeat for useful.
        #[serde(default, skip_serializing_if = "crate::message::is_false")]
        retryable: bool,
        /// The floor that the sidecar set, milliseconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u64>,
    },
    /// A sidecar said what became of a call.
    Lookup {
        /// The call.
        call: CallId,
        /// The words of a sidecar that does not know.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        not_known: Option<String>,
    },
    /// Named budgets granted a reservation.
    BudgetGranted {
        /// The call.
        call: CallId,
        /// Its attempt.
        attempt: Attempt,
        /// The output cap that they allow.
        max_output_tokens: u64,
        /// Tool calls that they let through; absent where they limit none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tool_calls: Option<u64>,
    },
    /// Named budgets do not cover a reservation now.
    BudgetWaits {
        /// The call.
        call: CallId,
        /// Its attempt.
        attempt: Attempt,
    },
    /// Named budgets refused a reservation.
    BudgetRefused {
        /// The call.
        call: CallId,
        /// Its attempt.
        attempt: Attempt,
    },
    /// Named budgets have known a reservation for longer than the log does.
    BudgetSpent {
        /// The call.
        call: CallId,
        /// Its attempt.
        attempt: Attempt,
    },
    /// Named budgets took a settlement.
    BudgetSettled {
        /// The call.
        call: CallId,
        /// Its attempt.
        attempt: Attempt,
        /// Others that they have taken since.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        more: Vec<(CallId, Attempt)>,
    },
    /// A timer fired.
    Timer(TimerWhy),
}

impl Entry {
    /// An entry of the session's own.
    #[must_use]
    pub fn new(cause: Cause, events: Vec<Event>) -> Self {
        Self {
            cause,
            events,
            copied: false,
        }
    }
}

impl Cause {
    /// The command behind it, where there is one.
    #[must_use]
    pub fn command(&self) -> Option<&Command> {
        match self {
            Self::Create(by)
            | Self::StartLoop(by)
            | Self::SendMessage { by, .. }
            | Self::CancelLoop { by, .. }
            | Self::PauseLoop { by, .. }
            | Self::ResumeLoop { by, .. }
            | Self::UpdateLimits { by, .. }
            | Self::ResolveApproval { by, .. }
            | Self::ResolveUnknown { by, .. }
            | Self::Adopt(by) => Some(by),
            Self::Attach
            | Self::Detach
            | Self::Tools
            | Self::Model { .. }
            | Self::Tool { .. }
            | Self::Lookup { .. }
            | Self::BudgetGranted { .. }
            | Self::BudgetWaits { .. }
            | Self::BudgetRefused { .. }
            | Self::BudgetSpent { .. }
            | Self::BudgetSettled { .. }
            | Self::Timer(_) => None,
        }
    }

    /// Its name, as in the log.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Create(_) => "create",
            Self::StartLoop(_) => "start_loop",
            Self::SendMessage { .. } => "send_message",
            Self::CancelLoop { .. } => "cancel_loop",
            Self::PauseLoop { .. } => "pause_loop",
            Self::ResumeLoop { .. } => "resume_loop",
            Self::UpdateLimits { .. } => "update_limits",
            Self::ResolveApproval { .. } => "resolve_approval",
            Self::ResolveUnknown { .. } => "resolve_unknown",
            Self::Adopt(_) => "adopt",
            Self::Attach => "attach",
            Self::Detach => "detach",
            Self::Tools => "tools",
            Self::Model { .. } => "model",
            Self::Tool { .. } => "tool",
            Self::Lookup { .. } => "lookup",
            Self::BudgetGranted { .. } => "budget_granted",
            Self::BudgetWaits { .. } => "budget_waits",
            Self::BudgetRefused { .. } => "budget_refused",
            Self::BudgetSpent { .. } => "budget_spent",
            Self::BudgetSettled { .. } => "budget_settled",
            Self::Timer(_) => "timer",
        }
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it by reference"
)]
pub(crate) fn is_zero(value: &u32) -> bool {
    *value == 0
}

#[cfg(test)]
pub(crate) mod tests;
