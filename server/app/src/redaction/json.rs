//! Secrets in JSON: its strings and numbers are texts, and what is not changed stays byte for byte.
//!
//! Invariant: JSON in, JSON out. A string is looked at as it reads, not as it is escaped; a number that
//! is a secret becomes a string.

use std::borrow::Cow;

use serde::de::IgnoredAny;

use super::secrets::{Kinds, find, replaced};

/// The text without secrets.
pub(super) fn redacted(kinds: Kinds, text: &str) -> Cow<'_, str> {
    if !is_json(text) {
        return replaced(text, &find(kinds, text));
    }
    // What is split over several strings, such as the lines of a key, shows in the whole alone.
    let mut across = find(kinds, text);
    across.retain(|one| text[one.at.clone()].contains('"'));
    if across.is_empty() {
        return by_token(kinds, text);
    }
    let redacted = replaced(text, &across);
    if is_json(&redacted) {
        return Cow::Owned(by_token(kinds, &redacted).into_owned());
    }
    let redacted = replaced(text, &find(kinds, text));
    Cow::Owned(quoted(&redacted))
}

fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a string is JSON")
}

/// `text` is JSON.
fn by_token(kinds: Kinds, text: &str) -> Cow<'_, str> {
    let mut out = String::new();
    let (mut at, mut done) = (0, 0);
    let mut name = String::new();
    while let Some(&byte) = text.as_bytes().get(at) {
        let (end, changed) = match byte {
            b'"' => {
                let end = end_of_string(text, at);
                let is_name = text[end..].trim_ascii_start().starts_with(':');
                let said: Cow<'_, str> = decoded(&text[at..end]);
                let changed = string(kinds, &name, &said);
                name.clear();
                if is_name {
                    name.push_str(&said);
                }
                (end, changed)
            }
            b'-' | b'0'..=b'9' => {
                let end = end_of_number(text, at);
                name.clear();
                let number = &text[at..end];
                let found = find(kinds, number);
                let changed = (!found.is_empty()).then(|| replaced(number, &found).into_owned());
                (end, changed)
            }
            _ => (at + 1, None),
        };
        if let Some(changed) = changed {
            out.push_str(&text[done..at]);
            out.push_str(&quoted(&changed));
            done = end;
        }
        at = end;
    }
    if done == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(&text[done..]);
    Cow::Owned(out)
}

/// A string without its secrets, where it has any. Some are known by the name that they go by.
fn string(kinds: Kinds, name: &str, said: &str) -> Option<String> {
    let mut found = find(kinds, said);
    if found.is_empty() && !name.is_empty() && name.len() <= 64 {
        let head = format!("{name}=");
        found = find(kinds, &format!("{head}{said}"));
        found.retain(|one| one.at.start >= head.len());
        for one in &mut found {
            one.at = one.at.start - head.len()..one.at.end - head.len();
        }
    }
    (!found.is_empty()).then(|| replaced(said, &found).into_owned())
}

/// Behind the closing quote of the string that begins at `at`.
fn end_of_string(text: &str, at: usize) -> usize {
    let mut escaped = false;
    for (place, byte) in text.bytes().enumerate().skip(at + 1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return place + 1,
            _ => {}
        }
    }
    text.len()
}

fn end_of_number(text: &str, at: usize) -> usize {
    let of_number = |b: &u8| matches!(b, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
    let rest = &text.as_bytes()[at..];
    at + rest.iter().take_while(|b| of_number(b)).count()
}

/// What a string token says.
fn decoded(token: &str) -> Cow<'_, str> {
    let inner = token
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .unwrap_or(token);
    if !inner.contains('\\') {
        return Cow::Borrowed(inner);
    }
    serde_json::from_str(token).map_or(Cow::Borrowed(inner), Cow::Owned)
}
