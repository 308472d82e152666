//! Keys that shape a loop: its caps, budgets, context, retries and the bounds above them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::units::{ByteSize, Period};

/// `loop.*`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LoopConfig {
    /// The model of a loop whose request names none: an alias of `models`, or `provider/id`. None =
    /// by the key that is set: ANTHROPIC_API_KEY, then OPENAI_API_KEY.
    pub model: Option<String>,
    /// Model calls in one loop.
    #[schemars(extend("x-min" = 1, "x-max" = 1_000_000))]
    pub max_steps: u32,
    /// Output tokens of one model call.
    #[schemars(extend("x-min" = 1, "x-max" = 10_000_000))]
    pub max_output_tokens: u64,
    /// Recoveries from a reply that was cut by the output cap: the part is kept and continued.
    #[schemars(extend("x-min" = 0, "x-max" = 100))]
    pub max_output_retries: u32,
    /// Calls of one tool in one loop; further ones get an error result. None = no limit, 0 =
    /// nothing allowed.
    #[schemars(extend("x-min" = 0, "x-max" = 1_000_000))]
    pub max_tool_calls_per_name: Option<u32>,
    /// Tool calls that run at once, started in call order.
    #[schemars(extend("x-min" = 1, "x-max" = 1024))]
    pub max_parallel_tool_calls: u32,
    /// Steps in a row without a new tool call (name and arguments) and without a new result, after
    /// which a loop ends as no_progress; the model is told four steps before. 0 = it never does.
    #[schemars(extend("x-min" = 0, "x-max" = 1_000_000))]
    pub no_progress_limit: u32,
    /// The model is told once when this many steps are left. 0 = never.
    #[schemars(extend("x-min" = 0, "x-max" = 1_000_000))]
    pub wrapup_steps: u32,
    /// Wall clock of one loop, after which it ends as deadline. None = no limit.
    #[schemars(extend("x-min" = "1ms", "x-max" = "365d"))]
    pub deadline: Option<Period>,
    /// How long a loop waits for a person, with nothing else going on, before it ends as deadline.
    /// None = no limit.
    #[schemars(extend("x-min" = "1ms", "x-max" = "365d"))]
    pub idle_timeout: Option<Period>,
}

impl Default for LoopConfig {
    fn default() -> Self {
        Self {
            model: None,
            max_steps: 75,
            max_output_tokens: 4096,
            max_output_retries: 2,
            max_tool_calls_per_name: None,
            max_parallel_tool_calls: 8,
            no_progress_limit: 15,
            wrapup_steps: 5,
            deadline: None,
            idle_timeout: None,
        }
    }
}

/// `budget.*`: per loop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BudgetConfig {
    /// Input tokens of one loop, cache writes and reads included.
    pub max_input_tokens: Option<u64>,
    /// Output tokens of one loop.
    pub max_output_tokens: Option<u64>,
    /// Input and output tokens of one loop together.
    pub max_total_tokens: Option<u64>,
    /// Model calls of one loop, retries included.
    pub max_model_calls: Option<u64>,
    /// Tool calls of one loop.
    pub max_tool_calls: Option<u64>,
    /// How long one loop may run: from its start, without the time that it is paused; waiting for tools
    /// and for persons counts. A call of a model that runs when it is up is given up, and no last call is
    /// made.
    #[schemars(extend("x-min" = "0s", "x-max" = "365d"))]
    pub max_wall_time: Option<Period>,
    /// US dollars that one loop may cost, by the prices of its models; a model without a price is then
    /// refused.
    #[schemars(extend("x-kind" = "money"))]
    pub max_cost_usd: Option<f64>,
    /// No model call is made when less than this many output tokens are left.
    #[schemars(extend("x-min" = 1, "x-max" = 1_000_000))]
    pub min_output_tokens: u64,
    /// Tokens of the loop's own limits, and of shared budgets that end loops, that are held back, of
    /// each limit at most half: when no further step is covered, one last call is made out of them,
    /// without tools, to conclude. 0 = nothing is held back, and no such call is made.
    #[schemars(extend("x-min" = 0, "x-max" = 100_000_000))]
    pub final_call_tokens: u64,
    /// Whether the model is told with each call what is left of the loop's own limits, or of its session's
    /// and shared budgets where that is less, behind all that was said: what comes before stays as the
    /// provider has cached it.
    pub tell_model: bool,
    /// What a loop does that its budget does not cover: `end`, or `pause` until UpdateLimits raises
    /// it.
    pub on_exhausted: OnExhausted,
    /// The share of a limit at which a BudgetWarning is written.
    #[schemars(extend("x-kind" = "share", "x-min" = "0.01", "x-max" = "1"))]
    pub warn_at: f64,
}

/// What a loop does that its budget does not cover.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnExhausted {
    /// It ends.
    End,
    /// It waits until its budget is raised.
    Pause,
}

impl Default for BudgetConfig {
    fn default() -> Self {
        Self {
            max_input_tokens: None,
            max_output_tokens: None,
            max_total_tokens: None,
            max_model_calls: None,
            max_tool_calls: None,
            max_wall_time: None,
            max_cost_usd: None,
            min_output_tokens: 64,
            final_call_tokens: 0,
            tell_model: false,
            on_exhausted: OnExhausted::End,
            warn_at: 0.8,
        }
    }
}

