//! A running loop: the phases of its model call and of its tool calls.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    agent::EffectClass,
    budget::{Bound, Left, Reservation, Warned},
    context::RecapAsk,
    event::{ApprovalReason, Nudge},
    ids::{Attempt, CallId, LoopId, Timestamp},
    message::{CallPart, Part, Parts, ToolOutput},
    outcome::{EndReason, WaitsFor},
    state::Progress,
    usage::Totals,
};

/// A loop that has not ended.
#[derive(Clone, Debug, PartialEq)]
pub struct LoopRun {
    /// Its id.
    pub id: LoopId,
    /// When it began.
    pub started_at: Timestamp,
    /// When its time is up.
    pub deadline_at: Option<Timestamp>,
    /// The trace that its spans belong to.
    pub traceparent: Option<Arc<str>>,
    /// What it consumed.
    pub totals: Totals,
    /// Its model call, from the reservation to the outcome.
    pub model: Option<ModelCall>,
    /// What is set aside for that call.
    pub reserved: Option<Reservation>,
    /// The last reply; its tool calls are the open ones.
    pub reply: Parts,
    /// The last text that the model said.
    pub said: Parts,
    /// Tool calls of the last reply, in call order; empty once all have ended.
    pub tools: Vec<ToolCall>,
    /// How many tool calls the last reply asked for.
    pub asked: usize,
    /// Calls dispatched by tool name.
    pub per_name: Arc<BTreeMap<Arc<str>, u32>>,
    /// Replies cut by the output cap, in a row.
    pub cuts: u32,
    /// The output cap, tokens, that a shared budget had left for the last reply, where that cut it: of less
    /// no reply comes to its end.
    pub cut_at: Option<u64>,
    /// Which model is called: 0 the agent's, then its fallbacks.
    pub model_index: u32,
    /// What it waits for, where it is paused.
    pub paused: Option<WaitsFor>,
    /// Since when it is paused, where that is known.
    pub paused_at: Option<Timestamp>,
    /// How long it was paused before, milliseconds.
    pub paused_ms: u64,
    /// Of a loop that was copied in mid-run: how long its original is known to have run, milliseconds.
    pub copied_ms: Option<u64>,
    /// Whether a tool call of the last reply was refused by a budget.
    pub over_tool_budget: bool,
    /// When a person was last asked something, or last answered.
    pub asked_at: Option<Timestamp>,
    /// Whether its steps bring anything new.
    pub progress: Progress,
    /// Whether the model was told that few steps are left.
    pub wrapped_up: bool,
    /// Why it ends after its last call, once that is the one to make.
    pub landing: Option<EndReason>,
    /// Tool calls of the running model call's reply that shared budgets let through, where they limit
    /// them.
    pub tools_granted: Option<u64>,
    /// What shared budgets had left for the running model call, where its model is told.
    pub shared_left: Arc<[Left]>,
    /// Its time that shared budgets were charged with, milliseconds.
    pub wall_charged_ms: u64,
    /// Dimensions of its own budget that were warned of.
    pub warned: Warned,
    /// After how many steps of the session the conversation was last compacted: the regular check does
    /// so once a step.
    pub compacted_at: Option<u32>,
    /// Replies cut by the end of the model's window, in a row.
    pub fills: u32,
    /// What its running model call takes at most, where nothing is set aside for it.
    pub at_most: Option<Reservation>,
}

/// A model call under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelCall {
    /// Its id.
    pub call: CallId,
    /// The attempt that is under way, or the next one in `Backoff`.
    pub attempt: Attempt,
    /// Failures of the current model so far.
    pub failures: u32,
    /// When its first attempt started.
    pub first_at: Option<Timestamp>,
    /// Waiting messages that join when it starts.
    pub joining: usize,
    /// Whether the provider has said that its prompt did not fit.
    pub overflowed: bool,
    /// What recap it is to write, where it is no step of the loop.
    pub recap: Option<RecapAsk>,
    /// How far it is.
    pub phase: ModelPhase,
}

/// How far a model call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelPhase {
    /// Named budgets are asked.
    Reserving,
    /// It is licensed to run.
    Running {
        /// Its output cap, tokens.
        max_output_tokens: u64,
        /// What set the cap.
        bound: Bound,
        /// Content bytes of the conversation that it is shown.
        bytes: u64,
        /// Tokens set aside for what a provider wraps around them.
        margin: u64,
        /// Content bytes of the tools that it is offered.
        tool_bytes: u64,
        /// How often they had been changed.
        tool_changes: u64,
    },
    /// The next attempt is due then.
    Backoff {
        /// When.
        until: Timestamp,
    },
    /// The attempt was given up; what follows is decided in the same entry, or when a loop that
    /// rests goes on.
    Abandoned,
}

