//! Chat completions. Sources: the API reference "Create chat completion", the guide "Function
//! calling", and the words of its 400s.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Checked, array, blank, refuse, tool_name};

pub(super) fn check(request: &Value) -> Checked {
    if blank(&request["model"]) {
        return refuse("you must provide a model parameter");
    }
    caps(request)?;
    tools(request)?;
    let messages = array(request, "messages");
    if messages.is_empty() {
        return refuse("[] is too short - 'messages'");
    }
    // Calls without a result so far, and all ids that were ever asked.
    let mut open: BTreeSet<&str> = BTreeSet::new();
    for (at, message) in messages.iter().enumerate() {
        let role = message["role"].as_str().unwrap_or_default();
        if role != "tool" && !open.is_empty() {
            // "An assistant message with 'tool_calls' must be followed by tool messages responding
            // to each 'tool_call_id'."
            return refuse(format!(
                "messages[{at}]: these tool_call_ids have no tool message: {open:?}"
            ));
        }
        match role {
            "system" | "developer" | "user" => content(at, &message["content"])?,
            "assistant" => open = assistant(at, message)?,
            "tool" => {
                let id = message["tool_call_id"].as_str().unwrap_or_default();
                // "messages with role 'tool' must be a response to a preceding message with
                // 'tool_calls'."
                if !open.remove(id) {
                    return refuse(format!(
                        "messages[{at}]: role 'tool' answers no call {id:?}"
                    ));
                }
                content(at, &message["content"])?;
            }
            // "Invalid value: '..'. Supported values are: 'system', 'assistant', 'user', ..".
            other => return refuse(format!("messages[{at}].role: Invalid value: {other:?}")),
        }
    }
    match open.is_empty() {
        true => Ok(()),
        false => refuse(format!(
            "these tool_call_ids have no tool message: {open:?}"
        )),
    }
}

fn caps(request: &Value) -> Checked {
    let (old, new) = (&request["max_tokens"], &request["max_completion_tokens"]);
    if !old.is_null() && !new.is_null() {
        return refuse(
            "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.",
        );
    }
    let model = request["model"].as_str().unwrap_or_default();
    let reasons = ["o1", "o3", "o4", "gpt-5"]
        .iter()
        .any(|family| model.starts_with(family));
    // "Unsupported parameter: 'max_tokens' is not supported with this model. Use
    // 'max_completion_tokens' instead."
    if reasons && !old.is_null() {
        return refuse("Unsupported parameter: 'max_tokens' is not supported with this model.");
    }
    match [old, new]
        .iter()
        .any(|cap| !cap.is_null() && cap.as_u64().is_none_or(|n| n == 0))
    {
        true => refuse("Invalid 'max_tokens': integer below minimum value."),
        false => Ok(()),
    }
}

fn tools(request: &Value) -> Checked {
    let tools = array(request, "tools");
    if tools.is_empty() && !request["tools"].is_null() {
        return refuse("[] is too short - 'tools'");
    }
    // "'tool_choice' is only allowed when 'tools' are specified."
    if tools.is_empty() && !request["tool_choice"].is_null() {
        return refuse("'tool_choice' is only allowed when 'tools' are specified.");
    }
    for (at, tool) in tools.iter().enumerate() {
        let function = &tool["function"];
        if tool["type"] != "function" || !tool_name(&function["name"]) {
            return refuse(format!(
                "Invalid 'tools[{at}].function.name': string does not match pattern. Expected a \
                 string that matches the pattern '^[a-zA-Z0-9_-]+$'."
            ));
        }
        // "Invalid schema for function '..': schema must be a JSON Schema of 'type: \"object\"'".
        let schema = &function["parameters"];
        if !schema.is_null() && schema["type"] != "object" {
            return refuse(format!(
                "Invalid schema for function {}: schema must be a JSON Schema of 'type: \"object\"'",
                function["name"]
            ));
        }
    }
    Ok(())
}

fn assistant(at: usize, message: &Value) -> Result<BTreeSet<&str>, String> {
    let calls = array(message, "tool_calls");
    if calls.is_empty() {
        // "[] is too short - 'messages.1.tool_calls'".
        if !message["tool_calls"].is_null() {
            return refuse(format!("[] is too short - 'messages.{at}.tool_calls'"));
        }
        // "Invalid value for 'content': expected a string, got null."
        content(at, &message["content"])?;
    }
    let mut ids = BTreeSet::new();
    for call in calls {
        let id = call["id"].as_str().unwrap_or_default();
        // "Duplicate value for 'tool_call_id'".
        if id.is_empty() || !ids.insert(id) {
            return refuse(format!(
                "messages[{at}].tool_calls: Duplicate value for 'tool_call_id' {id}"
            ));
        }
        let function = &call["function"];
        if call["type"] != "function" || !tool_name(&function["name"]) {
            return refuse(format!(
                "messages[{at}].tool_calls.function.name: does not match pattern"
            ));
        }
        // A string by the reference; servers that put it into a template (llama.cpp) parse it.
        let arguments = function["arguments"]
            .as_str()
            .map(serde_json::from_str::<Value>);
        if !matches!(arguments, Some(Ok(Value::Object(_)))) {
            return refuse(format!(
                "messages[{at}].tool_calls.function.arguments: no JSON object"
            ));
        }
    }
    Ok(ids)
}

/// A text that is not blank, or an array of such. OpenAI itself takes an empty string; servers of
/// the protocol and their templates do not all.
fn content(at: usize, content: &Value) -> Checked {
    let texts = content.as_array();
    let empty = match texts {
        Some(parts) => parts.is_empty() || parts.iter().any(|part| blank(&part["text"])),
        None => blank(content),
    };
    if empty {
        return refuse(format!(
            "Invalid value for 'messages[{at}].content': expected text"
        ));
    }
    Ok(())
}
