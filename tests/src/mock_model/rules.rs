//! What the real APIs refuse: each rule with where it is documented, or the words with which the
//! API refuses.
//!
//! Boundary: pure. Invariant: a request that passes here breaks none of these rules.

use serde_json::Value;

use super::Protocol;

mod anthropic;
mod openai;

/// Whether the API would take this request; else its words.
///
/// # Errors
/// The first rule that the request breaks.
pub fn check(protocol: Protocol, request: &Value) -> Result<(), String> {
    match protocol {
        Protocol::Anthropic => anthropic::check(request),
        Protocol::OpenAi => openai::check(request),
    }
}

type Checked = Result<(), String>;

fn refuse<T>(what: impl Into<String>) -> Result<T, String> {
    Err(what.into())
}

/// A name as both APIs want a tool's: OpenAI, "Create chat completion", `tools.function.name`:
/// "Must be a-z, A-Z, 0-9, or contain underscores and dashes, with a maximum length of 64";
/// Anthropic, "Tool use", `name`: "Must match the regex ^[a-zA-Z0-9_-]{1,64}$".
fn tool_name(name: &Value) -> bool {
    let fine = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    name.as_str()
        .is_some_and(|name| (1..=64).contains(&name.len()) && name.bytes().all(fine))
}

fn array<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().map_or(&[], Vec::as_slice)
}

fn blank(value: &Value) -> bool {
    value.as_str().is_none_or(|text| text.trim().is_empty())
}

#[cfg(test)]
mod tests;
