//! Faults in what waits for a person, in what is unknown or late, and in copies.

use std::sync::Arc;

use loopwright_core::{
    Entry, Event, State, What,
    agent::{EffectClass, UnknownPolicy},
    event::{
        ApprovalOutcome, ToolCallCompleted, ToolCallFailed, ToolCallStarted, UnknownResolution,
    },
    outcome::ToolFailureKind,
    state::ToolPhase,
};

use crate::simulator::mutant::Mutant;

pub(super) fn tamper_terms(mutant: Mutant, state: &mut State, what: &What) {
    let attaches = matches!(what, What::Attach { .. });
    if mutant == Mutant::UnknownNeverAsked {
        Arc::make_mut(&mut state.limits).on_unknown = Some(UnknownPolicy::TellModel);
    } else if mutant == Mutant::ExpiryAllows {
        Arc::make_mut(&mut state.limits).approval_default_allow = true;
    }
    let Some(active) = &mut state.active else {
        return;
    };
    if mutant == Mutant::HoldTakesASlot {
        let held = active
            .tools
            .iter()
            .filter(|tool| tool.phase.waits_for_person())
            .count();
        let limits = Arc::make_mut(&mut state.limits);
        let held = u32::try_from(held).expect("few");
        limits.max_parallel_tool_calls = limits.max_parallel_tool_calls.saturating_sub(held);
    }
    for tool in &mut active.tools {
        match &mut tool.phase {
            ToolPhase::Asking if mutant == Mutant::AskingRetriedAfterCrash && attaches => {
                tool.effect = EffectClass::Idempotent;
                tool.phase = ToolPhase::Running;
            }
            ToolPhase::Held { until, .. } if mutant == Mutant::ExpiredAnswerAccepted => {
                if matches!(what, What::ResolveApproval { .. }) {
                    *until = None;
                }
            }
            ToolPhase::Waiting
            | ToolPhase::Held { .. }
            | ToolPhase::Running
            | ToolPhase::Backoff { .. }
            | ToolPhase::InDoubt { .. }
            | ToolPhase::Asking
            | ToolPhase::Ended(_) => {}
        }
    }
}

pub(super) fn tamper_input(mutant: Mutant, what: &mut What) {
    match (mutant, what) {
        (Mutant::DeniedRunsAnyway, What::ResolveApproval { allow, .. }) => *allow = true,
        (Mutant::DidNotHappenRunsAgain, What::ResolveUnknown { resolution, .. })
            if *resolution == UnknownResolution::DidNotHappen =>
        {
            *resolution = UnknownResolution::RunAgain;
        }
        (Mutant::ToolRetryAfterIgnored, What::ToolFailed { failure, .. }) => {
            failure.retry_after_ms = None;
        }
        _ => {}
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "each fault is in one kind of event"
)]
pub(super) fn tamper_events(mutant: Mutant, events: &mut Vec<Event>) {
    let closes = |e: &Event| matches!(e, Event::ApprovalResolved(e) if e.outcome == ApprovalOutcome::Cancelled);
    match mutant {
        Mutant::ApprovalNotClosedByCancel => events.retain(|e| !closes(e)),
        Mutant::LateResultDropped => {
            events.retain(|e| !matches!(e, Event::ToolCallResultLate(_)));
        }
        Mutant::RecoveryNotTold => events.retain(|e| !matches!(e, Event::LogRecovered(_))),
        Mutant::ForkLeavesTheLoopOpen => {
            if matches!(events.first(), Some(Event::SessionForked(_))) {
                events.truncate(1);
            }
        }
        _ => {}
    }
    let at = events.iter().find_map(|event| match event {
        Event::ApprovalRequested(e) => Some(e.at),
        _ => None,
    });
    for event in events {
        *event = match (mutant, &*event, at) {
            (Mutant::RepeatNotHeld, Event::ApprovalRequested(e), Some(at)) => ToolCallStarted {
                call: e.call,
                attempt: 1,
                at,
                deadline: None,
                sidecar_instance: String::new(),
            }
            .into(),
            (Mutant::LateResultEndsTheCall, Event::ToolCallResultLate(e), _) => ToolCallCompleted {
                call: e.call,
                attempt: e.attempt,
                output: Arc::clone(&e.output),
            }
            .into(),
            _ => continue,
        };
    }
}

pub(super) fn shows_otherwise(mutant: Mutant) -> bool {
    [
        Mutant::UnknownNotRemembered,
        Mutant::CancelledIsKnown,
        Mutant::LateResultNotTicked,
        Mutant::ForkKeepsItsMessages,
    ]
    .contains(&mutant)
}

/// What the fold is shown instead.
pub(super) fn tamper_shown(mutant: Mutant, before: &State, events: &mut Vec<Event>) {
    if mutant == Mutant::LateResultNotTicked {
        events.retain(|e| !matches!(e, Event::ToolCallResultLate(_)));
    }
    for event in events {
        match (mutant, &mut *event) {
            (Mutant::UnknownNotRemembered, Event::ToolCallUnknown(e))
                if e.policy != UnknownPolicy::Ask =>
            {
                let tool = before
                    .active
                    .as_ref()
                    .and_then(|active| active.tool(e.call));
                *event = ToolCallFailed {
                    call: e.call,
                    attempt: tool.map_or(1, |tool| tool.attempt),
                    kind: ToolFailureKind::Ambiguous,
                    message: e.message.clone(),
                    retry_at: None,
                    cause: None,
                }
                .into();
            }
            (Mutant::CancelledIsKnown, Event::UnknownResolved(e))
                if e.resolution == UnknownResolution::Cancelled =>
            {
                e.resolution = UnknownResolution::DidNotHappen;
            }
            _ => {}
        }
    }
}

pub(super) fn tamper_fold(mutant: Mutant, before: &State, state: &mut State, entry: &Entry) {
    let forks = entry
        .events
        .iter()
        .any(|e| matches!(e, Event::SessionForked(_)));
    if mutant == Mutant::ForkKeepsItsMessages && forks {
        state.pending.clone_from(&before.pending);
        state.queue.clone_from(&before.queue);
    }
}
