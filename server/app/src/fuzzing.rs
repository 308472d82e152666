//! What the fuzz targets in `server/app/fuzz` drive: parsers that read what strangers send.
//!
//! Boundary: only there with the feature `fuzzing`, and not for use. Invariant: each takes any bytes and
//! panics where a promise is broken.

use loopwright_core::{
    agent::{EffectClass, ToolSet, ToolSpec},
    ids::{CallId, LoopId},
    message::{CallPart, Part},
};
use loopwright_log::{Id, StreamKey};
use serde_json::Value;

use crate::{
    redaction::{Fields, Redaction},
    sidecars::schema::{Schemas, or_empty_object},
};

/// Longest verdict on arguments, bytes: three problems with their places, and the words round them.
const MOST_VERDICT: usize = 2_048;

/// Server-sent events: however the bytes are cut, they are the same events, or none.
pub fn sse(bytes: &[u8]) {
    let Some((cuts, body)) = bytes.split_first_chunk::<3>() else {
        return;
    };
    let whole = crate::effects::model::fuzzing::events(&[body]);
    let mut chunks = Vec::new();
    let mut rest = body;
    for cut in cuts.iter().map(|cut| usize::from(*cut)) {
        let (chunk, left) = rest.split_at(cut.min(rest.len()));
        chunks.push(chunk);
        rest = left;
    }
    chunks.push(rest);
    let cut = crate::effects::model::fuzzing::events(&chunks);
    assert_eq!(whole, cut, "the way the bytes were cut is seen");
}

/// Schemas that use what tools use.
const SCHEMAS: [&str; 4] = [
    r#"{"type":"object"}"#,
    r#"{"type":"object","required":["path"],"additionalProperties":false,
        "properties":{"path":{"type":"string","minLength":1},"depth":{"type":"integer","minimum":0}}}"#,
    r##"{"type":"object","properties":{"tree":{"$ref":"#/$defs/node"}},"$defs":{"node":{
        "type":"object","properties":{"children":{"type":"array","items":{"$ref":"#/$defs/node"}}}}}}"##,
    r#"{"type":"object","properties":{"kind":{"enum":["a","b"]},"n":{"type":["number","null"]},
        "tags":{"type":"array","uniqueItems":true,"maxItems":9},"s":{"pattern":"^(a+)+$","format":"date"}}}"#,
];

/// Arguments: one verdict of bounded length, and what is no JSON object never passes.
pub fn arguments(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let schemas = Schemas::default();
    for schema in SCHEMAS {
        let verdict = verdict(&schemas, schema, &text);
        let parsed = serde_json::from_str::<Value>(or_empty_object(&text));
        let is_object = matches!(parsed, Ok(Value::Object(_)));
        assert!(is_object || verdict.is_some(), "{text:?} passes {schema}");
        assert!(verdict.is_none_or(|words| words.len() <= MOST_VERDICT));
    }
}

fn verdict(schemas: &Schemas, schema: &str, arguments: &str) -> Option<String> {
    assert_eq!(schemas.check(schema), Ok(()));
    let tool = ToolSpec {
        name: "files__read".to_owned(),
        description: String::new(),
        input_schema: schema.to_owned(),
        effect: EffectClass::ReadOnly,
        destructive: false,
        lookup: false,
        timeout_ms: 1,
        absolute_cap_ms: 1,
    };
    let call = Part::ToolCall(CallPart {
        provider_id: String::new(),
        tool: tool.name.clone(),
        arguments: arguments.to_owned(),
    });
    let mut verdicts = schemas.verdicts(&ToolSet::new(vec![tool]), &[call]);
    assert_eq!(verdicts.len(), 1, "one call, one verdict");
    verdicts.remove(0).invalid
}

/// Secrets: JSON stays JSON, a second pass changes nothing, and no part of a message is lost.
pub fn secrets(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let all = Redaction::everything();
    let once = all.text(&text).into_owned();
    assert_eq!(all.text(&once), once, "a second pass finds more");
    let was_json = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
    let json = all.json(&text);
    let is_json = serde_json::from_str::<serde::de::IgnoredAny>(&json).is_ok();
    assert!(is_json || !was_json, "{json:?} was JSON");
    let mut pieces: Vec<String> = text.split('|').map(str::to_owned).collect();
    let empty: Vec<bool> = pieces.iter().map(String::is_empty).collect();
    all.pieces(&mut pieces);
    assert!(
        pieces.iter().map(String::is_empty).eq(empty),
        "a part came or went"
    );
}

/// Hidden fields: what comes out is JSON, and has nothing at the places that are hidden.
pub fn fields(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let rules = [
        "files__write/content",
        "files__write/to/*/address",
        "files__write/a/0",
    ];
    let fields = Fields::new(&rules.map(str::to_owned));
    let shown = fields.arguments("files__write", &text);
    if text.trim().is_empty() {
        return;
    }
    // Numbers beyond any type and depth beyond any stack are JSON all the same.
    let Ok(value) = serde_json::from_str::<Value>(&shown) else {
        let plain = serde_json::from_str::<serde::de::IgnoredAny>(&shown);
        assert!(plain.is_ok(), "{shown:?} is no JSON");
        return;
    };
    let hidden = |value: &Value| value.is_null() || value.is_boolean() || value == "[redacted]";
    assert!(
        value.get("content").is_none_or(|one| one == "[redacted]"),
        "{shown}"
    );
    match value.get("to") {
        Some(Value::Array(items)) => {
            let fine = |item: &Value| match item {
                Value::Object(item) => item.get("address").is_none_or(|a| a == "[redacted]"),
                Value::Array(items) => items.iter().all(|one| one == "[redacted]"),
                other => hidden(other),
            };
            assert!(items.iter().all(fine), "{shown}");
        }
        Some(Value::Object(_)) | None => {}
        Some(other) => assert!(hidden(other), "{shown}"),
    }
}

/// Ids: what is taken is written back as it came, and is safe in a path.
pub fn ids(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let safe = |text: &str| {
        let of_id = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
        !text.is_empty() && text.len() <= 63 && text.bytes().all(of_id)
    };
    if let Ok(id) = Id::parse(&text) {
        assert_eq!(id.as_str(), text);
        assert!(
            safe(id.as_str()) && !text.starts_with(['_', '-']),
            "{text:?}"
        );
    }
    if let Ok(key) = StreamKey::parse(&text) {
        assert_eq!(key.to_string(), text);
        assert!(safe(key.id()) && safe(key.namespace()), "{text:?}");
    }
    if let Ok(id) = text.parse::<LoopId>() {
        assert_eq!(id.to_string(), text);
    }
    if let Ok(id) = text.parse::<CallId>() {
        assert_eq!(id.to_string(), text);
    }
}
