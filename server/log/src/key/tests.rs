#![expect(clippy::unwrap_used, reason = "tests")]
use proptest::prelude::*;

use super::*;

#[test]
fn ids_that_could_escape_a_path_are_refused() {
    for bad in [
        "",
        "..",
        ".",
        "a/b",
        "A",
        "-a",
        "_a",
        "a.b",
        "a\0",
        "é",
        &"a".repeat(64),
    ] {
        assert!(Id::parse(bad).is_err(), "{bad:?}");
    }
    for good in ["a", "0", "a-b_c", &"a".repeat(63)] {
        assert_eq!(Id::parse(good).unwrap().as_str(), good);
    }
}

#[test]
fn a_key_is_its_parts_and_its_text() {
    let key = StreamKey::parse("ledger/acme/main-1").unwrap();
    assert_eq!(
        (
            key.kind(),
            key.namespace(),
            key.id(),
            key.to_string().as_str()
        ),
        (StreamKind::Ledger, "acme", "main-1", "ledger/acme/main-1")
    );
    for bad in [
        "",
        "session",
        "session/a",
        "loop/a/b",
        "session/a/b/c",
        "session/../b",
    ] {
        assert!(StreamKey::parse(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn keys_order_by_namespace_then_id() {
    let mut keys: Vec<_> = ["session/a-b/x", "session/a/z", "session/a/b"]
        .map(|text| StreamKey::parse(text).unwrap())
        .into();
    keys.sort();
    let texts: Vec<_> = keys.iter().map(StreamKey::as_str).collect();
    assert_eq!(texts, ["session/a/b", "session/a/z", "session/a-b/x"]);
}

/// What an id is, said another way.
fn is_id(text: &str) -> bool {
    let (first, all) = (text.chars().next(), text.chars());
    (1..=63).contains(&text.chars().count())
        && first.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
        && { all }.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_')
}

/// Texts near to ids: of their characters and a few others, and of any length near the limit.
fn near_ids() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z0-9_-]{0,66}",
        "[a-z0-9_./\\x00A-Zé-]{0,6}",
        "\\PC{0,8}",
        "[a-z0-9]{62,64}",
    ]
}

proptest! {
    #[test]
    fn just_ids_are_ids(text in near_ids()) {
        prop_assert_eq!(Id::parse(&text).is_ok(), is_id(&text), "{:?}", text);
        if let Ok(id) = Id::parse(&text) {
            prop_assert_eq!(id.as_str(), &text);
        }
    }

    #[test]
    fn a_key_is_three_parts_that_are_good_by_themselves(
        kind in prop_oneof!["session|ledger|registry|log", "[a-z]{0,8}"],
        namespace in near_ids(),
        id in near_ids(),
    ) {
        let text = format!("{kind}/{namespace}/{id}");
        let known = ["session", "ledger", "registry", "log"].contains(&kind.as_str());
        let good = known && is_id(&namespace) && is_id(&id);
        prop_assert_eq!(StreamKey::parse(&text).is_ok(), good, "{}", text);
        if let Ok(key) = StreamKey::parse(&text) {
            prop_assert_eq!(key.as_str(), &text);
            prop_assert_eq!((key.namespace(), key.id()), (namespace.as_str(), id.as_str()));
        }
    }
}
