//! Limits: the configured ones, moved by a request as far as the server allows.
//!
//! Invariant: `loop.*` are defaults, which a request moves either way up to `limits.*`; `budget.*`
//! are bounds, which a request only narrows.

use std::ops::RangeInclusive;
use std::time::Duration;

use loopwright_core::{
    agent::{BudgetLimits, Limits, UnknownPolicy},
    ledger::OnExhausted,
    retry::RetryPolicy,
};
use loopwright_proto::{v1, well_known};

use super::{budget::max_wall_time, duration, fields::Violations};
use crate::config::{ApprovalDefault, Config, units::Period};

mod own;

use own::{budget_to_wire, on_exhausted, warn_permille};
pub use own::{session_budget, session_budget_to_wire};

/// Messages of a session that may wait.
const MAX_WAITING_MESSAGES: u32 = 256;
/// The most that may be held back for a last call, tokens.
const MAX_FINAL_CALL_TOKENS: u64 = 100_000_000;
/// The longest deadline or wait: a year.
const MAX_PERIOD_MS: u64 = 365 * 86_400_000;

/// What is asked of a person, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asking {
    /// What follows an unknown outcome; absent: by the tool.
    pub on_unknown: Option<UnknownPolicy>,
    /// How long a call waits for approval, milliseconds; absent: without end.
    pub approval_timeout_ms: Option<u64>,
    /// Whether a call that nobody answered in time is dispatched.
    pub approval_default_allow: bool,
}

/// A number that a request may move either way.
struct Movable<'a> {
    field: &'a str,
    asked: Option<u64>,
    default: u64,
    range: RangeInclusive<u64>,
    /// The server's own bound and the key that sets it.
    cap: Option<(u64, &'a str)>,
}

/// A bound that a request may only narrow.
struct Narrowed<'a> {
    field: &'a str,
    asked: Option<u64>,
    configured: Option<u64>,
}

/// The limits of a loop for this request.
pub fn resolve(
    asked: Option<&v1::LoopLimits>,
    asking: Asking,
    config: &Config,
    all: &mut Violations,
) -> Limits {
    let none = v1::LoopLimits::default();
    let asked = asked.unwrap_or(&none);
    let asked_for_budget = asked.budget.unwrap_or_default();
    let budget = &asked_for_budget;
    Limits {
        max_steps: max_steps(asked, config, all),
        max_output_tokens: max_output_tokens(asked, config, all),
        max_output_asked: asked.max_output_tokens.is_some(),
        max_output_retries: max_output_retries(asked, config, all),
        max_parallel_tool_calls: max_parallel(asked, config, all),
        max_tool_calls_per_name: asked
            .max_tool_calls_per_name
            .or(config.loops.max_tool_calls_per_name),
        deadline_ms: period(
            "agent.limits.deadline",
            asked.deadline,
            config.loops.deadline,
            all,
        ),
        max_waiting_messages: MAX_WAITING_MESSAGES,
        min_output_tokens: min_output_tokens(budget, config, all),
        budget: budget_limits(budget, config, all),
        // Of the models that are called: known once they are.
        prices: std::collections::BTreeMap::new(),
        // The agent's own.
        context: None,
        retry: RetryPolicy {
            max_attempts: config.retry.max_attempts,
            base_delay_ms: config.retry.base_delay.as_millis(),
            max_delay_ms: config.retry.max_delay.as_millis(),
            total_deadline_ms: config.retry.total_deadline.as_millis(),
        },
        on_unknown: asking.on_unknown,
        approval_timeout_ms: asking.approval_timeout_ms,
        approval_default_allow: asking.approval_default_allow,
        idle_timeout_ms: period(
            "agent.limits.idle_timeout",
            asked.idle_timeout,
            config.loops.idle_timeout,
            all,
        ),
        no_progress: no_progress(asked, config, all),
        wrapup_steps: wrapup_steps(asked, config, all),
        final_call_tokens: final_call_tokens(asked, config, all),
        tell_budget: asked.tell_budget.unwrap_or(config.budget.tell_model),
        // The agent's own.
        session_budget: BudgetLimits::default(),
        on_exhausted: on_exhausted(asked_for_budget.on_exhausted, config, all),
        warn_permille: warn_permille(asked_for_budget.warn_at, config, all),
    }
}

/// What is asked of a person: the agent's own rules, or the configured ones where it has none.
pub fn asking(asked: Option<&v1::ApprovalPolicy>, config: &Config, all: &mut Violations) -> Asking {
    let tools = &config.tools;
    Asking {
        on_unknown: None,
        approval_timeout_ms: period(
            "agent.approval.expires_after",
            asked.and_then(|asked| asked.expires_after),
            tools.approval_timeout,
            all,
        ),
        approval_default_allow: asked
            .map_or(tools.approval_default == ApprovalDefault::Allow, |asked| {
                asked.allow_on_expiry
            }),
    }
}

