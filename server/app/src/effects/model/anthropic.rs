//! The Messages API: how turns are written for it.
//!
//! Boundary: pure, bytes only; its streams are read next door. Invariants: no block and no message
//! is empty; the results of one step stand in one message; each message of the user's side is an
//! array of blocks, so that a `cache_control` member fits into its last one.
//!
//! Neighbouring messages of one role are not joined here: the API joins them itself (Messages API
//! reference, `messages`: "consecutive user or assistant turns in your request will be combined
//! into a single turn"), and joining them in the request would change bytes that were sent already.

use bytes::Bytes;
use loopwright_core::{
    message::{CallPart, NO_OUTPUT, Part},
    prompt::ModelRequest,
    state::{ToolResult, Turn},
};

use super::{
    json::{self, Members},
    protocol::{self, set},
    transcript::Head,
};

mod cache;
mod reply;

pub(super) use cache::breakpoints;
pub(super) use reply::Replying;

/// The name under which this provider's own blocks are kept.
pub(super) const NAME: &str = "anthropic";
/// The version of the API that is spoken, sent in `anthropic-version`.
pub(super) const VERSION: &str = "2023-06-01";

pub(super) fn head(id: &str, request: &ModelRequest) -> Result<Head, String> {
    let mut out = b"{".to_vec();
    let mut marks = Vec::new();
    json::string_member(&mut out, "model", id);
    if !request.tools.is_empty() {
        json::member(&mut out, "tools");
        out.push(b'[');
        for tool in request.tools.iter() {
            json::element(&mut out);
            out.push(b'{');
            json::string_member(&mut out, "name", &tool.name);
            if !tool.description.trim().is_empty() {
                json::string_member(&mut out, "description", &tool.description);
            }
            let schema = json::object_schema(&tool.name, &tool.input_schema)?;
            json::raw_member(&mut out, "input_schema", &schema);
            out.push(b'}');
        }
        marks.push(out.len() - 1);
        out.push(b']');
    }
    let system = &request.agent.system_prompt;
    if !system.trim().is_empty() {
        json::member(&mut out, "system");
        out.push(b'[');
        text_block(&mut out, system);
        marks.push(out.len() - 1);
        out.push(b']');
    }
    json::member(&mut out, "messages");
    out.push(b'[');
    Ok(Head {
        bytes: Bytes::from(out),
        marks,
    })
}

pub(super) fn turn(out: &mut Vec<u8>, turn: &Turn) {
    match turn {
        Turn::User(parts) => message(out, "user", |out| {
            for part in parts.iter() {
                user_block(out, part);
            }
        }),
        Turn::Assistant { parts, first_call } => message(out, "assistant", |out| {
            let mut call = first_call.0;
            for part in closing(parts) {
                assistant_block(out, part, &mut call);
            }
        }),
        Turn::Results(results) => message(out, "user", |out| {
            for result in results.iter() {
                result_block(out, result);
            }
        }),
    }
}

/// The members behind the messages.
pub(super) fn options(cap: u64, request: &ModelRequest) -> Result<Members, String> {
    let agent = &request.agent;
    let mut members = Members::new();
    set(&mut members, "max_tokens", cap.to_string());
    protocol::set_sampling(&mut members, request);
    let mut output = b"{".to_vec();
    if let Some(effort) = &agent.reasoning_effort {
        json::string_member(&mut output, "effort", effort);
    }
    if let Some(schema) = protocol::output_schema(request)? {
        let format = format!("{{\"type\":\"json_schema\",\"schema\":{schema}}}");
        json::raw_member(&mut output, "format", &format);
    }
    output.push(b'}');
    if output.len() > 2 {
        let output = String::from_utf8(output).expect("it was written from text");
        set(&mut members, "output_config", output);
    }
    if let Some(choice) = request.tool_choice().filter(|_| !request.tools.is_empty()) {
        let choice = match choice {
            "auto" | "none" => format!("{{\"type\":\"{choice}\"}}"),
            "required" => "{\"type\":\"any\"}".to_owned(),
            name => format!("{{\"type\":\"tool\",\"name\":{}}}", json::quoted(name)),
        };
        set(&mut members, "tool_choice", choice);
    }
    Ok(members)
}

