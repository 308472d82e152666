//! The SDK's types against those of the wire; the only place where the two meet field by field.

use std::time::{Duration, SystemTime};

use loopwright_proto::v1;
use loopwright_proto::well_known;

use crate::answer::{Answer, Outcome};
use crate::context::Progress;
use crate::tool::{Effect, Tool};

/// The last or any message of a CallTool stream that says `outcome`.
pub(crate) fn outcome_message(outcome: &Outcome) -> v1::CallToolResponse {
    use v1::call_tool_response::Kind;
    let kind = match outcome {
        Outcome::Answered { answer, is_error } => Kind::Result(v1::ToolResult {
            parts: text_parts(&answer.text),
            is_error: *is_error,
            structured_json: answer
                .structured
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            usage: None,
        }),
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
    let progress = v1::ToolProgress {
        fraction: progress.fraction,
        message: progress.message,
    };
    v1::CallToolResponse {
        kind: Some(v1::call_tool_response::Kind::Progress(progress)),
    }
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
        supports_lookup: false,
        // A deduplicated call goes on without its caller, so that a repeat can join it.
        supports_cancel: !matches!(tool.effect, Effect::Deduplicated { .. }),
        supports_attach: false,
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