/// What is asked of a person, on the wire.
#[must_use]
pub fn approval_to_wire(limits: &Limits) -> v1::ApprovalPolicy {
    v1::ApprovalPolicy {
        tools: Vec::new(),
        destructive: false,
        expires_after: limits.approval_timeout_ms.map(duration),
        allow_on_expiry: limits.approval_default_allow,
    }
}

/// Limits on the wire.
#[must_use]
pub fn to_wire(limits: &Limits) -> v1::LoopLimits {
    v1::LoopLimits {
        max_steps: Some(limits.max_steps),
        max_output_tokens: Some(limits.max_output_tokens),
        max_output_retries: Some(limits.max_output_retries),
        max_parallel_tool_calls: Some(limits.max_parallel_tool_calls),
        max_tool_calls_per_name: limits.max_tool_calls_per_name,
        deadline: limits.deadline_ms.map(duration),
        idle_timeout: limits.idle_timeout_ms.map(duration),
        budget: Some(v1::BudgetLimits {
            min_output_tokens: Some(limits.min_output_tokens),
            warn_at: (limits.warn_permille > 0).then(|| f64::from(limits.warn_permille) / 1_000.0),
            on_exhausted: match limits.on_exhausted {
                OnExhausted::End => v1::OnExhausted::End,
                OnExhausted::Pause => v1::OnExhausted::Pause,
            }
            .into(),
            ..budget_to_wire(&limits.budget)
        }),
        no_progress_limit: Some(limits.no_progress.unwrap_or(0)),
        wrapup_steps: Some(limits.wrapup_steps),
        tell_budget: Some(limits.tell_budget),
        final_call_tokens: Some(limits.final_call_tokens.unwrap_or(0)),
    }
}

fn max_steps(asked: &v1::LoopLimits, config: &Config, all: &mut Violations) -> u32 {
    let moved = Movable {
        field: "max_steps",
        asked: asked.max_steps.map(u64::from),
        default: config.loops.max_steps.into(),
        range: 1..=1_000_000,
        cap: config
            .limits
            .max_steps
            .map(|cap| (cap.into(), "limits.max_steps")),
    };
    moved.resolve_u32(all)
}

fn max_output_tokens(asked: &v1::LoopLimits, config: &Config, all: &mut Violations) -> u64 {
    let moved = Movable {
        field: "max_output_tokens",
        asked: asked.max_output_tokens,
        default: config.loops.max_output_tokens,
        range: 1..=10_000_000,
        cap: config
            .limits
            .max_output_tokens
            .map(|cap| (cap, "limits.max_output_tokens")),
    };
    moved.resolve(all)
}

fn max_output_retries(asked: &v1::LoopLimits, config: &Config, all: &mut Violations) -> u32 {
    let moved = Movable {
        field: "max_output_retries",
        asked: asked.max_output_retries.map(u64::from),
        default: config.loops.max_output_retries.into(),
        range: 0..=100,
        cap: None,
    };
    moved.resolve_u32(all)
}

fn max_parallel(asked: &v1::LoopLimits, config: &Config, all: &mut Violations) -> u32 {
    let key = "limits.max_parallel_tool_calls";
    let moved = Movable {
        field: "max_parallel_tool_calls",
        asked: asked.max_parallel_tool_calls.map(u64::from),
        default: config.loops.max_parallel_tool_calls.into(),
        range: 1..=1_024,
        cap: config
            .limits
            .max_parallel_tool_calls
            .map(|cap| (cap.into(), key)),
    };
    moved.resolve_u32(all)
}

/// Absent where a loop may go on however little comes of it.
fn no_progress(asked: &v1::LoopLimits, config: &Config, all: &mut Violations) -> Option<u32> {
    let moved = Movable {
        field: "no_progress_limit",
        asked: asked.no_progress_limit.map(u64::from),
        default: config.loops.no_progress_limit.into(),
        range: 0..=1_000_000,
        cap: None,
    };
    Some(moved.resolve_u32(all)).filter(|steps| *steps > 0)
}

fn wrapup_steps(asked: &v1::LoopLimits, config: &Config, all: &mut Violations) -> u32 {
    let moved = Movable {
        field: "wrapup_steps",
        asked: asked.wrapup_steps.map(u64::from),
        default: config.loops.wrapup_steps.into(),
        range: 0..=1_000_000,
        cap: None,
    };
    moved.resolve_u32(all)
}

/// Absent where nothing is held back.
fn final_call_tokens(asked: &v1::LoopLimits, config: &Config, all: &mut Violations) -> Option<u64> {
    let tokens = asked
        .final_call_tokens
        .unwrap_or(config.budget.final_call_tokens);
    if tokens > MAX_FINAL_CALL_TOKENS {
        all.add(
            "agent.limits.final_call_tokens",
            format!(
                "{tokens} is more than {MAX_FINAL_CALL_TOKENS}; leave it out for \
                 budget.final_call_tokens = {}",
                config.budget.final_call_tokens
            ),
        );
    }
    Some(tokens).filter(|tokens| *tokens > 0)
}

