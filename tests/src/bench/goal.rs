//! Goals: what a figure must be, what it aims at, and what it was.

use std::fmt;

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// At most the goal.
    Lower,
    /// At least the goal.
    Higher,
}

/// One measured goal.
#[derive(Clone, Debug, PartialEq)]
pub struct Goal {
    /// Its number in the table of goals.
    pub number: &'static str,
    /// What is measured.
    pub name: String,
    /// The figure.
    pub value: f64,
    /// What it must be.
    pub must: f64,
    /// What it aims at.
    pub aim: f64,
    /// Which way is better.
    pub better: Better,
}

impl Goal {
    /// Whether it is what it must be.
    #[must_use]
    pub fn is_met(&self) -> bool {
        match self.better {
            Better::Lower => self.value <= self.must,
            Better::Higher => self.value >= self.must,
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            number,
            name,
            value,
            must,
            aim,
            ..
        } = self;
        let verdict = if self.is_met() { "ok" } else { "short" };
        write!(
            f,
            "goal {number} {name} value={value:.3} must={must} aim={aim} {verdict}"
        )
    }
}

/// The median; 0 of nothing.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    percentile(values, 50.0)
}

/// The value below which `share` per cent of the values lie; 0 of nothing.
#[must_use]
pub fn percentile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    if sorted.is_empty() {
        return 0.0;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index into a few thousand samples"
    )]
    let at = ((sorted.len() - 1) as f64 * share / 100.0).round() as usize;
    sorted[at]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_come_from_the_samples() {
        let values = [5.0, 1.0, 3.0, 2.0, 4.0];
        assert!((median(&values) - 3.0).abs() < f64::EPSILON);
        assert!((percentile(&values, 100.0) - 5.0).abs() < f64::EPSILON);
        assert!(percentile(&[], 99.0).abs() < f64::EPSILON);
    }

    #[test]
    fn a_goal_says_whether_it_is_met() {
        let goal = Goal {
            number: "5",
            name: "cpu".to_owned(),
            value: 3.5,
            must: 3.0,
            aim: 2.0,
            better: Better::Lower,
        };
        assert_eq!(
            goal.to_string(),
            "goal 5 cpu value=3.500 must=3 aim=2 short"
        );
    }
}
