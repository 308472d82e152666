//! Giving up: what is running is abandoned or cancelled, and every call still gets its one end.

use super::{Draft, budget, message::check_guard, step};
use crate::{
    event::{ModelCallAbandoned, ToolCallCancelled},
    ids::LoopId,
    input::Command,
    outcome::{AbandonReason, EndReason},
    rejection::Rejection,
    state::{ModelPhase, ToolPhase},
};

pub(super) fn cancel(
    draft: &mut Draft,
    by: Command,
    guard: Option<LoopId>,
    reason: String,
) -> Result<(), Rejection> {
    if draft.state.session.is_none() {
        return Err(Rejection::SessionNotFound);
    }
    if draft.is_answered(&by.request_id) {
        return Ok(());
    }
    let running = draft.state.active.as_ref().map(|active| active.id);
    if running.is_none() {
        return Err(Rejection::NoLoopRunning);
    }
    check_guard(guard, running)?;
    step::end(
        draft,
        EndReason::Cancelled {
            by: by.principal,
            reason,
        },
    );
    Ok(())
}

/// Gives up the model call that is under way: its text does not count, its tokens do.
pub(super) fn abandon_model(draft: &mut Draft, reason: AbandonReason) {
    let Some(model) = draft
        .state
        .active
        .as_ref()
        .and_then(|active| active.model.clone())
    else {
        return;
    };
    let (call, attempt) = (model.call, model.attempt);
    match model.phase {
        ModelPhase::Running { .. } => {
            draft.emit(ModelCallAbandoned {
                call,
                attempt,
                reason,
            });
            budget::settle(draft, call, attempt, None, true);
        }
        ModelPhase::Reserving => {
            draft.emit(ModelCallAbandoned {
                call,
                attempt,
                reason,
            });
            budget::release(draft, call, attempt);
        }
        ModelPhase::Backoff { .. } => {
            draft.emit(ModelCallAbandoned {
                call,
                attempt,
                reason,
            });
        }
        ModelPhase::Abandoned => {}
    }
}

/// Cancels every open tool call of the step.
pub(super) fn cancel_tools(draft: &mut Draft) {
    let Some(active) = &draft.state.active else {
        return;
    };
    let open: Vec<_> = active
        .tools
        .iter()
        .filter(|tool| !tool.phase.has_ended())
        .map(|tool| (tool.call, tool.phase != ToolPhase::Waiting))
        .collect();
    for (call, dispatched) in open {
        draft.emit(ToolCallCancelled { call, dispatched });
    }
}
