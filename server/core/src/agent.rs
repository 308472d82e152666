//! What a session is asked to be: the agent, its limits, and the tools that its model is offered.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    budget::{Dimension, Price},
    context::ContextTerms,
    ledger::OnExhausted,
    message::is_false,
    retry::RetryPolicy,
};

mod change;

pub use change::{BudgetChange, LimitsChange, Move};

/// The built-in tool that reads results back, by its name on the model's wire.
pub const READ_OUTPUT: &str = "loopwright__read_output";

/// Who answers: the model and how it is asked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Agent {
    /// A name to find its loops by; empty for none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Model to call, an alias or `provider/id`.
    pub model: String,
    /// Models to try, in order, when the one before has failed for good.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fallbacks: Vec<String>,
    /// System prompt; empty for none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub system_prompt: String,
    /// Sampling temperature, where set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Nucleus sampling, where set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    /// The provider's word for how hard to think, where set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning_effort: Option<String>,
    /// `auto`, `none`, `required`, or a tool's name, where set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_choice: Option<String>,
    /// JSON object merged into the request to the provider, where set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_options: Option<String>,
    /// JSON Schema of the result, where the loop must end in JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_schema: Option<String>,
    /// Tools by name, `<sidecar>__<tool>` or `<sidecar>`; absent: all healthy ones, and
    /// [`READ_OUTPUT`] with them; empty: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<Vec<String>>,
    /// Named budgets that every model call reserves on, beside the loop's own limits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub budgets: Vec<String>,
}

impl Agent {
    /// Bytes that it puts into every prompt at most: its system prompt, and what else it has a provider
    /// be sent in words of its own.
    #[must_use]
    pub fn content_bytes(&self) -> u64 {
        let told = [
            &self.output_schema,
            &self.provider_options,
            &self.reasoning_effort,
            &self.tool_choice,
        ];
        let told: usize = told.into_iter().flatten().map(String::len).sum();
        (self.system_prompt.len() as u64).saturating_add(told as u64)
    }
}

/// What to do when nobody can say what became of a call that must not be repeated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnknownPolicy {
    /// Ask a person; the call waits.
    Ask,
    /// Tell the model that the outcome is unknown, and go on.
    #[default]
    TellModel,
    /// End the loop as `unknown_outcome`.
    End,
}

impl UnknownPolicy {
    pub(crate) fn tells_model(&self) -> bool {
        *self == Self::TellModel
    }
}

