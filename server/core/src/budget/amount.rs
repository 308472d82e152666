//! Amounts by dimension, and what tokens cost.

use serde::{Deserialize, Serialize};

use super::Dimension;
use crate::{
    message::is_zero,
    usage::{Totals, Usage},
};

/// Tokens that a price is given for.
const PRICED_TOKENS: u128 = 1_000_000;

/// How much of each dimension. Every counter saturates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// Prompt tokens, cache reads and writes included.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub input: u64,
    /// Generated tokens.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub output: u64,
    /// Millionths of a US dollar.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cost_micro_usd: u64,
    /// Attempts of model calls.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub model_calls: u64,
    /// Tool calls dispatched.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub tool_calls: u64,
    /// Milliseconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub wall_ms: u64,
}

impl Amount {
    /// Both added, dimension by dimension.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        self.zip(other, u64::saturating_add)
    }

    /// What is left when `other` is taken away, at least nothing.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        self.zip(other, u64::saturating_sub)
    }

    /// How much of one dimension.
    #[must_use]
    pub fn of(&self, dimension: Dimension) -> u64 {
        match dimension {
            Dimension::InputTokens => self.input,
            Dimension::OutputTokens => self.output,
            Dimension::TotalTokens => self.input.saturating_add(self.output),
            Dimension::CostMicroUsd => self.cost_micro_usd,
            Dimension::ModelCalls => self.model_calls,
            Dimension::ToolCalls => self.tool_calls,
            Dimension::WallTimeMs => self.wall_ms,
        }
    }

    fn zip(&self, other: &Self, by: fn(u64, u64) -> u64) -> Self {
        Self {
            input: by(self.input, other.input),
            output: by(self.output, other.output),
            cost_micro_usd: by(self.cost_micro_usd, other.cost_micro_usd),
            model_calls: by(self.model_calls, other.model_calls),
            tool_calls: by(self.tool_calls, other.tool_calls),
            wall_ms: by(self.wall_ms, other.wall_ms),
        }
    }
}

impl From<&Totals> for Amount {
    fn from(totals: &Totals) -> Self {
        Self {
            input: totals.usage.prompt(),
            output: totals.usage.output,
            cost_micro_usd: totals.cost_micro_usd,
            model_calls: totals.model_calls,
            tool_calls: totals.tool_calls,
            wall_ms: totals.wall_ms,
        }
    }
}

/// The most that a model's tokens can cost: what money is reserved by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Price {
    /// Of its dearest class of prompt tokens, micro-USD for a million.
    pub input: u64,
    /// Of generated tokens, micro-USD for a million.
    pub output: u64,
    /// What it is where the prompt is long, if that is dearer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub long: Option<LongPrice>,
}

/// The most that tokens can cost in a call with a long prompt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LongPrice {
    /// Prompts of more tokens than this are long; their length alone decides, for all tokens of a call.
    pub above: u64,
    /// Of the dearest class of prompt tokens, micro-USD for a million; below [`Price::input`] that counts.
    pub input: u64,
    /// Of generated tokens, micro-USD for a million; below [`Price::output`] that counts.
    pub output: u64,
}

impl Price {
    /// What so many tokens cost at most, micro-USD, rounded up. More tokens never cost less.
    #[must_use]
    pub fn cost(&self, input: u64, output: u64) -> u64 {
        saturate(self.parts(input, output).div_ceil(PRICED_TOKENS))
    }

    /// The most generated tokens that `money` pays for beside a prompt; `None` where it does not
    /// pay for the prompt.
    #[must_use]
    pub fn output_within(&self, money: u64, input: u64) -> Option<u64> {
        let money = u128::from(money).saturating_mul(PRICED_TOKENS);
        let left = money.checked_sub(self.parts(input, 0))?;
        let (_, output) = self.at(input);
        Some(
            left.checked_div(u128::from(output))
                .map_or(u64::MAX, saturate),
        )
    }

    fn parts(&self, input: u64, output: u64) -> u128 {
        let of = |tokens: u64, price: u64| u128::from(tokens).saturating_mul(price.into());
        let (input_price, output_price) = self.at(input);
        of(input, input_price).saturating_add(of(output, output_price))
    }

