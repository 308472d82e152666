//! Faults in how a loop is brought down: what it is told, what it holds back, its last call.

use std::sync::Arc;

use loopwright_core::{State, What};

use crate::simulator::mutant::Mutant;

pub(super) fn tamper_terms(mutant: Mutant, state: &mut State, what: &What) {
    let completes = matches!(what, What::ModelCompleted { .. });
    if mutant == Mutant::NoProgressIgnored {
        Arc::make_mut(&mut state.limits).no_progress = None;
    } else if mutant == Mutant::WrapupForgotten {
        Arc::make_mut(&mut state.limits).wrapup_steps = 0;
    } else if mutant == Mutant::HoldBackSpent
        || (mutant == Mutant::RefusalEndsAtOnce && matches!(what, What::BudgetRefused { .. }))
    {
        Arc::make_mut(&mut state.limits).final_call_tokens = None;
    }
    let Some(active) = &mut state.active else {
        return;
    };
    if mutant == Mutant::NudgedAgain {
        active.wrapped_up = false;
        active.progress.told = false;
    } else if mutant == Mutant::LastCallIsNone && completes {
        active.landing = None;
    }
}