/// `context.*`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ContextConfig {
    /// Characters of one tool result that the model sees: the head (2/3), a notice, the tail (1/3).
    #[schemars(extend("x-min" = 200, "x-max" = 1_000_000))]
    pub max_tool_output_chars: u32,
    /// Tokens of the model's window that may be used, the reply included; none = the smaller of 180000
    /// and the window. Never more than the smallest window of the agent's model and its fallbacks.
    #[schemars(extend("x-min" = 1_000, "x-max" = 100_000_000))]
    pub max_tokens: Option<u64>,
    /// Share of those tokens above which the regular check compacts the conversation.
    #[schemars(extend("x-kind" = "share", "x-min" = "0.1", "x-max" = "1"))]
    pub compaction_threshold: f64,
    /// Steps between regular checks. That the next prompt fits is checked at every step.
    #[schemars(extend("x-min" = 1, "x-max" = 10_000))]
    pub compaction_check_every: u32,
    /// Share of those tokens to compact down to.
    #[schemars(extend("x-kind" = "share", "x-min" = "0.05", "x-max" = "1"))]
    pub compaction_target: f64,
    /// Latest messages that are kept whole, unless the prompt would not fit.
    #[schemars(extend("x-max" = 10_000))]
    pub min_recent_messages: u32,
    /// Who writes the recap of what a regular check drops: `heuristic`, a rule, or `model`, in a call
    /// that is charged to the loop; where that call comes to nothing, the rule holds.
    pub recap: RecapBy,
    /// With `recap = "model"`: the model that writes it, an alias of `models` or `provider/id`. None =
    /// the agent's own.
    pub recap_model: Option<String>,
}

/// Who writes recaps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RecapBy {
    /// A rule.
    #[default]
    Heuristic,
    /// A model.
    Model,
}

impl Default for ContextConfig {
    fn default() -> Self {
        Self {
            max_tool_output_chars: 30_000,
            max_tokens: None,
            compaction_threshold: 0.6,
            compaction_check_every: 5,
            compaction_target: 0.5,
            min_recent_messages: 10,
            recap: RecapBy::Heuristic,
            recap_model: None,
        }
    }
}

/// `limits.*`: none = no bound.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// The log of one session; it is never trimmed: a session that reaches this takes no more
    /// messages, and its running loop is cancelled.
    #[schemars(extend("x-min" = "1MiB", "x-max" = "1TiB"))]
    pub session_bytes: ByteSize,
    /// The highest `loop.max_steps` that a request may ask for.
    #[schemars(extend("x-min" = 1, "x-max" = 1_000_000))]
    pub max_steps: Option<u32>,
    /// The highest `loop.max_output_tokens` that a request may ask for.
    #[schemars(extend("x-min" = 1, "x-max" = 10_000_000))]
    pub max_output_tokens: Option<u64>,
    /// The highest `loop.max_parallel_tool_calls` that a request may ask for.
    #[schemars(extend("x-min" = 1, "x-max" = 1024))]
    pub max_parallel_tool_calls: Option<u32>,
    /// Sessions driven at once by this server; the loops of further ones are refused. Of those that
    /// were running when it was last stopped, further ones are taken up as others end.
    #[schemars(extend("x-min" = 1, "x-max" = 10_000_000))]
    pub sessions: u32,
    /// One message from a client.
    #[schemars(extend("x-min" = "1KiB", "x-max" = "800KiB"))]
    pub message_bytes: ByteSize,
    /// Streams open at once that watch sessions, on this server.
    #[schemars(extend("x-min" = 1, "x-max" = 10_000_000))]
    pub watchers: u32,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            session_bytes: ByteSize::mib(1024),
            max_steps: Some(10_000),
            max_output_tokens: None,
            max_parallel_tool_calls: Some(64),
            sessions: 10_000,
            message_bytes: ByteSize::new(256 << 10),
            watchers: 10_000,
        }
    }
}

/// `retry.*`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RetryConfig {
    /// Attempts of one call, the first included.
    #[schemars(extend("x-min" = 1, "x-max" = 100))]
    pub max_attempts: u32,
    /// The wait before the second attempt; it doubles with each further one.
    #[schemars(extend("x-min" = "1ms", "x-max" = "1h"))]
    pub base_delay: Period,
    /// The longest wait between two attempts. A Retry-After of the provider may be longer.
    #[schemars(extend("x-min" = "1ms", "x-max" = "1d"))]
    pub max_delay: Period,
    /// No further attempt starts when this much time has passed since the first one.
    #[schemars(extend("x-min" = "1ms", "x-max" = "7d"))]
    pub total_deadline: Period,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            max_attempts: 6,
            base_delay: Period::from_secs(1),
            max_delay: Period::from_secs(60),
            total_deadline: Period::from_secs(600),
        }
    }
}

/// `prompt_cache.*`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PromptCacheConfig {
    /// Whether requests to Anthropic carry cache breakpoints.
    pub enabled: bool,
    /// How long Anthropic keeps a cached prefix.
    pub ttl: CacheTtl,
}

impl Default for PromptCacheConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            ttl: CacheTtl::FiveMinutes,
        }
    }
}

/// The two lifetimes that Anthropic offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CacheTtl {
    /// Five minutes.
    #[serde(rename = "5m")]
    FiveMinutes,
    /// One hour; writing costs more.
    #[serde(rename = "1h")]
    OneHour,
}