/// A tool call of the last reply.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolCall {
    /// Its id.
    pub call: CallId,
    /// Its place among the parts of the reply.
    pub index: u32,
    /// The attempt that is under way, or the next one in `Backoff`; 0 before the first.
    pub attempt: Attempt,
    /// Failures so far.
    pub failures: u32,
    /// When its first attempt started.
    pub first_at: Option<Timestamp>,
    /// What a repeat of it may do: the tool's word when the call was first dispatched. A catalog
    /// that changes later does not change it.
    pub effect: EffectClass,
    /// Whether an attempt has ended without anybody knowing if it ran.
    pub may_have_run: bool,
    /// The instance of its sidecar that every attempt was meant for that may have run; empty where that
    /// is not known, or where there was more than one.
    pub sidecar_instance: Arc<str>,
    /// What stands for its arguments: the hash that `ToolCallRequested` gave.
    pub args_hash: Arc<str>,
    /// Whether a person said that it may run, so that it is not held again.
    pub approved: bool,
    /// How far it is.
    pub phase: ToolPhase,
}

/// How far a tool call is.
#[derive(Clone, Debug, PartialEq)]
pub enum ToolPhase {
    /// It waits for a free slot.
    Waiting,
    /// It waits for a person's approval before it may take a slot.
    Held {
        /// Why.
        reason: ApprovalReason,
        /// When the default applies, where it ever does.
        until: Option<Timestamp>,
        /// The default: true = dispatch, false = deny.
        allow_on_expiry: bool,
    },
    /// It is licensed to run.
    Running,
    /// The next attempt is due then.
    Backoff {
        /// When.
        until: Timestamp,
    },
    /// The sidecar is asked what became of it.
    InDoubt {
        /// Whether the attempt failed, rather than its driver was lost.
        failed: bool,
    },
    /// Its outcome is unknown, and a person is asked.
    Asking,
    /// It has its one result.
    Ended(Arc<ToolOutput>),
}

impl LoopRun {
    /// The loop tells its model something.
    pub(super) fn nudged(&mut self, nudge: &Nudge) {
        match nudge {
            Nudge::NoProgress => self.progress.told = true,
            Nudge::Wrapup => self.wrapped_up = true,
            Nudge::Conclude(reason) => self.landing = Some(reason.clone()),
        }
    }

    /// The tool call of this id among the open step's.
    #[must_use]
    pub fn tool(&self, call: CallId) -> Option<&ToolCall> {
        self.tools.iter().find(|tool| tool.call == call)
    }

    /// What the model wrote for a tool call of the open step.
    #[must_use]
    pub fn call_part(&self, index: u32) -> Option<&CallPart> {
        match self.reply.get(index as usize) {
            Some(Part::ToolCall(part)) => Some(part),
            Some(Part::Text(_) | Part::Thinking(_) | Part::Opaque(_) | Part::Blob(_)) | None => {
                None
            }
        }
    }

    /// Whether nothing of it starts: a client paused it, or its own limits do not cover what comes
    /// next. One that waits for a named budget is still asking for it.
    #[must_use]
    pub fn rests(&self) -> bool {
        match self.paused {
            Some(WaitsFor::Client { .. } | WaitsFor::Limit { .. }) => true,
            Some(WaitsFor::Budget { .. }) | None => false,
        }
    }

    /// Whether it waits for a person and for nothing else.
    #[must_use]
    pub fn waits_for_person(&self) -> bool {
        let for_person = |tool: &ToolCall| tool.phase.waits_for_person();
        let is_still = |tool: &ToolCall| for_person(tool) || tool.phase.has_ended();
        self.model.is_none() && self.tools.iter().all(is_still) && self.tools.iter().any(for_person)
    }

    /// The name of the tool that a call of the open step asks for; empty where it has none.
    #[must_use]
    pub fn tool_name(&self, tool: &ToolCall) -> &str {
        self.call_part(tool.index).map_or("", |part| &part.tool)
    }
}

impl ToolPhase {
    /// Whether a person is asked about it.
    #[must_use]
    pub fn waits_for_person(&self) -> bool {
        matches!(self, Self::Held { .. } | Self::Asking)
    }

    /// Whether it takes one of the slots of parallel calls.
    #[must_use]
    pub fn takes_slot(&self) -> bool {
        matches!(
            self,
            Self::Running | Self::Backoff { .. } | Self::InDoubt { .. }
        )
    }

    /// Whether it has its result.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        matches!(self, Self::Ended(_))
    }
}
