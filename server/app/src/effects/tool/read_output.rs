//! The built-in tool that reads results back: what a notice left out, what a recap only names.
//!
//! Boundary: a licensed call in, its outcome out, like any tool's; what it reads is the session's own
//! log and the payloads beside it, so that a fork, an import and a restart read the same. Invariants:
//! read-only, so that a crash repeats it; one answer never exceeds what a result may have, and says
//! where to go on; a handle or a range that is none gets an error result that names the way out.

use futures_util::StreamExt as _;
use loopwright_core::agent::{EffectClass, READ_OUTPUT, ToolSpec};
use loopwright_core::entry::Entry;
use loopwright_core::event::Event;
use loopwright_core::ids::CallId;
use loopwright_core::message::{ToolOutput, clamp};
use loopwright_core::outcome::ToolFailure;
use loopwright_log::{BlobError, BlobRef, Id, Log, LogError, Seq, StreamKey};
use serde::Deserialize;

use super::failure::not_executed;
use crate::sidecars::SessionRef;

/// The name before `__` of all built-in tools; no sidecar may have it.
pub(crate) const BUILT_IN: &str = "loopwright";

/// Characters of one answer, whatever `context.max_tool_output_chars` allows: an entry holds them
/// even where each is written as six.
const MAX_CHARS: usize = 64 << 10;
/// Characters of the line before the bytes.
const HEAD_CHARS: usize = 100;
/// Deadline of one call, milliseconds.
const TIMEOUT_MS: u64 = 60_000;

// Every prompt of every loop with tools carries these: short, and what the notices say is not said again.
const DESCRIPTION: &str = "Reads an earlier tool result of this conversation again: the bytes from \
    range.start to range.end, as many as fit. The handle is the id of its call, such as c12.";
const INPUT_SCHEMA: &str = r#"{"type":"object","properties":{"handle":{"type":"string"},"range":{"type":"object","properties":{"start":{"type":"integer","minimum":0},"end":{"type":"integer","minimum":0}},"additionalProperties":false}},"required":["handle"],"additionalProperties":false}"#;

/// What a model asks for.
#[derive(Debug, Deserialize)]
struct Arguments {
    handle: String,
    #[serde(default)]
    range: Range,
}

#[derive(Debug, Default, Deserialize)]
struct Range {
    #[serde(default)]
    start: u64,
    #[serde(default)]
    end: Option<u64>,
}

/// What a call gave back.
struct Kept {
    text: String,
    /// Where not all of it is here any more.
    missing: Option<String>,
}

/// The tool, as sessions are offered it.
pub(crate) fn spec() -> ToolSpec {
    ToolSpec {
        name: READ_OUTPUT.to_owned(),
        description: DESCRIPTION.to_owned(),
        input_schema: INPUT_SCHEMA.to_owned(),
        effect: EffectClass::ReadOnly,
        destructive: false,
        lookup: false,
        timeout_ms: TIMEOUT_MS,
        absolute_cap_ms: TIMEOUT_MS,
    }
}

/// Reads what is asked for, in at most so many characters.
pub(super) async fn run(
    log: &dyn Log,
    session: &SessionRef,
    arguments: &str,
    most_chars: usize,
) -> Result<ToolOutput, ToolFailure> {
    let asked: Arguments = match serde_json::from_str(arguments) {
        Ok(asked) => asked,
        Err(problem) => {
            let words = format!(
                "The arguments do not fit: {problem}. Pass {{\"handle\": \"c12\", \"range\": \
                 {{\"start\": 0, \"end\": 1000}}}}."
            );
            return Ok(ToolOutput::error(words));
        }
    };
    let Ok(call) = asked.handle.parse::<CallId>() else {
        let given = clamp(&asked.handle, 80);
        let words = format!(
            "`{given}` is no handle. A handle is the id of a tool call, such as c12, as the notice in \
             a shortened result or a summary names it."
        );
        return Ok(ToolOutput::error(words));
    };
    let found = find(log, session, call).await;
    let kept = found.map_err(|words| not_executed(words, true))?;
    Ok(match kept {
        Some(kept) => answer(call, &kept, &asked.range, most_chars),
        None => ToolOutput::error(format!(
            "There is no result of {call} in this session. A handle is the id of a tool call that has \
             ended, such as c12, as the notice in a shortened result or a summary names it."
        )),
    })
}

