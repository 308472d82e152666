//! Each rule refuses what it is there for: a mock that takes everything would test nothing.

use serde_json::{Value, json};

use super::check;
use crate::mock_model::Protocol;

fn anthropic() -> Value {
    let mark = json!({"type": "ephemeral"});
    json!({
        "model": "m", "max_tokens": 9, "stream": true,
        "tools": [{"name": "t", "input_schema": {"type": "object"}, "cache_control": mark}],
        "system": [{"type": "text", "text": "s", "cache_control": mark}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "u", "cache_control": mark}]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "t", "signature": "s"},
                {"type": "tool_use", "id": "c1", "name": "t", "input": {}},
                {"type": "tool_use", "id": "c2", "name": "t", "input": {}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": "r"},
                {"type": "tool_result", "tool_use_id": "c2", "content": "r", "cache_control": mark},
            ]},
            {"role": "user", "content": [{"type": "text", "text": "and"}]},
        ],
    })
}

fn openai() -> Value {
    let call = |id: &str| {
        json!({"id": id, "type": "function",
        "function": {"name": "t", "arguments": "{}"}})
    };
    json!({
        "model": "m", "max_tokens": 9, "stream": true,
        "tools": [{"type": "function",
            "function": {"name": "t", "parameters": {"type": "object"}}}],
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": "u"},
            {"role": "assistant", "content": null, "tool_calls": [call("c1"), call("c2")]},
            {"role": "tool", "tool_call_id": "c1", "content": "r"},
            {"role": "tool", "tool_call_id": "c2", "content": "r"},
            {"role": "user", "content": [{"type": "text", "text": "and"}]},
        ],
    })
}

/// Puts `value` where `pointer` points to, or takes away what is there where it is null.
fn change(request: &mut Value, pointer: &str, value: Value) {
    let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
    let parent = request
        .pointer_mut(parent)
        .expect("the pointer leads somewhere");
    match parent {
        Value::Array(items) => {
            let at: usize = name.parse().expect("an index");
            if value.is_null() {
                items.remove(at);
            } else if at == items.len() {
                items.push(value);
            } else {
                items[at] = value;
            }
        }
        Value::Object(members) => {
            members.insert(name.to_owned(), value);
        }
        other => panic!("{pointer} leads to {other}"),
    }
}

fn refused(protocol: Protocol, base: fn() -> Value, pointer: &str, value: Value, words: &str) {
    let mut request = base();
    change(&mut request, pointer, value.clone());
    let why = check(protocol, &request).expect_err(&format!("{pointer} = {value} is taken"));
    assert!(why.contains(words), "{pointer} = {value}: {why}");
}

#[test]
fn what_is_right_is_taken() {
    assert_eq!(check(Protocol::Anthropic, &anthropic()), Ok(()));
    assert_eq!(check(Protocol::OpenAi, &openai()), Ok(()));
}

#[test]
fn anthropic_refuses_what_stands_before_the_messages() {
    let cases = [
        ("/unknown", json!(1), "Extra inputs"),
        ("/model", json!(""), "model: Field required"),
        ("/max_tokens", json!(null), "max_tokens: Field required"),
        (
            "/tools/0/name",
            json!("files.read"),
            "String should match pattern",
        ),
        (
            "/tools/0/name",
            json!("x".repeat(65)),
            "String should match pattern",
        ),
        (
            "/tools/1",
            anthropic()["tools"][0].clone(),
            "must be unique",
        ),
        (
            "/tools/0/input_schema",
            json!({}),
            "Input should be 'object'",
        ),
        (
            "/tools/0/input_schema",
            json!("x"),
            "Input should be 'object'",
        ),
        ("/system/0/text", json!(" "), "non-whitespace"),
        (
            "/system/0/cache_control",
            json!({"type": "persistent"}),
            "should be 'ephemeral'",
        ),
        (
            "/system/0/cache_control",
            json!({"type": "ephemeral", "ttl": "2h"}),
            "'5m' or '1h'",
        ),
        (
            "/system/0/cache_control",
            json!({"type": "ephemeral", "ttl": "1h"}),
            "must not come after a ttl='5m'",
        ),
    ];
    for (pointer, value, words) in cases {
        refused(Protocol::Anthropic, anthropic, pointer, value, words);
    }
    let mut choice = anthropic();
    choice["tools"] = json!([]);
    choice["tool_choice"] = json!({"type": "auto"});
    assert!(check(Protocol::Anthropic, &choice).is_err_and(|e| e.contains("tool_choice")));
}

