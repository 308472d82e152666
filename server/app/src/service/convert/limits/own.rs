//! Budgets of loops and sessions: what is left to say of them beside their bounds.

use loopwright_core::{
    agent::{BudgetLimits, Limits},
    ledger::OnExhausted,
};
use loopwright_proto::v1;

use super::super::{budget::max_wall_time, duration, fields::Violations};
use crate::config::{Config, OnExhausted as Configured};

/// The least share of a limit that is warned at.
const MIN_WARN_AT: f64 = 0.01;

/// The budget of a whole session: nothing of it is configured.
pub fn session_budget(
    asked: Option<&v1::BudgetLimits>,
    at: &str,
    all: &mut Violations,
) -> BudgetLimits {
    let none = v1::BudgetLimits::default();
    let asked = asked.unwrap_or(&none);
    for (set, field) in [
        (asked.warn_at.is_some(), "warn_at"),
        (
            asked.on_exhausted != v1::OnExhausted::Unspecified as i32,
            "on_exhausted",
        ),
        (asked.min_output_tokens.is_some(), "min_output_tokens"),
    ] {
        if set {
            let problem = "is taken from the loop's own budget; leave it out, and set it there";
            all.add(format!("{at}.{field}"), problem);
        }
    }
    BudgetLimits {
        input_tokens: asked.max_input_tokens,
        output_tokens: asked.max_output_tokens,
        total_tokens: asked.max_total_tokens,
        model_calls: asked.max_model_calls,
        tool_calls: asked.max_tool_calls,
        cost_micro_usd: asked.max_cost_micro_usd,
        wall_ms: max_wall_time(asked, at, all),
    }
}

/// The budget of a whole session on the wire; absent where it has none.
#[must_use]
pub fn session_budget_to_wire(limits: &Limits) -> Option<v1::BudgetLimits> {
    let budget = &limits.session_budget;
    (!budget.is_open()).then(|| budget_to_wire(budget))
}

pub(super) fn budget_to_wire(budget: &BudgetLimits) -> v1::BudgetLimits {
    v1::BudgetLimits {
        max_input_tokens: budget.input_tokens,
        max_output_tokens: budget.output_tokens,
        max_total_tokens: budget.total_tokens,
        max_model_calls: budget.model_calls,
        max_tool_calls: budget.tool_calls,
        max_cost_micro_usd: budget.cost_micro_usd,
        max_wall_time: budget.wall_ms.map(duration),
        ..v1::BudgetLimits::default()
    }
}

pub(super) fn on_exhausted(asked: i32, config: &Config, all: &mut Violations) -> OnExhausted {
    match v1::OnExhausted::try_from(asked) {
        Ok(v1::OnExhausted::Unspecified) => match config.budget.on_exhausted {
            Configured::End => OnExhausted::End,
            Configured::Pause => OnExhausted::Pause,
        },
        Ok(v1::OnExhausted::End) => OnExhausted::End,
        Ok(v1::OnExhausted::Pause) => OnExhausted::Pause,
        Err(_) => {
            let problem = format!("{asked} is no value of this enum; leave it out");
            all.add("agent.limits.budget.on_exhausted", problem);
            OnExhausted::End
        }
    }
}

/// In thousandths: exact in the log, and finer than anybody warns.
pub(super) fn warn_permille(asked: Option<f64>, config: &Config, all: &mut Violations) -> u32 {
    let share = asked.unwrap_or(config.budget.warn_at);
    if !(MIN_WARN_AT..=1.0).contains(&share) {
        let problem = format!(
            "{share} is not a share from {MIN_WARN_AT} to 1; leave it out for budget.warn_at = {} \
             of the server",
            config.budget.warn_at
        );
        all.add("agent.limits.budget.warn_at", problem);
        return 0;
    }
    (share * 1_000.0).round() as u32
}
