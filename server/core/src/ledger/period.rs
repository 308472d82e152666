//! Periods: when a budget forgets what was used. All of them in UTC.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::{budget::Amount, ids::Timestamp};

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
/// Slices that a rolling window is kept in: it forgets a slice at a time, never too early.
const SLICES: u64 = 64;

/// When what was used is forgotten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Period {
    /// Never.
    #[default]
    None,
    /// At midnight, UTC.
    Day,
    /// At the first midnight of a month, UTC.
    Month,
    /// Each use on its own, once it is this old.
    Rolling {
        /// How old, milliseconds, at least 1.
        window_ms: u64,
    },
}

impl Period {
    /// Whether the period that began at `start` has ended by `at`.
    #[must_use]
    pub fn has_turned(self, start: Timestamp, at: Timestamp) -> bool {
        self.start_of(at).is_some_and(|current| current > start)
    }

    /// When the period began that `at` lies in; `None` where periods have no beginning.
    #[must_use]
    pub fn start_of(self, at: Timestamp) -> Option<Timestamp> {
        let day = at.0 / DAY_MS;
        match self {
            Self::None | Self::Rolling { .. } => None,
            Self::Day => Some(Timestamp(day * DAY_MS)),
            Self::Month => Some(Timestamp((day + 1 - day_of_month(day)) * DAY_MS)),
        }
    }

    /// When the next period begins; `None` where none does.
    #[must_use]
    pub fn next_after(self, at: Timestamp) -> Option<Timestamp> {
        let start = self.start_of(at)?;
        match self {
            Self::None | Self::Rolling { .. } => None,
            Self::Day => Some(start.plus(DAY_MS)),
            // No month is longer than 31 days, and none is shorter than 28.
            Self::Month => self.start_of(start.plus(31 * DAY_MS)),
        }
    }

    fn slice_ms(self) -> u64 {
        match self {
            Self::Rolling { window_ms } => window_ms.div_ceil(SLICES).max(1),
            Self::None | Self::Day | Self::Month => DAY_MS,
        }
    }
}

/// What was used within a rolling window, in slices.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Window(VecDeque<(u64, Amount)>);

impl Window {
    /// Adds what was settled at `at`, and forgets what is too old to count again.
    pub(super) fn add(&mut self, period: Period, at: Timestamp, amount: &Amount) {
        let Period::Rolling { window_ms } = period else {
            return;
        };
        let slice = at.0 / period.slice_ms();
        match self.0.back_mut() {
            // A clock that was set back does not make what is known older.
            Some((last, sum)) if *last >= slice => *sum = sum.plus(amount),
            _ => self.0.push_back((slice, *amount)),
        }
        while self
            .0
            .front()
            .is_some_and(|&(slice, _)| is_over(slice, period, window_ms, at))
        {
            self.0.pop_front();
        }
    }

    /// What counts at `at`.
    #[must_use]
    pub(super) fn sum(&self, period: Period, at: Timestamp) -> Amount {
        let Period::Rolling { window_ms } = period else {
            return Amount::default();
        };
        self.0
            .iter()
            .filter(|&&(slice, _)| !is_over(slice, period, window_ms, at))
            .fold(Amount::default(), |sum, (_, amount)| sum.plus(amount))
    }
}

/// Whether the last instant of a slice is older than the window.
fn is_over(slice: u64, period: Period, window_ms: u64, at: Timestamp) -> bool {
    let end = slice.saturating_add(1).saturating_mul(period.slice_ms());
    end.saturating_add(window_ms) <= at.0
}

/// The day of its month, from 1, of a day counted from 1970-01-01: the civil calendar from days, as
/// in Howard Hinnant's "chrono-Compatible Low-Level Date Algorithms".
fn day_of_month(day: u64) -> u64 {
    let shifted = day + 719_468;
    let of_era = shifted % 146_097;
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    of_year - (153 * month + 2) / 5 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn day(days: u64) -> Timestamp {
        Timestamp(days * DAY_MS)
    }

    #[test]
    fn months_begin_on_their_first_day() {
        // 2024-02-29, 2024-03-01, 2026-11-22, 2026-12-31, 2027-01-01.
        for (at, start, next) in [
            (19_782, 19_754, 19_783),
            (19_783, 19_783, 19_814),
            (20_779, 20_758, 20_788),
            (20_818, 20_788, 20_819),
            (20_819, 20_819, 20_850),
        ] {
            let noon = day(at).plus(DAY_MS / 2);
            assert_eq!(Period::Month.start_of(noon), Some(day(start)), "day {at}");
            assert_eq!(Period::Month.next_after(noon), Some(day(next)), "day {at}");
        }
    }

    #[test]
    fn a_period_turns_once_and_a_clock_set_back_turns_none() {
        let start = day(20_000);
        assert!(!Period::Day.has_turned(start, start.plus(DAY_MS - 1)));
        assert!(Period::Day.has_turned(start, start.plus(DAY_MS)));
        assert!(!Period::Day.has_turned(start, day(19_999)));
        assert!(!Period::None.has_turned(start, Timestamp(u64::MAX)));
    }

    #[test]
    fn a_rolling_window_forgets_late_rather_than_early() {
        let period = Period::Rolling { window_ms: 6_400 };
        let one = Amount {
            input: 1,
            ..Amount::default()
        };
        let mut window = Window::default();
        for at in 0..10 {
            window.add(period, Timestamp(at * 100), &one);
        }
        assert_eq!(
            window.sum(period, Timestamp(6_400)).input,
            10,
            "the first is just as old"
        );
        assert_eq!(window.sum(period, Timestamp(6_500)).input, 9);
        assert_eq!(window.sum(period, Timestamp(7_400)).input, 0);
        window.add(period, Timestamp(50), &one);
        assert_eq!(
            window.sum(period, Timestamp(7_300)).input,
            2,
            "a clock that was set back"
        );
        for at in 0..100_000 {
            window.add(period, Timestamp(at * 37), &one);
        }
        assert!(window.0.len() <= 66, "{} slices", window.0.len());
    }
}