#[test]
fn anthropic_refuses_messages() {
    let text = |text: &str| json!({"type": "text", "text": text});
    let cases = [
        ("/messages", json!([]), "at least one message"),
        ("/messages/0/role", json!("assistant"), "first message"),
        ("/messages/0/role", json!("system"), "Unexpected role"),
        ("/messages/0/content", json!([]), "non-empty content"),
        ("/messages/0/content", json!(""), "non-empty content"),
        ("/messages/0/content/0", text(""), "non-whitespace"),
        (
            "/messages/0/content/0",
            json!({"type": "new"}),
            "does not match any",
        ),
        ("/messages/1/content/0/signature", json!(null), "signature"),
        (
            "/messages/1/content/3",
            json!({"type": "thinking", "signature": "s"}),
            "final block",
        ),
        ("/messages/1/content/1/id", json!(""), "tool_use.id"),
        ("/messages/1/content/1/id", json!("c2"), "must be unique"),
        (
            "/messages/1/content/1/input",
            json!("{}"),
            "valid dictionary",
        ),
        ("/messages/2/content/0", json!(null), "immediately after"),
        ("/messages/2/content/0", text("first"), "come first"),
        (
            "/messages/2/content/0/tool_use_id",
            json!("c9"),
            "unexpected",
        ),
        (
            "/messages/0/content/1",
            anthropic()["messages"][2]["content"][0].clone(),
            "unexpected",
        ),
        (
            "/messages/3/content/0/cache_control",
            json!({"type": "ephemeral"}),
            "maximum of 4",
        ),
    ];
    for (pointer, value, words) in cases {
        refused(Protocol::Anthropic, anthropic, pointer, value, words);
    }
    let mut open = anthropic();
    open["messages"]
        .as_array_mut()
        .expect("an array")
        .truncate(2);
    assert!(check(Protocol::Anthropic, &open).is_err_and(|e| e.contains("without `tool_result`")));
}

#[test]
fn openai_refuses() {
    let call = openai()["messages"][2]["tool_calls"][0].clone();
    let cases = [
        ("/model", json!(null), "model"),
        ("/model", json!("gpt-5.5"), "'max_tokens' is not supported"),
        ("/max_completion_tokens", json!(1), "at the same time"),
        ("/max_tokens", json!(0), "below minimum"),
        ("/tools", json!([]), "too short - 'tools'"),
        ("/tools/0/function/name", json!("a b"), "pattern"),
        (
            "/tools/0/function/parameters",
            json!({"type": "string"}),
            "Invalid schema",
        ),
        ("/tools/0/function/parameters", json!({}), "Invalid schema"),
        ("/messages", json!([]), "too short - 'messages'"),
        ("/messages/0/role", json!("model"), "Invalid value"),
        ("/messages/1/content", json!(""), "expected text"),
        (
            "/messages/1/content",
            json!([{"type": "text", "text": ""}]),
            "expected text",
        ),
        ("/messages/2/tool_calls", json!([]), "too short"),
        ("/messages/2/tool_calls/1", call, "Duplicate"),
        ("/messages/2/tool_calls/0/id", json!(""), "Duplicate"),
        (
            "/messages/2/tool_calls/0/function/arguments",
            json!("{"),
            "no JSON object",
        ),
        (
            "/messages/2/tool_calls/0/function/name",
            json!("a.b"),
            "pattern",
        ),
        ("/messages/3", json!(null), "no tool message"),
        ("/messages/3/tool_call_id", json!("c9"), "answers no call"),
        ("/messages/3/content", json!(""), "expected text"),
    ];
    for (pointer, value, words) in cases {
        refused(Protocol::OpenAi, openai, pointer, value, words);
    }
    let mut open = openai();
    open["messages"]
        .as_array_mut()
        .expect("an array")
        .truncate(4);
    assert!(check(Protocol::OpenAi, &open).is_err_and(|e| e.contains("no tool message")));
    let mut choice = openai();
    choice["tools"] = json!(null);
    choice["tool_choice"] = json!("auto");
    assert!(check(Protocol::OpenAi, &choice).is_err_and(|e| e.contains("tool_choice")));
}
