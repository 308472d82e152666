//! Backoff as data: when a failed attempt is tried again.
//!
//! Full jitter over exponential backoff (Marc Brooker, "Exponential Backoff And Jitter", AWS
//! Architecture Blog, 2015): the wait is a random share of `base * 2^n`, capped. A provider's
//! Retry-After is a floor to which the jitter only adds.

use serde::{Deserialize, Serialize};

use crate::ids::Timestamp;

/// One whole, in the unit of jitter.
pub const JITTER_ONE: u32 = 1_000_000;

/// How failed attempts are repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// Attempts in all, the first included; at least 1.
    pub max_attempts: u32,
    /// Longest wait after the first failure, milliseconds; doubles with each further one.
    pub base_delay_ms: u64,
    /// Cap of that, milliseconds.
    pub max_delay_ms: u64,
    /// From the first attempt's start no attempt begins later than this, milliseconds.
    pub total_deadline_ms: u64,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_attempts: 6,
            base_delay_ms: 1_000,
            max_delay_ms: 60_000,
            total_deadline_ms: 600_000,
        }
    }
}

/// What is known of a failed effect when its repeat is decided.
#[derive(Clone, Copy, Debug)]
pub struct Failed {
    /// Failures so far, this one included; from 1.
    pub failures: u32,
    /// When its first attempt started.
    pub first_at: Timestamp,
    /// Now.
    pub at: Timestamp,
    /// The floor that the other side asked for, milliseconds.
    pub retry_after_ms: Option<u64>,
    /// A share drawn from 0..=`JITTER_ONE`.
    pub jitter: u32,
}

impl RetryPolicy {
    /// When to try again; `None` where attempts or time are used up.
    #[must_use]
    pub fn next(&self, failed: Failed) -> Option<Timestamp> {
        if failed.failures >= self.max_attempts {
            return None;
        }
        let doubled = 1_u64
            .checked_shl(failed.failures.saturating_sub(1))
            .unwrap_or(u64::MAX);
        let window = self
            .base_delay_ms
            .saturating_mul(doubled)
            .min(self.max_delay_ms);
        let share = u128::from(failed.jitter.min(JITTER_ONE));
        let drawn = u128::from(window) * share / u128::from(JITTER_ONE);
        let drawn = u64::try_from(drawn).unwrap_or(u64::MAX);
        let due = failed
            .at
            .plus(failed.retry_after_ms.unwrap_or(0).saturating_add(drawn));
        (due.since(failed.first_at) <= self.total_deadline_ms).then_some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(failures: u32, jitter: u32) -> Failed {
        let now = Timestamp(1_000_000);
        Failed {
            failures,
            first_at: now,
            at: now,
            retry_after_ms: None,
            jitter,
        }
    }

    #[test]
    fn the_window_doubles_up_to_its_cap() {
        let policy = RetryPolicy {
            max_attempts: 99,
            ..RetryPolicy::default()
        };
        let wait = |n| {
            policy
                .next(failed(n, JITTER_ONE))
                .map(|t| t.since(Timestamp(1_000_000)))
        };
        assert_eq!(wait(1), Some(1_000));
        assert_eq!(wait(2), Some(2_000));
        assert_eq!(wait(6), Some(32_000));
        assert_eq!(wait(7), Some(60_000));
        assert_eq!(
            wait(80),
            Some(60_000),
            "a shift past 64 bits is the cap, not a panic"
        );
    }

    #[test]
    fn retry_after_is_a_floor_that_jitter_only_adds_to() {
        let policy = RetryPolicy::default();
        let asked = Failed {
            retry_after_ms: Some(7_000),
            ..failed(1, 0)
        };
        assert_eq!(policy.next(asked), Some(Timestamp(1_007_000)));
        let asked = Failed {
            retry_after_ms: Some(7_000),
            ..failed(1, 500_000)
        };
        assert_eq!(policy.next(asked), Some(Timestamp(1_007_500)));
    }

    #[test]
    fn attempts_and_time_run_out() {
        let policy = RetryPolicy::default();
        assert_eq!(policy.next(failed(6, 0)), None);
        let late = Failed {
            at: Timestamp(1_600_001),
            ..failed(2, 0)
        };
        assert_eq!(policy.next(late), None);
        let far = Failed {
            retry_after_ms: Some(u64::MAX),
            ..failed(1, JITTER_ONE)
        };
        assert_eq!(
            policy.next(far),
            None,
            "a floor past the deadline is not waited for"
        );
    }
}
