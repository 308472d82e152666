//! The SDK's types against those of the wire; the only place where the two meet field by field.

use std::time::{Duration, SystemTime};

use loopwright_proto::v1;
use loopwright_proto::well_known;

use crate::answer::{Answer, Outcome};
use crate::context::Progress;
use crate::inquiry::Found;
use crate::tool::{Effect, Tool};

/// The last or any message of a CallTool stream that says `outcome`.
pub(crate) fn outcome_message(outcome: &Outcome) -> v1::CallToolResponse {
    use v1::call_tool_response::Kind;
    let kind = match outcome {
        Outcome::Answered { answer, is_error } => Kind::Result(result(answer, *is_error)),
        Outcome::NotExecuted {
            reason,
            retry_after,
        } => Kind::NotExecuted(v1::NotExecuted {
            reason: reason.clone(),
            retry_after: retry_after.map(Into::into),
        }),
    };
    v1::CallToolResponse { kind: Some(kind) }
}

/// The message of a CallTool stream that says `progress`.
pub(crate) fn progress_message(progress: Progress) -> v1::CallToolResponse {
    v1::CallToolResponse {
        kind: Some(v1::call_tool_response::Kind::Progress(on_the_wire(
            progress,
        ))),
    }
}

/// The answer to LookupCall.
pub(crate) fn lookup_message(found: Found) -> v1::LookupCallResponse {
    use v1::lookup_call_response::Outcome as Wire;
    let outcome = match found {
        Found::Running => Wire::Running(v1::CallRunning {}),
        Found::Completed(answer, is_error) => Wire::Completed(result(&answer, is_error)),
        Found::NeverStarted => Wire::NeverStarted(v1::CallNeverStarted {}),
        Found::NotKnown(reason) => Wire::NotKnown(v1::CallNotKnown { reason }),
    };
    v1::LookupCallResponse {
        outcome: Some(outcome),
    }
}

/// The last message of an AttachCall stream; `None` where `found` is no end.
pub(crate) fn attach_end(found: Found) -> Option<v1::AttachCallResponse> {
    use v1::attach_call_response::Kind;
    let kind = match found {
        Found::Running => return None,
        Found::Completed(answer, is_error) => Kind::Result(result(&answer, is_error)),
        Found::NeverStarted => Kind::NeverStarted(v1::CallNeverStarted {}),
        Found::NotKnown(reason) => Kind::NotKnown(v1::CallNotKnown { reason }),
    };
    Some(v1::AttachCallResponse { kind: Some(kind) })
}

/// The message of an AttachCall stream that says `progress`.
pub(crate) fn attach_progress(progress: Progress) -> v1::AttachCallResponse {
    let kind = v1::attach_call_response::Kind::Progress(on_the_wire(progress));
    v1::AttachCallResponse { kind: Some(kind) }
}

/// What a result or refusal on the wire says; the text of several parts is joined by lines.
pub(crate) fn outcome_from(kind: v1::call_tool_response::Kind) -> Result<Outcome, Progress> {
    use v1::call_tool_response::Kind;
    match kind {
        Kind::Progress(progress) => Err(Progress {
            fraction: progress.fraction,
            message: progress.message,
        }),
        Kind::Result(result) => Ok(Outcome::Answered {
            answer: Answer {
                text: part_texts(&result.parts),
                structured: serde_json::from_str(&result.structured_json).ok(),
            },
            is_error: result.is_error,
        }),
        Kind::NotExecuted(refusal) => Ok(Outcome::NotExecuted {
            reason: refusal.reason,
            retry_after: refusal.retry_after.as_ref().and_then(duration),
        }),
    }
}

/// What Describe says of a tool.
pub(crate) fn tool_spec(tool: &Tool) -> v1::ToolSpec {
    let retention = match tool.effect {
        Effect::Deduplicated { retention } => Some(retention.into()),
        _ => None,
    };
    v1::ToolSpec {
        name: tool.name.clone(),
        description: tool.description.clone(),
        input_schema_json: tool.input_schema.to_string(),
        output_schema_json: tool
            .output_schema
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        effect_class: effect_class(tool.effect).into(),
        retention,
        destructive: tool.destructive,
        timeout: tool.timeout.map(Into::into),
        max_concurrency: tool.max_concurrency.unwrap_or(0),
        supports_lookup: tool.can_be_asked(),
        // A deduplicated call goes on without its caller, so that a repeat can join it.
        supports_cancel: !matches!(tool.effect, Effect::Deduplicated { .. }),
        supports_attach: tool.can_be_asked(),
    }
}

/// A duration from the wire; `None` where it is negative.
pub(crate) fn duration(duration: &well_known::Duration) -> Option<Duration> {
    let seconds = u64::try_from(duration.seconds).ok()?;
    let nanos = u32::try_from(duration.nanos).ok()?;
    Some(Duration::new(seconds, nanos.min(999_999_999)))
}

/// A time from the wire; `None` where it lies before 1970.
pub(crate) fn system_time(timestamp: &well_known::Timestamp) -> Option<SystemTime> {
    let seconds = u64::try_from(timestamp.seconds).ok()?;
    let nanos = u32::try_from(timestamp.nanos).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, nanos.min(999_999_999)))
}

fn effect_class(effect: Effect) -> v1::EffectClass {
    match effect {
        Effect::ReadOnly => v1::EffectClass::ReadOnly,
        Effect::Idempotent => v1::EffectClass::Idempotent,
        Effect::Deduplicated { .. } => v1::EffectClass::Deduplicated,
        Effect::AtMostOnce => v1::EffectClass::AtMostOnce,
    }
}

fn result(answer: &Answer, is_error: bool) -> v1::ToolResult {
    let structured = answer.structured.as_ref().map(ToString::to_string);
    v1::ToolResult {
        parts: text_parts(&answer.text),
        is_error,
        structured_json: structured.unwrap_or_default(),
        structured_full: None,
        usage: None,
    }
}

fn on_the_wire(progress: Progress) -> v1::ToolProgress {
    v1::ToolProgress {
        fraction: progress.fraction,
        message: progress.message,
    }
}

fn text_parts(text: &str) -> Vec<v1::Part> {
    // A text part is never empty on the wire: an empty answer has no parts.
    if text.is_empty() {
        return Vec::new();
    }
    vec![v1::Part {
        kind: Some(v1::part::Kind::Text(text.to_owned())),
        full: None,
    }]
}

fn part_texts(parts: &[v1::Part]) -> String {
    let texts = parts.iter().filter_map(|part| match &part.kind {
        Some(v1::part::Kind::Text(text)) => Some(text.as_str()),
        _ => None,
    });
    texts.collect::<Vec<_>>().join("\n")
}