/// The limits of a session's loops, as they were resolved when it was created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Model calls in one loop, at least 1.
    pub max_steps: u32,
    /// Output cap of one model call, tokens.
    pub max_output_tokens: u64,
    /// Whether a request asked for that cap, rather than configuration or the model set it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub max_output_asked: bool,
    /// Recoveries from a reply that the output cap cut.
    pub max_output_retries: u32,
    /// Tool calls in flight at once, at least 1.
    pub max_parallel_tool_calls: u32,
    /// Calls of one tool in one loop; absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tool_calls_per_name: Option<u32>,
    /// Wall clock of one loop, milliseconds; absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// Messages that may wait in the queue or to be joined.
    pub max_waiting_messages: u32,
    /// Smallest output cap worth a call, tokens.
    pub min_output_tokens: u64,
    /// The loop's own budget.
    #[serde(default)]
    pub budget: BudgetLimits,
    /// What tokens of the agent's models cost at most, where they have a price: money is reserved by it.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub prices: std::collections::BTreeMap<String, Price>,
    /// How the conversation is kept within the model's window; absent: it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<ContextTerms>,
    /// How failed attempts are repeated.
    pub retry: RetryPolicy,
    /// What follows an unknown outcome; absent: a person is asked where the tool is destructive,
    /// else the model is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_unknown: Option<UnknownPolicy>,
    /// How long a call may wait for a person's approval, milliseconds; absent: without end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval_timeout_ms: Option<u64>,
    /// What becomes of a call whose approval expired: true = dispatched, false = denied.
    #[serde(default, skip_serializing_if = "is_false")]
    pub approval_default_allow: bool,
    /// How long a loop may wait for a person and for nothing else, milliseconds; absent: without
    /// end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout_ms: Option<u64>,
    /// Steps in a row without a new call or a new result that end a loop; absent: none do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_progress: Option<u32>,
    /// The model is told once when at most so many steps are left; 0: never.
    #[serde(default, skip_serializing_if = "is_none_left")]
    pub wrapup_steps: u32,
    /// Tokens of the loop's own budget, and of shared ones, that are held back for one last call; absent:
    /// none is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub final_call_tokens: Option<u64>,
    /// Whether the model is told at each call what is left of the loop's own budget and of shared ones.
    #[serde(default, skip_serializing_if = "is_false")]
    pub tell_budget: bool,
    /// The session's own budget, over all of its loops.
    #[serde(default, skip_serializing_if = "BudgetLimits::is_open")]
    pub session_budget: BudgetLimits,
    /// What a loop does that its own or its session's budget does not cover.
    #[serde(default, skip_serializing_if = "ends")]
    pub on_exhausted: OnExhausted,
    /// The share of a limit of these budgets at which a warning is written, in thousandths; 0: none
    /// is, as in logs of versions that did not warn.
    #[serde(default, skip_serializing_if = "crate::entry::is_zero")]
    pub warn_permille: u32,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it by reference"
)]
fn is_none_left(steps: &u32) -> bool {
    *steps == 0
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_steps: 75,
            max_output_tokens: 4096,
            max_output_asked: false,
            max_output_retries: 2,
            max_parallel_tool_calls: 8,
            max_tool_calls_per_name: None,
            deadline_ms: None,
            max_waiting_messages: 256,
            min_output_tokens: 64,
            budget: BudgetLimits::default(),
            prices: std::collections::BTreeMap::new(),
            context: None,
            retry: RetryPolicy::default(),
            on_unknown: None,
            approval_timeout_ms: None,
            approval_default_allow: false,
            idle_timeout_ms: None,
            no_progress: None,
            wrapup_steps: 0,
            final_call_tokens: None,
            tell_budget: false,
            session_budget: BudgetLimits::default(),
            on_exhausted: OnExhausted::End,
            warn_permille: 0,
        }
    }
}

impl Limits {
    /// Whether the loop or its session has a budget of its own.
    #[must_use]
    pub fn are_budgeted(&self) -> bool {
        !self.budget.is_open() || !self.session_budget.is_open()
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it by reference"
)]
fn ends(on_exhausted: &OnExhausted) -> bool {
    *on_exhausted == OnExhausted::End
}

/// Limits of a budget by dimension: absent is no limit, 0 is nothing allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetLimits {
    /// Prompt tokens, cache reads and writes included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_tokens: Option<u64>,
    /// Generated tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_tokens: Option<u64>,
    /// Both together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_tokens: Option<u64>,
    /// Attempts of model calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_calls: Option<u64>,
    /// Tool calls dispatched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<u64>,
    /// Millionths of a US dollar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_micro_usd: Option<u64>,
    /// Milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wall_ms: Option<u64>,
}

impl BudgetLimits {
    /// The limit of one dimension.
    #[must_use]
    pub fn of(&self, dimension: Dimension) -> Option<u64> {
        match dimension {
            Dimension::InputTokens => self.input_tokens,
            Dimension::OutputTokens => self.output_tokens,
            Dimension::TotalTokens => self.total_tokens,
            Dimension::CostMicroUsd => self.cost_micro_usd,
            Dimension::ModelCalls => self.model_calls,
            Dimension::ToolCalls => self.tool_calls,
            Dimension::WallTimeMs => self.wall_ms,
        }
    }

