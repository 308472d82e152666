//! Limits that a client moves, or removes, while their loop is going on.

use std::collections::BTreeMap;

use super::{BudgetLimits, Limits};
use crate::{
    budget::{Dimension, Price},
    ledger::OnExhausted,
};

/// What becomes of a limit that may be absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Move<T> {
    /// It stays as it is.
    #[default]
    Stays,
    /// It moves there.
    To(T),
    /// It is removed: nothing is limited any more.
    Off,
}

/// What becomes of the limits of a budget, dimension by dimension.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BudgetChange([Move<u64>; Dimension::ALL.len()]);

/// Limits that move, and where to; what is absent stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LimitsChange {
    /// See [`Limits::max_steps`].
    pub max_steps: Option<u32>,
    /// See [`Limits::max_output_tokens`].
    pub max_output_tokens: Option<u64>,
    /// See [`Limits::max_output_asked`].
    pub max_output_asked: Option<bool>,
    /// See [`Limits::max_output_retries`].
    pub max_output_retries: Option<u32>,
    /// See [`Limits::max_parallel_tool_calls`].
    pub max_parallel_tool_calls: Option<u32>,
    /// See [`Limits::max_tool_calls_per_name`].
    pub max_tool_calls_per_name: Move<u32>,
    /// See [`Limits::deadline_ms`].
    pub deadline_ms: Move<u64>,
    /// See [`Limits::idle_timeout_ms`].
    pub idle_timeout_ms: Move<u64>,
    /// See [`Limits::min_output_tokens`].
    pub min_output_tokens: Option<u64>,
    /// See [`Limits::budget`].
    pub budget: BudgetChange,
    /// See [`Limits::prices`]; empty: they stay.
    pub prices: BTreeMap<String, Price>,
    /// See [`Limits::session_budget`].
    pub session_budget: BudgetChange,
    /// See [`Limits::on_exhausted`].
    pub on_exhausted: Option<OnExhausted>,
    /// See [`Limits::warn_permille`].
    pub warn_permille: Option<u32>,
    /// See [`Limits::no_progress`].
    pub no_progress: Move<u32>,
    /// See [`Limits::wrapup_steps`].
    pub wrapup_steps: Option<u32>,
    /// See [`Limits::final_call_tokens`].
    pub final_call_tokens: Move<u64>,
    /// See [`Limits::tell_budget`].
    pub tell_budget: Option<bool>,
}

impl<T> Move<T> {
    /// The move that leads to this limit, or to none, wherever it was.
    #[must_use]
    pub fn to(limit: Option<T>) -> Self {
        limit.map_or(Self::Off, Self::To)
    }

    /// The limit after it.
    #[must_use]
    pub fn of(self, before: Option<T>) -> Option<T> {
        match self {
            Self::Stays => before,
            Self::To(limit) => Some(limit),
            Self::Off => None,
        }
    }
}

impl BudgetChange {
    /// The change that makes `limits` of whatever it is made of them.
    #[must_use]
    pub fn to(limits: &BudgetLimits) -> Self {
        let all = Dimension::ALL.into_iter();
        all.fold(Self::default(), |change, dimension| {
            change.with(dimension, Move::to(limits.of(dimension)))
        })
    }

    /// With the limit of this dimension moved so.
    #[must_use]
    pub fn with(mut self, dimension: Dimension, to: Move<u64>) -> Self {
        self.0[dimension as usize] = to;
        self
    }

    /// What becomes of the limit of one dimension.
    #[must_use]
    pub fn at(&self, dimension: Dimension) -> Move<u64> {
        self.0[dimension as usize]
    }

    /// `limits` with what moves moved.
    #[must_use]
    pub fn of(&self, limits: &BudgetLimits) -> BudgetLimits {
        let all = Dimension::ALL.into_iter();
        all.fold(*limits, |moved, dimension| {
            let limit = self.at(dimension).of(limits.of(dimension));
            moved.with(dimension, limit)
        })
    }
}

/// The limits that are set move, the others stay.
impl From<BudgetLimits> for BudgetChange {
    fn from(limits: BudgetLimits) -> Self {
        let all = Dimension::ALL.into_iter();
        all.fold(Self::default(), |change, dimension| {
            let to = limits.of(dimension).map_or(Move::Stays, Move::To);
            change.with(dimension, to)
        })
    }
}

