//! Tool calls: checked, dispatched within the limits, repeated where that is safe.

use std::sync::Arc;

use super::{Draft, approval, budget, control, step, unknown};
use crate::{
    agent::EffectClass,
    event::{
        RejectReason, ToolCallCompleted, ToolCallFailed, ToolCallRejected, ToolCallRequested,
        ToolCallResultLate, ToolCallStarted,
    },
    ids::{Attempt, CallId, Timestamp},
    message::{CallPart, Part, ToolOutput},
    outcome::{ToolFailure, ToolFailureKind, Verdict},
    retry::Failed,
    state::{ToolCall, ToolPhase},
};

/// What a model is told of a call that the edge gave no verdict on.
const UNCHECKED: &str = "The arguments could not be checked, so this call was not made.";

/// Writes down every call that the reply asks for.
pub(super) fn request(draft: &mut Draft, parts: &[Part], verdicts: &[Verdict]) {
    let asked = parts
        .iter()
        .filter(|part| matches!(part, Part::ToolCall(_)))
        .count();
    let first = draft
        .state
        .next_call
        .saturating_sub(u32::try_from(asked).unwrap_or(u32::MAX));
    for (at, (index, _)) in calls_of(parts).enumerate() {
        draft.emit(ToolCallRequested {
            call: CallId(first.saturating_add(u32::try_from(at).unwrap_or(u32::MAX))),
            index,
            args_hash: verdicts
                .get(at)
                .map(|v| v.args_hash.clone())
                .unwrap_or_default(),
        });
    }
}

/// Refuses every open call of the reply.
pub(super) fn reject_all(draft: &mut Draft, reason: RejectReason, message: &str) {
    for call in waiting(draft) {
        draft.emit(ToolCallRejected {
            call,
            reason,
            message: message.to_owned(),
        });
    }
}

/// Why a call may not run, and what the model is told.
pub(super) type Refused = (RejectReason, String);

/// For each call that the reply asks for, in order, why it may not run; `None` where it may.
pub(super) fn check(draft: &Draft, parts: &[Part], verdicts: &[Verdict]) -> Vec<Option<Refused>> {
    let Some(active) = &draft.state.active else {
        return Vec::new();
    };
    let mut per_name = (*active.per_name).clone();
    let mut counts = Counts {
        of_name: 0,
        of_reply: 0,
        granted: active.tools_granted,
    };
    let mut checked = Vec::new();
    for (at, (_, part)) in calls_of(parts).enumerate() {
        let invalid = verdicts
            .get(at)
            .map_or(Some(UNCHECKED), |verdict| verdict.invalid.as_deref());
        let of_name = per_name.entry(Arc::from(part.tool.as_str())).or_default();
        counts.of_name = *of_name;
        let refused = refusal(draft, part, invalid, counts);
        if refused.is_none() {
            *of_name = of_name.saturating_add(1);
            counts.of_reply = counts.of_reply.saturating_add(1);
        }
        checked.push(refused);
    }
    checked
}

/// Refuses the calls of the reply that may not run, dispatches the rest.
pub(super) fn refuse_and_dispatch(draft: &mut Draft, checked: Vec<Option<Refused>>) {
    for (call, refused) in waiting(draft).into_iter().zip(checked) {
        if let Some((reason, message)) = refused {
            draft.emit(ToolCallRejected {
                call,
                reason,
                message,
            });
        }
    }
    go_on(draft);
}

/// What was let through before a call.
#[derive(Clone, Copy)]
struct Counts {
    /// Of its tool, in the loop.
    of_name: u32,
    /// Of its reply.
    of_reply: u64,
    /// What shared budgets let through of the reply, where they limit it.
    granted: Option<u64>,
}

fn refusal(
    draft: &Draft,
    part: &CallPart,
    invalid: Option<&str>,
    counts: Counts,
) -> Option<Refused> {
    if draft.state.tools.get(&part.tool).is_none() {
        let message = format!("There is no tool named `{}`.", part.tool);
        return Some((RejectReason::UnknownTool, message));
    }
    if let Some(problem) = invalid {
        return Some((RejectReason::InvalidArguments, problem.to_owned()));
    }
    if let Some(refused) = over_cap(draft, &part.tool, counts.of_name, counts.of_reply) {
        return Some(refused);
    }
    match counts.granted.filter(|&granted| counts.of_reply >= granted) {
        None => None,
        Some(0) => {
            let message = "The shared budget of tool calls is used up.".to_owned();
            Some((RejectReason::Budget, message))
        }
        // What is left is shared with other loops: the next step may get more of it.
        Some(granted) => {
            let message = format!(
                "The shared budget of tool calls let {granted} of this reply through. Make this \
                 call again if it is still needed."
            );
            Some((RejectReason::TooManyCalls, message))
        }
    }
}

