//! Events of tool calls, from the model's wish to the one end, as events of the wire.

use loopwright_core::{
    event::{self as core, Event},
    message::{CallPart, Part},
    outcome::EndReason,
};
use loopwright_proto::v1::{self, event::Kind};
use sha2::{Digest as _, Sha256};

use super::{
    super::{duration, message, timestamp, words},
    Context,
};

/// The form of an event of a tool call; `None` for any other.
pub(super) fn kind(event: &Event, context: &Context<'_>) -> Option<Kind> {
    Some(match event {
        Event::ToolCallRequested(e) => Kind::ToolCallRequested(requested(e, context)),
        Event::ToolCallRejected(e) => Kind::ToolCallRejected(v1::ToolCallRejected {
            call: e.call.to_string(),
            kind: words::rejected(e.reason) as i32,
            message: e.message.clone(),
        }),
        Event::ApprovalRequested(e) => Kind::ApprovalRequested(v1::ApprovalRequested {
            call: e.call.to_string(),
            reason: words::approval_reason(e.reason) as i32,
            expires_at: e.expires_at.map(timestamp),
            allow_on_expiry: e.allow_on_expiry,
        }),
        Event::ApprovalResolved(e) => Kind::ApprovalResolved(v1::ApprovalResolved {
            call: e.call.to_string(),
            outcome: words::approval_outcome(e.outcome) as i32,
            allowed: e.allowed,
            by: e.by.clone(),
            reason: e.reason.clone(),
            edited_arguments_json: String::new(),
        }),
        Event::ToolCallStarted(e) => Kind::ToolCallStarted(started(e)),
        Event::ToolCallCompleted(e) => Kind::ToolCallCompleted(v1::ToolCallCompleted {
            call: e.call.to_string(),
            attempt: e.attempt,
            result: Some(message::tool_result(&e.output)),
            latency: (e.output.latency_ms > 0).then(|| duration(e.output.latency_ms)),
        }),
        Event::ToolCallFailed(e) => Kind::ToolCallFailed(v1::ToolCallFailed {
            call: e.call.to_string(),
            attempt: e.attempt,
            kind: words::tool_failure(e.kind, e.cause) as i32,
            message: e.message.clone(),
            retry_at: e.retry_at.map(timestamp),
        }),
        Event::ToolCallInDoubt(e) => Kind::ToolCallInDoubt(v1::ToolCallInDoubt {
            call: e.call.to_string(),
            attempt: e.attempt,
            reason: e.message.clone(),
        }),
        Event::ToolCallUnknown(e) => Kind::ToolCallUnknown(v1::ToolCallUnknown {
            call: e.call.to_string(),
            attempt: e.attempt,
            reason: e.message.clone(),
            policy: unknown_policy(e, context) as i32,
        }),
        Event::UnknownResolved(e) => Kind::UnknownResolved(v1::UnknownResolved {
            call: e.call.to_string(),
            resolution: words::resolution(e.resolution) as i32,
            result: e.output.as_deref().map(message::tool_result),
            by: e.by.clone(),
            reason: e.reason.clone(),
        }),
        Event::ToolCallResultLate(e) => Kind::ToolCallResultLate(v1::ToolCallResultLate {
            call: e.call.to_string(),
            attempt: e.attempt,
            result: Some(message::tool_result(&e.output)),
        }),
        Event::ToolCallCancelled(e) => Kind::ToolCallCancelled(v1::ToolCallCancelled {
            call: e.call.to_string(),
            dispatched: e.dispatched,
        }),
        _ => return None,
    })
}

/// The tool and its arguments stand in the reply, which is in the same entry.
fn requested(e: &core::ToolCallRequested, context: &Context<'_>) -> v1::ToolCallRequested {
    let reply = context.events.iter().find_map(|event| match event {
        Event::ModelCallCompleted(reply) => Some(reply),
        _ => None,
    });
    let part: Option<&CallPart> = reply.and_then(|reply| match reply.parts.get(e.index as usize) {
        Some(Part::ToolCall(part)) => Some(part),
        _ => None,
    });
    v1::ToolCallRequested {
        call: e.call.to_string(),
        model_call: reply
            .map(|reply| reply.call.to_string())
            .unwrap_or_default(),
        provider_call_id: part
            .map(|part| part.provider_id.clone())
            .unwrap_or_default(),
        tool: part.map(|part| part.tool.clone()).unwrap_or_default(),
        arguments_json: part.map(|part| part.arguments.clone()).unwrap_or_default(),
        arguments_sha256: part.map(|part| sha256(&part.arguments)).unwrap_or_default(),
    }
}

fn started(e: &core::ToolCallStarted) -> v1::ToolCallStarted {
    let instance = Some(e.sidecar_instance.clone());
    v1::ToolCallStarted {
        call: e.call.to_string(),
        attempt: e.attempt,
        deadline: e.deadline.map(timestamp),
        sidecar_instance: instance.filter(|name| !name.is_empty()),
    }
}

/// Logs of versions before approvals do not say what followed: it stands in the same entry that the
/// loop ended over this call.
fn unknown_policy(e: &core::ToolCallUnknown, context: &Context<'_>) -> v1::UnknownPolicy {
    let ended = context.events.iter().any(|event| match event {
        Event::LoopEnded(end) => end.reason == EndReason::UnknownOutcome { call: e.call },
        _ => false,
    });
    if ended {
        return v1::UnknownPolicy::End;
    }
    words::unknown_policy(e.policy)
}

fn sha256(text: &str) -> String {
    use std::fmt::Write as _;
    let mut hex = String::with_capacity(64);
    for byte in Sha256::digest(text.as_bytes()) {
        // Writing to a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}
