//! Faults in pauses, in limits that move, and in budgets of sessions.

use std::sync::Arc;

use loopwright_core::{
    Event, State, What,
    agent::{BudgetLimits, Limits},
    budget::Warned,
    ledger::OnExhausted,
    outcome::{AbandonReason, WaitsFor},
};

use crate::simulator::mutant::Mutant;

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "each of these faults is one arm"
)]
pub(super) fn tamper_terms(mutant: Mutant, state: &mut State, what: &What) {
    let outcome = matches!(
        what,
        What::ModelCompleted { .. }
            | What::ModelFailed { .. }
            | What::ToolCompleted { .. }
            | What::ToolFailed { .. }
    );
    let forgets = match mutant {
        Mutant::PauseIgnored => outcome,
        Mutant::PauseForgottenByAttach => matches!(what, What::Attach { .. }),
        _ => false,
    };
    if forgets {
        *state = unpaused(state);
    }
    let session_totals = state.active.as_ref().map(|active| active.totals);
    match mutant {
        Mutant::RaiseEndsAPause if matches!(what, What::UpdateLimits { .. }) => {
            if let Some(active) = &mut state.active
                && let Some(WaitsFor::Client { .. }) = active.paused
            {
                active.paused = None;
            }
        }
        Mutant::ExhaustedEndsAtOnce => limits(state).on_exhausted = OnExhausted::End,
        Mutant::SessionBudgetIgnored => limits(state).session_budget = BudgetLimits::default(),
        Mutant::SessionBudgetOfTheLoopAlone => {
            state.totals = session_totals.unwrap_or_default();
        }
        Mutant::WarnedAgainAndAgain => {
            state.warned = Warned::default();
            if let Some(active) = &mut state.active {
                active.warned = Warned::default();
            }
        }
        Mutant::NeverWarned => limits(state).warn_permille = 0,
        _ => {}
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "each fault is in one kind of event"
)]
pub(super) fn tamper_events(mutant: Mutant, events: &mut Vec<Event>) {
    let at = |kind: &str| events.iter().position(|event| event.kind() == kind);
    match mutant {
        Mutant::ResumeStartsNothing => {
            if let Some(at) = at("LoopResumed") {
                events.truncate(at + 1);
            }
        }
        Mutant::RaiseLetsNothingGoOn
            if at("LimitsUpdated").is_some() && at("LoopResumed").is_some() =>
        {
            events.truncate(1);
        }
        Mutant::PauseDroppedByTheNextLoop if at("LoopStarted").is_some() => {
            events.retain(|event| !matches!(event, Event::LoopPaused(_)));
        }
        Mutant::PauseKeepsTheReservation => events.retain(|event| match event {
            Event::ModelCallAbandoned(e) => e.reason != AbandonReason::Paused,
            _ => true,
        }),
        _ => {}
    }
}

pub(super) fn shows_otherwise(mutant: Mutant) -> bool {
    [Mutant::MovedLimitsForgotten, Mutant::DeadlineDoesNotMove].contains(&mutant)
}

/// What the fold is shown instead.
pub(super) fn tamper_shown(mutant: Mutant, before: &State, events: &mut Vec<Event>) {
    if mutant == Mutant::MovedLimitsForgotten {
        events.retain(|event| !matches!(event, Event::LimitsUpdated(_)));
    }
    for event in events {
        if let Event::LimitsUpdated(e) = event {
            let moved = Limits {
                deadline_ms: before.limits.deadline_ms,
                ..(*e.limits).clone()
            };
            e.limits = Arc::new(moved);
        }
    }
}

/// The same, as though nobody had paused it.
pub(super) fn unpaused(state: &State) -> State {
    let mut state = state.clone();
    if let Some(active) = &mut state.active
        && active.rests()
    {
        active.paused = None;
    }
    state
}

fn limits(state: &mut State) -> &mut Limits {
    Arc::make_mut(&mut state.limits)
}