/// Writes a message, unless nothing is in it.
fn message(out: &mut Vec<u8>, role: &str, content: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(b",{\"role\":\"");
    out.extend_from_slice(role.as_bytes());
    out.extend_from_slice(b"\",\"content\":[");
    let empty = out.len();
    content(out);
    if out.len() == empty {
        out.truncate(start);
    } else {
        out.extend_from_slice(b"]}");
    }
}

/// The parts without the thinking at their end: the API takes no message that ends in it, and a
/// reply cut while it thought has none to keep.
fn closing(parts: &[Part]) -> &[Part] {
    let says = |part: &Part| match part {
        Part::Text(text) => !text.trim().is_empty(),
        Part::Thinking(_) => false,
        Part::Opaque(own) => own.provider == NAME && !own.json.contains("\"redacted_thinking\""),
        Part::ToolCall(_) | Part::Blob(_) => true,
    };
    let end = parts.iter().rposition(says).map_or(0, |last| last + 1);
    &parts[..end]
}

fn user_block(out: &mut Vec<u8>, part: &Part) {
    match part {
        Part::Text(text) if !text.trim().is_empty() => element_text(out, text),
        Part::Opaque(own) if own.provider == NAME => element_raw(out, &own.json),
        Part::Blob(blob) => element_text(out, &protocol::blob_note(blob)),
        Part::Text(_) | Part::Thinking(_) | Part::ToolCall(_) | Part::Opaque(_) => {}
    }
}

fn assistant_block(out: &mut Vec<u8>, part: &Part, call: &mut u32) {
    match part {
        Part::Thinking(thought) => {
            // Without the signature the provider did not sign it, or it is another provider's.
            let Some(signature) = &thought.signature else {
                return;
            };
            json::element(out);
            out.extend_from_slice(b"{\"type\":\"thinking\"");
            json::string_member(out, "thinking", &thought.text);
            json::string_member(out, "signature", signature);
            out.push(b'}');
        }
        Part::ToolCall(asked) => {
            call_block(out, asked, *call);
            *call = call.saturating_add(1);
        }
        Part::Text(_) | Part::Opaque(_) | Part::Blob(_) => user_block(out, part),
    }
}

/// A tool call, under our own id: a provider's may be empty or repeated.
fn call_block(out: &mut Vec<u8>, asked: &CallPart, call: u32) {
    json::element(out);
    out.extend_from_slice(b"{\"type\":\"tool_use\"");
    json::string_member(out, "id", &format!("c{call}"));
    json::string_member(out, "name", &json::tool_name(&asked.tool));
    json::raw_member(out, "input", &json::arguments_object(&asked.arguments));
    out.push(b'}');
}

fn result_block(out: &mut Vec<u8>, result: &ToolResult) {
    json::element(out);
    out.extend_from_slice(b"{\"type\":\"tool_result\"");
    json::string_member(out, "tool_use_id", &result.call.to_string());
    let text = &result.output.text;
    let text = if text.trim().is_empty() {
        NO_OUTPUT
    } else {
        text
    };
    json::string_member(out, "content", text);
    if result.output.is_error {
        json::raw_member(out, "is_error", "true");
    }
    out.push(b'}');
}

fn element_text(out: &mut Vec<u8>, text: &str) {
    json::element(out);
    text_block(out, text);
}

fn element_raw(out: &mut Vec<u8>, json: &str) {
    json::element(out);
    out.extend_from_slice(json.trim().as_bytes());
}

fn text_block(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(b"{\"type\":\"text\"");
    json::string_member(out, "text", text);
    out.push(b'}');
}
