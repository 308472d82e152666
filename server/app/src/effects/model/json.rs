//! JSON written member by member, so that its bytes follow from the code alone.
//!
//! Boundary: bytes in memory. Invariant: no map decides the order of anything that goes out.

use std::{borrow::Cow, collections::BTreeMap};

use loopwright_core::message::{INVALID_JSON, UNNAMED, is_object};
use serde_json::value::RawValue;

/// Members of an object in the order of their names, each with its JSON text.
pub(super) type Members = BTreeMap<String, Box<RawValue>>;

/// Writes the name of an object's next member.
pub(super) fn member(out: &mut Vec<u8>, name: &str) {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    string(out, name);
    out.push(b':');
}

/// Writes what parts an array's next element from the one before.
pub(super) fn element(out: &mut Vec<u8>) {
    if out.last() != Some(&b'[') {
        out.push(b',');
    }
}

/// Writes a string.
pub(super) fn string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a string is written to memory");
}

/// Writes a member that is a string.
pub(super) fn string_member(out: &mut Vec<u8>, name: &str, text: &str) {
    member(out, name);
    string(out, text);
}

/// Writes a member from JSON text.
pub(super) fn raw_member(out: &mut Vec<u8>, name: &str, json: &str) {
    member(out, name);
    out.extend_from_slice(json.as_bytes());
}

/// The JSON text of a string.
pub(super) fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a string is written to memory")
}

/// The members of an object, where `text` is one.
pub(super) fn members(text: &str) -> Option<Members> {
    serde_json::from_str(text).ok()
}

/// The arguments of a tool call as a JSON object: as the model wrote them where they are one, else
/// wrapped in [`INVALID_JSON`]. Core counts them so.
pub(super) fn arguments_object(arguments: &str) -> Cow<'_, str> {
    if is_object(arguments) {
        return Cow::Borrowed(arguments);
    }
    if arguments.trim().is_empty() {
        return Cow::Borrowed("{}");
    }
    Cow::Owned(format!("{{\"{INVALID_JSON}\":{}}}", quoted(arguments)))
}

/// A tool's name as both providers take it. A model may ask for what no tool is called, and is told
/// so; the call stays in the conversation, where a name that the provider refuses would make every
/// further request fail.
pub(super) fn tool_name(name: &str) -> Cow<'_, str> {
    const MOST: usize = 64;
    let fine = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if (1..=MOST).contains(&name.len()) && name.chars().all(fine) {
        return Cow::Borrowed(name);
    }
    if name.is_empty() {
        return Cow::Borrowed(UNNAMED);
    }
    Cow::Owned(
        name.chars()
            .take(MOST)
            .map(|c| if fine(c) { c } else { '_' })
            .collect(),
    )
}

/// A tool's input schema as both providers want it: an object that says that it is one.
pub(super) fn object_schema<'a>(tool: &str, schema: &'a str) -> Result<Cow<'a, str>, String> {
    let text = schema.trim();
    let Some(members) = members(text) else {
        return Err(format!(
            "the input schema of tool `{tool}` is no JSON object; its sidecar must declare one, \
             such as {{\"type\":\"object\"}}"
        ));
    };
    match members.get("type").map(|kind| kind.get()) {
        Some("\"object\"") => Ok(Cow::Borrowed(text)),
        Some(other) => Err(format!(
            "the input schema of tool `{tool}` has type {other}; a model's tool takes an object"
        )),
        None if members.is_empty() => Ok(Cow::Borrowed("{\"type\":\"object\"}")),
        None => Ok(Cow::Owned(format!("{{\"type\":\"object\",{}", &text[1..]))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_that_are_no_object_are_wrapped() {
        assert_eq!(arguments_object("{\"a\": 1}"), "{\"a\": 1}");
        assert_eq!(arguments_object(" "), "{}");
        assert_eq!(arguments_object("[1]"), "{\"INVALID_JSON\":\"[1]\"}");
        assert_eq!(arguments_object("{\"a"), "{\"INVALID_JSON\":\"{\\\"a\"}");
        let lone = "{\"a\":\"\\ud800\"}";
        assert!(arguments_object(lone).starts_with("{\"INVALID_JSON\""));
    }

    #[test]
    fn a_name_that_no_provider_takes_is_mended() {
        assert_eq!(tool_name("files__read-2"), "files__read-2");
        assert_eq!(tool_name("no such.tool ä"), "no_such_tool__");
        assert_eq!(tool_name(""), "unnamed");
        assert_eq!(tool_name(&"ä".repeat(99)), "_".repeat(64));
    }

    #[test]
    fn a_schema_says_that_it_is_an_object() {
        let fixed = |text| object_schema("t", text).map(Cow::into_owned);
        assert_eq!(fixed("{}"), Ok("{\"type\":\"object\"}".to_owned()));
        assert_eq!(
            fixed(" {\"properties\":{}}\n"),
            Ok("{\"type\":\"object\",\"properties\":{}}".to_owned())
        );
        assert!(fixed("[]").is_err_and(|e| e.contains("`t`")));
        assert!(fixed("{\"type\":\"string\"}").is_err());
    }
}
