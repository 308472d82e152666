//! Limits that a client moves in mid-loop: within the same bounds as those that it starts with.

use loopwright_core::{
    agent::{BudgetChange, BudgetLimits, Limits, LimitsChange, Move},
    budget::Dimension,
};
use loopwright_proto::v1;

use super::{
    fields::{Violation, Violations},
    limits::{self, Asking},
    words,
};
use crate::config::Config;

/// The limits that move, and where to, and those that are removed.
pub fn change(
    request: &v1::UpdateLimitsRequest,
    config: &Config,
    all: &mut Violations,
) -> LimitsChange {
    if is_empty(request) {
        let problem = "is empty, and so are session_budget and the clear fields; name the limits that \
                       are to move, or to go";
        all.add("limits", problem);
        return LimitsChange::default();
    }
    let asking = Asking {
        on_unknown: None,
        approval_timeout_ms: None,
        approval_default_allow: false,
    };
    let mut found = Violations::default();
    let to = limits::resolve(request.limits.as_ref(), asking, config, &mut found);
    all.0.extend(found.0.into_iter().map(as_moved));
    let session = request.session_budget.as_ref();
    let session_budget = limits::session_budget(session, "session_budget", all);
    let asked = request.limits.unwrap_or_default();
    let mut change = moved(&asked, &to, session_budget);
    clear(request, &mut change, all);
    let configured = limits::resolve(None, asking, config, &mut Violations::default()).budget;
    change.budget = cleared(
        ("clear_budget", &request.clear_budget),
        change.budget,
        &configured,
        all,
    );
    change.session_budget = cleared(
        ("clear_session_budget", &request.clear_session_budget),
        change.session_budget,
        &BudgetLimits::default(),
        all,
    );
    change
}

/// The limits of the loop that are asked for, where they come to, and those of its session.
fn moved(asked: &v1::LoopLimits, to: &Limits, session_budget: BudgetLimits) -> LimitsChange {
    let budget = asked.budget.unwrap_or_default();
    let own = set(&budget, &to.budget);
    LimitsChange {
        max_steps: asked.max_steps.map(|_| to.max_steps),
        max_output_tokens: asked.max_output_tokens.map(|_| to.max_output_tokens),
        max_output_asked: asked.max_output_tokens.map(|_| true),
        max_output_retries: asked.max_output_retries.map(|_| to.max_output_retries),
        max_parallel_tool_calls: asked
            .max_parallel_tool_calls
            .map(|_| to.max_parallel_tool_calls),
        max_tool_calls_per_name: set_to(asked.max_tool_calls_per_name),
        deadline_ms: set_to(asked.deadline.and(to.deadline_ms)),
        idle_timeout_ms: set_to(asked.idle_timeout.and(to.idle_timeout_ms)),
        min_output_tokens: budget.min_output_tokens.map(|_| to.min_output_tokens),
        budget: own.into(),
        // Of the session's models: known once it is.
        prices: std::collections::BTreeMap::new(),
        session_budget: session_budget.into(),
        on_exhausted: (budget.on_exhausted != v1::OnExhausted::Unspecified as i32)
            .then_some(to.on_exhausted),
        warn_permille: budget.warn_at.map(|_| to.warn_permille),
        no_progress: or_stays(asked.no_progress_limit.map(|_| Move::to(to.no_progress))),
        wrapup_steps: asked.wrapup_steps.map(|_| to.wrapup_steps),
        final_call_tokens: or_stays(
            asked
                .final_call_tokens
                .map(|_| Move::to(to.final_call_tokens)),
        ),
        tell_budget: asked.tell_budget,
    }
}

/// Of the limits of a budget that hold, those that are asked for.
fn set(asked: &v1::BudgetLimits, to: &BudgetLimits) -> BudgetLimits {
    BudgetLimits {
        input_tokens: asked.max_input_tokens.and(to.input_tokens),
        output_tokens: asked.max_output_tokens.and(to.output_tokens),
        total_tokens: asked.max_total_tokens.and(to.total_tokens),
        model_calls: asked.max_model_calls.and(to.model_calls),
        tool_calls: asked.max_tool_calls.and(to.tool_calls),
        cost_micro_usd: asked.max_cost_micro_usd.and(to.cost_micro_usd),
        wall_ms: asked.max_wall_time.and(to.wall_ms),
    }
}

