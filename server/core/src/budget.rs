//! The arithmetic of reserve and settle: what a model call may cost, and whether a budget covers it.
//!
//! A call reserves an upper bound of its prompt plus its output cap before it is made. The bound is
//! sound for byte-level tokenisers, which never make more tokens than bytes: the last real count
//! plus one token for each byte added since, plus a fixed margin per message and tool.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    agent::BudgetLimits,
    outcome::EndReason,
    usage::{Totals, Usage},
};

/// Tokens set aside for what a provider wraps around one message, in excess of its content.
pub const MARGIN_PER_MESSAGE: u64 = 32;
/// Tokens set aside for what a provider wraps around one tool definition.
pub const MARGIN_PER_TOOL: u64 = 64;
/// Tokens set aside for what a provider wraps around a prompt.
pub const MARGIN_PER_PROMPT: u64 = 512;
/// Name of the loop's own budget.
pub const LOOP_BUDGET: &str = "loop";

/// What a budget limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dimension {
    /// Prompt tokens, cache reads and writes included.
    InputTokens,
    /// Generated tokens.
    OutputTokens,
    /// Both together.
    TotalTokens,
    /// Attempts of model calls.
    ModelCalls,
    /// Tool calls dispatched.
    ToolCalls,
}

impl fmt::Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InputTokens => "input_tokens",
            Self::OutputTokens => "output_tokens",
            Self::TotalTokens => "total_tokens",
            Self::ModelCalls => "model_calls",
            Self::ToolCalls => "tool_calls",
        })
    }
}

/// Tokens set aside for one model call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// Upper bound of its prompt.
    pub input: u64,
    /// Its output cap.
    pub output: u64,
}

impl Reservation {
    /// The whole reservation as usage: what a call without a report settles at.
    #[must_use]
    pub fn as_usage(self) -> Usage {
        Usage {
            input: self.input,
            output: self.output,
            ..Usage::default()
        }
    }
}

/// What set a call's output cap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// Configuration or the request.
    #[default]
    Configured,
    /// What was left of a budget.
    Budget(Dimension),
    /// What named budgets had left.
    NamedBudget,
}

impl Bound {
    pub(crate) fn is_configured(&self) -> bool {
        *self == Self::Configured
    }
}

/// What a call asks of the loop's own budget.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// Upper bound of its prompt, tokens.
    pub input: u64,
    /// The output cap that it would have without a budget, tokens.
    pub output: u64,
    /// The smallest cap worth a call, tokens.
    pub min_output: u64,
}

/// What the loop's own budget allows a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Set aside.
    pub reserved: Reservation,
    /// What set the output cap.
    pub bound: Bound,
}

/// Whether the loop's own limits cover a call, and with which output cap.
///
/// # Errors
/// `EndReason::BudgetExceeded`, with the dimension that does not.
pub fn grant(limits: &BudgetLimits, used: &Totals, ask: Ask) -> Result<Grant, EndReason> {
    let exceeded = |dimension, limit, used, requested| EndReason::BudgetExceeded {
        budget: LOOP_BUDGET.to_owned(),
        dimension,
        limit,
        used,
        requested,
    };
    if let Some(limit) = limits
        .model_calls
        .filter(|&limit| used.model_calls >= limit)
    {
        return Err(exceeded(Dimension::ModelCalls, limit, used.model_calls, 1));
    }
    let (prompt, output, total) = (used.usage.prompt(), used.usage.output, used.usage.total());
    if let Some(limit) = limits.input_tokens
        && ask.input > limit.saturating_sub(prompt)
    {
        return Err(exceeded(Dimension::InputTokens, limit, prompt, ask.input));
    }
    let mut cap = ask.output;
    let mut bound = Bound::Configured;
    let least = ask.min_output.min(ask.output).max(1);
    let ceilings = [
        (Dimension::OutputTokens, limits.output_tokens, output, 0),
        (
            Dimension::TotalTokens,
            limits.total_tokens,
            total,
            ask.input,
        ),
    ];
    for (dimension, limit, used, beside) in ceilings {
        let Some(limit) = limit else { continue };
        let left = limit.saturating_sub(used).saturating_sub(beside);
        if left < least {
            return Err(exceeded(
                dimension,
                limit,
                used,
                beside.saturating_add(least),
            ));
        }
        if left < cap {
            cap = left;
            bound = Bound::Budget(dimension);
        }
    }
    Ok(Grant {
        reserved: Reservation {
            input: ask.input,
            output: cap,
        },
        bound,
    })
}

#[cfg(test)]
mod tests;