/// Why no further call of a tool is dispatched, after so many of its name in this loop, and so many
/// of any that are to be.
fn over_cap(draft: &Draft, tool: &str, of_name: u32, let_through: u64) -> Option<Refused> {
    let limit = draft.state.limits.max_tool_calls_per_name;
    if let Some(limit) = limit.filter(|&limit| of_name >= limit) {
        let message = format!("`{tool}` was called {limit} times, as often as allowed.");
        return Some((RejectReason::TooManyCalls, message));
    }
    let (_, short) = draft.state.tool_shortfall_after(let_through)?;
    let limit = short.limit;
    let message = format!("The budget of {limit} tool calls is used up.");
    Some((RejectReason::Budget, message))
}

/// Why a call that was let through may not be dispatched after all: limits may have moved since.
fn over_moved_cap(draft: &Draft, call: CallId) -> Option<Refused> {
    let active = draft.state.active.as_ref()?;
    let tool = active.tool(call).filter(|tool| tool.attempt == 0)?;
    let name = active.tool_name(tool);
    let of_name = active.per_name.get(name).copied().unwrap_or_default();
    over_cap(draft, name, of_name, 0)
}

/// Fills the free slots in call order; once every call has ended, goes on to the next step. Of a loop
/// that rests persons alone are asked.
pub(super) fn go_on(draft: &mut Draft) {
    approval::hold_repeats(draft);
    let Some(active) = draft.state.active.as_ref().filter(|a| !a.rests()) else {
        return;
    };
    if active.tools.is_empty() && active.model.is_none() {
        return step::next(draft);
    }
    if let Some(reason) = budget::out_of_time(draft) {
        return control::exhausted(draft, reason);
    }
    let limit = draft.state.limits.max_parallel_tool_calls.max(1) as usize;
    let busy = active.tools.iter().filter(|t| t.phase.takes_slot()).count();
    for call in waiting(draft).into_iter().take(limit.saturating_sub(busy)) {
        let tool = draft.state.active.as_ref().and_then(|a| a.tool(call));
        // A call that runs again by a person's word has been tried before.
        let attempt = tool.map_or(0, |tool| tool.attempt).saturating_add(1);
        if let Some((reason, message)) = over_moved_cap(draft, call) {
            draft.emit(ToolCallRejected {
                call,
                reason,
                message,
            });
            // Its slot is free for the next one; it may have been the last.
            return go_on(draft);
        }
        license(draft, call, attempt);
    }
}

/// Writes the licence of one attempt.
pub(super) fn license(draft: &mut Draft, call: CallId, attempt: Attempt) {
    let active = draft.state.active.as_ref();
    let name = active.and_then(|active| Some(active.tool_name(active.tool(call)?)));
    let spec = name.and_then(|name| draft.state.tools.get(name));
    let deadline = spec.map(|spec| draft.at.plus(spec.timeout_ms));
    let asked = spec.filter(|spec| spec.lookup);
    let sidecar_instance = asked
        .map(|spec| draft.instances.of(call, attempt, &spec.name).to_owned())
        .unwrap_or_default();
    draft.emit(ToolCallStarted {
        call,
        attempt,
        at: draft.at,
        deadline,
        sidecar_instance,
    });
    if attempt == 1 {
        budget::warn(draft);
    }
}

pub(super) fn completed(
    draft: &mut Draft,
    call: CallId,
    attempt: Attempt,
    output: Arc<ToolOutput>,
) {
    if awaits_result(draft, call, attempt) {
        draft.emit(ToolCallCompleted {
            call,
            attempt,
            output,
        });
        go_on(draft);
    } else if draft.state.ended_without_result(call, attempt) {
        draft.emit(ToolCallResultLate {
            call,
            attempt,
            output,
        });
    }
}

