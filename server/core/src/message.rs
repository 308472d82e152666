//! What is said in a session: parts, and the results of tool calls.
//!
//! Content is shared behind `Arc`, so that an event, the state and a request to a model hold one
//! copy. Provider JSON enters only as an opaque part, and goes back to the same provider as it came.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    budget::{MARGIN_PER_CALL, MARGIN_PER_PART, MARGIN_PER_THOUGHT},
    usage::Usage,
};

/// The member that holds arguments of a tool call which are no JSON object, so that the model sees what
/// it wrote: as Anthropic's page on fine-grained tool streaming proposes.
pub const INVALID_JSON: &str = "INVALID_JSON";
/// What a tool call without a tool's name is sent as.
pub const UNNAMED: &str = "unnamed";
/// What a result without text is told as.
pub const NO_OUTPUT: &str = "(no output)";
/// Bytes of what a model is told of content that is not in the log, beside its media type.
const BLOB_NOTE_BYTES: usize = 160;

/// One piece of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Plain text.
    Text(String),
    /// What a model thought before it answered; goes back to its provider unchanged.
    Thinking(Thinking),
    /// A tool call that a model asked for. The session's own id of it is in `ToolCallRequested`.
    ToolCall(CallPart),
    /// A block that only its provider understands, as the JSON text that it sent.
    Opaque(Opaque),
    /// Content kept outside the log.
    Blob(BlobPart),
}

/// A thinking block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thinking {
    /// The text, empty where the provider redacts it.
    pub text: String,
    /// The provider's signature over the block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
}

/// A tool call inside a model's reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallPart {
    /// The provider's id of the call, as it sent it: possibly empty or repeated.
    pub provider_id: String,
    /// The tool's name on the model's wire, `<sidecar>__<tool>`.
    pub tool: String,
    /// The arguments: JSON text as the model wrote it, valid or not.
    pub arguments: String,
}

/// A provider's own block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opaque {
    /// The provider that sent it and alone gets it back.
    pub provider: String,
    /// Its JSON text.
    pub json: String,
}

/// Content kept in the session's blobs, named by its hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobPart {
    /// SHA-256 of the content, 64 hexadecimal digits.
    pub sha256: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// Its media type, such as `image/png`.
    pub media_type: String,
}

/// The parts of one message, shared.
pub type Parts = Arc<Vec<Part>>;

/// What a tool call gave back, clamped to the limits at the edge.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolOutput {
    /// The text for the model.
    pub text: String,
    /// True where the tool itself says that it failed.
    #[serde(default, skip_serializing_if = "is_false")]
    pub is_error: bool,
    /// Structured result, JSON text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub structured: Option<String>,
    /// The structured result where it is too large for an entry and was kept beside the log instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub structured_full: Option<BlobPart>,
    /// From the dispatch to the result, milliseconds; 0 where nobody measured it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub latency_ms: u64,
    /// Length of the text before it was clamped, in bytes, where it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full_bytes: Option<u64>,
    /// The whole output, where it was kept beside the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full: Option<BlobPart>,
    /// What the tool used of models on its own account, where it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<ToolUsage>,
}

/// What a tool used of models, in its own words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolUsage {
    /// Tokens by class.
    pub tokens: Usage,
    /// What they cost, micro-USD, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_micro_usd: Option<u64>,
}

impl ToolOutput {
    /// An error result, which is how a call that did not run is told to the model.
    #[must_use]
    pub fn error(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            is_error: true,
            ..Self::default()
        }
    }
}

/// All text of `parts`, joined as the model wrote it.
#[must_use]
pub fn text_of(parts: &[Part]) -> String {
    let mut text = String::new();
    for part in parts {
        if let Part::Text(piece) = part {
            text.push_str(piece);
        }
    }
    text
}

/// Bytes of content that a part puts into a prompt, at most: the measure of estimates and bounds. What
/// a provider wraps around it is in [`margin`].
#[must_use]
pub fn content_bytes(part: &Part) -> u64 {
    let bytes = match part {
        Part::Text(text) => text.len(),
        Part::Thinking(t) => t.text.len() + t.signature.as_ref().map_or(0, String::len),
        Part::ToolCall(c) => {
            c.provider_id.len() + c.tool.len().max(UNNAMED.len()) + arguments_bytes(&c.arguments)
        }
        Part::Opaque(o) => o.json.len(),
        // What it holds is never shown, only that it is there.
        Part::Blob(b) => BLOB_NOTE_BYTES + b.media_type.len(),
    };
    bytes as u64
}

/// Tokens set aside for what a provider wraps around a part.
#[must_use]
pub fn margin(part: &Part) -> u64 {
    match part {
        Part::Text(_) | Part::Opaque(_) | Part::Blob(_) => MARGIN_PER_PART,
        Part::Thinking(_) => MARGIN_PER_THOUGHT,
        Part::ToolCall(_) => MARGIN_PER_CALL,
    }
}

/// Whether the arguments of a tool call are a JSON object, so that a provider takes them as they are.
/// Strings are decoded in full: a provider refuses a lone surrogate.
#[must_use]
pub fn is_object(arguments: &str) -> bool {
    serde_json::from_str::<serde_json::Value>(arguments).is_ok_and(|value| value.is_object())
}

/// Bytes of a tool call's arguments as a provider is sent them: as the model wrote them, or as a string
/// in an object of one member, [`INVALID_JSON`], whose quotes and control characters are escaped.
fn arguments_bytes(arguments: &str) -> usize {
    if is_object(arguments) {
        return arguments.len();
    }
    if arguments.trim().is_empty() {
        return "{}".len();
    }
    let escaped: usize = arguments.bytes().map(escaped_bytes).sum();
    "{\"\":\"\"}".len() + INVALID_JSON.len() + escaped
}

/// Bytes that a byte of a string takes in JSON.
fn escaped_bytes(byte: u8) -> usize {
    match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0..0x20 => 6,
        _ => 1,
    }
}

/// `text` cut to at most `limit` bytes, on a character boundary.
#[must_use]
pub fn clamp(text: &str, limit: usize) -> &str {
    if text.len() <= limit {
        return text;
    }
    let mut end = limit;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it by reference"
)]
pub(crate) fn is_false(value: &bool) -> bool {
    !*value
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it by reference"
)]
pub(crate) fn is_zero(value: &u64) -> bool {
    *value == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_that_are_no_object_count_as_they_are_wrapped() {
        for arguments in ["{\"a\": \"\\u0001\"}", "{}"] {
            assert_eq!(arguments_bytes(arguments), arguments.len());
        }
        assert_eq!(arguments_bytes(" "), 2);
        let odd = "a\"b\\c\n\t\r\u{1}\u{7f}ä\u{8}\u{c}";
        for broken in ["{\"a", "[1]", odd, "{\"a\":\"\\ud800\"}"] {
            let mut sent = serde_json::Map::new();
            sent.insert(INVALID_JSON.to_owned(), broken.into());
            let sent = serde_json::Value::Object(sent).to_string();
            assert_eq!(arguments_bytes(broken), sent.len(), "{sent}");
        }
    }

    #[test]
    fn clamp_never_parts_a_character() {
        assert_eq!(clamp("aäb", 2), "a");
        assert_eq!(clamp("aäb", 3), "aä");
        assert_eq!(clamp("ä", 0), "");
        assert_eq!(clamp("abc", 9), "abc");
    }
}
