//! Counts of what a loop consumed. Every counter saturates: a provider's nonsense cannot wrap one.

use serde::{Deserialize, Serialize};

use crate::message::is_zero;

/// Tokens of one model call in their four classes; the classes do not overlap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Prompt tokens that were neither read from nor written to a cache.
    #[serde(default)]
    pub input: u64,
    /// Tokens that the model generated.
    #[serde(default)]
    pub output: u64,
    /// Prompt tokens written to the provider's cache.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cache_write: u64,
    /// Prompt tokens read from the provider's cache.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cache_read: u64,
    /// Of `cache_write`, what the provider keeps for an hour; at most all of it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cache_write_1h: u64,
}

impl Usage {
    /// The whole prompt: input, cache writes and cache reads.
    #[must_use]
    pub fn prompt(&self) -> u64 {
        self.input
            .saturating_add(self.cache_write)
            .saturating_add(self.cache_read)
    }

    /// Prompt and output.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.prompt().saturating_add(self.output)
    }

    /// Both added, class by class.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            input: self.input.saturating_add(other.input),
            output: self.output.saturating_add(other.output),
            cache_write: self.cache_write.saturating_add(other.cache_write),
            cache_read: self.cache_read.saturating_add(other.cache_read),
            cache_write_1h: self.cache_write_1h.saturating_add(other.cache_write_1h),
        }
    }
}

/// What a loop has consumed so far, retried and abandoned attempts included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Model calls made (a retried call counts once).
    #[serde(default)]
    pub steps: u32,
    /// Attempts of model calls.
    #[serde(default)]
    pub model_calls: u64,
    /// Tool calls dispatched (a retried call counts once).
    #[serde(default)]
    pub tool_calls: u64,
    /// Tokens settled, by class.
    #[serde(default)]
    pub usage: Usage,
    /// Tokens among them that no provider reported: whole reservations.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub estimated: u64,
    /// How long it ran, from its start to its end without the time that it was paused, milliseconds; of
    /// a session, its ended loops together. 0 while a loop runs.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub wall_ms: u64,
    /// Cost in micro-USD of the calls whose model has a price.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cost_micro_usd: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_saturate() {
        let most = Usage {
            input: u64::MAX,
            output: 1,
            cache_write: 1,
            cache_read: 1,
            cache_write_1h: 1,
        };
        assert_eq!(most.prompt(), u64::MAX);
        assert_eq!(most.total(), u64::MAX);
        assert_eq!(most.plus(&most).input, u64::MAX);
    }
}
