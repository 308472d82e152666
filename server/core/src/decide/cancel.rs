//! Giving up: what is running is abandoned or cancelled, and every call still gets its one end.

use super::{Draft, budget, message::check_guard, step};
use crate::{
    event::{
        ApprovalOutcome, ApprovalResolved, ModelCallAbandoned, ToolCallCancelled,
        UnknownResolution, UnknownResolved,
    },
    ids::LoopId,
    input::Command,
    outcome::{AbandonReason, EndReason},
    rejection::Rejection,
    state::{ModelPhase, ToolCall, ToolPhase},
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
            let ended = budget::Ended {
                may_have_run: true,
                price: model.recap.and_then(|_| draft.state.recap_price()),
                ..budget::Ended::default()
            };
            budget::settle(draft, call, attempt, ended);
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

/// Cancels every open tool call of the step, and what a person was asked of it.
pub(super) fn cancel_tools(draft: &mut Draft) {
    let Some(active) = &draft.state.active else {
        return;
    };
    let is_open = |tool: &&ToolCall| !tool.phase.has_ended();
    let open: Vec<_> = active.tools.iter().filter(is_open).cloned().collect();
    for tool in open {
        let (call, at) = (tool.call, draft.at);
        let (by, reason) = (String::new(), String::new());
        match tool.phase {
            ToolPhase::Asking => {
                draft.emit(UnknownResolved {
                    call,
                    resolution: UnknownResolution::Cancelled,
                    output: None,
                    at,
                    by,
                    reason,
                });
                continue;
            }
            ToolPhase::Held { .. } => draft.emit(ApprovalResolved {
                call,
                outcome: ApprovalOutcome::Cancelled,
                allowed: false,
                at,
                by,
                reason,
            }),
            ToolPhase::Waiting
            | ToolPhase::Running
            | ToolPhase::Backoff { .. }
            | ToolPhase::InDoubt { .. }
            | ToolPhase::Ended(_) => {}
        }
        let dispatched = tool.attempt > 0;
        draft.emit(ToolCallCancelled { call, dispatched });
    }
}
