//! What a model is told of its arguments.

use loopwright_core::agent::{EffectClass, ToolSpec};
use loopwright_core::message::Part;
use proptest::prelude::*;
use serde_json::{Map, Value};

use super::*;
use crate::sidecars::schema::{MAX_ARGUMENTS_BYTES, Schemas};

const SCHEMA: &str = r#"{"type":"object","required":["path"],"additionalProperties":false,
    "properties":{"path":{"type":"string"},"depth":{"type":"integer","minimum":0}}}"#;

fn told(arguments: &str) -> Option<String> {
    let spec = ToolSpec {
        name: "files__read".to_owned(),
        description: String::new(),
        input_schema: SCHEMA.to_owned(),
        effect: EffectClass::ReadOnly,
        destructive: false,
        lookup: false,
        timeout_ms: 1,
        absolute_cap_ms: 1,
    };
    let part = Part::ToolCall(CallPart {
        provider_id: String::new(),
        tool: "files__read".to_owned(),
        arguments: arguments.to_owned(),
    });
    let parts = [Part::Text("let me see".to_owned()), part];
    let verdicts = Schemas::default().verdicts(&ToolSet::new(vec![spec]), &parts);
    assert_eq!(verdicts.len(), 1);
    verdicts[0].invalid.clone()
}

