//! The Messages API. Sources: the API reference "Create a Message", the guides "Tool use", "Prompt
//! caching" and "Extended thinking", and the words of its 400s.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Checked, array, blank, refuse, tool_name};

/// Breakpoints in one request.
const MOST_BREAKPOINTS: usize = 4;

/// Members of a request, as the API reference lists them.
const MEMBERS: [&str; 17] = [
    "model",
    "messages",
    "max_tokens",
    "system",
    "tools",
    "tool_choice",
    "stream",
    "temperature",
    "top_p",
    "top_k",
    "stop_sequences",
    "thinking",
    "metadata",
    "output_config",
    "service_tier",
    "container",
    "context_management",
];

pub(super) fn check(request: &Value) -> Checked {
    let Some(members) = request.as_object() else {
        return refuse("the body is no object");
    };
    // "<name>: Extra inputs are not permitted".
    if let Some(name) = members
        .keys()
        .find(|name| !MEMBERS.contains(&name.as_str()))
    {
        return refuse(format!("{name}: Extra inputs are not permitted"));
    }
    if blank(&request["model"]) {
        return refuse("model: Field required");
    }
    // API reference: max_tokens is required and at least 1.
    if request["max_tokens"].as_u64().is_none_or(|cap| cap == 0) {
        return refuse("max_tokens: Field required");
    }
    tools(request)?;
    for block in array(request, "system") {
        text_block(block)?;
    }
    let turns = turns(request)?;
    pairs(&turns)?;
    // "A maximum of 4 blocks with cache_control may be provided. Found 5."
    let mut marks = Vec::new();
    for part in ["tools", "system", "messages"] {
        breakpoints(&request[part], &mut marks);
    }
    if marks.len() > MOST_BREAKPOINTS {
        return refuse(format!(
            "A maximum of 4 blocks with cache_control may be provided. Found {}.",
            marks.len()
        ));
    }
    lifetimes(&marks)
}

/// "Prompt caching", "Mixing different TTLs": in the order tools, system, messages a longer lifetime
/// must not come after a shorter one.
fn lifetimes(marks: &[&Value]) -> Checked {
    let mut minutes = false;
    for mark in marks {
        // "cache_control: Input tag '..' found using 'type' does not match .. 'ephemeral'".
        if mark["type"] != "ephemeral" {
            return refuse("cache_control.type: Input should be 'ephemeral'");
        }
        match &mark["ttl"] {
            Value::Null => minutes = true,
            ttl if ttl == "5m" => minutes = true,
            ttl if ttl == "1h" && !minutes => {}
            ttl if ttl == "1h" => {
                return refuse(
                    "a ttl='1h' cache_control block must not come after a ttl='5m' cache_control \
                     block",
                );
            }
            _ => return refuse("cache_control.ttl: Input should be '5m' or '1h'"),
        }
    }
    Ok(())
}

fn tools(request: &Value) -> Checked {
    let mut names = BTreeSet::new();
    for (at, tool) in array(request, "tools").iter().enumerate() {
        if !tool_name(&tool["name"]) {
            return refuse(format!(
                "tools.{at}.custom.name: String should match pattern '^[a-zA-Z0-9_-]{{1,64}}$'"
            ));
        }
        // "tools: Tool names must be unique."
        if !names.insert(tool["name"].as_str()) {
            return refuse("tools: Tool names must be unique.");
        }
        // "tools.0.custom.input_schema.type: Input should be 'object'".
        if tool["input_schema"]["type"] != "object" {
            return refuse(format!(
                "tools.{at}.custom.input_schema.type: Input should be 'object'"
            ));
        }
    }
    // "tool_choice may only be specified while providing tools".
    if names.is_empty() && !request["tool_choice"].is_null() {
        return refuse("tool_choice may only be specified while providing tools");
    }
    Ok(())
}

/// The messages as the API sees them: neighbours of one role are one turn ("consecutive user or
/// assistant turns in your request will be combined into a single turn").
fn turns(request: &Value) -> Result<Vec<(&str, Vec<&Value>)>, String> {
    let messages = array(request, "messages");
    if messages.is_empty() {
        return refuse("messages: at least one message is required");
    }
    let mut turns: Vec<(&str, Vec<&Value>)> = Vec::new();
    for (at, message) in messages.iter().enumerate() {
        let role = match message["role"].as_str() {
            Some(role @ ("user" | "assistant")) => role,
            // "messages: Unexpected role "system"".
            other => return refuse(format!("messages: Unexpected role {other:?}")),
        };
        // "messages: first message must use the "user" role".
        if at == 0 && role != "user" {
            return refuse("messages: first message must use the \"user\" role");
        }
        let content = array(message, "content");
        // "messages.1: all messages must have non-empty content except for the optional final
        // assistant message".
        if content.is_empty() && blank(&message["content"]) {
            return refuse(format!(
                "messages.{at}: all messages must have non-empty content"
            ));
        }
        content
            .iter()
            .try_for_each(|b| block(b).map_err(|e| format!("messages.{at}: {e}")))?;
        // "The final block in an assistant message cannot be `thinking`."
        let last = content.last().and_then(|block| block["type"].as_str());
        if role == "assistant" && matches!(last, Some("thinking" | "redacted_thinking")) {
            return refuse(format!(
                "messages.{at}: The final block cannot be `thinking`."
            ));
        }
        match turns.last_mut() {
            Some((same, blocks)) if *same == role => blocks.extend(content),
            _ => turns.push((role, content.iter().collect())),
        }
    }
    Ok(turns)
}

