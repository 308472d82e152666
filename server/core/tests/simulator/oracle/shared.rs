//! What named budgets bring into a session: what they say stands in its log, each warning once, and a
//! loop that they refuse makes its last call.

use std::{collections::BTreeSet, sync::Arc};

use loopwright_core::{
    Cause, Entry, Event, State, What,
    agent::Limits,
    budget::{Dimension, LOOP_BUDGET, Left, SESSION_BUDGET},
    event::{BudgetWarning, Nudge},
    outcome::EndReason,
};

use super::{Violation, check};

#[derive(Default)]
pub(super) struct Shared {
    /// Budget, dimension and limit.
    warned: BTreeSet<(String, Dimension, u64)>,
    steps: u32,
    concludes: bool,
}

impl Shared {
    /// Tokens that a named budget of this limit must keep when the loop's next call is granted.
    pub(super) fn keeps(&self, limits: &Limits, limit: u64) -> u64 {
        let tokens = limits.final_call_tokens.filter(|_| !self.concludes);
        tokens.map_or(0, |tokens| tokens.min(limit / 2))
    }

    pub(super) fn event(
        &mut self,
        entry: &Entry,
        event: &Event,
        after: &State,
    ) -> Result<(), Violation> {
        #[expect(clippy::wildcard_enum_match_arm, reason = "the rest is of no budget")]
        match event {
            Event::LoopStarted(_) => (self.steps, self.concludes) = (0, false),
            Event::ModelCallStarted(e) if e.recap.is_none() && e.attempt == 1 => self.steps += 1,
            Event::MessageAdded(e) => {
                self.concludes |= matches!(e.nudge, Some(Nudge::Conclude(_)));
            }
            Event::BudgetWarning(e) if ![LOOP_BUDGET, SESSION_BUDGET].contains(&&*e.budget) => {
                let told = matches!(entry.cause, Cause::BudgetSettled { .. });
                let new = self.warned.insert((e.budget.clone(), e.dimension, e.limit));
                return check(told && new, "shared_warned", || format!("{e:?}"));
            }
            Event::BudgetSettled(e) => {
                let of = (e.call, e.attempt);
                let spent = matches!(entry.cause, Cause::BudgetSpent { call, attempt } if (call, attempt) == of);
                return check(!spent || e.estimated, "spent_whole", || {
                    format!("{} is given back, and was used by who knows whom", e.call)
                });
            }
            Event::LoopEnded(e) => return self.ended(entry, &e.reason, &after.limits),
            _ => {}
        }
        Ok(())
    }

    /// Where something is held back, a refusal alone ends no loop that may make another step.
    fn ended(&self, entry: &Entry, reason: &EndReason, limits: &Limits) -> Result<(), Violation> {
        let refused = matches!(entry.cause, Cause::BudgetRefused { .. });
        let short = matches!(reason, EndReason::BudgetExceeded { .. });
        // Of these the loop may have been short of as well.
        let alone = !limits.are_budgeted() && limits.deadline_ms.is_none();
        let may = limits.final_call_tokens.is_some() && self.steps < limits.max_steps;
        let skipped = refused && short && alone && may && !self.concludes;
        check(!skipped, "shared_landing", || {
            format!("{reason:?} without a last call")
        })
    }
}

/// What named budgets said in an input.
pub(crate) enum Said {
    Left(Arc<[Left]>),
    Warnings(Vec<BudgetWarning>),
    Nothing,
}

impl Said {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the rest is of no budget")]
    pub(crate) fn of(what: &What) -> Self {
        match what {
            What::BudgetGranted { left, .. } => Self::Left(Arc::clone(left)),
            What::BudgetSettled { warnings, .. } => Self::Warnings(warnings.clone()),
            _ => Self::Nothing,
        }
    }

    /// The events say it, where they follow from that.
    pub(crate) fn stands_in(&self, events: &[Event]) -> Result<(), Violation> {
        match self {
            Self::Nothing => Ok(()),
            Self::Left(left) => {
                let told = events.iter().find_map(|event| {
                    if let Event::BudgetReserved(e) = event {
                        return Some(&e.left);
                    }
                    None
                });
                check(told.is_none_or(|told| told == left), "left_told", || {
                    format!("{left:?} is left, {told:?} is told")
                })
            }
            Self::Warnings(warnings) => {
                let told = events.iter().filter_map(|event| {
                    if let Event::BudgetWarning(e) = event {
                        return Some(e);
                    }
                    None
                });
                check(told.eq(warnings), "shared_warned", || {
                    format!("{warnings:?} in {events:?}")
                })
            }
        }
    }
}