fn set_to<T>(to: Option<T>) -> Move<T> {
    or_stays(to.map(Move::To))
}

fn or_stays<T>(to: Option<Move<T>>) -> Move<T> {
    to.unwrap_or(Move::Stays)
}

/// Removes the limits of the loop that are named.
fn clear(request: &v1::UpdateLimitsRequest, change: &mut LimitsChange, all: &mut Violations) {
    for (at, &asked) in request.clear.iter().enumerate() {
        let field = format!("clear[{at}]");
        let limit = v1::LoopLimit::try_from(asked).unwrap_or_default();
        let is_new = match limit {
            v1::LoopLimit::Deadline => off(&mut change.deadline_ms),
            v1::LoopLimit::IdleTimeout => off(&mut change.idle_timeout_ms),
            v1::LoopLimit::MaxToolCallsPerName => off(&mut change.max_tool_calls_per_name),
            v1::LoopLimit::Unspecified => {
                all.add(field, no_limit(asked));
                continue;
            }
        };
        if !is_new {
            all.add(field, both(limit.as_str_name(), "LOOP_LIMIT_"));
        }
    }
}

/// `change` without the limits that are named: to what is configured of them, or to none.
fn cleared(
    (field, asked): (&str, &[i32]),
    mut change: BudgetChange,
    configured: &BudgetLimits,
    all: &mut Violations,
) -> BudgetChange {
    for (at, &asked) in asked.iter().enumerate() {
        let field = format!("{field}[{at}]");
        let Some(dimension) = dimension(asked) else {
            all.add(field, no_limit(asked));
            continue;
        };
        if change.at(dimension) != Move::Stays {
            let name = words::dimension(dimension).as_str_name();
            all.add(field, both(name, "BUDGET_DIMENSION_"));
        }
        change = change.with(dimension, Move::to(configured.of(dimension)));
    }
    change
}

/// Removes a limit, unless it was moved or removed already.
fn off<T: PartialEq>(limit: &mut Move<T>) -> bool {
    let before = std::mem::replace(limit, Move::Off);
    before == Move::Stays
}

fn no_limit(asked: i32) -> String {
    format!("{asked} names no limit; leave it out")
}

fn both(name: &str, prefix: &str) -> String {
    let name = name.strip_prefix(prefix).unwrap_or(name);
    format!("{name} names a limit that this request sets or names already; name it once")
}

fn dimension(asked: i32) -> Option<Dimension> {
    match v1::BudgetDimension::try_from(asked).ok()? {
        v1::BudgetDimension::Unspecified => None,
        v1::BudgetDimension::InputTokens => Some(Dimension::InputTokens),
        v1::BudgetDimension::OutputTokens => Some(Dimension::OutputTokens),
        v1::BudgetDimension::TotalTokens => Some(Dimension::TotalTokens),
        v1::BudgetDimension::CostMicroUsd => Some(Dimension::CostMicroUsd),
        v1::BudgetDimension::ModelCalls => Some(Dimension::ModelCalls),
        v1::BudgetDimension::ToolCalls => Some(Dimension::ToolCalls),
        v1::BudgetDimension::WallTimeMs => Some(Dimension::WallTimeMs),
    }
}

fn is_empty(request: &v1::UpdateLimitsRequest) -> bool {
    let none = v1::LoopLimits::default();
    let with_nothing = v1::LoopLimits {
        budget: Some(v1::BudgetLimits::default()),
        ..none
    };
    let limits = request.limits.as_ref();
    let session = request.session_budget.as_ref();
    limits.is_none_or(|asked| *asked == none || *asked == with_nothing)
        && session.is_none_or(|asked| *asked == v1::BudgetLimits::default())
        && request.clear.is_empty()
        && request.clear_budget.is_empty()
        && request.clear_session_budget.is_empty()
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