    /// With this limit of one dimension, or none.
    #[must_use]
    pub fn with(mut self, dimension: Dimension, limit: Option<u64>) -> Self {
        *match dimension {
            Dimension::InputTokens => &mut self.input_tokens,
            Dimension::OutputTokens => &mut self.output_tokens,
            Dimension::TotalTokens => &mut self.total_tokens,
            Dimension::CostMicroUsd => &mut self.cost_micro_usd,
            Dimension::ModelCalls => &mut self.model_calls,
            Dimension::ToolCalls => &mut self.tool_calls,
            Dimension::WallTimeMs => &mut self.wall_ms,
        } = limit;
        self
    }

    /// These limits, and those of `others` in the dimensions that have none.
    #[must_use]
    pub fn or(&self, others: &Self) -> Self {
        Self {
            input_tokens: self.input_tokens.or(others.input_tokens),
            output_tokens: self.output_tokens.or(others.output_tokens),
            total_tokens: self.total_tokens.or(others.total_tokens),
            model_calls: self.model_calls.or(others.model_calls),
            tool_calls: self.tool_calls.or(others.tool_calls),
            cost_micro_usd: self.cost_micro_usd.or(others.cost_micro_usd),
            wall_ms: self.wall_ms.or(others.wall_ms),
        }
    }

    /// Whether nothing is limited, so that nothing needs to be reserved.
    #[must_use]
    pub fn is_open(&self) -> bool {
        *self == Self::default()
    }
}

/// What a repeat of a tool call may do: the tool's own promise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EffectClass {
    /// Changes nothing.
    ReadOnly,
    /// Twice is the same as once.
    Idempotent,
    /// The sidecar recognises the call's key for this long and runs it once.
    Deduplicated {
        /// How long the key is kept, milliseconds.
        retention_ms: u64,
    },
    /// Must never run twice. What a tool is that declares nothing.
    #[default]
    AtMostOnce,
}

/// A tool as the model is offered it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolSpec {
    /// Name on the model's wire, `<sidecar>__<tool>`.
    pub name: String,
    /// What it does, for the model.
    pub description: String,
    /// JSON Schema of its arguments, an object, as JSON text.
    pub input_schema: String,
    /// What a repeat may do.
    #[serde(default)]
    pub effect: EffectClass,
    /// Whether it destroys something.
    #[serde(default, skip_serializing_if = "is_false")]
    pub destructive: bool,
    /// Whether the sidecar can say what became of a call.
    #[serde(default, skip_serializing_if = "is_false")]
    pub lookup: bool,
    /// Deadline of one attempt, milliseconds; progress resets it.
    pub timeout_ms: u64,
    /// The longest that one attempt may take whatever its progress, milliseconds.
    pub absolute_cap_ms: u64,
}

/// The tools of a session, ordered by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ToolSet(Vec<ToolSpec>);

impl ToolSet {
    /// A set of `tools`, put in order; of two with one name the first stays.
    #[must_use]
    pub fn new(mut tools: Vec<ToolSpec>) -> Arc<Self> {
        tools.sort_by(|a, b| a.name.cmp(&b.name));
        tools.dedup_by(|a, b| a.name == b.name);
        Arc::new(Self(tools))
    }

    /// The tool of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&ToolSpec> {
        self.0
            .binary_search_by(|tool| tool.name.as_str().cmp(name))
            .ok()
            .map(|at| &self.0[at])
    }

    /// Whether the model can read results back, so that a notice may say so.
    #[must_use]
    pub fn reads_output(&self) -> bool {
        self.get(READ_OUTPUT).is_some()
    }

    /// All of them, ordered by name.
    pub fn iter(&self) -> impl Iterator<Item = &ToolSpec> {
        self.0.iter()
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes that the definitions put into a prompt.
    #[must_use]
    pub fn content_bytes(&self) -> u64 {
        let bytes = |t: &ToolSpec| t.name.len() + t.description.len() + t.input_schema.len();
        self.0.iter().map(|t| bytes(t) as u64).sum()
    }
}
