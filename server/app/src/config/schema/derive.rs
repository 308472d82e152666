//! From the JSON Schema of the types to keys.
//!
//! Boundary: knows how `schemars` words a type, and the `x-` words that the fields add. Invariant:
//! every field becomes a key or a section; one that is worded otherwise shows as a text key, which
//! the test that sets every key then fails on.

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::{Key, Kind, value_at, written};
use crate::config::types::{Config, ModelConfig};
use crate::config::units::{ByteSize, Period};

/// All keys, sorted.
pub(super) fn keys() -> Vec<Key> {
    let mut keys = Vec::new();
    walk(&json_schema(), "", &sample(), &mut keys);
    keys.sort_by(|a, b| a.path.cmp(&b.path));
    keys
}

/// The top sections with their descriptions.
pub(super) fn sections() -> Vec<(String, String)> {
    properties(&json_schema())
        .map(|(name, node)| (name.clone(), doc(node)))
        .collect()
}

fn json_schema() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|s| s.inline_subschemas = true);
    settings
        .into_generator()
        .into_root_schema_for::<Config>()
        .to_value()
}

/// The defaults, with one entry in each map, so that every key has a default to look up.
fn sample() -> Value {
    let mut config = Config::default();
    let mut model = ModelConfig::default();
    model.headers.insert("<name>".to_owned(), String::new());
    config.models.insert("<alias>".to_owned(), model);
    serde_json::to_value(config).expect("the configuration is plain JSON")
}

fn walk(node: &Value, path: &str, sample: &Value, keys: &mut Vec<Key>) {
    let join = |name: &str| {
        if path.is_empty() {
            name.to_owned()
        } else {
            format!("{path}.{name}")
        }
    };
    for (name, child) in properties(node) {
        let path = join(name);
        if child.get("properties").is_some() {
            walk(child, &path, sample, keys);
        } else if let Some(entry) = child.get("additionalProperties").filter(|e| e.is_object()) {
            let name = attribute(child, "x-name")
                .and_then(Value::as_str)
                .unwrap_or("name");
            let path = format!("{path}.<{name}>");
            if entry.get("properties").is_some() {
                walk(entry, &path, sample, keys);
            } else {
                keys.push(Key {
                    path,
                    kind: Kind::Header,
                    optional: false,
                    default: "none".to_owned(),
                    doc: doc(child),
                });
            }
        } else {
            let segments: Vec<&str> = path.split('.').collect();
            let default = written(value_at(sample, &segments));
            keys.push(Key {
                kind: kind(child),
                optional: nullable(child),
                default,
                doc: doc(child),
                path,
            });
        }
    }
}

fn kind(node: &Value) -> Kind {
    let named = attribute(node, "x-kind").and_then(Value::as_str);
    match named.unwrap_or_else(|| json_type(node)) {
        "boolean" => Kind::Bool,
        "integer" => {
            let wide = attribute(node, "format").and_then(Value::as_str) != Some("uint32");
            let (min, max) = bounds(node, &|text| text.parse().ok());
            Kind::Count(
                min,
                if wide {
                    max
                } else {
                    max.min(u64::from(u32::MAX))
                },
            )
        }
        "number" => Kind::Price,
        "money" => Kind::Money,
        "share" => {
            let (min, max) = bounds(node, &permille);
            Kind::Share(min, max)
        }
        "size" => {
            let (min, max) = bounds(node, &|text| ByteSize::parse(text).map(ByteSize::get));
            Kind::Size(min, max)
        }
        "period" => {
            let (min, max) = bounds(node, &|text| Period::parse(text).map(Period::as_millis));
            Kind::Period(min, max)
        }
        "sync" => {
            let (min, max) = bounds(node, &|text| Period::parse(text).map(Period::as_millis));
            Kind::Sync(min, max)
        }
        "path" => Kind::Path,
        "url" => Kind::Url,
        "urls" => Kind::Urls,
        "origins" => Kind::Origins,
        "fields" => Kind::Fields,
        "words" => {
            let mut words = Vec::new();
            choices(node.get("items").unwrap_or(node), &mut words);
            Kind::Words(words)
        }
        "address" => Kind::Address,
        "env_name" => Kind::EnvName,
        "log_filter" => Kind::LogFilter,
        _ => {
            let mut words = Vec::new();
            choices(node, &mut words);
            if words.is_empty() {
                Kind::Text
            } else {
                Kind::Choice(words)
            }
        }
    }
}

/// A share in thousandths; schemas write it as text.
fn permille(text: &str) -> Option<u64> {
    let share: f64 = text.parse().ok()?;
    Some((share * 1_000.0).round() as u64)
}

fn bounds(node: &Value, parse: &dyn Fn(&str) -> Option<u64>) -> (u64, u64) {
    let bound = |name: &str| match attribute(node, name) {
        Some(Value::String(text)) => parse(text),
        Some(number) => number.as_u64(),
        None => None,
    };
    (
        bound("x-min").unwrap_or(0),
        bound("x-max").unwrap_or(u64::MAX),
    )
}

/// Looks on the node itself, then beneath the `anyOf` that an optional type is wrapped in.
fn attribute<'a>(node: &'a Value, name: &str) -> Option<&'a Value> {
    let beneath = || {
        node.get("anyOf")?
            .as_array()?
            .iter()
            .find_map(|n| n.get(name))
    };
    node.get(name).or_else(beneath)
}

fn json_type(node: &Value) -> &str {
    match attribute(node, "type") {
        Some(Value::String(name)) => name,
        Some(Value::Array(names)) => names
            .iter()
            .filter_map(Value::as_str)
            .find(|n| *n != "null")
            .unwrap_or(""),
        _ => "",
    }
}

fn nullable(node: &Value) -> bool {
    let is_null = |value: &Value| value.as_str() == Some("null");
    let listed = |n: &Value| {
        n.get("type")
            .and_then(Value::as_array)
            .is_some_and(|t| t.iter().any(is_null))
    };
    let wrapped = node.get("anyOf").and_then(Value::as_array);
    listed(node)
        || wrapped.is_some_and(|any| any.iter().any(|n| n.get("type").is_some_and(is_null)))
}

fn choices(node: &Value, words: &mut Vec<String>) {
    for list in ["oneOf", "anyOf"] {
        for child in node
            .get(list)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            choices(child, words);
        }
    }
    let listed = node
        .get("enum")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    words.extend(
        listed
            .chain(node.get("const"))
            .filter_map(Value::as_str)
            .map(str::to_owned),
    );
}

fn properties(node: &Value) -> impl Iterator<Item = (&String, &Value)> {
    node.get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
}

fn doc(node: &Value) -> String {
    let text = node
        .get("description")
        .and_then(Value::as_str)
        .unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