#[test]
fn arguments_are_judged_in_one_sentence_that_names_the_place() {
    for good in [r#"{"path":"a"}"#, r#"{"path":"","depth":3}"#] {
        assert_eq!(told(good), None, "{good}");
    }
    for (bad, words) in [
        ("", "\"path\" is a required property"),
        ("{}", "\"path\" is a required property"),
        (r#"{"path":1}"#, "at /path: 1 is not of type \"string\""),
        (r#"{"path":"a","depth":-1}"#, "at /depth"),
        (r#"{"path":"a","dept":1}"#, "dept"),
        ("[]", "must be a JSON object"),
        ("\"x\"", "must be a JSON object"),
        ("{\"path\":", "not valid JSON"),
        ("{\"path\":\"a\"} trailing", "not valid JSON"),
    ] {
        let text = told(bad).unwrap_or_default();
        assert!(text.contains(words) && text.ends_with('.'), "{bad}: {text}");
        assert!(
            text.contains("`files__read`") && text.len() < 1200,
            "{bad}: {text}"
        );
    }
}

#[test]
fn hostile_arguments_get_a_short_answer() {
    let deep = format!(
        "{{\"path\":{}{}}}",
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    let long = format!("{{\"path\":[\"{}\"]}}", "x".repeat(400_000));
    let huge = format!("{{\"path\":\"{}\"}}", "x".repeat(MAX_ARGUMENTS_BYTES));
    let many: String = (0..10_000).map(|n| format!("\"k{n}\":0,")).collect();
    let many = format!("{{{many}\"path\":1}}");
    for bad in [deep, long, huge, many] {
        let text = told(&bad).unwrap();
        assert!(text.len() < 1200, "{} bytes: {}", text.len(), &text[..200]);
    }
}

fn hash(arguments: &str) -> String {
    let part = Part::ToolCall(CallPart {
        provider_id: String::new(),
        tool: "t".to_owned(),
        arguments: arguments.to_owned(),
    });
    let verdicts = Schemas::default().verdicts(&ToolSet::default(), &[part]);
    verdicts[0].args_hash.clone()
}

#[test]
fn arguments_that_say_the_same_have_one_hash() {
    // Of `{}`, as logs hold it that were written before.
    assert_eq!(hash("{}"), "44136fa355b3678a");
    let same: [&[&str]; 6] = [
        &["{}", "", " \n", "{ }"],
        &[
            r#"{"a":1}"#,
            r#"{"a": 1}"#,
            "{\n\t\"a\" : 1\n}",
            r#"{"\u0061":1}"#,
        ],
        &[
            r#"{"a":1,"b":[{"c":2,"d":3}]}"#,
            r#"{"b":[{"d":3,"c":2}],"a":1}"#,
        ],
        &[r#"{"n":100}"#, r#"{"n":100.0}"#, r#"{"n":1e2}"#],
        &[r#"{"n":0}"#, r#"{"n":-0}"#, r#"{"n":0.0}"#, r#"{"n":-0.0}"#],
        &[r#"{"n":0.5}"#, r#"{"n":5e-1}"#, r#"{"n":0.50}"#],
    ];
    for texts in same {
        for text in texts {
            assert_eq!(hash(text), hash(texts[0]), "{text:?} and {:?}", texts[0]);
        }
    }
    let hashes: std::collections::BTreeSet<_> = same.iter().map(|texts| hash(texts[0])).collect();
    assert_eq!(
        hashes.len(),
        same.len(),
        "what says another thing has another"
    );
}

#[test]
fn arguments_that_differ_have_hashes_that_differ() {
    let long = "x".repeat(MAX_ARGUMENTS_BYTES);
    let texts = [
        r#"{"a":[1,2]}"#,
        r#"{"a":[2,1]}"#,
        r#"{"a":"1"}"#,
        r#"{"a":1}"#,
        r#"{"a":1.5}"#,
        r#"{"a":-1}"#,
        r#"{"a":null}"#,
        r#"{"a":9007199254740993}"#,
        r#"{"a":9007199254740992}"#,
        r#"{"a":" 1"}"#,
        r#"{"a": "#,
        r#"{"a":"#,
        &format!(r#"{{"a":"{long}"}}"#),
        &format!(r#"{{ "a":"{long}"}}"#),
    ];
    let hashes: std::collections::BTreeSet<_> = texts.iter().map(|text| hash(text)).collect();
    assert_eq!(hashes.len(), texts.len());
}

#[test]
fn a_schema_that_asks_itself_for_ever_does_not_end_the_process() {
    for endless in [
        r##"{"type":"object","$ref":"#"}"##,
        r##"{"type":"object","allOf":[{"$ref":"#"}]}"##,
        r##"{"type":"object","$ref":"#/$defs/a",
            "$defs":{"a":{"$ref":"#/$defs/b"},"b":{"$ref":"#/$defs/a"}}}"##,
        r##"{"type":"object","$dynamicRef":"#x","$dynamicAnchor":"x"}"##,
        r##"{"type":"object","if":{"$ref":"#"}}"##,
        r##"{"type":"object","anyOf":[{"not":{"$ref":"#"}}]}"##,
    ] {
        let schemas = Schemas::default();
        if schemas.check(endless).is_ok() {
            let spec = ToolSpec {
                name: "a__b".to_owned(),
                description: String::new(),
                input_schema: endless.to_owned(),
                effect: EffectClass::ReadOnly,
                destructive: false,
                lookup: false,
                timeout_ms: 1,
                absolute_cap_ms: 1,
            };
            let part = Part::ToolCall(CallPart {
                provider_id: String::new(),
                tool: "a__b".to_owned(),
                arguments: "{}".to_owned(),
            });
            schemas.verdicts(&ToolSet::new(vec![spec]), &[part]);
        }
    }
}

#[test]
fn a_schema_that_takes_for_ever_is_refused() {
    let bomb = |levels: usize| {
        let level = |k: usize| {
            let next = format!(r##"{{"$ref":"#/$defs/d{}"}}"##, k + 1);
            format!(r#""d{k}":{{"anyOf":[{next},{next}]}},"#)
        };
        let defs: String = (0..levels).map(level).collect();
        format!(r##"{{"type":"object","$ref":"#/$defs/d0","$defs":{{{defs}"d{levels}":false}}}}"##)
    };
    assert_eq!(Schemas::default().check(&bomb(3)), Ok(()));
    for levels in [16, 60, 120] {
        let problem = Schemas::default().check(&bomb(levels)).unwrap_err();
        assert!(problem.contains("$ref"), "{levels}: {problem}");
    }
    let tree = r##"{"type":"object","properties":{"left":{"$ref":"#"},"right":{"$ref":"#"}}}"##;
    assert_eq!(
        Schemas::default().check(tree),
        Ok(()),
        "a recursive schema is a good one"
    );
}

/// JSON as a model may write it: mostly what the schema asks for, in part something else.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3i64..9).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        let name = prop_oneof![
            Just("path".to_owned()),
            Just("depth".to_owned()),
            "\\PC{0,3}"
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::vec((name, inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// What [`SCHEMA`] says, by hand.
fn fits(value: &Value) -> bool {
    let Value::Object(members) = value else {
        return false;
    };
    let depth = |value: &Value| value.as_f64().is_some_and(|n| n >= 0.0 && n.fract() == 0.0);
    members.get("path").is_some_and(Value::is_string)
        && members.get("depth").is_none_or(depth)
        && members.keys().all(|name| name == "path" || name == "depth")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn arguments_pass_just_if_they_fit(value in any_json(), cut in 0usize..60) {
        let text = value.to_string();
        let verdict = told(&text);
        prop_assert_eq!(verdict.is_none(), fits(&value), "{}: {:?}", text, verdict);
        let end = (0..=cut.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        if serde_json::from_str::<Value>(&text[..end]).is_err() && end > 0 {
            prop_assert!(told(&text[..end]).is_some(), "half of it passes: {}", &text[..end]);
        }
    }

    #[test]
    fn a_verdict_is_a_sentence_of_bounded_length(text in "\\PC{0,4000}") {
        for text in [text.clone(), serde_json::json!({ "path": [&text, &text], &text: &text }).to_string()] {
            prop_assert!(told(&text).is_none_or(|words| words.len() < 2_048 && words.ends_with('.')));
        }
    }
}
