//! A tool's result as the model and the log are given it.
//!
//! Boundary: a result in, a [`ToolOutput`] out; the whole of what is clamped goes beside the log.
//! Invariants: the text has at most the configured characters and fits a record; it is cut between
//! characters, and says so; a structured result is there, lies beside the log, or the text says why not.

use std::borrow::Cow;

use bytes::Bytes;
use loopwright_core::context::whole_by;
use loopwright_core::message::{BlobPart, ToolOutput, ToolUsage};
use loopwright_core::usage::Usage;
use loopwright_log::{Id, StreamKey};
use loopwright_proto::v1::{self, Part, ToolResult, part};
use serde::de::IgnoredAny;

use super::Call;
use crate::redaction::Redaction;
use crate::sidecars::{SessionRef, Sidecars};

/// Largest structured result that is kept, bytes.
const MAX_STRUCTURED_BYTES: usize = 64 << 10;
/// What a text that is kept beside the log is.
const TEXT: &str = "text/plain; charset=utf-8";
/// What a structured result that is kept beside the log is.
const JSON: &str = "application/json";
/// Largest text as JSON, bytes: an entry must fit a record of 900 KiB.
const MAX_JSON_BYTES: usize = 512 << 10;

/// The output of a call.
pub(super) async fn of(result: ToolResult, sidecars: &Sidecars, call: Call<'_>) -> ToolOutput {
    let usage = result.usage.as_ref().map(used);
    let redaction = sidecars.limits().redaction;
    let mut text = text_of(result.parts, redaction);
    // Before anything is cut: half a secret is not known for one.
    redaction.owned(&mut text);
    let structured = structured(result.structured_json, redaction, &mut text);
    let (structured, structured_full) = match structured {
        Some(json) if json.len() > MAX_STRUCTURED_BYTES => {
            let kept = keep(Bytes::from(json), JSON, sidecars, call.session).await;
            if kept.is_none() {
                add_line(&mut text, "[The structured result was not kept.]");
            }
            (None, kept)
        }
        structured => (structured, None),
    };
    let limit = sidecars.limits().max_output_chars;
    let output = ToolOutput {
        is_error: result.is_error,
        structured,
        structured_full,
        usage,
        ..ToolOutput::default()
    };
    if let Cow::Borrowed(_) = clamp(&text, limit, "") {
        return ToolOutput { text, ..output };
    }
    let text = Bytes::from(text);
    let full = keep(text.clone(), TEXT, sidecars, call.session).await;
    let asked = call.request;
    let handle = full.is_some() && asked.reads_output;
    let whole = if handle {
        whole_by(asked.call)
    } else {
        String::new()
    };
    let all = String::from_utf8_lossy(&text);
    ToolOutput {
        full_bytes: Some(text.len() as u64),
        full,
        text: clamp(&all, limit, &whole).into_owned(),
        ..output
    }
}

/// `text` in at most `limit` characters: its head (2/3), a notice that ends in `whole`, its tail (1/3).
fn clamp<'a>(text: &'a str, limit: usize, whole: &str) -> Cow<'a, str> {
    let mut limit = limit;
    let mut clamped = clamp_chars(text, limit, whole);
    loop {
        let size = json_bytes(&clamped);
        if size <= MAX_JSON_BYTES {
            return clamped;
        }
        let chars = clamped.chars().count().min(limit);
        // By its share, and by one at least: the next round is shorter.
        limit = (chars.saturating_mul(MAX_JSON_BYTES) / size).min(chars.saturating_sub(1));
        clamped = clamp_chars(text, limit, whole);
    }
}

fn clamp_chars<'a>(text: &'a str, limit: usize, whole: &str) -> Cow<'a, str> {
    // Bytes are never fewer than characters.
    if text.len() <= limit {
        return Cow::Borrowed(text);
    }
    let total = text.chars().count();
    if total <= limit {
        return Cow::Borrowed(text);
    }
    let notice = |left_out: usize| format!("\n[... {left_out} characters left out{whole} ...]\n");
    let room = limit.saturating_sub(notice(total).len());
    if room < 3 {
        return Cow::Owned(text.chars().take(limit).collect());
    }
    let tail = room / 3;
    let head = room - tail;
    let mut clamped = String::with_capacity(text.len().min(limit.saturating_mul(4)));
    clamped.extend(text.chars().take(head));
    clamped.push_str(&notice(total - room));
    clamped.push_str(&text[last_chars(text, tail)..]);
    Cow::Owned(clamped)
}

/// Where the last `count` characters begin.
fn last_chars(text: &str, count: usize) -> usize {
    match count.checked_sub(1) {
        None => text.len(),
        Some(back) => text.char_indices().rev().nth(back).map_or(0, |(at, _)| at),
    }
}

/// The length of `text` inside a JSON string.
fn json_bytes(text: &str) -> usize {
    let bytes = |b: u8| match b {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0..0x20 => 6,
        _ => 1,
    };
    text.bytes().map(bytes).sum()
}

/// The text parts without secrets, one below the other; a blob as the words that name it.
fn text_of(parts: Vec<Part>, redaction: Redaction) -> String {
    let mut pieces: Vec<String> = parts.into_iter().filter_map(piece_of).collect();
    redaction.pieces(&mut pieces);
    let mut text = String::new();
    for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
        add_line(&mut text, piece);
    }
    text
}