fn block(block: &Value) -> Checked {
    let kind = block["type"].as_str().unwrap_or_default();
    match kind {
        "text" => text_block(block),
        // "Extended thinking": blocks are passed back complete and unmodified, with the signature;
        // they cannot be marked for the cache.
        "thinking" if block["signature"].as_str().is_none_or(str::is_empty) => {
            refuse("thinking.signature: Field required")
        }
        "thinking" | "redacted_thinking" if !block["cache_control"].is_null() => {
            refuse("cache_control cannot be set for thinking blocks")
        }
        // "tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'".
        "tool_use" if !tool_name(&block["id"]) => refuse("tool_use.id: String should match"),
        "tool_use" if !tool_name(&block["name"]) => refuse("tool_use.name: String should match"),
        // "tool_use.input: Input should be a valid dictionary".
        "tool_use" if !block["input"].is_object() => {
            refuse("tool_use.input: Input should be a valid dictionary")
        }
        "tool_result" => array(block, "content").iter().try_for_each(text_block),
        "thinking" | "redacted_thinking" | "tool_use" | "image" | "document" => Ok(()),
        "server_tool_use" | "web_search_tool_result" | "search_result" => Ok(()),
        // "Input tag '..' found using 'type' does not match any of the expected tags".
        other => refuse(format!(
            "Input tag '{other}' does not match any of the expected tags"
        )),
    }
}

/// "messages: text content blocks must be non-empty", "text content blocks must contain
/// non-whitespace text".
fn text_block(block: &Value) -> Checked {
    if block["type"] == "text" && blank(&block["text"]) {
        return refuse("text content blocks must contain non-whitespace text");
    }
    Ok(())
}

/// "Handling tool use": each `tool_use` has its `tool_result` in the very next message, where the
/// results come first; ids are unique.
fn pairs(turns: &[(&str, Vec<&Value>)]) -> Checked {
    let mut seen = BTreeSet::new();
    let mut open: BTreeSet<&str> = BTreeSet::new();
    for (at, (_, blocks)) in turns.iter().enumerate() {
        let mut asked = BTreeSet::new();
        let mut other = false;
        for block in blocks {
            match block["type"].as_str() {
                Some("tool_use") => {
                    let id = block["id"].as_str().unwrap_or_default();
                    // "`tool_use` ids must be unique".
                    if !seen.insert(id) {
                        return refuse(format!("messages.{at}: `tool_use` ids must be unique"));
                    }
                    asked.insert(id);
                }
                Some("tool_result") => {
                    let id = block["tool_use_id"].as_str().unwrap_or_default();
                    // "unexpected `tool_use_id` found in `tool_result` blocks: .. Each
                    // `tool_result` block must have a corresponding `tool_use` block in the
                    // previous message."
                    if !open.remove(id) {
                        return refuse(format!("messages.{at}: unexpected `tool_use_id` {id}"));
                    }
                    if other {
                        return refuse(format!("messages.{at}: `tool_result` blocks come first"));
                    }
                }
                _ => other = true,
            }
        }
        // "`tool_use` ids were found without `tool_result` blocks immediately after".
        if !open.is_empty() {
            return refuse(format!(
                "messages.{at}: `tool_use` ids were found without `tool_result` blocks \
                 immediately after: {open:?}"
            ));
        }
        open = asked;
    }
    match open.is_empty() {
        true => Ok(()),
        false => refuse(format!(
            "`tool_use` ids were found without `tool_result`: {open:?}"
        )),
    }
}

fn breakpoints<'a>(value: &'a Value, marks: &mut Vec<&'a Value>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| breakpoints(item, marks)),
        Value::Object(members) => {
            // What a tool's schema or arguments hold is the user's own.
            let own = |name: &str| matches!(name, "input_schema" | "input" | "cache_control");
            let within = members.iter().filter(|(name, _)| !own(name));
            within.for_each(|(_, value)| breakpoints(value, marks));
            marks.extend(members.get("cache_control"));
        }
        _ => {}
    }
}
