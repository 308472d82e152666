//! A loop is paused and goes on, by a client's word or by a budget; and its limits are moved.
//!
//! Invariant: while a loop rests nothing of it starts. What ran when it was paused ends, and is
//! written down; what that leads to waits.

use std::sync::Arc;

use super::{Draft, budget, cancel, landing, message, recap, step, tool};
use crate::{
    agent::LimitsChange,
    budget::Dimension,
    event::{LimitsUpdated, LoopPaused, LoopResumed},
    ids::LoopId,
    input::Command,
    ledger::OnExhausted,
    outcome::{AbandonReason, EndReason, WaitsFor},
    rejection::Rejection,
    state::{LoopRun, ModelPhase},
};

/// A client pauses the loop.
pub(super) fn pause(
    draft: &mut Draft,
    by: Command,
    guard: Option<LoopId>,
) -> Result<(), Rejection> {
    let Some(active) = running(draft, &by, guard)? else {
        return Ok(());
    };
    let running = active.id;
    if let Some(WaitsFor::Client { by }) = &active.paused {
        let by = by.clone();
        return Err(Rejection::AlreadyPaused { running, by });
    }
    give_up_reserving(draft);
    let waits_for = WaitsFor::Client { by: by.principal };
    draft.emit(LoopPaused {
        id: running,
        waits_for,
        at: draft.at,
    });
    Ok(())
}

/// A client lets the loop go on.
pub(super) fn resume(
    draft: &mut Draft,
    by: Command,
    guard: Option<LoopId>,
) -> Result<(), Rejection> {
    let Some(active) = running(draft, &by, guard)? else {
        return Ok(());
    };
    let running = active.id;
    let waited = active.paused.clone();
    if !active.rests() {
        let budget = match waited {
            Some(WaitsFor::Budget { budget, .. }) => Some(budget),
            Some(WaitsFor::Client { .. } | WaitsFor::Limit { .. }) | None => None,
        };
        return Err(Rejection::NotPaused { running, budget });
    }
    draft.emit(LoopResumed {
        id: running,
        by: by.principal,
        at: draft.at,
    });
    proceed(draft);
    match (waited, paused(draft)) {
        // Nothing is written of a loop that would wait for the same again.
        (Some(WaitsFor::Limit { .. }), Some(WaitsFor::Limit { budget, short })) => {
            Err(Rejection::StillShort {
                running,
                budget: budget.clone(),
                short: *short,
            })
        }
        _ => Ok(()),
    }
}

/// A client moves limits of the loop.
pub(super) fn update_limits(
    draft: &mut Draft,
    by: Command,
    guard: Option<LoopId>,
    change: &LimitsChange,
) -> Result<(), Rejection> {
    let Some(active) = running(draft, &by, guard)? else {
        return Ok(());
    };
    let id = active.id;
    draft.emit(LimitsUpdated {
        id,
        limits: Arc::new(change.of(&draft.state.limits)),
        by: by.principal,
    });
    budget::reserve_running(draft);
    budget::warn(draft);
    match paused(draft) {
        Some(WaitsFor::Client { .. }) => {}
        Some(WaitsFor::Limit { .. }) => resume_if_covered(draft, id),
        Some(WaitsFor::Budget { .. }) | None => go_on_within(draft),
    }
    Ok(())
}

/// The loop's own or its session's budget does not cover what comes next: the loop waits until it
/// does, or comes down: by one last call, where something was held back for it, or at once.
pub(super) fn exhausted(draft: &mut Draft, reason: EndReason) {
    if !waits(draft, &reason) {
        landing::land(draft, reason);
    }
}

/// Whether the loop waits at its limit, rather than that it ends for this reason.
pub(super) fn waits(draft: &mut Draft, reason: &EndReason) -> bool {
    let may = draft.state.limits.on_exhausted == OnExhausted::Pause && !draft.state.concludes();
    let Some(waits_for) = WaitsFor::limit(reason).filter(|_| may) else {
        return false;
    };
    match waits_for {
        // No call of a model outlives the time that there is for it.
        WaitsFor::Limit { short, .. } if short.dimension == Dimension::WallTimeMs => {
            give_up_call(draft);
        }
        WaitsFor::Limit { .. } | WaitsFor::Client { .. } | WaitsFor::Budget { .. } => {
            give_up_reserving(draft);
        }
    }
    if let Some(active) = &draft.state.active {
        let (id, at) = (active.id, draft.at);
        draft.emit(LoopPaused { id, waits_for, at });
    }
    true
}

