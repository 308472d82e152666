//! A driver takes the session, at its first start, after a crash, or from another replica: one path.

use std::sync::Arc;

use super::{Draft, budget, cancel, control, recap, step, tool};
use crate::{
    agent::ToolSet,
    event::{DriverAttached, DriverDetached, LogRecovered, ToolsChanged},
    ids::Epoch,
    outcome::AbandonReason,
    rejection::Rejection,
    state::{ModelCall, ModelPhase, ToolCall, ToolPhase},
};

pub(super) fn attach(
    draft: &mut Draft,
    epoch: Epoch,
    cut_bytes: Option<u64>,
    server: String,
) -> Result<(), Rejection> {
    if epoch != draft.state.epoch.saturating_add(1) {
        return Err(Rejection::StaleEpoch {
            epoch,
            current: draft.state.epoch,
        });
    }
    if let Some(cut_bytes) = cut_bytes {
        draft.emit(LogRecovered { cut_bytes });
    }
    let ran = running_tools(draft);
    let late = step::is_late(draft).then_some(step::LATE);
    let mut over = late.or_else(|| budget::out_of_time(draft));
    // Before the driver attaches: of a loop that rests nothing is made again.
    over = over.filter(|reason| !control::waits(draft, reason));
    draft.emit(DriverAttached { epoch, server });
    if let Some(reason) = over {
        // What ran is given up at once, and not made again just to be given up.
        step::end(draft, reason);
        return Ok(());
    }
    resume_model(draft);
    resume_tools(draft, ran);
    Ok(())
}

/// The call that the last driver had under way cannot be joined: it is made again, once the loop does
/// not rest.
fn resume_model(draft: &mut Draft) {
    let Some(model) = draft
        .state
        .active
        .as_ref()
        .and_then(|active| active.model.clone())
    else {
        return;
    };
    match model.phase {
        ModelPhase::Running { .. } | ModelPhase::Abandoned => {
            cancel::abandon_model(draft, AbandonReason::DriverLost);
            if let Some(ask) = model.recap {
                return recap::again(draft, model.call, model.attempt.saturating_add(1), ask);
            }
            step::start_call(draft, model.call, model.attempt.saturating_add(1));
        }
        // The ledger knows the reservation by its key, and the timer is set again.
        ModelPhase::Reserving | ModelPhase::Backoff { .. } => {}
    }
}

fn running_tools(draft: &Draft) -> Vec<ToolCall> {
    let is_running = |tool: &&ToolCall| tool.phase == ToolPhase::Running;
    let active = draft.state.active.iter();
    let tools = active.flat_map(|active| &active.tools);
    tools.filter(is_running).cloned().collect()
}

fn resume_tools(draft: &mut Draft, ran: Vec<ToolCall>) {
    for call in ran {
        // A call before it may have ended the loop.
        if draft.state.active.is_some() {
            tool::resume(draft, &call);
        }
    }
}

pub(super) fn detach(draft: &mut Draft) {
    if draft.state.epoch > 0 {
        draft.emit(DriverDetached {});
    }
}

pub(super) fn tools_changed(draft: &mut Draft, tools: Arc<ToolSet>) {
    if tools == draft.state.tools {
        return;
    }
    draft.emit(ToolsChanged { tools });
    let model = draft
        .state
        .active
        .as_ref()
        .and_then(|active| active.model.as_ref());
    // A recap's prompt names no tools.
    let of_step = |model: &&ModelCall| model.recap.is_none();
    if model
        .filter(of_step)
        .is_some_and(|model| model.phase == ModelPhase::Reserving)
    {
        // What named budgets are asked for would not cover the prompt with these tools.
        cancel::abandon_model(draft, AbandonReason::Interrupted);
        step::next(draft);
    }
}