fn used(usage: &v1::ToolUsage) -> ToolUsage {
    let tokens = usage.tokens.unwrap_or_default();
    ToolUsage {
        tokens: Usage {
            input: tokens.input_tokens,
            output: tokens.output_tokens,
            cache_write: tokens.cache_write_tokens,
            cache_read: tokens.cache_read_tokens,
            cache_write_1h: tokens.cache_write_1h_tokens,
        },
        cost_micro_usd: usage.cost_micro_usd,
    }
}

fn piece_of(part: Part) -> Option<String> {
    match part.kind {
        Some(part::Kind::Text(piece)) => Some(piece),
        Some(part::Kind::Blob(blob)) => {
            let of = blob.blob.as_ref();
            let kind = if blob.media_type.is_empty() {
                "content"
            } else {
                &blob.media_type
            };
            let bytes = of.map_or(0, |of| of.bytes);
            let hash = of.map_or("", |of| of.sha256.as_str());
            Some(format!("[{kind}, {bytes} bytes, sha256 {hash}]"))
        }
        // No part of a result: what a model says, or a kind of a later version.
        _ => None,
    }
}

/// The structured result without secrets. It stands for the text where there is none; where it is no
/// JSON, the text says so.
fn structured(json: String, redaction: Redaction, text: &mut String) -> Option<String> {
    if json.is_empty() {
        return None;
    }
    if let Err(error) = serde_json::from_str::<IgnoredAny>(&json) {
        // Where it is wrong, and nothing of what it says: that was not looked through for secrets.
        let (line, column) = (error.line(), error.column());
        let notice = format!(
            "[The structured result is left out: it is not valid JSON at line {line}, column {column}.]"
        );
        add_line(text, &notice);
        return None;
    }
    let json = match redaction.json(&json) {
        Cow::Borrowed(_) => json,
        Cow::Owned(redacted) => redacted,
    };
    if text.is_empty() {
        text.clone_from(&json);
    }
    Some(json)
}

fn add_line(text: &mut String, line: &str) {
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(line);
}

async fn keep(
    content: Bytes,
    media_type: &str,
    sidecars: &Sidecars,
    session: &SessionRef,
) -> Option<BlobPart> {
    let namespace = Id::parse(&session.namespace).ok()?;
    let id = Id::parse(&session.session).ok()?;
    let key = StreamKey::session(&namespace, &id);
    match sidecars.log().put_blob(&key, content).await {
        Ok(blob) => Some(BlobPart {
            sha256: blob.sha256,
            bytes: blob.bytes,
            media_type: media_type.to_owned(),
        }),
        Err(error) => {
            tracing::warn!(%key, %error, "the whole output of a tool was not kept");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_left_alone() {
        for text in ["", "abc", "äöü", &"x".repeat(200)] {
            assert!(matches!(clamp(text, 200, ""), Cow::Borrowed(_)), "{text}");
        }
    }

    #[test]
    fn what_does_not_fit_keeps_head_and_tail_and_never_exceeds_the_limit() {
        for (unit, limit) in [
            ("a", 200),
            ("ä", 200),
            ("🦀", 201),
            ("e\u{301}", 333),
            ("\n", 1000),
        ] {
            let text = unit.repeat(5000);
            let clamped = clamp(&text, limit, "; all of it: there");
            let chars = clamped.chars().count();
            assert!(
                chars <= limit && chars + 4 > limit,
                "{unit:?}: {chars} of {limit}"
            );
            let parts: Vec<_> = clamped.split("\n[... ").collect();
            let (head, rest) = (parts[0], parts[1]);
            let tail = rest
                .split_once(" characters left out; all of it: there ...]\n")
                .map_or("", |(_, tail)| tail);
            assert!(text.starts_with(head) && text.ends_with(tail), "{unit:?}");
            let (head, tail) = (head.chars().count(), tail.chars().count());
            assert!(head.abs_diff(tail * 2) <= 2, "{unit:?}: {head} and {tail}");
            let said: usize = rest
                .split(' ')
                .next()
                .and_then(|n| n.parse().ok())
                .unwrap_or(0);
            assert_eq!(said, text.chars().count() - head - tail, "{unit:?}");
        }
    }

    #[test]
    fn a_limit_below_the_notice_keeps_the_head() {
        assert_eq!(clamp(&"ä".repeat(500), 10, ""), "ä".repeat(10));
        assert_eq!(clamp("abc", 0, ""), "");
    }

    #[test]
    fn what_fits_the_characters_fits_a_record_too() {
        for unit in ["🦀", "\u{1}", "\"", "a"] {
            let clamped = clamp(&unit.repeat(1_000_000), 1_000_000, "").into_owned();
            let json = serde_json::to_string(&clamped).map_or(usize::MAX, |json| json.len());
            assert!(json <= MAX_JSON_BYTES + 2, "{unit:?}: {json}");
            assert!(
                json > MAX_JSON_BYTES / 2,
                "{unit:?}: {json} is less than it could be"
            );
        }
    }

    #[test]
    fn parts_are_joined_and_what_is_no_result_is_skipped() {
        let part = |kind| Part {
            kind: Some(kind),
            full: None,
        };
        let parts = [
            part(part::Kind::Text("one".to_owned())),
            part(part::Kind::Text(String::new())),
            part(part::Kind::Thinking(Default::default())),
            part(part::Kind::Text("two\n".to_owned())),
            part(part::Kind::Text("three".to_owned())),
            Part::default(),
        ];
        assert_eq!(
            text_of(parts.into(), Redaction::default()),
            "one\ntwo\nthree"
        );
    }
}