/// Goes on where the loop's limits cover its next step now; else it waits as before.
fn resume_if_covered(draft: &mut Draft, id: LoopId) {
    let (state, events) = (draft.state.clone(), draft.events.len());
    let (by, at) = (String::new(), draft.at);
    draft.emit(LoopResumed { id, by, at });
    proceed(draft);
    if matches!(paused(draft), Some(WaitsFor::Limit { .. })) {
        draft.state = state;
        draft.events.truncate(events);
    }
}

/// A loop that does not rest takes up what its limits allow by now.
fn go_on_within(draft: &mut Draft) {
    let open = draft.state.active.as_ref();
    if is_reserving(draft) {
        // What named budgets were asked for is not what would be asked for now.
        give_up_reserving(draft);
        proceed(draft);
    } else if open.is_some_and(|active| !active.tools.is_empty()) {
        tool::go_on(draft);
    }
}

/// The time of the loop, or of its session, is up: its timer says so, or somebody notices.
pub(super) fn time_is_up(draft: &mut Draft) {
    if let Some(reason) = budget::out_of_time(draft) {
        exhausted(draft, reason);
    }
}

/// Takes up what waited while the loop rested.
fn proceed(draft: &mut Draft) {
    if let Some(reason) = budget::out_of_time(draft) {
        return exhausted(draft, reason);
    }
    let Some(active) = &draft.state.active else {
        return;
    };
    let Some(model) = &active.model else {
        return tool::go_on(draft);
    };
    let (call, next) = (model.call, model.attempt.saturating_add(1));
    match model.phase {
        ModelPhase::Running { .. } | ModelPhase::Reserving => {}
        ModelPhase::Backoff { until } if until <= draft.at => {
            step::start_call(draft, call, model.attempt);
        }
        // Its timer is wanted again.
        ModelPhase::Backoff { .. } => {}
        // No attempt was ever made, so that the messages that waited for it wait still.
        ModelPhase::Abandoned if model.first_at.is_none() => step::next(draft),
        ModelPhase::Abandoned => match model.recap {
            Some(ask) => recap::again(draft, call, next, ask),
            None => step::start_call(draft, call, next),
        },
    }
}

/// The call of a model that is made or asked for is given up; one that waits to be tried again waits on.
fn give_up_call(draft: &mut Draft) {
    if is_reserving(draft) {
        return give_up_reserving(draft);
    }
    let active = draft.state.active.as_ref();
    let model = active.and_then(|active| active.model.as_ref());
    if model.is_some_and(|model| matches!(model.phase, ModelPhase::Running { .. })) {
        cancel::abandon_model(draft, AbandonReason::Deadline);
    }
}

/// Named budgets are not asked for a call that is not made now.
fn give_up_reserving(draft: &mut Draft) {
    if is_reserving(draft) {
        cancel::abandon_model(draft, AbandonReason::Paused);
    }
}

fn is_reserving(draft: &Draft) -> bool {
    let active = draft.state.active.as_ref();
    let model = active.and_then(|active| active.model.as_ref());
    model.is_some_and(|model| model.phase == ModelPhase::Reserving)
}

fn paused(draft: &Draft) -> Option<&WaitsFor> {
    draft.state.active.as_ref()?.paused.as_ref()
}

/// The loop that a command is about; none where the command was answered already.
fn running<'a>(
    draft: &'a Draft,
    by: &Command,
    guard: Option<LoopId>,
) -> Result<Option<&'a LoopRun>, Rejection> {
    message::exists(draft)?;
    if draft.is_answered(&by.request_id) {
        return Ok(None);
    }
    let Some(active) = &draft.state.active else {
        return Err(Rejection::NoLoopRunning);
    };
    message::check_guard(guard, Some(active.id))?;
    Ok(Some(active))
}
