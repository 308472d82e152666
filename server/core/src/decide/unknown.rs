//! Calls that may have run and must not run again: their sidecar is asked, then policy decides, then
//! perhaps a person.

use std::sync::Arc;

use super::{
    Draft,
    approval::{asked_about, in_words},
    budget, control, step, tool,
};
use crate::{
    agent::UnknownPolicy,
    event::{
        ToolCallCompleted, ToolCallFailed, ToolCallInDoubt, ToolCallUnknown, UnknownResolution,
        UnknownResolved,
    },
    ids::{CallId, LoopId},
    input::Command,
    message::{ToolOutput, clamp},
    outcome::{EndReason, LookupAnswer, ToolFailureKind},
    rejection::Rejection,
    retry::{Failed, JITTER_ONE},
    state::{ToolCall, ToolPhase},
};

/// What a model is told of a call whose outcome nobody knows.
const UNKNOWN: &str = "It is not known whether this call ran: the connection to the tool was lost \
                       and the call must not be repeated. Do not assume either outcome.";

/// Most of a sidecar's words on an unknown outcome that is passed on, bytes.
const WHY_BYTES: usize = 1024;

/// What a person says became of a call.
pub(super) struct Resolved {
    pub(super) resolution: UnknownResolution,
    pub(super) output: Option<Arc<ToolOutput>>,
    pub(super) reason: String,
}

/// Nobody saw the end of an attempt that must not be repeated. `failed` where it failed just now,
/// rather than its driver was lost.
pub(super) fn doubt(draft: &mut Draft, tool: &ToolCall, message: String, failed: bool) {
    let lookup = spec_of(draft, tool).is_some_and(|spec| spec.lookup);
    draft.emit(ToolCallInDoubt {
        call: tool.call,
        attempt: tool.attempt,
        message,
        failed,
    });
    if !lookup {
        unknown(draft, tool, "");
    }
}

/// The sidecar says what became of a call.
pub(super) fn looked_up(draft: &mut Draft, call: CallId, answer: LookupAnswer) {
    let tool = draft
        .state
        .active
        .as_ref()
        .and_then(|active| active.tool(call))
        .cloned();
    let Some(tool) = tool else { return };
    let ToolPhase::InDoubt { failed } = tool.phase else {
        return;
    };
    let attempt = tool.attempt;
    match answer {
        LookupAnswer::Completed(output) => draft.emit(ToolCallCompleted {
            call,
            attempt,
            output,
        }),
        LookupAnswer::NeverStarted if failed => never_ran(draft, &tool),
        // The attempt was lost with its driver, by no fault of its own.
        LookupAnswer::NeverStarted if step::rests(draft) => due_again(draft, &tool),
        LookupAnswer::NeverStarted if budget::out_of_time(draft).is_some() => {
            due_again(draft, &tool);
            control::time_is_up(draft);
        }
        LookupAnswer::NeverStarted => tool::license(draft, call, attempt.saturating_add(1)),
        LookupAnswer::NotKnown(why) => return unknown(draft, &tool, &why),
    }
    tool::go_on(draft);
}

/// A failed attempt turns out not to have run: it is repeated as such failures are.
fn never_ran(draft: &mut Draft, tool: &ToolCall) {
    let retry_at = draft.state.limits.retry.next(Failed {
        failures: tool.failures.saturating_add(1),
        first_at: tool.first_at.unwrap_or(draft.at),
        at: draft.at,
        retry_after_ms: None,
        jitter: JITTER_ONE,
    });
    draft.emit(ToolCallFailed {
        call: tool.call,
        attempt: tool.attempt,
        kind: ToolFailureKind::NotExecuted,
        message: "the attempt failed, and its sidecar says that the call never started".to_owned(),
        retry_at,
        cause: None,
    });
}

/// An attempt that never started is made again when its loop no longer rests.
fn due_again(draft: &mut Draft, tool: &ToolCall) {
    draft.emit(ToolCallFailed {
        call: tool.call,
        attempt: tool.attempt,
        kind: ToolFailureKind::NotExecuted,
        message: "the attempt was lost with its server, and its sidecar says that the call never \
                  started"
            .to_owned(),
        retry_at: Some(draft.at),
        cause: None,
    });
}

/// Nobody can say what became of the call; `why` in its sidecar's words, where it was asked.
fn unknown(draft: &mut Draft, tool: &ToolCall, why: &str) {
    let call = tool.call;
    let message = match clamp(why.trim(), WHY_BYTES) {
        "" => UNKNOWN.to_owned(),
        why => format!("{UNKNOWN} The tool's sidecar was asked: {why}"),
    };
    let destructive = spec_of(draft, tool).is_some_and(|spec| spec.destructive);
    let by_tool = if destructive {
        UnknownPolicy::Ask
    } else {
        UnknownPolicy::TellModel
    };
    let policy = draft.state.limits.on_unknown.unwrap_or(by_tool);
    draft.emit(ToolCallUnknown {
        call,
        attempt: tool.attempt,
        message,
        policy,
        asked_at: (policy == UnknownPolicy::Ask).then_some(draft.at),
    });
    match policy {
        UnknownPolicy::Ask | UnknownPolicy::TellModel => tool::go_on(draft),
        UnknownPolicy::End => step::end(draft, EndReason::UnknownOutcome { call }),
    }
}

/// A person says what became of a call.
pub(super) fn resolve(
    draft: &mut Draft,
    by: Command,
    guard: Option<LoopId>,
    call: CallId,
    resolved: Resolved,
) -> Result<(), Rejection> {
    let awaited = "a word on its outcome";
    let Some(tool) = asked_about(draft, &by, guard, call, awaited)? else {
        return Ok(());
    };
    if tool.phase != ToolPhase::Asking {
        return Err(Rejection::NotWaiting {
            call,
            awaited,
            phase: in_words(&tool.phase),
        });
    }
    let output = match resolved.resolution {
        UnknownResolution::Happened => resolved.output,
        UnknownResolution::DidNotHappen
        | UnknownResolution::RunAgain
        | UnknownResolution::TellModel => None,
        UnknownResolution::Cancelled => return Err(Rejection::NoResolution { call }),
    };
    draft.emit(UnknownResolved {
        call,
        resolution: resolved.resolution,
        output,
        at: draft.at,
        by: by.principal,
        reason: resolved.reason,
    });
    tool::go_on(draft);
    Ok(())
}

fn spec_of<'a>(draft: &'a Draft, tool: &ToolCall) -> Option<&'a crate::agent::ToolSpec> {
    let name = draft.state.active.as_ref()?.tool_name(tool);
    draft.state.tools.get(name)
}
