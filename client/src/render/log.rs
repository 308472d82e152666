//! A log and a conversation for `log show`.
//!
//! Boundary: whole entries and messages; where they come from is the command's. Invariant: one line an
//! event, in the order of the log.

use loopwright_proto::v1::{Entry, Message, Part, Role, part};

use super::event::describe;
use super::words::{QUOTE, one_line, printable, timestamp_words};

/// One line an event; the seq and the time stand on the first of an entry.
#[must_use]
pub fn entry_lines(entry: &Entry) -> Vec<String> {
    let at = entry.committed_at.as_ref().map_or_else(
        || " ".repeat("2026-11-22 11:30:05.123".len()),
        timestamp_words,
    );
    let head = format!("{:>5}  {at}", entry.seq);
    let indent = " ".repeat(head.chars().count());
    let events = entry.events.iter().enumerate();
    events
        .map(|(at, event)| {
            let (name, words) = describe(event.kind.as_ref());
            let lead = if at == 0 { &head } else { &indent };
            format!("{lead}  {name:<18}  {words}").trim_end().to_owned()
        })
        .collect()
}

/// A conversation as the model is given it: who speaks, then what is said, indented.
#[must_use]
pub fn message_lines(messages: &[Message]) -> Vec<String> {
    let mut lines = Vec::new();
    for message in messages {
        lines.push(format!("{}:", speaker(message.role())));
        for part in &message.parts {
            let words = part_text(part);
            lines.extend(
                words
                    .lines()
                    .map(|line| format!("  {line}").trim_end().to_owned()),
            );
        }
    }
    lines
}

fn speaker(role: Role) -> &'static str {
    match role {
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
        Role::Unspecified => "?",
    }
}

fn part_text(part: &Part) -> String {
    match &part.kind {
        Some(part::Kind::Text(text)) => printable(text),
        Some(part::Kind::Thinking(thinking)) => format!("(thinking) {}", printable(&thinking.text)),
        Some(part::Kind::ToolCall(call)) => {
            let arguments = one_line(&call.arguments_json, 4 * QUOTE);
            format!("→ {} {} {arguments}", call.call, call.tool)
        }
        Some(part::Kind::ToolResult(result)) => {
            let mark = if result.is_error { "✗" } else { "✓" };
            let text: Vec<String> = result.parts.iter().map(part_text).collect();
            format!("{mark} {}\n{}", result.call, text.join("\n"))
        }
        Some(part::Kind::Opaque(opaque)) => format!("({} block)", opaque.provider),
        Some(part::Kind::Blob(blob)) => {
            let size = blob.blob.as_ref().map_or(0, |blob| blob.bytes);
            format!("({}, {size} bytes)", blob.media_type)
        }
        None => "(a part that this version does not know)".to_owned(),
    }
}
