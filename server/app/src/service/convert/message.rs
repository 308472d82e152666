//! Messages, their parts, and the results of tools.

use std::sync::Arc;

use loopwright_core::{
    ids::CallId,
    message::{BlobPart, CallPart, Opaque, Part, Parts, Thinking, ToolOutput},
};
use loopwright_proto::v1::{self, part::Kind};

use super::{fields::Violations, words::usage};

/// Parts of one message.
const MAX_PARTS: usize = 256;

/// What a client says, as either of the two forms of a request's `input`.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    /// Plain text.
    Text(String),
    /// A message in parts.
    Message(v1::Message),
    /// Nothing: the field was left out.
    Nothing,
}

/// The parts of a client's message of at most `limit` bytes.
pub fn said(said: Said, limit: u64, all: &mut Violations) -> Parts {
    let parts = match said {
        Said::Text(text) => vec![Part::Text(text_of(text, "text", all))],
        Said::Message(message) => parts_of(message, all),
        Said::Nothing => {
            all.add(
                "text",
                "is empty, and so is message; say what the model is to do in one of them",
            );
            Vec::new()
        }
    };
    let bytes: u64 = parts
        .iter()
        .map(loopwright_core::message::content_bytes)
        .sum();
    if bytes > limit {
        all.add(
            "message",
            format!(
                "has {bytes} bytes, and limits.message_bytes is {limit}; send less, or let a tool \
                 read the rest"
            ),
        );
    }
    Arc::new(parts)
}

/// What a person says that a tool gave back, of at most `limit` bytes.
pub fn given_result(result: v1::ToolResult, limit: u64, all: &mut Violations) -> ToolOutput {
    let mut text = String::new();
    for (at, part) in result.parts.into_iter().enumerate() {
        match part.kind {
            Some(Kind::Text(more)) => text.push_str(&more),
            _ => {
                let problem = "is not text; say in words what the tool gave back";
                all.add(format!("result.parts[{at}]"), problem);
            }
        }
    }
    let structured = Some(result.structured_json).filter(|json| !json.is_empty());
    let bytes = (text.len() + structured.as_ref().map_or(0, String::len)) as u64;
    if bytes > limit {
        let problem = format!("has {bytes} bytes, and limits.message_bytes is {limit}; send less");
        all.add("result", problem);
    }
    if let Some(json) = &structured
        && let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(json)
    {
        all.add("result.structured_json", format!("is not JSON: {error}"));
    }
    if result.usage.is_some() {
        let problem = "is told by sidecars alone; leave it out";
        all.add("result.usage", problem);
    }
    if result.structured_full.is_some() {
        let problem = "is set by the server alone; leave it out";
        all.add("result.structured_full", problem);
    }
    ToolOutput {
        text,
        is_error: result.is_error,
        structured,
        ..ToolOutput::default()
    }
}

/// One part on the wire; `call` is the session's id of it where it is a tool call.
#[must_use]
pub fn part(part: &Part, call: Option<CallId>) -> v1::Part {
    let kind = match part {
        Part::Text(text) => Kind::Text(text.clone()),
        Part::Thinking(Thinking { text, signature }) => Kind::Thinking(v1::ThinkingPart {
            text: text.clone(),
            signature: signature.clone().unwrap_or_default(),
        }),
        Part::ToolCall(CallPart {
            provider_id,
            tool,
            arguments,
        }) => Kind::ToolCall(v1::ToolCallPart {
            call: call.map(|call| call.to_string()).unwrap_or_default(),
            provider_call_id: provider_id.clone(),
            tool: tool.clone(),
            arguments_json: arguments.clone(),
        }),
        Part::Opaque(Opaque { provider, json }) => Kind::Opaque(v1::OpaquePart {
            provider: provider.clone(),
            json: json.clone(),
        }),
        Part::Blob(blob) => Kind::Blob(v1::BlobPart {
            blob: Some(blob_ref(blob)),
            media_type: blob.media_type.clone(),
        }),
    };
    v1::Part {
        kind: Some(kind),
        full: None,
    }
}

/// What a tool gave back.
#[must_use]
pub fn tool_result(output: &ToolOutput) -> v1::ToolResult {
    let text = (!output.text.is_empty()).then(|| v1::Part {
        kind: Some(Kind::Text(output.text.clone())),
        full: output.full.as_ref().map(blob_ref),
    });
    v1::ToolResult {
        parts: text.into_iter().collect(),
        is_error: output.is_error,
        structured_json: output.structured.clone().unwrap_or_default(),
        structured_full: output.structured_full.as_ref().map(blob_ref),
        usage: output.usage.map(|used| v1::ToolUsage {
            tokens: Some(usage(&used.tokens, false)),
            cost_micro_usd: used.cost_micro_usd,
        }),
    }
}

fn blob_ref(blob: &BlobPart) -> v1::BlobRef {
    v1::BlobRef {
        sha256: blob.sha256.clone(),
        bytes: blob.bytes,
    }
}

fn parts_of(message: v1::Message, all: &mut Violations) -> Vec<Part> {
    let user = [v1::Role::Unspecified as i32, v1::Role::User as i32];
    if !user.contains(&message.role) {
        let role = v1::Role::try_from(message.role).map_or("unknown", |role| role.as_str_name());
        all.add(
            "message.role",
            format!("{role} cannot be sent; leave it out, or send ROLE_USER"),
        );
    }
    if message.parts.is_empty() {
        all.add("message.parts", "is empty; send at least one text part");
    }
    if message.parts.len() > MAX_PARTS {
        let count = message.parts.len();
        all.add(
            "message.parts",
            format!("has {count} parts; at most {MAX_PARTS} are taken"),
        );
    }
    let mut parts = Vec::new();
    for (at, part) in message.parts.into_iter().take(MAX_PARTS).enumerate() {
        let field = format!("message.parts[{at}]");
        match part.kind {
            Some(Kind::Text(text)) => parts.push(Part::Text(text_of(text, &field, all))),
            Some(Kind::Blob(_)) => all.add(
                field,
                "is a blob, which this version does not take yet; send text, or a path that a tool \
                 can read",
            ),
            Some(Kind::Thinking(_) | Kind::ToolCall(_) | Kind::ToolResult(_) | Kind::Opaque(_)) => {
                all.add(field, "is of a kind that only the server writes; send text")
            }
            None => all.add(
                field,
                "is empty or of a kind that this version does not know; send text",
            ),
        }
        if part.full.is_some() {
            all.add(
                format!("message.parts[{at}].full"),
                "is set by the server alone; leave it out",
            );
        }
    }
    parts
}

fn text_of(text: String, field: &str, all: &mut Violations) -> String {
    if text.is_empty() {
        all.add(field, "is empty; say what the model is to do");
    }
    text
}