/// The bytes of the range, on whole characters, behind a line that says which they are.
fn answer(call: CallId, kept: &Kept, range: &Range, most_chars: usize) -> ToolOutput {
    let text = &kept.text;
    let total = text.len();
    let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
    let (start, end) = (
        place(range.start),
        range.end.map_or(total, place).min(total),
    );
    if start > total || (start == total && total > 0) || end < start {
        let range = match range.end {
            Some(end) => format!("{} to {end}", range.start),
            None => format!("{} on", range.start),
        };
        return ToolOutput::error(format!(
            "{call} has {total} bytes, from 0 to {total}; bytes {range} are none of them. Ask for a start \
             below {total} and an end above the start."
        ));
    }
    let (start, end) = (clamp(text, start).len(), ceil(text, end));
    let whole = &text[start..end];
    let missing = kept.missing.as_deref().unwrap_or_default();
    let room = most_chars.min(MAX_CHARS);
    let room = room.saturating_sub(HEAD_CHARS + missing.len()).max(1);
    let fits = whole
        .char_indices()
        .nth(room)
        .map_or(whole.len(), |(at, _)| at);
    let (piece, stop) = (&whole[..fits], start + fits);
    let next = if fits < whole.len() {
        format!("; cut here, go on with start {stop}")
    } else {
        String::new()
    };
    ToolOutput {
        text: format!("[{call}: bytes {start} to {stop} of {total}{next}{missing}]\n{piece}"),
        ..ToolOutput::default()
    }
}

/// Where the character ends that `at` lies in.
fn ceil(text: &str, at: usize) -> usize {
    let mut end = at;
    while !text.is_char_boundary(end) {
        end += 1;
    }
    end
}

/// What a call gave back, looked for from the end of the log; an error says why nobody can tell.
async fn find(log: &dyn Log, session: &SessionRef, call: CallId) -> Result<Option<Kept>, String> {
    let Some(key) = key_of(session) else {
        return Err("the session's name is none".to_owned());
    };
    let mark = format!("\"call\":\"{call}\"");
    let mut records = log.read_back(&key, Seq::MAX);
    while let Some(record) = records.next().await {
        let record = match record {
            Ok(record) => record,
            Err(LogError::Corrupt(damage)) => {
                return Err(format!("the session's log is damaged: {}", damage.reason));
            }
            Err(error) => return Err(error.to_string()),
        };
        // Nearly all entries speak of other calls, and are not read for it.
        if !std::str::from_utf8(record.line()).is_ok_and(|line| line.contains(&mark)) {
            continue;
        }
        let Ok(entry) = serde_json::from_slice::<Entry>(&record.body()) else {
            continue;
        };
        if let Some(output) = entry.events.iter().find_map(|event| given(event, call)) {
            return whole(log, &key, output).await.map(Some);
        }
    }
    Ok(None)
}

/// What an event says that the call gave back.
fn given(event: &Event, of: CallId) -> Option<ToolOutput> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "a few kinds end a call")]
    match event {
        Event::ToolCallCompleted(e) if e.call == of => Some((*e.output).clone()),
        Event::UnknownResolved(e) if e.call == of => e.output.as_deref().cloned(),
        Event::ToolCallRejected(e) if e.call == of => Some(ToolOutput::error(&*e.message)),
        Event::ToolCallFailed(e) if e.call == of && e.retry_at.is_none() => {
            Some(ToolOutput::error(&*e.message))
        }
        _ => None,
    }
}

async fn whole(log: &dyn Log, key: &StreamKey, output: ToolOutput) -> Result<Kept, String> {
    let lost = |why: &str| format!("; the rest was not kept{why}");
    let Some(blob) = output.full else {
        let missing = output.full_bytes.map(|_| lost(""));
        let text = output.text;
        return Ok(Kept { text, missing });
    };
    let name = BlobRef {
        sha256: blob.sha256,
        bytes: blob.bytes,
    };
    let missing = match log.get_blob(key, &name).await {
        Ok(bytes) => match String::from_utf8(bytes.into()) {
            Ok(text) => {
                let missing = None;
                return Ok(Kept { text, missing });
            }
            Err(_) => lost(" as text"),
        },
        Err(error @ BlobError::Unavailable { .. }) => return Err(error.to_string()),
        Err(error) => lost(&format!(": {error}")),
    };
    Ok(Kept {
        text: output.text,
        missing: Some(missing),
    })
}

fn key_of(session: &SessionRef) -> Option<StreamKey> {
    let namespace = Id::parse(&session.namespace).ok()?;
    let id = Id::parse(&session.session).ok()?;
    Some(StreamKey::session(&namespace, &id))
}

#[cfg(test)]
mod tests;
