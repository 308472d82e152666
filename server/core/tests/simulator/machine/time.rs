//! Faults in the time that loops have, and in limits that are removed.

use std::sync::Arc;

use loopwright_core::{
    Event, State, What,
    agent::{BudgetChange, Limits, Move},
    budget::Dimension,
    ids::Timestamp,
    outcome::{AbandonReason, WaitsFor},
};

use crate::simulator::mutant::Mutant;

pub(super) fn tamper_terms(mutant: Mutant, state: &mut State) {
    if mutant == Mutant::WallTimeIgnored {
        let limits = Arc::make_mut(&mut state.limits);
        limits.budget.wall_ms = None;
        limits.session_budget.wall_ms = None;
    } else if mutant == Mutant::SessionTimeForgotten {
        state.totals.wall_ms = 0;
    }
}

pub(super) fn tamper_input(mutant: Mutant, what: &mut What) {
    if let (Mutant::RemovalIgnored, What::UpdateLimits { change, .. }) = (mutant, what) {
        change.budget = kept(change.budget);
        change.session_budget = kept(change.session_budget);
    }
}

/// What is to be removed stays.
fn kept(change: BudgetChange) -> BudgetChange {
    Dimension::ALL
        .into_iter()
        .filter(|dimension| change.at(*dimension) == Move::Off)
        .fold(change, |change, gone| change.with(gone, Move::Stays))
}

pub(super) fn tamper_events(mutant: Mutant, events: &mut Vec<Event>) {
    if mutant == Mutant::TimeAfterTheLastCallIsFree {
        events.retain(|event| !matches!(event, Event::BudgetSettled(e) if e.attempt == 0));
    }
    let waits = |event: &Event| {
        matches!(event, Event::LoopPaused(e) if matches!(&e.waits_for,
            WaitsFor::Limit { short, .. } if short.dimension == Dimension::WallTimeMs))
    };
    if mutant == Mutant::TimeIsUpKeepsTheCall && events.iter().any(waits) {
        events.retain(|event| {
            let late = matches!(event, Event::ModelCallAbandoned(e)
                if e.reason == AbandonReason::Deadline);
            !late && !matches!(event, Event::BudgetSettled(_))
        });
    }
}

pub(super) fn shows_otherwise(mutant: Mutant) -> bool {
    [Mutant::TimeRunsWhilePaused, Mutant::RemovedLimitHolds].contains(&mutant)
}

/// What the fold is shown instead.
pub(super) fn tamper_shown(mutant: Mutant, before: &State, events: &mut [Event]) {
    for event in events {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "each of these faults is one arm"
        )]
        match event {
            Event::LoopPaused(e) if mutant == Mutant::TimeRunsWhilePaused => {
                e.at = Timestamp::default();
            }
            Event::LimitsUpdated(e) if mutant == Mutant::RemovedLimitHolds => {
                let known = &before.limits;
                e.limits = Arc::new(Limits {
                    budget: e.limits.budget.or(&known.budget),
                    session_budget: e.limits.session_budget.or(&known.session_budget),
                    ..(*e.limits).clone()
                });
            }
            _ => {}
        }
    }
}
