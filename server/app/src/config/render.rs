//! Configuration as text: what is in force, a file to start from, a table of all keys.
//!
//! Boundary: strings out. Invariant: everything here is derived from [`schema`] and the loaded
//! values, and the value of a header is never among them.

use std::fmt::Write;

use serde_json::Value;

use super::schema::{Key, Kind, schema, sections, value_at, written};
use super::{Loaded, Source};

/// The effective values, one a line, each with where it came from.
#[must_use]
pub fn show(loaded: &Loaded) -> String {
    let values = serde_json::to_value(&loaded.config).expect("the configuration is plain JSON");
    let mut lines = Vec::new();
    for key in schema() {
        let segments: Vec<&str> = key.segments().collect();
        for path in concrete(&values, &segments) {
            let names: Vec<&str> = path.iter().map(String::as_str).collect();
            let source = loaded
                .provenance
                .get(&path.join("."))
                .unwrap_or(&Source::Default);
            lines.push((
                path.join("."),
                literal(key, value_at(&values, &names)),
                source.to_string(),
            ));
        }
    }
    let mut out = match &loaded.file {
        Some(file) => format!("# file: {}\n", file.display()),
        None => "# file: none found\n".to_owned(),
    };
    for (path, value, source) in lines {
        let setting = format!("{path} = {value}");
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{setting:<56} # {source}");
    }
    out
}

/// A commented file that sets nothing: each line without its `#` is the default.
#[must_use]
pub fn init_text() -> String {
    let mut out = String::from(
        "# Configuration of Loopwright. Every line is commented out and shows the default.\n\
         # LOOPWRIGHT_LOOP__MAX_STEPS=20 in the environment, or --set loop.max_steps=20, go\n\
         # before this file. `loopwright config show` prints what is in force,\n\
         # `loopwright config check` validates it.\n",
    );
    for (section, doc) in sections() {
        let _ = write!(out, "\n# {}\n", wrapped(doc, "# "));
        let mut table = String::new();
        for (parent, name, key) in by_table(section) {
            let parent = parent.replace("<alias>", "fast");
            if parent != table {
                // The tables of models stay comments: an entry that is there must be complete.
                let hash = if section == "models" { "#" } else { "" };
                let gap = if table.is_empty() { "" } else { "\n" };
                let _ = writeln!(out, "{gap}{hash}[{parent}]");
                table = parent;
            }
            let range = key
                .range()
                .map(|range| format!(" ({range})"))
                .unwrap_or_default();
            let _ = writeln!(out, "# {}", wrapped(&format!("{}{range}", key.doc), "# "));
            let _ = writeln!(
                out,
                "#{} = {}",
                name.replace("<name>", "x-team"),
                sample(key)
            );
        }
    }
    out
}

/// All keys as a table in Markdown, for the README.
#[must_use]
pub fn markdown() -> String {
    let mut out = String::from("| key | default | range | meaning |\n|---|---|---|---|\n");
    for key in schema() {
        let range = key.range().unwrap_or_default();
        let doc = key.doc.replace('|', "\\|");
        let _ = writeln!(
            out,
            "| `{}` | {} | {range} | {doc} |",
            key.path,
            key.default.replace('|', "\\|")
        );
    }
    out
}

/// A section's keys, those of one table together, as a table may be opened only once.
fn by_table(section: &str) -> Vec<(&'static str, &'static str, &'static Key)> {
    let split = |key: &'static Key| {
        let (parent, name) = key.path.rsplit_once('.').unwrap_or(("", &key.path));
        (parent, name, key)
    };
    let ours = schema()
        .iter()
        .filter(|key| key.segments().next() == Some(section));
    let mut keys: Vec<_> = ours.map(split).collect();
    keys.sort_by_key(|(parent, name, _)| (*parent, *name));
    keys
}

/// The paths that `pattern` stands for: one, or one for each name that is there.
fn concrete(values: &Value, pattern: &[&str]) -> Vec<Vec<String>> {
    let mut paths: Vec<(Vec<String>, &Value)> = vec![(Vec::new(), values)];
    for segment in pattern {
        let mut next = Vec::new();
        for (path, node) in paths {
            let Some(object) = node.as_object() else {
                continue;
            };
            let named = object
                .iter()
                .filter(|(name, _)| segment.starts_with('<') || name == segment);
            for (name, child) in named {
                let mut path = path.clone();
                path.push(name.clone());
                next.push((path, child));
            }
        }
        paths = next;
    }
    paths.into_iter().map(|(path, _)| path).collect()
}

fn literal(key: &Key, value: Option<&Value>) -> String {
    match (&key.kind, value) {
        (Kind::Header, _) => "(not shown)".to_owned(),
        (_, None | Some(Value::Null)) => "none".to_owned(),
        (_, Some(Value::String(_))) => format!("{:?}", written(value)),
        _ => written(value),
    }
}

/// What stands after `key =` in the commented file.
fn sample(key: &Key) -> String {
    match key.path.as_str() {
        "models.<alias>.provider" => r#""anthropic""#.to_owned(),
        "models.<alias>.id" => r#""claude-sonnet-5-5""#.to_owned(),
        _ => match (&key.kind, key.default.as_str()) {
            (Kind::Header, _) => r#""search""#.to_owned(),
            (
                Kind::Bool
                | Kind::Count(..)
                | Kind::Urls
                | Kind::Origins
                | Kind::Share(..)
                | Kind::Money
                | Kind::Words(_)
                | Kind::Fields,
                default,
            ) if default != "none" => default.to_owned(),
            (_, default) => format!("{default:?}"),
        },
    }
}

fn wrapped(text: &str, prefix: &str) -> String {
    let mut out = String::new();
    let mut width = 0;
    for word in text.split(' ') {
        if width + word.len() > 94 {
            let _ = write!(out, "\n{prefix}{word}");
            width = word.len();
        } else {
            let gap = if out.is_empty() { "" } else { " " };
            let _ = write!(out, "{gap}{word}");
            width += gap.len() + word.len();
        }
    }
    out
}
