//! The model's window: how full a conversation is, and how it is made smaller.
//!
//! Estimates here are means, for a decision that may be a little late or early; what money and tokens
//! are reserved by is the upper bound of [`crate::budget`]. Compaction drops whole groups of turns (a
//! call is never parted from its results) for a recap, then shortens old results in place. All of it
//! follows from the state, so that a replay compacts as the session did; the log keeps what is dropped.

mod plan;
mod recap;
mod writing;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use crate::{budget::MARGIN_PER_PROMPT, ids::CallId, state::State};

pub use plan::{Goal, Plan, carry_out, plan, room, shorten, to_drop, whole_by};
pub use recap::{Item, ItemKind, Recap};
pub use writing::{RecapAsk, RecapFallback, SYSTEM_PROMPT};

/// Bytes to a token, where no provider has counted yet.
const BYTES_PER_TOKEN: u64 = 4;
/// Compactions in a row that may miss their target before the regular check gives up.
pub const MAX_USELESS: u32 = 3;

/// How a conversation is kept within the model's window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextTerms {
    /// Tokens of the window that may be used, the output cap included.
    pub max_tokens: u64,
    /// Share of the window above which the regular check compacts, in thousandths.
    pub threshold_permille: u32,
    /// Steps between regular checks, at least 1. The ceiling is checked at every step.
    pub check_every: u32,
    /// Share of the window to compact down to, in thousandths.
    pub target_permille: u32,
    /// Latest messages that are kept whole, unless the ceiling cannot be met otherwise.
    pub min_recent_messages: u32,
    /// The model that writes the recap where the regular check compacts; absent: it follows from a
    /// rule, as it does where the prompt would not fit and a step cannot wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recap_by_model: Option<String>,
}

/// Why a conversation is compacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CompactionTrigger {
    /// The regular check found it above the threshold.
    Threshold,
    /// The next prompt would not fit the window.
    Ceiling,
    /// The provider said that the prompt does not fit.
    Provider,
}

/// A result that is told shorter from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shortened {
    /// Whose.
    pub call: CallId,
    /// To how many characters at most.
    pub chars: u32,
}

/// Tokens that were counted for content of so many bytes: what estimates are scaled by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ratio {
    /// Tokens that the provider counted.
    pub tokens: u64,
    /// Bytes of the content that they were of, at least 1.
    pub bytes: u64,
}

impl Default for ContextTerms {
    fn default() -> Self {
        Self {
            max_tokens: 180_000,
            threshold_permille: 600,
            check_every: 5,
            target_permille: 500,
            min_recent_messages: 10,
            recap_by_model: None,
        }
    }
}

impl Ratio {
    /// Tokens of content of so many bytes.
    #[must_use]
    pub fn tokens_of(self, bytes: u64) -> u64 {
        scale(bytes, self.tokens, self.bytes)
    }

    /// Bytes of content of so many tokens, rounded down.
    #[must_use]
    pub fn bytes_of(self, tokens: u64) -> u64 {
        let product = u128::from(tokens) * u128::from(self.bytes);
        let bytes = product.checked_div(u128::from(self.tokens)).unwrap_or(0);
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }
}

impl State {
    /// Tokens of the next prompt, in the mean: what was counted last, scaled by what its content has
    /// become since. The messages that wait to join are in it.
    #[must_use]
    pub fn prompt_estimate(&self) -> u64 {
        let content = self
            .conversation
            .bytes()
            .saturating_add(self.waiting_bytes());
        self.ratio()
            .tokens_of(content.saturating_add(self.fixed_bytes()))
    }

    /// What estimates are scaled by.
    #[must_use]
    pub fn ratio(&self) -> Ratio {
        self.measured.unwrap_or(Ratio {
            tokens: 1,
            bytes: BYTES_PER_TOKEN,
        })
    }

    /// Bytes of what stands in every prompt: the system prompt and the tools.
    #[must_use]
    pub fn fixed_bytes(&self) -> u64 {
        (self.agent.system_prompt.len() as u64)
            .saturating_add(self.tools.content_bytes())
            .saturating_add(MARGIN_PER_PROMPT)
    }
}

impl ContextTerms {
    /// Tokens of a prompt above which the regular check compacts.
    #[must_use]
    pub fn threshold(&self) -> u64 {
        permille(self.max_tokens, self.threshold_permille)
    }

    /// Tokens of a prompt to compact down to.
    #[must_use]
    pub fn target(&self) -> u64 {
        permille(self.max_tokens, self.target_permille)
    }

    /// Tokens of the largest prompt, with room for a reply.
    #[must_use]
    pub fn ceiling(&self, reply: u64) -> u64 {
        self.max_tokens.saturating_sub(reply)
    }
}

fn permille(of: u64, share: u32) -> u64 {
    let share = u128::from(of) * u128::from(share) / 1_000;
    u64::try_from(share).unwrap_or(u64::MAX)
}

/// `value` times `by` over `of`, rounded up.
fn scale(value: u64, by: u64, of: u64) -> u64 {
    let product = u128::from(value) * u128::from(by);
    u64::try_from(product.div_ceil(u128::from(of.max(1)))).unwrap_or(u64::MAX)
}
