//! Every key of the configuration, read off the types.
//!
//! Boundary: turns the JSON Schema of [`Config`] into a flat list of keys; reads no values.
//! Invariant: a key is in this list exactly when a field of the types stands for it, so that what
//! can be set, shown, documented and tested is one and the same set.

use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::types::{Config, ModelConfig};
use super::units::{ByteSize, Period};

/// One key of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Its full name, such as `loop.max_steps`; `<alias>` and `<name>` stand for names of one's
    /// own.
    pub path: String,
    /// How its value is written.
    pub kind: Kind,
    /// Whether `none` is a value.
    pub optional: bool,
    /// The value when nothing is set, as it would be written.
    pub default: String,
    /// What it does.
    pub doc: String,
}

/// How a value is written, with the bounds it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// A whole number within bounds.
    Count(u64, u64),
    /// Bytes, within bounds.
    Size(u64, u64),
    /// A period, within bounds in milliseconds.
    Period(u64, u64),
    /// `always`, `none`, or a period within bounds in milliseconds.
    Sync(u64, u64),
    /// US dollars per million tokens.
    Price,
    /// One of a few words.
    Choice(Vec<String>),
    /// Any text but an empty one.
    Text,
    /// A path of the file system.
    Path,
    /// An `http` or `https` URL.
    Url,
    /// A list of URLs.
    Urls,
    /// A list of origins, or `*`.
    Origins,
    /// An IP address and a port.
    Address,
    /// The name of an environment variable, never its value.
    EnvName,
    /// The value of an HTTP header; never shown.
    Header,
    /// Directives of a log filter.
    LogFilter,
}

impl Key {
    /// The path in its parts.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.path.split('.')
    }

    /// The bounds or the choices in words; `None` where any value of the kind will do.
    #[must_use]
    pub fn range(&self) -> Option<String> {
        match &self.kind {
            Kind::Count(min, u64::MAX) => Some(format!("{min} or more")),
            Kind::Count(min, max) => Some(format!("{min} to {max}")),
            Kind::Size(min, max) => Some(span(ByteSize::new(*min), ByteSize::new(*max))),
            Kind::Period(min, max) | Kind::Sync(min, max) => {
                Some(span(Period::from_millis(*min), Period::from_millis(*max)))
            }
            Kind::Price => Some(format!("0 to {MAX_PRICE}")),
            Kind::Choice(words) => Some(words.join(", ")),
            Kind::Bool
            | Kind::Text
            | Kind::Path
            | Kind::Url
            | Kind::Urls
            | Kind::Origins
            | Kind::Address
            | Kind::EnvName
            | Kind::Header
            | Kind::LogFilter => None,
        }
    }

    /// The environment variable that sets it.
    #[must_use]
    pub fn variable(&self) -> String {
        variable(&self.path)
    }
}

/// The highest price, in US dollars per million tokens.
pub(super) const MAX_PRICE: u32 = 1_000_000;

/// All keys, by section and name.
#[must_use]
pub fn schema() -> &'static [Key] {
    static KEYS: LazyLock<Vec<Key>> = LazyLock::new(build);
    &KEYS
}

/// What the types say of each top section: its name and its description.
#[must_use]
pub(super) fn sections() -> &'static [(String, String)] {
    static SECTIONS: LazyLock<Vec<(String, String)>> = LazyLock::new(|| {
        properties(&json_schema())
            .map(|(name, node)| (name.clone(), doc(node)))
            .collect()
    });
    &SECTIONS
}

/// The variable that sets `path`: `loop.max_steps` is `LOOPWRIGHT_LOOP__MAX_STEPS`.
pub(super) fn variable(path: &str) -> String {
    format!(
        "LOOPWRIGHT_{}",
        path.replace('.', "__").replace('-', "_").to_uppercase()
    )
}

/// The value at `path` of a configuration that was turned into JSON.
pub(super) fn value_at<'a>(config: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(config, |node, name| node.get(name))
}

/// A value as it would be written after `key =`, but for the quotes of a text.
pub(super) fn written(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "none".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(items)) => {
            let items: Vec<String> = items.iter().map(ToString::to_string).collect();
            format!("[{}]", items.join(", "))
        }
        Some(other) => other.to_string(),
    }
}

fn build() -> Vec<Key> {
    let mut keys = Vec::new();
    walk(&json_schema(), "", &sample(), &mut keys);
    keys.sort_by(|a, b| a.path.cmp(&b.path));
    keys
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

fn span(min: impl std::fmt::Display, max: impl std::fmt::Display) -> String {
    format!("{min} to {max}")
}