/// A span of time that a request may move either way; in milliseconds.
fn period(
    field: &str,
    asked: Option<well_known::Duration>,
    configured: Option<Period>,
    all: &mut Violations,
) -> Option<u64> {
    let Some(asked) = asked else {
        return configured.map(Period::as_millis);
    };
    let millis = Duration::try_from(asked)
        .ok()
        .and_then(|span| u64::try_from(span.as_millis()).ok())
        .filter(|millis| (1..=MAX_PERIOD_MS).contains(millis));
    if millis.is_none() {
        all.add(
            field,
            format!(
                "{}s is not between 1ms and 365 days; leave it out for what is configured",
                asked.seconds
            ),
        );
    }
    millis
}

fn min_output_tokens(asked: &v1::BudgetLimits, config: &Config, all: &mut Violations) -> u64 {
    let configured = config.budget.min_output_tokens;
    let tokens = asked.min_output_tokens.unwrap_or(configured);
    if !(configured..=1_000_000).contains(&tokens) {
        all.add(
            "agent.limits.budget.min_output_tokens",
            format!(
                "{tokens} is not between budget.min_output_tokens = {configured} of the server and \
                 1000000"
            ),
        );
    }
    tokens
}

/// US dollars in millionths: the nearest, exact for what people write.
fn micro_usd(dollars: f64) -> u64 {
    // Not negative and at most 1e9, as the configuration checks.
    (dollars * 1e6).round() as u64
}

fn budget_limits(asked: &v1::BudgetLimits, config: &Config, all: &mut Violations) -> BudgetLimits {
    let mut narrow = |field, asked, configured| {
        Narrowed {
            field,
            asked,
            configured,
        }
        .resolve(all)
    };
    let budget = &config.budget;
    BudgetLimits {
        input_tokens: narrow(
            "max_input_tokens",
            asked.max_input_tokens,
            budget.max_input_tokens,
        ),
        output_tokens: narrow(
            "max_output_tokens",
            asked.max_output_tokens,
            budget.max_output_tokens,
        ),
        total_tokens: narrow(
            "max_total_tokens",
            asked.max_total_tokens,
            budget.max_total_tokens,
        ),
        model_calls: narrow(
            "max_model_calls",
            asked.max_model_calls,
            budget.max_model_calls,
        ),
        tool_calls: narrow(
            "max_tool_calls",
            asked.max_tool_calls,
            budget.max_tool_calls,
        ),
        cost_micro_usd: narrow(
            "max_cost_micro_usd",
            asked.max_cost_micro_usd,
            budget.max_cost_usd.map(micro_usd),
        ),
        wall_ms: wall_time(asked, config, all),
    }
}

/// How long a loop may run, milliseconds.
fn wall_time(asked: &v1::BudgetLimits, config: &Config, all: &mut Violations) -> Option<u64> {
    let at = "agent.limits.budget";
    let configured = config.budget.max_wall_time;
    let Some(millis) = max_wall_time(asked, at, all) else {
        return configured.map(Period::as_millis);
    };
    if let Some(most) = configured.filter(|most| millis > most.as_millis()) {
        all.add(
            format!("{at}.max_wall_time"),
            format!(
                "{} is wider than budget.max_wall_time = {most} of the server; ask for less, or \
                 leave it out",
                Period::from_millis(millis)
            ),
        );
    }
    Some(millis)
}

impl Movable<'_> {
    fn resolve(&self, all: &mut Violations) -> u64 {
        let Some(asked) = self.asked else {
            return self.default;
        };
        let (field, default) = (self.field, self.default);
        let (least, most) = (self.range.start(), self.range.end());
        if let Some((cap, key)) = self.cap.filter(|(cap, _)| asked > *cap) {
            all.add(
                format!("agent.limits.{field}"),
                format!(
                    "{asked} is above {key} = {cap} of the server; ask for less, or leave it out \
                     for loop.{field} = {default}"
                ),
            );
        } else if !self.range.contains(&asked) {
            all.add(
                format!("agent.limits.{field}"),
                format!(
                    "{asked} is not between {least} and {most}; leave it out for loop.{field} = \
                     {default}"
                ),
            );
        }
        asked
    }

    fn resolve_u32(&self, all: &mut Violations) -> u32 {
        u32::try_from(self.resolve(all)).unwrap_or(u32::MAX)
    }
}

impl Narrowed<'_> {
    fn resolve(&self, all: &mut Violations) -> Option<u64> {
        let Some(asked) = self.asked else {
            return self.configured;
        };
        if let Some(configured) = self.configured.filter(|configured| asked > *configured) {
            let field = self.field;
            all.add(
                format!("agent.limits.budget.{field}"),
                format!(
                    "{asked} is wider than budget.{field} = {configured} of the server; ask for \
                     less, or leave it out"
                ),
            );
        }
        Some(asked)
    }
}
