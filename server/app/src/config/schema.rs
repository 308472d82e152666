//! Every key of the configuration, read off the types.
//!
//! Boundary: turns the JSON Schema of [`Config`] into a flat list of keys; reads no values.
//! Invariant: a key is in this list exactly when a field of the types stands for it, so that what
//! can be set, shown, documented and tested is one and the same set.

use std::sync::LazyLock;

use serde_json::Value;

use super::units::{ByteSize, Period};

mod derive;

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
    /// US dollars.
    Money,
    /// A share, within bounds in thousandths.
    Share(u64, u64),
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
    /// A list of some of a few words.
    Words(Vec<String>),
    /// A list of tools with places in their arguments.
    Fields,
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
            Kind::Period(min, max) => {
                Some(span(Period::from_millis(*min), Period::from_millis(*max)))
            }
            Kind::Sync(min, max) => {
                let range = span(Period::from_millis(*min), Period::from_millis(*max));
                Some(format!("always, none, {range}"))
            }
            Kind::Price => Some(format!("0 to {MAX_PRICE}")),
            Kind::Money => Some(format!("0 to {MAX_MONEY}")),
            Kind::Share(min, max) => Some(span(thousandths(*min), thousandths(*max))),
            Kind::Choice(words) | Kind::Words(words) => Some(words.join(", ")),
            Kind::Bool
            | Kind::Text
            | Kind::Path
            | Kind::Url
            | Kind::Urls
            | Kind::Origins
            | Kind::Fields
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

/// The largest amount of money, in US dollars.
pub(super) const MAX_MONEY: u32 = 1_000_000_000;

/// The highest price, in US dollars per million tokens.
pub(super) const MAX_PRICE: u32 = 1_000_000;

/// All keys, by section and name.
#[must_use]
pub fn schema() -> &'static [Key] {
    static KEYS: LazyLock<Vec<Key>> = LazyLock::new(derive::keys);
    &KEYS
}

/// What the types say of each top section: its name and its description.
#[must_use]
pub(super) fn sections() -> &'static [(String, String)] {
    static SECTIONS: LazyLock<Vec<(String, String)>> = LazyLock::new(derive::sections);
    &SECTIONS
}

/// So many thousandths as people write them.
pub(super) fn thousandths(count: u64) -> f64 {
    // At most 1,000, which a double holds exactly.
    count as f64 / 1_000.0
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

fn span(min: impl std::fmt::Display, max: impl std::fmt::Display) -> String {
    format!("{min} to {max}")
}
