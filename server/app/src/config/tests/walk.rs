//! Every key of the schema, set by a TOML file, a YAML file, a variable and a flag.

use serde_json::{Value, json};

use super::*;
use crate::config::schema::value_at;

/// A value that is not the default, as words and as JSON, which is also how files write it.
fn sample(key: &Key) -> (String, Value) {
    let text = |text: &str| (text.to_owned(), json!(text));
    let number = |n: u64| (n.to_string(), json!(n));
    match (&key.kind, key.path.as_str()) {
        (Kind::Bool, _) => (
            format!("{}", key.default != "true"),
            json!(key.default != "true"),
        ),
        (Kind::Count(_, max), path) if path.starts_with("limits.") => number(*max),
        (Kind::Count(min, _), _) => number(min + 7),
        (Kind::Size(min, _), _) => text(&units::ByteSize::new(min + 1024).to_string()),
        (Kind::Period(..), "tools.absolute_cap") => text("2h"),
        (Kind::Period(min, _), _) => text(&units::Period::from_millis(min + 1000).to_string()),
        (Kind::Sync(..), _) => text("50ms"),
        (Kind::Money, _) => ("0.25".to_owned(), json!(0.25)),
        (Kind::Share(..), _) => ("0.75".to_owned(), json!(0.75)),
        (Kind::Price, _) => ("1.5".to_owned(), json!(1.5)),
        (Kind::Choice(words), _) => text(words.iter().find(|word| **word != key.default).unwrap()),
        (Kind::Text, "loop.model") => text("openai/m-1"),
        (Kind::Text, _) => text("m-1"),
        (Kind::Path, _) => text("/srv/x"),
        (Kind::Url, _) => text("http://127.0.0.1:9"),
        (Kind::Urls, _) => (
            "http://10.0.0.5:1,http://h".to_owned(),
            json!(["http://10.0.0.5:1", "http://h"]),
        ),
        (Kind::Origins, _) => (
            "https://example.org".to_owned(),
            json!(["https://example.org"]),
        ),
        (Kind::Words(words), _) => (words[..2].join(","), json!(words[..2])),
        (Kind::Fields, _) => (
            "files__write/content,mail__send".to_owned(),
            json!(["files__write/content", "mail__send"]),
        ),
        (Kind::Address, _) => text("127.0.0.1:9999"),
        (Kind::EnvName, _) => text("MY_KEY"),
        (Kind::Header, _) => text("blue"),
        (Kind::LogFilter, _) => text("info,loopwright_server=debug"),
    }
}

/// What must stand beside a key for the rules to hold.
fn companions(key: &Key) -> BTreeMap<String, String> {
    let mut beside = match key.path.as_str() {
        "models.<alias>.script" => map(&[("models.fast.provider", "scripted")]),
        "models.<alias>.provider" => {
            map(&[("models.fast.id", "m"), ("models.fast.script", "/srv/x")])
        }
        "tools.approval_default" => map(&[("tools.approval_timeout", "1h")]),
        path if path.starts_with("models.<alias>.price.") => map(&[
            ("models.fast.provider", "openai"),
            ("models.fast.id", "m"),
            ("models.fast.price.input", "1"),
            ("models.fast.price.output", "2"),
        ]),
        path if path.starts_with("models.") => {
            map(&[("models.fast.provider", "openai"), ("models.fast.id", "m")])
        }
        _ => BTreeMap::new(),
    };
    if let (Kind::Choice(_), "anthropic" | "openai") = (&key.kind, sample(key).0.as_str()) {
        beside.remove("models.fast.script");
    }
    beside.remove(&path(key));
    beside
}

fn path(key: &Key) -> String {
    key.path
        .replace("<alias>", "fast")
        .replace("<name>", "x-team")
}

fn assert_arrives(sources: &Sources, key: &Key, expected: &Value, source: &Source) {
    let path = path(key);
    let loaded = load(sources).unwrap_or_else(|e| panic!("{path} by {source}: {e}"));
    let config = serde_json::to_value(&loaded.config).unwrap();
    let segments: Vec<&str> = path.split('.').collect();
    assert_eq!(
        value_at(&config, &segments),
        Some(expected),
        "{path} by {source}"
    );
    assert_eq!(
        loaded.provenance.get(&path),
        Some(source),
        "{path} by {source}"
    );
}

#[test]
fn every_key_arrives_from_a_toml_file_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    for key in schema() {
        let (path, (_, value)) = (path(key), sample(key));
        let (table, name) = path.rsplit_once('.').unwrap();
        let mut sources = with_file(
            dir.path(),
            "c.toml",
            &format!("# a file\n[{table}]\n\n{name} = {value}\n"),
        );
        sources.flags = companions(key);
        let source = Source::File {
            path: dir.path().join("c.toml"),
            line: Some(4),
        };
        assert_arrives(&sources, key, &value, &source);
    }
}

#[test]
fn every_key_arrives_from_a_yaml_file() {
    let dir = tempfile::tempdir().unwrap();
    for key in schema() {
        let (path, (_, value)) = (path(key), sample(key));
        let mut text = String::new();
        for (depth, name) in path.split('.').enumerate() {
            text += &format!("\n{}{name}:", "  ".repeat(depth));
        }
        let mut sources = with_file(dir.path(), "c.yaml", &format!("{text} {value}\n"));
        sources.flags = companions(key);
        let source = Source::File {
            path: dir.path().join("c.yaml"),
            line: None,
        };
        assert_arrives(&sources, key, &value, &source);
    }
}

#[test]
fn every_key_arrives_from_its_variable() {
    let dir = tempfile::tempdir().unwrap();
    for key in schema() {
        let (word, value) = sample(key);
        let name = schema::variable(&path(key));
        let mut sources = sources(dir.path());
        sources.flags = companions(key);
        sources.env.insert(name.clone(), word);
        assert_arrives(&sources, key, &value, &Source::Variable(name));
    }
}

#[test]
fn every_key_arrives_from_the_command_line() {
    let dir = tempfile::tempdir().unwrap();
    for key in schema() {
        let (word, value) = sample(key);
        let mut sources = sources(dir.path());
        sources.flags = companions(key);
        sources.flags.insert(path(key), word);
        assert_arrives(&sources, key, &value, &Source::Flag);
    }
}

#[test]
fn no_key_takes_nonsense_from_any_source() {
    let dir = tempfile::tempdir().unwrap();
    for key in schema() {
        // A control character is in the grammar of no kind.
        let mut by_flag = sources(dir.path());
        by_flag.flags = companions(key);
        by_flag.flags.insert(path(key), "\u{7}".to_owned());
        let text = load(&by_flag).unwrap_err().to_string();
        assert!(
            text.contains(&path(key)) && text.contains("expected "),
            "{}: {text}",
            key.path
        );

        let mut by_env = sources(dir.path());
        by_env.flags = companions(key);
        let name = schema::variable(&path(key));
        by_env.env.insert(name.clone(), "\u{7}".to_owned());
        let text = load(&by_env).unwrap_err().to_string();
        assert!(
            text.contains(&name) && text.contains("expected "),
            "{}: {text}",
            key.path
        );
    }
}
