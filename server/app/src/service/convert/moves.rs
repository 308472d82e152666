//! Limits that a client moves in mid-loop: within the same bounds as those that it starts with.

use loopwright_core::agent::{BudgetLimits, LimitsChange};
use loopwright_proto::v1;

use super::{
    fields::{Violation, Violations},
    limits::{self, Asking},
};
use crate::config::Config;

/// The limits that are set, and where they move to.
pub fn change(
    asked: Option<&v1::LoopLimits>,
    session: Option<&v1::BudgetLimits>,
    config: &Config,
    all: &mut Violations,
) -> LimitsChange {
    if asked.is_none_or(is_empty) && session.is_none_or(|s| *s == v1::BudgetLimits::default()) {
        let problem = "is empty, and so is session_budget; set the limits that are to move";
        all.add("limits", problem);
        return LimitsChange::default();
    }
    let asking = Asking {
        on_unknown: None,
        approval_timeout_ms: None,
        approval_default_allow: false,
    };
    let mut found = Violations::default();
    let to = limits::resolve(asked, asking, config, &mut found);
    all.0.extend(found.0.into_iter().map(as_moved));
    let session_budget = limits::session_budget(session, "session_budget", all);
    let none = v1::LoopLimits::default();
    let asked = asked.unwrap_or(&none);
    let budget = asked.budget.unwrap_or_default();
    let set = |limit: Option<u64>, to: Option<u64>| limit.and(to);
    LimitsChange {
        max_steps: asked.max_steps.map(|_| to.max_steps),
        max_output_tokens: asked.max_output_tokens.map(|_| to.max_output_tokens),
        max_output_asked: asked.max_output_tokens.map(|_| true),
        max_output_retries: asked.max_output_retries.map(|_| to.max_output_retries),
        max_parallel_tool_calls: asked
            .max_parallel_tool_calls
            .map(|_| to.max_parallel_tool_calls),
        max_tool_calls_per_name: asked.max_tool_calls_per_name,
        deadline_ms: asked.deadline.and(to.deadline_ms),
        idle_timeout_ms: asked.idle_timeout.and(to.idle_timeout_ms),
        min_output_tokens: budget.min_output_tokens.map(|_| to.min_output_tokens),
        budget: BudgetLimits {
            input_tokens: set(budget.max_input_tokens, to.budget.input_tokens),
            output_tokens: set(budget.max_output_tokens, to.budget.output_tokens),
            total_tokens: set(budget.max_total_tokens, to.budget.total_tokens),
            model_calls: set(budget.max_model_calls, to.budget.model_calls),
            tool_calls: set(budget.max_tool_calls, to.budget.tool_calls),
            cost_micro_usd: set(budget.max_cost_micro_usd, to.budget.cost_micro_usd),
            wall_ms: None,
        },
        // Of the session's models: known once it is.
        prices: std::collections::BTreeMap::new(),
        session_budget,
        on_exhausted: (budget.on_exhausted != v1::OnExhausted::Unspecified as i32)
            .then_some(to.on_exhausted),
        warn_permille: budget.warn_at.map(|_| to.warn_permille),
        no_progress: asked
            .no_progress_limit
            .map(|_| to.no_progress.unwrap_or(u32::MAX)),
        wrapup_steps: asked.wrapup_steps.map(|_| to.wrapup_steps),
        final_call_tokens: asked.final_call_tokens.and(to.final_call_tokens),
        tell_budget: asked.tell_budget,
    }
}

fn is_empty(asked: &v1::LoopLimits) -> bool {
    let none = v1::LoopLimits::default();
    let with_nothing = v1::LoopLimits {
        budget: Some(v1::BudgetLimits::default()),
        ..none
    };
    *asked == none || *asked == with_nothing
}

/// What is wrong with a limit that a loop starts with, said of one that moves.
fn as_moved(one: Violation) -> Violation {
    let field = one.field.strip_prefix("agent.").unwrap_or(&one.field);
    let problem = match one.problem.split_once("leave it out for ") {
        Some((before, _)) => format!("{before}leave it out, and it stays"),
        None => one.problem,
    };
    Violation {
        field: field.to_owned(),
        problem,
    }
}
