//! Sessions, loops and messages: what clients ask for.

use super::{Draft, cancel, recap, step};
use crate::{
    context::RecapFallback,
    event::{LoopPaused, LoopStarted, MessageAdded, Origin, SessionCreated, ToolsChanged},
    ids::LoopId,
    input::{Create, Mode, SendMessage, StartLoop},
    outcome::{AbandonReason, WaitsFor},
    rejection::Rejection,
};

pub(super) fn create(draft: &mut Draft, create: Create) -> Result<(), Rejection> {
    if draft.state.session.is_some() {
        return Err(Rejection::SessionExists {
            session: create.session,
        });
    }
    draft.emit(SessionCreated {
        session: create.session,
        namespace: create.namespace,
        at: draft.at,
        agent: create.agent,
        limits: create.limits,
        labels: create.labels,
    });
    if !create.tools.is_empty() {
        draft.emit(ToolsChanged {
            tools: create.tools,
        });
    }
    Ok(())
}

pub(super) fn start_loop(draft: &mut Draft, start: StartLoop) -> Result<(), Rejection> {
    exists(draft)?;
    if draft.is_answered(&start.by.request_id) {
        return Ok(());
    }
    if let Some(active) = &draft.state.active {
        return Err(Rejection::LoopRunning { running: active.id });
    }
    has_room(draft)?;
    draft.emit(MessageAdded {
        origin: Origin::User,
        parts: start.parts,
        nudge: None,
    });
    let agent = start.agent.filter(|agent| *agent != draft.state.agent);
    let limits = start.limits.filter(|limits| *limits != draft.state.limits);
    draft.emit(LoopStarted {
        id: LoopId(draft.state.next_loop),
        at: draft.at,
        traceparent: start.traceparent,
        agent,
        limits,
    });
    step::next(draft);
    Ok(())
}

pub(super) fn send(draft: &mut Draft, message: SendMessage) -> Result<(), Rejection> {
    exists(draft)?;
    if draft.is_answered(&message.by.request_id) {
        return Ok(());
    }
    let running = draft.state.active.as_ref().map(|active| active.id);
    // The last loop too: what was meant for it when it had just ended starts the next one.
    check_guard(message.guard, running.or(last_loop(draft)))?;
    if running.is_none() {
        return start_loop(
            draft,
            StartLoop {
                by: message.by,
                parts: message.parts,
                agent: message.agent,
                limits: message.limits,
                traceparent: message.traceparent,
            },
        );
    }
    has_room(draft)?;
    let origin = match message.mode {
        Mode::Queue => Origin::Queue,
        Mode::Steer | Mode::Interrupt => Origin::Steer,
    };
    draft.emit(MessageAdded {
        origin,
        parts: message.parts,
        nudge: None,
    });
    let calling = draft
        .state
        .active
        .as_ref()
        .is_some_and(|active| active.model.is_some());
    if message.mode == Mode::Interrupt
        && let Some(ask) = recap::open(draft)
    {
        recap::give_up(draft, ask, RecapFallback::Interrupted);
    } else if message.mode == Mode::Interrupt && calling {
        cancel::abandon_model(draft, AbandonReason::Interrupted);
        step::next(draft);
    }
    Ok(())
}

/// Starts the loop of the first queued message, where one waits. A client that paused the loop before
/// it has paused this one.
pub(super) fn start_queued(draft: &mut Draft, paused: Option<WaitsFor>) {
    if draft.state.queue.is_empty() && draft.state.pending.is_empty() {
        return;
    }
    let traceparent = None;
    let id = LoopId(draft.state.next_loop);
    draft.emit(LoopStarted {
        id,
        at: draft.at,
        traceparent,
        agent: None,
        limits: None,
    });
    if let Some(waits_for @ WaitsFor::Client { .. }) = paused {
        let at = draft.at;
        draft.emit(LoopPaused { id, waits_for, at });
    }
    step::next(draft);
}

/// One more message may wait to be taken up: a loop that did not complete has left its own behind.
fn has_room(draft: &Draft) -> Result<(), Rejection> {
    let limit = draft.state.limits.max_waiting_messages;
    let waiting = draft.state.pending.len() + draft.state.queue.len();
    if waiting >= limit as usize {
        return Err(Rejection::TooManyMessages { limit });
    }
    Ok(())
}

fn last_loop(draft: &Draft) -> Option<LoopId> {
    draft.state.ended.back().map(|ended| ended.id)
}

pub(super) fn exists(draft: &Draft) -> Result<(), Rejection> {
    if draft.state.session.is_none() {
        return Err(Rejection::SessionNotFound);
    }
    Ok(())
}

pub(super) fn check_guard(guard: Option<LoopId>, running: Option<LoopId>) -> Result<(), Rejection> {
    match (guard, running) {
        (None, _) => Ok(()),
        (Some(_), None) => Err(Rejection::NoLoopRunning),
        (Some(named), Some(running)) if named == running => Ok(()),
        (Some(named), Some(running)) => Err(Rejection::LoopMismatch { named, running }),
    }
}
