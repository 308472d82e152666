//! What is held back of a budget for a loop's last call, and what is said to be left of one.

use serde::{Deserialize, Serialize};

use super::{Amount, Dimension, Price};
use crate::agent::BudgetLimits;

/// What no call of a loop but its last may use of a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoldBack {
    /// Tokens, half of them at most for its reply.
    pub tokens: u64,
    /// The most tokens that its reply may have.
    pub max_output: u64,
    /// What they cost at most; absent where the model has no price.
    pub price: Option<Price>,
}

impl HoldBack {
    /// How much of each dimension that is: the tokens, what they cost, and the call itself; of no limit
    /// more than half.
    #[must_use]
    pub fn of(self, limits: &BudgetLimits) -> Amount {
        let half = |dimension| limits.of(dimension).map_or(u64::MAX, |limit| limit / 2);
        let tokens = self.tokens.min(half(Dimension::TotalTokens));
        let output = (tokens / 2)
            .min(self.max_output)
            .min(half(Dimension::OutputTokens));
        let input = (tokens - output).min(half(Dimension::InputTokens));
        let cost = self.price.map_or(0, |price| price.cost(input, output));
        Amount {
            input,
            output,
            cost_micro_usd: cost.min(half(Dimension::CostMicroUsd)),
            model_calls: half(Dimension::ModelCalls).min(1),
            ..Amount::default()
        }
    }
}

/// What is left of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// In which dimension.
    pub dimension: Dimension,
    /// So much, in its unit.
    pub left: u64,
    /// The limit.
    pub limit: u64,
}

impl Left {
    /// Of a budget that limits this dimension and of which `used` is gone.
    #[must_use]
    pub fn of(limits: &BudgetLimits, dimension: Dimension, used: &Amount) -> Option<Self> {
        let limit = limits.of(dimension)?;
        Some(Self {
            dimension,
            left: limit.saturating_sub(used.of(dimension)),
            limit,
        })
    }

    /// The one of which less is left.
    #[must_use]
    pub fn tighter(self, other: Self) -> Self {
        if other.left < self.left { other } else { self }
    }
}