pub(super) fn failed(
    draft: &mut Draft,
    call: CallId,
    attempt: Attempt,
    failure: ToolFailure,
    jitter: u32,
) {
    let Some(tool) = running(draft, call, attempt) else {
        return;
    };
    let ToolFailure {
        kind,
        message,
        retryable,
        retry_after_ms,
        cause,
    } = failure;
    // That a later attempt surely did not run says nothing of an earlier one that may have.
    let kind = if tool.may_have_run {
        ToolFailureKind::Ambiguous
    } else {
        kind
    };
    let due = draft.state.limits.retry.next(Failed {
        failures: tool.failures.saturating_add(1),
        first_at: tool.first_at.unwrap_or(draft.at),
        at: draft.at,
        retry_after_ms,
        jitter,
    });
    let retry_at = match kind {
        ToolFailureKind::NotExecuted => due.filter(|_| retryable),
        ToolFailureKind::Ambiguous if may_repeat(&tool, due.unwrap_or(draft.at)) => due,
        ToolFailureKind::Ambiguous => return unknown::doubt(draft, &tool, message, true),
    };
    draft.emit(ToolCallFailed {
        call,
        attempt,
        kind,
        message,
        retry_at,
        cause,
    });
    go_on(draft);
}

/// The next attempt is due: it starts, unless by now it could do harm.
pub(super) fn retry(draft: &mut Draft, call: CallId) {
    let tool = draft
        .state
        .active
        .as_ref()
        .and_then(|active| active.tool(call))
        .cloned();
    let Some(tool) = tool else { return };
    if let Some(reason) = budget::out_of_time(draft) {
        return control::exhausted(draft, reason);
    }
    if tool.may_have_run && !may_repeat(&tool, draft.at) {
        let message = "the tool no longer recognises a repeat of the call";
        let last = ToolCall {
            attempt: tool.attempt.saturating_sub(1),
            ..tool
        };
        // The failure is counted already.
        return unknown::doubt(draft, &last, message.to_owned(), false);
    }
    license(draft, call, tool.attempt);
}

/// A driver took over while this call was running: it runs again where that is safe, and where its
/// loop rests, once that goes on.
pub(super) fn resume(draft: &mut Draft, tool: &ToolCall) {
    if may_repeat(tool, draft.at) {
        if step::rests(draft) {
            return;
        }
        license(draft, tool.call, tool.attempt.saturating_add(1));
    } else {
        let message = "the server stopped while the call was running".to_owned();
        unknown::doubt(draft, tool, message, false);
    }
}

/// Whether running the call again at `when` cannot do harm.
fn may_repeat(tool: &ToolCall, when: Timestamp) -> bool {
    match tool.effect {
        EffectClass::ReadOnly | EffectClass::Idempotent => true,
        EffectClass::Deduplicated { retention_ms } => {
            when.since(tool.first_at.unwrap_or(when)) < retention_ms
        }
        EffectClass::AtMostOnce => false,
    }
}

/// Requested calls that have not been dispatched, in call order.
fn waiting(draft: &Draft) -> Vec<CallId> {
    let Some(active) = &draft.state.active else {
        return Vec::new();
    };
    let is_waiting = |tool: &&ToolCall| tool.phase == ToolPhase::Waiting;
    active
        .tools
        .iter()
        .filter(is_waiting)
        .map(|tool| tool.call)
        .collect()
}

/// The tool calls among `parts`, with their places.
fn calls_of(parts: &[Part]) -> impl Iterator<Item = (u32, &CallPart)> {
    parts
        .iter()
        .enumerate()
        .filter_map(|(at, part)| match part {
            Part::ToolCall(call) => Some((u32::try_from(at).unwrap_or(u32::MAX), call)),
            Part::Text(_) | Part::Thinking(_) | Part::Opaque(_) | Part::Blob(_) => None,
        })
}

/// Whether the result of exactly this attempt is what the call still needs: it runs, or nobody knows
/// yet what became of it.
fn awaits_result(draft: &Draft, call: CallId, attempt: Attempt) -> bool {
    let active = draft.state.active.as_ref();
    let tool = active.and_then(|active| active.tool(call));
    tool.is_some_and(|tool| {
        tool.attempt == attempt
            && matches!(
                tool.phase,
                ToolPhase::Running | ToolPhase::InDoubt { .. } | ToolPhase::Asking
            )
    })
}

/// The tool call, if exactly this attempt of it is licensed to run.
fn running(draft: &Draft, call: CallId, attempt: Attempt) -> Option<ToolCall> {
    let tool = draft.state.active.as_ref()?.tool(call)?;
    (tool.attempt == attempt && tool.phase == ToolPhase::Running).then(|| tool.clone())
}
