//! Chat completions: how turns are written for them.
//!
//! Boundary: pure, bytes only; their streams are read next door. Invariants: no message is empty;
//! each tool call has its result in a message of its own, right behind the message that asked.
//!
//! What a model thought is not sent back: the API has no member for it, and its servers disagree on
//! whether one is ignored or refused. A signature or a block of another provider never enters.

use bytes::Bytes;
use loopwright_core::{
    message::{CallPart, NO_OUTPUT, Opaque, Part, text_of},
    prompt::ModelRequest,
    state::{ToolResult, Turn},
};

use super::{
    json::{self, Members},
    protocol::{self, set},
    transcript::Head,
};

mod reply;

pub(super) use reply::Replying;

/// The name under which this provider's own members are kept.
pub(super) const NAME: &str = "openai";

pub(super) fn head(id: &str, request: &ModelRequest) -> Result<Head, String> {
    let mut out = b"{".to_vec();
    json::string_member(&mut out, "model", id);
    if !request.tools.is_empty() {
        json::member(&mut out, "tools");
        out.push(b'[');
        for tool in request.tools.iter() {
            json::element(&mut out);
            out.extend_from_slice(b"{\"type\":\"function\",\"function\":{");
            json::string_member(&mut out, "name", &tool.name);
            if !tool.description.trim().is_empty() {
                json::string_member(&mut out, "description", &tool.description);
            }
            let schema = json::object_schema(&tool.name, &tool.input_schema)?;
            json::raw_member(&mut out, "parameters", &schema);
            out.extend_from_slice(b"}}");
        }
        out.push(b']');
    }
    json::member(&mut out, "messages");
    out.push(b'[');
    let system = &request.agent.system_prompt;
    if !system.trim().is_empty() {
        out.extend_from_slice(b"{\"role\":\"system\"");
        json::string_member(&mut out, "content", system);
        out.push(b'}');
    }
    Ok(Head {
        bytes: Bytes::from(out),
        marks: Vec::new(),
    })
}

pub(super) fn turn(out: &mut Vec<u8>, turn: &Turn) {
    match turn {
        Turn::User(parts) => user(out, parts),
        Turn::Assistant { parts, first_call } => assistant(out, parts, first_call.0),
        Turn::Results(results) => results.iter().for_each(|result| tool(out, result)),
    }
}

/// The members behind the messages.
pub(super) fn options(
    completion_tokens: bool,
    cap: u64,
    request: &ModelRequest,
) -> Result<Members, String> {
    let agent = &request.agent;
    let mut members = Members::new();
    // OpenAI's reasoning models refuse `max_tokens`; many compatible servers know nothing else.
    let name = if completion_tokens {
        "max_completion_tokens"
    } else {
        "max_tokens"
    };
    set(&mut members, name, cap.to_string());
    protocol::set_sampling(&mut members, request);
    set(
        &mut members,
        "stream_options",
        "{\"include_usage\":true}".to_owned(),
    );
    if let Some(effort) = &agent.reasoning_effort {
        set(&mut members, "reasoning_effort", json::quoted(effort));
    }
    if let Some(schema) = protocol::output_schema(request)? {
        let format = format!(
            "{{\"type\":\"json_schema\",\"json_schema\":{{\"name\":\"result\",\"schema\":{schema}}}}}"
        );
        set(&mut members, "response_format", format);
    }
    if let Some(choice) = request.tool_choice().filter(|_| !request.tools.is_empty()) {
        let choice = match choice {
            "auto" | "none" | "required" => json::quoted(choice),
            name => {
                let name = json::quoted(name);
                format!("{{\"type\":\"function\",\"function\":{{\"name\":{name}}}}}")
            }
        };
        set(&mut members, "tool_choice", choice);
    }
    Ok(members)
}

/// A message of the user: a plain string, which every server takes, or an array of texts.
fn user(out: &mut Vec<u8>, parts: &[Part]) {
    let texts: Vec<std::borrow::Cow<'_, str>> = parts
        .iter()
        .filter_map(|part| match part {
            Part::Text(text) if !text.trim().is_empty() => Some(text.as_str().into()),
            Part::Blob(blob) => Some(protocol::blob_note(blob).into()),
            Part::Text(_) | Part::Thinking(_) | Part::ToolCall(_) | Part::Opaque(_) => None,
        })
        .collect();
    match texts.as_slice() {
        [] => {}
        [text] => {
            out.extend_from_slice(b",{\"role\":\"user\"");
            json::string_member(out, "content", text);
            out.push(b'}');
        }
        texts => {
            out.extend_from_slice(b",{\"role\":\"user\",\"content\":[");
            for text in texts {
                json::element(out);
                out.extend_from_slice(b"{\"type\":\"text\"");
                json::string_member(out, "text", text);
                out.push(b'}');
            }
            out.extend_from_slice(b"]}");
        }
    }
}

fn assistant(out: &mut Vec<u8>, parts: &[Part], first_call: u32) {
    let text = text_of(parts);
    let blank = text.trim().is_empty();
    let asks = parts.iter().any(|part| matches!(part, Part::ToolCall(_)));
    if blank && !asks {
        return;
    }
    out.extend_from_slice(b",{\"role\":\"assistant\"");
    if blank {
        json::raw_member(out, "content", "null");
    } else {
        json::string_member(out, "content", &text);
    }
    if asks {
        json::member(out, "tool_calls");
        out.push(b'[');
        let mut call = first_call;
        for (at, part) in parts.iter().enumerate() {
            if let Part::ToolCall(asked) = part {
                tool_call(out, asked, call, parts.get(at + 1));
                call = call.saturating_add(1);
            }
        }
        out.push(b']');
    }
    out.push(b'}');
}

/// A tool call, under our own id: a provider's may be empty or repeated. Members of it that only
/// its provider knows follow as an opaque part, and go back into it.
fn tool_call(out: &mut Vec<u8>, asked: &CallPart, call: u32, next: Option<&Part>) {
    json::element(out);
    out.push(b'{');
    json::string_member(out, "id", &format!("c{call}"));
    json::raw_member(out, "type", "\"function\"");
    json::member(out, "function");
    out.push(b'{');
    json::string_member(out, "name", &json::tool_name(&asked.tool));
    json::string_member(out, "arguments", &json::arguments_object(&asked.arguments));
    out.push(b'}');
    if let Some(Part::Opaque(Opaque { provider, json })) = next
        && provider == NAME
    {
        for (name, value) in json::members(json).unwrap_or_default() {
            json::raw_member(out, &name, value.get());
        }
    }
    out.push(b'}');
}

fn tool(out: &mut Vec<u8>, result: &ToolResult) {
    out.extend_from_slice(b",{\"role\":\"tool\"");
    json::string_member(out, "tool_call_id", &result.call.to_string());
    let text = &result.output.text;
    let text = if text.trim().is_empty() {
        NO_OUTPUT
    } else {
        text
    };
    if result.output.is_error {
        // The API has no mark for a failed call, so the text says it.
        json::string_member(out, "content", &format!("Error: {text}"));
    } else {
        json::string_member(out, "content", text);
    }
    out.push(b'}');
}
