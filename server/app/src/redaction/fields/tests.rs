#![expect(clippy::unwrap_used, reason = "tests")]

use loopwright_core::{
    Cause,
    context::{Item, ItemKind},
    event::{ModelCallCompleted, ToolCallRejected, ToolCallRequested},
    ids::CallId,
    outcome::StopReason,
};
use proptest::prelude::*;

use super::*;

fn fields(rules: &[&str]) -> Fields {
    let rules: Vec<String> = rules.iter().map(|rule| (*rule).to_owned()).collect();
    assert!(
        rules.iter().all(|rule| FieldRule::parse(rule).is_some()),
        "{rules:?}"
    );
    Fields::new(&rules)
}

#[test]
fn rules_are_a_tool_and_a_pointer() {
    for rule in [
        "files__write",
        "files__write/content",
        "a-b_c__d-e/x~1y/~0/*/0",
        "mail__send/",
        "mail__send/üñ",
    ] {
        assert!(FieldRule::parse(rule).is_some(), "{rule}");
    }
    for rule in [
        "",
        "files",
        "files/content",
        "/content",
        "Files__write/content",
        "files__write__x/content",
        "files__/content",
        "__write",
        "files__write/a~2",
        "files__write/a~",
        "files__write/a\nb",
        "a__b/1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/17",
    ] {
        assert!(FieldRule::parse(rule).is_none(), "{rule}");
    }
}