    /// The prices of a prompt of at most so many tokens, and of what follows it.
    fn at(&self, input: u64) -> (u64, u64) {
        match self.long.filter(|long| input > long.above) {
            Some(long) => (self.input.max(long.input), self.output.max(long.output)),
            None => (self.input, self.output),
        }
    }
}

/// What a call is charged beside its tokens, which the loop knows whatever the provider says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Beside {
    /// Tool calls of its reply that were let through.
    pub tool_calls: u64,
    /// The loop's time since it was last charged, milliseconds.
    pub wall_ms: u64,
}

impl Amount {
    /// The same tokens, cost and model calls, and this beside them.
    #[must_use]
    pub fn with(self, beside: Beside) -> Self {
        Self {
            tool_calls: beside.tool_calls,
            wall_ms: beside.wall_ms,
            ..self
        }
    }
}

/// What a call used, as an amount.
#[must_use]
pub fn used(usage: &Usage, cost_micro_usd: u64) -> Amount {
    Amount {
        input: usage.prompt(),
        output: usage.output,
        cost_micro_usd,
        model_calls: 1,
        ..Amount::default()
    }
}

fn saturate(value: u128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_cost_is_rounded_up() {
        let price = Price {
            input: 3_000_000,
            output: 15_000_000,
            long: None,
        };
        assert_eq!(price.cost(1, 0), 3);
        assert_eq!(price.cost(1_000, 100), 4_500);
        let cheap = Price {
            input: 50_000,
            ..Price::default()
        };
        assert_eq!(
            cheap.cost(1, 0),
            1,
            "a twentieth of a micro-USD is not nothing"
        );
        assert_eq!(price.cost(u64::MAX, u64::MAX), u64::MAX);
    }

    #[test]
    fn money_that_does_not_pay_for_the_prompt_buys_nothing() {
        let price = Price {
            input: 3_000_000,
            output: 15_000_000,
            long: None,
        };
        assert_eq!(price.output_within(2, 1), None);
        assert_eq!(price.output_within(3, 1), Some(0));
        let free = Price {
            input: 1,
            ..Price::default()
        };
        assert_eq!(free.output_within(5, 0), Some(u64::MAX));
    }

    #[test]
    fn a_long_prompt_is_dearer_as_a_whole() {
        let price = Price {
            input: 3_000_000,
            output: 15_000_000,
            long: Some(LongPrice {
                above: 200_000,
                input: 6_000_000,
                output: 10_000_000,
            }),
        };
        assert_eq!(price.cost(200_000, 1_000), 600_000 + 15_000);
        assert_eq!(
            price.cost(200_001, 1_000),
            1_200_006 + 15_000,
            "every token of it, and the output never cheaper"
        );
        assert_eq!(price.output_within(1_200_006 + 30, 200_001), Some(2));
    }

    proptest! {
        /// Whatever output is bought, it is paid for, and one token more would not be.
        #[test]
        fn what_is_bought_is_paid_for(
            money in 0u64..1 << 40, input in 0u64..1 << 24,
            input_price in 0u64..1 << 26, output_price in 1u64..1 << 26,
            long in proptest::option::of((0u64..1 << 24, 0u64..1 << 26, 0u64..1 << 26)),
        ) {
            let long = long.map(|(above, input, output)| LongPrice { above, input, output });
            let price = Price { input: input_price, output: output_price, long };
            match price.output_within(money, input) {
                Some(output) => {
                    prop_assert!(price.cost(input, output) <= money);
                    prop_assert!(price.cost(input, output + 1) > money);
                }
                None => prop_assert!(price.cost(input, 0) > money),
            }
        }

        /// What is reserved for a prompt's upper bound covers every shorter prompt.
        #[test]
        fn more_tokens_never_cost_less(
            input in 0u64..1 << 24, more in 0u64..1 << 24,
            output in 0u64..1 << 24, further in 0u64..1 << 24,
            prices in (0u64..1 << 26, 0u64..1 << 26), above in 0u64..1 << 24,
            dearer in (0u64..1 << 26, 0u64..1 << 26),
        ) {
            let long = Some(LongPrice { above, input: dearer.0, output: dearer.1 });
            let price = Price { input: prices.0, output: prices.1, long };
            prop_assert!(price.cost(input, output) <= price.cost(input + more, output + further));
        }
    }
}
