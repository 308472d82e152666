//! The arithmetic of reserve and settle: what a model call may cost, and whether a budget covers it.
//!
//! A call reserves an upper bound of its prompt plus its output cap before it is made. The bound is
//! sound for byte-level tokenisers, which never make more tokens than bytes: the last real count
//! plus one token for each byte added since, plus a fixed margin for each message, part and tool. A
//! margin is at least what the protocols write around the thing, keys and all: a provider may show its
//! model words of its own there, and none is known to show it more.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{agent::BudgetLimits, outcome::EndReason, usage::Usage};

mod amount;
mod held;

pub use amount::{Amount, Beside, LongPrice, Price, used};
pub use held::{HoldBack, Left};

/// Tokens set aside for what a provider wraps around one message, in excess of its content.
pub const MARGIN_PER_MESSAGE: u64 = 32;
/// Tokens set aside for what a provider wraps around one part of a message.
pub const MARGIN_PER_PART: u64 = 16;
/// Tokens set aside for what a provider wraps around one block of thinking.
pub const MARGIN_PER_THOUGHT: u64 = 32;
/// Tokens set aside for what a provider wraps around one tool call, and around one result.
pub const MARGIN_PER_CALL: u64 = 48;
/// Tokens set aside, beside the last count, for what a provider says otherwise around the next prompt:
/// whether and which tools must be called.
pub const MARGIN_PER_COUNT: u64 = 64;
/// Tokens set aside for what a provider wraps around one tool definition.
pub const MARGIN_PER_TOOL: u64 = 64;
/// Tokens set aside for what a provider wraps around a prompt.
pub const MARGIN_PER_PROMPT: u64 = 512;
/// Tool calls of one reply that are let through at most, where a shared budget limits them.
pub const TOOL_CALLS_AT_ONCE: u64 = 64;
/// Name of the loop's own budget.
pub const LOOP_BUDGET: &str = "loop";
/// Name of the session's own budget, over all of its loops.
pub const SESSION_BUDGET: &str = "session";

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
    /// Millionths of a US dollar.
    CostMicroUsd,
    /// Attempts of model calls.
    ModelCalls,
    /// Tool calls dispatched.
    ToolCalls,
    /// Milliseconds.
    WallTimeMs,
}

impl Dimension {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::InputTokens,
        Self::OutputTokens,
        Self::TotalTokens,
        Self::CostMicroUsd,
        Self::ModelCalls,
        Self::ToolCalls,
        Self::WallTimeMs,
    ];
}

impl fmt::Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InputTokens => "input_tokens",
            Self::OutputTokens => "output_tokens",
            Self::TotalTokens => "total_tokens",
            Self::CostMicroUsd => "cost_micro_usd",
            Self::ModelCalls => "model_calls",
            Self::ToolCalls => "tool_calls",
            Self::WallTimeMs => "wall_time_ms",
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
    /// Configuration, or the model's own maximum.
    #[default]
    Configured,
    /// The request.
    Requested,
    /// What was left of a budget.
    Budget(Dimension),
    /// What named budgets had left.
    NamedBudget,
    /// What was left of the session's own budget.
    SessionBudget(Dimension),
}

impl Bound {
    pub(crate) fn is_configured(&self) -> bool {
        *self == Self::Configured
    }

    /// Whether a budget had less left than the call would have taken.
    pub(crate) fn is_of_budget(self) -> bool {
        match self {
            Self::Configured | Self::Requested => false,
            Self::Budget(_) | Self::NamedBudget | Self::SessionBudget(_) => true,
        }
    }
}

/// The dimensions of a budget that were warned of, a bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Warned(u8);

impl Warned {
    /// Whether this one was.
    #[must_use]
    pub fn has(self, dimension: Dimension) -> bool {
        self.0 & 1 << dimension as u8 != 0
    }

    /// With this one.
    #[must_use]
    pub fn with(self, dimension: Dimension) -> Self {
        Self(self.0 | 1 << dimension as u8)
    }

    /// Without those whose limit is another one in `new` than in `old`: they are warned of again.
    #[must_use]
    pub fn since(self, old: &BudgetLimits, new: &BudgetLimits) -> Self {
        let same = |dimension: &Dimension| old.of(*dimension) == new.of(*dimension);
        let kept = Dimension::ALL.into_iter().filter(same);
        kept.filter(|dimension| self.has(*dimension))
            .fold(Self::default(), Self::with)
    }
}