#[test]
fn what_a_rule_names_is_replaced_and_the_rest_stays_byte_for_byte() {
    let fields = fields(&[
        "files__write/content",
        "mail__send/to/*/address",
        "mail__send/parts/1",
        "odd__keys/a~1b/~0",
        "all__of_it",
    ]);
    for (tool, arguments, expected) in [
        (
            "files__write",
            r#"{"path":"a", "content" : "secret","n":1e400}"#,
            r#"{"path":"a","content":"[redacted]","n":1e400}"#,
        ),
        (
            "files__write",
            r#"{"content":{"deep":["secret"]},"content":"twice"}"#,
            r#"{"content":"[redacted]","content":"[redacted]"}"#,
        ),
        (
            "files__write",
            r#"{"\u0063ontent":"x"}"#,
            r#"{"content":"[redacted]"}"#,
        ),
        ("files__write", r#"{"other":"x"}"#, r#"{"other":"x"}"#),
        (
            "mail__send",
            r#"{"to":[{"address":"a","name":"A"},{"name":"B"}],"parts":["x","y","z"]}"#,
            r#"{"to":[{"address":"[redacted]","name":"A"},{"name":"B"}],"parts":["x","[redacted]","z"]}"#,
        ),
        (
            "odd__keys",
            r#"{"a/b":{"~":1,"x":2}}"#,
            r#"{"a/b":{"~":"[redacted]","x":2}}"#,
        ),
        ("all__of_it", r#"{"a":1}"#, r#""[redacted]""#),
        ("some__other", r#"{"content":"x"}"#, r#"{"content":"x"}"#),
        ("files__write", "", ""),
    ] {
        assert_eq!(fields.arguments(tool, arguments), expected, "{arguments}");
    }
}

/// Models write what they like: nothing is shown because it has another shape than expected.
#[test]
fn what_a_rule_cannot_be_followed_through_is_replaced_further_up() {
    let fields = fields(&["files__write/content", "mail__send/to/*/address"]);
    for (tool, arguments, expected) in [
        ("files__write", r#"{"content":"sec"#, r#""[redacted]""#),
        ("files__write", "content=secret", r#""[redacted]""#),
        (
            "files__write",
            r#"{"content":"a"} {"content":"b"}"#,
            r#""[redacted]""#,
        ),
        (
            "files__write",
            r#""{\"content\":\"secret\"}""#,
            r#""[redacted]""#,
        ),
        (
            "files__write",
            r#"[{"content":"secret"}]"#,
            r#"["[redacted]"]"#,
        ),
        ("mail__send", r#"{"to":"a@b"}"#, r#"{"to":"[redacted]"}"#),
        (
            "mail__send",
            r#"{"to":["a@b",7,null]}"#,
            r#"{"to":["[redacted]","[redacted]",null]}"#,
        ),
        (
            "mail__send",
            r#"{"to":{"x":{"address":"a"}}}"#,
            r#"{"to":{"x":{"address":"[redacted]"}}}"#,
        ),
    ] {
        assert_eq!(fields.arguments(tool, arguments), expected, "{arguments}");
    }
}

#[test]
fn depth_is_no_weapon() {
    let fields = fields(&["files__write/content", "files__write/a/*/b"]);
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(200_000), "]".repeat(200_000));
    assert!(fields.arguments("files__write", &deep).len() <= deep.len() + 64);
}

fn reply(tool: &str, arguments: &str) -> Entry {
    let call = Part::ToolCall(CallPart {
        provider_id: "p".into(),
        tool: tool.into(),
        arguments: arguments.into(),
    });
    let completed = ModelCallCompleted {
        recap: false,
        call: CallId(1),
        attempt: 1,
        parts: Arc::new(vec![Part::Text("I write".into()), call]),
        stop: StopReason::ToolUse,
        usage: None,
        response_id: None,
        body_crc: String::new(),
        latency_ms: 0,
        first_token_ms: None,
        cost_micro_usd: None,
    };
    let requested = ToolCallRequested {
        call: CallId(2),
        index: 1,
        args_hash: "h".into(),
    };
    let rejected = ToolCallRejected {
        call: CallId(2),
        reason: RejectReason::InvalidArguments,
        message: format!("{arguments} is not of type object"),
    };
    Entry {
        cause: Cause::Model {
            call: CallId(1),
            attempt: 1,
            jitter: 0,
            retry_after_ms: None,
        },
        events: vec![completed.into(), requested.into(), rejected.into()],
        copied: false,
    }
}

#[test]
fn an_entry_is_shown_without_the_field_and_without_its_quotation() {
    let fields = fields(&["files__write/content"]);
    let entry = reply("files__write", "{\"content\":\"xyzzy\"}");
    let shown = fields.entry(&entry).unwrap();
    let text = serde_json::to_string(&shown).unwrap();
    assert!(!text.contains("xyzzy"), "{text}");
    assert!(text.contains("I write") && text.contains("\"h\""), "{text}");
    assert_eq!(
        fields.entry(&reply("calc__add", "{}")),
        None,
        "nothing to hide"
    );
    assert_eq!(Fields::default().entry(&entry), None);
}

#[test]
fn what_is_remembered_of_a_call_names_its_tool_alone() {
    let item = |kind, text: &str| Item {
        kind,
        text: text.to_owned(),
    };
    let recap = Recap {
        round: 1,
        items: vec![
            item(ItemKind::Decision, "I write (xyzzy is my own word)"),
            item(
                ItemKind::Call,
                "files__write({\"content\":\"xyzzy\"}) -> wrote xyzzy",
            ),
            item(ItemKind::Error, "c7 files__write(xyzzy"),
            item(ItemKind::Call, "files__read({}) -> a"),
        ],
        forgotten: 0,
        written: None,
    };
    let fields = fields(&["files__write/content"]);
    let shown: Vec<String> = fields
        .recap(&recap)
        .unwrap()
        .items
        .into_iter()
        .map(|item| item.text)
        .collect();
    assert_eq!(
        shown,
        [
            "I write (xyzzy is my own word)",
            "files__write([redacted])",
            "c7 files__write([redacted])",
            "files__read({}) -> a"
        ]
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Whatever the arguments are, the value that stands where a rule points is gone.
    #[test]
    fn the_secret_is_gone_whatever_stands_round_it(
        before in "\\PC{0,12}",
        name in prop_oneof![Just("content".to_owned()), "[a-c]{1,2}"],
        cut in 0usize..80,
    ) {
        let fields = fields(&["files__write/content", "files__write/a/*", "files__write/b"]);
        let whole = serde_json::json!({ "x": before, &name: "xyzzy-secret", "y": [1, 2] }).to_string();
        let end = (0..=cut.min(whole.len())).rev().find(|at| whole.is_char_boundary(*at)).unwrap();
        let shown = fields.arguments("files__write", &whole[..end]);
        let covered = ["content", "a", "b"].contains(&name.as_str());
        prop_assert!(!covered || !shown.contains("xyzzy"), "{}", shown);
        prop_assert!(serde_json::from_str::<serde_json::Value>(&shown).is_ok() || end == 0);
    }
}
