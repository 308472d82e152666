//! Progress as deltas of the wire, made once for all watchers.
//!
//! Invariant: `WatchLoopResponse` and `ConverseResponse` both hold the delta in field 2.

use bytes::Bytes;
use loopwright_core::ids::CallId;
use loopwright_log::Progress;
use loopwright_proto::v1::{self, delta::Content};
use prost::Message as _;

use crate::effects::progress::{CHANNEL_TEXT, CHANNEL_THINKING, CHANNEL_TOOL, ToolProgress};

/// Characters of a tool's word on how far it is.
const MAX_MESSAGE_CHARS: usize = 1_024;

/// The message of a piece of progress; `None` for what this version has no form for.
#[must_use]
pub fn ready(progress: &Progress) -> Option<Bytes> {
    let message = progress.memo(|| {
        let message = to_wire(progress).map(|delta| v1::WatchLoopResponse {
            item: Some(v1::watch_loop_response::Item::Delta(delta)),
        });
        message
            .map(|message| message.encode_to_vec().into())
            .unwrap_or_default()
    });
    (!message.is_empty()).then_some(message)
}

/// The delta on the wire.
#[must_use]
pub fn to_wire(progress: &Progress) -> Option<v1::Delta> {
    let topic = progress.topic;
    let text = || {
        std::str::from_utf8(&progress.payload)
            .ok()
            .map(str::to_owned)
    };
    let (offset, content) = match topic.channel {
        CHANNEL_TEXT => (progress.offset, Content::Text(text()?)),
        CHANNEL_THINKING => (progress.offset, Content::Thinking(text()?)),
        CHANNEL_TOOL => {
            let ToolProgress { fraction, message } =
                serde_json::from_slice(&progress.payload).ok()?;
            let message = message.chars().take(MAX_MESSAGE_CHARS).collect();
            (
                0,
                Content::ToolProgress(v1::ToolProgress { fraction, message }),
            )
        }
        _ => return None,
    };
    Some(v1::Delta {
        anchor_seq: topic.anchor,
        call: CallId(topic.call).to_string(),
        attempt: topic.attempt,
        offset,
        content: Some(content),
    })
}
