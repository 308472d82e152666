//! What is said in a session: parts, and the results of tool calls.
//!
//! Content is shared behind `Arc`, so that an event, the state and a request to a model hold one
//! copy. Provider JSON enters only as an opaque part, and goes back to the same provider as it came.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::usage::Usage;

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

/// Bytes of content that a part puts into a prompt: the measure of estimates.
#[must_use]
pub fn content_bytes(part: &Part) -> u64 {
    let bytes = match part {
        Part::Text(text) => text.len(),
        Part::Thinking(t) => t.text.len() + t.signature.as_ref().map_or(0, String::len),
        Part::ToolCall(c) => c.provider_id.len() + c.tool.len() + c.arguments.len(),
        Part::Opaque(o) => o.json.len(),
        Part::Blob(b) => usize::try_from(b.bytes).unwrap_or(usize::MAX),
    };
    bytes as u64
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
    fn clamp_never_parts_a_character() {
        assert_eq!(clamp("aäb", 2), "a");
        assert_eq!(clamp("aäb", 3), "aä");
        assert_eq!(clamp("ä", 0), "");
        assert_eq!(clamp("abc", 9), "abc");
    }
}