impl LimitsChange {
    /// The change that makes `limits` of whatever it is made of them.
    #[must_use]
    pub fn to(limits: &Limits) -> Self {
        Self {
            max_steps: Some(limits.max_steps),
            max_output_tokens: Some(limits.max_output_tokens),
            max_output_asked: Some(limits.max_output_asked),
            max_output_retries: Some(limits.max_output_retries),
            max_parallel_tool_calls: Some(limits.max_parallel_tool_calls),
            max_tool_calls_per_name: Move::to(limits.max_tool_calls_per_name),
            deadline_ms: Move::to(limits.deadline_ms),
            idle_timeout_ms: Move::to(limits.idle_timeout_ms),
            min_output_tokens: Some(limits.min_output_tokens),
            budget: BudgetChange::to(&limits.budget),
            prices: limits.prices.clone(),
            session_budget: BudgetChange::to(&limits.session_budget),
            on_exhausted: Some(limits.on_exhausted),
            warn_permille: Some(limits.warn_permille),
            no_progress: Move::to(limits.no_progress),
            wrapup_steps: Some(limits.wrapup_steps),
            final_call_tokens: Move::to(limits.final_call_tokens),
            tell_budget: Some(limits.tell_budget),
        }
    }

    /// `limits` with what moves moved.
    #[must_use]
    pub fn of(&self, limits: &Limits) -> Limits {
        Limits {
            max_steps: self.max_steps.unwrap_or(limits.max_steps),
            max_output_tokens: self.max_output_tokens.unwrap_or(limits.max_output_tokens),
            max_output_asked: self.max_output_asked.unwrap_or(limits.max_output_asked),
            max_output_retries: self.max_output_retries.unwrap_or(limits.max_output_retries),
            max_parallel_tool_calls: self
                .max_parallel_tool_calls
                .unwrap_or(limits.max_parallel_tool_calls),
            max_tool_calls_per_name: self
                .max_tool_calls_per_name
                .of(limits.max_tool_calls_per_name),
            deadline_ms: self.deadline_ms.of(limits.deadline_ms),
            idle_timeout_ms: self.idle_timeout_ms.of(limits.idle_timeout_ms),
            min_output_tokens: self.min_output_tokens.unwrap_or(limits.min_output_tokens),
            budget: self.budget.of(&limits.budget),
            prices: if self.prices.is_empty() {
                limits.prices.clone()
            } else {
                self.prices.clone()
            },
            session_budget: self.session_budget.of(&limits.session_budget),
            on_exhausted: self.on_exhausted.unwrap_or(limits.on_exhausted),
            warn_permille: self.warn_permille.unwrap_or(limits.warn_permille),
            no_progress: self.no_progress.of(limits.no_progress),
            wrapup_steps: self.wrapup_steps.unwrap_or(limits.wrapup_steps),
            final_call_tokens: self.final_call_tokens.of(limits.final_call_tokens),
            tell_budget: self.tell_budget.unwrap_or(limits.tell_budget),
            ..limits.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Limits {
        Limits {
            max_steps: 9,
            max_output_asked: true,
            deadline_ms: Some(5),
            budget: BudgetLimits {
                total_tokens: Some(7),
                ..BudgetLimits::default()
            },
            on_exhausted: OnExhausted::Pause,
            warn_permille: 500,
            ..Limits::default()
        }
    }

    #[test]
    fn what_is_absent_stays() {
        assert_eq!(LimitsChange::default().of(&some()), some());
        let change = LimitsChange {
            max_steps: Some(10),
            budget: BudgetLimits {
                model_calls: Some(0),
                ..BudgetLimits::default()
            }
            .into(),
            ..LimitsChange::default()
        };
        let moved = change.of(&some());
        assert_eq!((moved.max_steps, moved.deadline_ms), (10, Some(5)));
        assert_eq!(moved.budget.model_calls, Some(0), "nothing is not absent");
        assert_eq!(moved.budget.total_tokens, Some(7));
    }

    #[test]
    fn each_limit_of_a_budget_is_removed_alone() {
        let all = Dimension::ALL.into_iter();
        let full = all.fold(BudgetLimits::default(), |limits, dimension| {
            limits.with(dimension, Some(dimension as u64 + 1))
        });
        for dimension in Dimension::ALL {
            let moved = BudgetChange::default().with(dimension, Move::Off).of(&full);
            assert_eq!(moved, full.with(dimension, None), "{dimension}");
            assert_eq!(moved.of(dimension), None, "{dimension}");
            assert_eq!(full.of(dimension), Some(dimension as u64 + 1));
        }
    }

    /// A log keeps the limits alone: the change is read back from them.
    #[test]
    fn a_change_to_limits_ends_there_again() {
        let change = LimitsChange {
            deadline_ms: Move::Off,
            idle_timeout_ms: Move::To(9),
            budget: BudgetChange::default().with(Dimension::TotalTokens, Move::Off),
            ..LimitsChange::default()
        };
        let moved = change.of(&some());
        assert_eq!((moved.deadline_ms, moved.idle_timeout_ms), (None, Some(9)));
        assert!(moved.budget.is_open());
        assert_eq!(LimitsChange::to(&moved).of(&some()), moved);
    }
}
