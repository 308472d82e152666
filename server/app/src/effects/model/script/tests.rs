#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;

fn problem(text: &str) -> String {
    Script::parse("s.yaml", text).unwrap_err().to_string()
}

#[test]
fn a_list_an_object_and_json_are_the_same_script() {
    let list = "# mine\n- text: a\n- text: b\n";
    let object = "turns:\n  - text: a\n  - text: b\n";
    let json = "{\"turns\": [{\"text\": \"a\"}, {\"text\": \"b\"}]}";
    let want = Script::parse("s", list).unwrap();
    assert_eq!(Script::parse("s", object).unwrap(), want);
    assert_eq!(Script::parse("s", json).unwrap(), want);
    assert_eq!(
        Script::parse("s", "[{\"text\": \"a\"}, {\"text\": \"b\"}]").unwrap(),
        want
    );
}

#[test]
fn the_number_of_the_reply_says_which_turn_it_is() {
    let script = Script::parse("s", "- {text: a, repeat: 2}\n- text: b\n").unwrap();
    let text = |number| script.turn(number).map(|turn| turn.text.clone().unwrap());
    assert_eq!(
        [text(0), text(1), text(2), text(3)].map(|t| t.unwrap_or_default()),
        ["a", "a", "b", ""]
    );
    let again = Script::parse("s", "at_end: repeat\nturns: [{text: a}, {text: b}]").unwrap();
    assert_eq!(again.turn(1_000_001).unwrap().text.as_deref(), Some("b"));
}

#[test]
fn problems_name_the_place_and_the_way_out() {
    let typo = problem("- text: a\n- txt: b\n");
    assert!(
        typo.contains("s.yaml") && typo.contains("line 2") && typo.contains("`text`"),
        "{typo}"
    );
    assert!(problem("turns: []").contains("0 turns"));
    let cases = [
        ("- {}", "turns[0]: it says nothing"),
        ("- {fail: {kind: server, times: 1}}", "it says nothing"),
        ("- {text: a, repeat: 0}", "repeat is 0"),
        ("- {text: a, chunk: {chars: 0}}", "chunk.chars is 0"),
        (
            "- {text: '{{lst_result}}'}",
            "{{lst_result}} is not known; there are {{last_result}}",
        ),
        (
            "- {tool_calls: [{tool: t, arguments: {a: ['{{x}}']}}]}",
            "{{x}} is not known",
        ),
        ("- {fail: {}}", "neither status nor kind"),
        (
            "- {fail: {status: 500, kind: server}}",
            "both status and kind",
        ),
        ("- {fail: {status: 200}}", "300 to 599"),
        ("- {fail: {kind: nonsense}}", "rate_limited"),
        (
            "- {text: a, usage: {}, no_usage: true}",
            "does nothing beside",
        ),
        ("- {text: a, delay_ms: 99999999999}", "a day"),
    ];
    for (text, want) in cases {
        assert!(problem(text).contains(want), "{text}: {}", problem(text));
    }
}

#[test]
fn arguments_keep_their_order_and_take_what_is_known() {
    let text = "- tool_calls:\n  - tool: t\n    arguments: {z: '{{last_result}}', a: [1, '{{turn}}']}\n  \
                - {tool: t, arguments: '{\"broken'}\n  - {tool: t}\n";
    let script = Script::parse("s", text).unwrap();
    let values = Values {
        results: vec!["first".into(), "a \"b\"".into()],
        user: "u".into(),
        turn: 3,
    };
    let calls = &script.turn(0).unwrap().tool_calls;
    assert_eq!(
        calls[0].arguments(&values),
        "{\"z\":\"a \\\"b\\\"\",\"a\":[1,\"3\"]}"
    );
    assert_eq!(calls[1].arguments(&values), "{\"broken");
    assert_eq!(calls[2].arguments(&values), "{}");
    assert_eq!(
        values.fill("{{result.0}}-{{ result.9 }}-{{last_user}}-{{"),
        "first--u-{{"
    );
}

#[test]
fn the_schema_names_what_a_turn_may_have() {
    let schema = Script::schema().to_string();
    for name in [
        "tool_calls",
        "at_end",
        "retry_after_ms",
        "chars",
        "no_usage",
    ] {
        assert!(schema.contains(name), "{name}");
    }
}