/// What a call asks of a budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ask {
    /// Upper bound of its prompt, tokens.
    pub input: u64,
    /// The output cap that it would have without a budget, tokens.
    pub output: u64,
    /// The smallest cap worth a call, tokens.
    pub min_output: u64,
    /// What its tokens cost at most; absent where the model has no price.
    pub price: Option<Price>,
    /// Tool calls that its reply may ask for; 0 where it is offered no tool.
    pub tool_calls: u64,
    /// What it must leave for the loop's last call; absent where that is this one, or none is made.
    pub keep: Option<HoldBack>,
    /// Whether what is left is to be said, where shared budgets are asked.
    pub tells: bool,
}

/// What a budget allows a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Set aside.
    pub reserved: Reservation,
    /// What set the output cap.
    pub bound: Bound,
    /// Tool calls of the reply that shared budgets let through; `None` where they limit none.
    pub tool_calls: Option<u64>,
}

/// Why a budget does not cover what is asked of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shortfall {
    /// In which dimension.
    pub dimension: Dimension,
    /// Its limit.
    pub limit: u64,
    /// What of it is used or set aside.
    pub used: u64,
    /// What was asked for, at the least.
    pub requested: u64,
}

impl Shortfall {
    /// The same, of a budget of which so much is held back: that is not used, the call would have to
    /// leave it.
    fn beside(self, held: &Amount) -> Self {
        let held = held.of(self.dimension);
        Self {
            used: self.used.saturating_sub(held),
            requested: self.requested.saturating_add(held),
            ..self
        }
    }

    /// How a loop ends that a budget of this name does not cover.
    #[must_use]
    pub fn of(self, budget: &str) -> EndReason {
        EndReason::BudgetExceeded {
            budget: budget.to_owned(),
            dimension: self.dimension,
            limit: self.limit,
            used: self.used,
            requested: self.requested,
        }
    }
}

/// Whether `limits`, of which `used` is gone, cover a model call and leave what it is to keep, and with
/// which output cap. A call without a price is covered by no limit on cost, whatever is left of it: it
/// would be a free ride.
///
/// # Errors
/// The first dimension that does not.
pub fn grant(limits: &BudgetLimits, used: &Amount, ask: Ask) -> Result<Grant, Shortfall> {
    let least = ask.min_output.min(ask.output).max(1);
    let floor = Amount {
        input: ask.input,
        output: least,
        cost_micro_usd: match ask.price {
            Some(price) => price.cost(ask.input, least),
            None if limits.cost_micro_usd.is_some() => u64::MAX,
            None => 0,
        },
        model_calls: 1,
        ..Amount::default()
    };
    let held = ask.keep.map(|keep| keep.of(limits)).unwrap_or_default();
    let used = &used.plus(&held);
    covers(limits, used, &floor).map_err(|short| short.beside(&held))?;
    let mut granted = Grant {
        reserved: Reservation {
            input: ask.input,
            output: ask.output,
        },
        bound: Bound::Configured,
        tool_calls: None,
    };
    for (dimension, cap) in caps(limits, used, ask) {
        if cap < granted.reserved.output {
            granted.reserved.output = cap;
            granted.bound = Bound::Budget(dimension);
        }
    }
    Ok(granted)
}

/// Whether `limits`, of which `used` is gone, cover `asked` as it is. Of a limit on wall time
/// something must be left: how long a call takes is known once it has ended.
///
/// # Errors
/// The first dimension that does not.
pub fn covers(limits: &BudgetLimits, used: &Amount, asked: &Amount) -> Result<(), Shortfall> {
    for dimension in Dimension::ALL {
        let Some(limit) = limits.of(dimension) else {
            continue;
        };
        let least = u64::from(dimension == Dimension::WallTimeMs);
        let (used, requested) = (used.of(dimension), asked.of(dimension).max(least));
        if requested > limit.saturating_sub(used) {
            return Err(Shortfall {
                dimension,
                limit,
                used,
                requested,
            });
        }
    }
    Ok(())
}

/// The output caps that what is left in each dimension allows.
fn caps<'a>(
    limits: &'a BudgetLimits,
    used: &'a Amount,
    ask: Ask,
) -> impl Iterator<Item = (Dimension, u64)> + 'a {
    let left = |dimension| {
        let limit = limits.of(dimension)?;
        Some((dimension, limit.saturating_sub(used.of(dimension))))
    };
    let output = left(Dimension::OutputTokens);
    let total = left(Dimension::TotalTokens).map(|(d, left)| (d, left.saturating_sub(ask.input)));
    let cost = left(Dimension::CostMicroUsd).zip(ask.price);
    let cost = cost.and_then(|((d, left), price)| Some((d, price.output_within(left, ask.input)?)));
    [output, total, cost].into_iter().flatten()
}

#[cfg(test)]
mod tests;
