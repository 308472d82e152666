//! From a raw value to a checked one, by the kind of its key.
//!
//! Boundary: one value at a time; knows neither layers nor other keys. Invariant: a value is
//! taken exactly as documented or refused with what was expected; nothing is rounded, clamped,
//! guessed or replaced by a default, and what may be a secret is never quoted.

use std::net::SocketAddr;

use figment::value::{Empty, Value};

use super::nearest::nearest;
use super::schema::{Key, Kind, MAX_MONEY, MAX_PRICE, thousandths};
use super::units::{ByteSize, Period, SyncMode};
use crate::redaction::FieldRule;

/// A value as it was written.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Raw {
    /// From the environment or the command line, where everything is text.
    Word(String),
    /// A string of a file.
    Text(String),
    /// A whole number of a file.
    Whole(i128),
    /// A number with a point or an exponent.
    Real(f64),
    /// `true` or `false` in a file.
    Flag(bool),
    /// A list of a file.
    List(Vec<Raw>),
    /// A table of a file.
    Table,
    /// YAML's null.
    Null,
}

const MAX_TEXT: usize = 4096;
const MAX_SHOWN: usize = 80;
const NOT_SHOWN: &str = "(not shown)";

/// The value as the typed configuration takes it, or what was expected instead.
pub(super) fn read(key: &Key, raw: &Raw) -> Result<Value, String> {
    if key.optional && is_none(raw) {
        return Ok(Value::from(Empty::None));
    }
    checked(&key.kind, raw).ok_or_else(|| match stranger(&key.kind, raw) {
        Some(words) => format!("{}; {words}", expectation(key)),
        None => expectation(key),
    })
}

/// The first word of a list that is none of those that it takes, and the one that was meant.
fn stranger(kind: &Kind, raw: &Raw) -> Option<String> {
    let Kind::Words(known) = kind else {
        return None;
    };
    let given = items(raw)?;
    let word = given
        .into_iter()
        .find(|word| !known.iter().any(|w| w == word))?;
    let meant = nearest(word, known.iter().map(String::as_str));
    let hint = meant.map_or_else(String::new, |meant| format!(", did you mean {meant}?"));
    let word = if secretive(word) {
        NOT_SHOWN.to_owned()
    } else {
        quoted(word)
    };
    Some(format!("{word} is none of them{hint}"))
}

/// The value for a message: as written, shortened, or withheld.
pub(super) fn shown(key: &Key, raw: &Raw) -> String {
    match (&key.kind, raw) {
        (Kind::Header | Kind::EnvName, _) => NOT_SHOWN.to_owned(),
        (_, Raw::Word(text) | Raw::Text(text)) if secretive(text) => NOT_SHOWN.to_owned(),
        (_, Raw::Word(text) | Raw::Text(text)) => quoted(text),
        (_, Raw::Whole(number)) => number.to_string(),
        (_, Raw::Real(number)) => format!("{number:?}"),
        (_, Raw::Flag(flag)) => flag.to_string(),
        (_, Raw::List(_)) => "a list".to_owned(),
        (_, Raw::Table) => "a table".to_owned(),
        (_, Raw::Null) => "null".to_owned(),
    }
}

/// What the key takes.
pub(super) fn expectation(key: &Key) -> String {
    let range = key.range().unwrap_or_default();
    let what = match &key.kind {
        Kind::Bool => "true or false".to_owned(),
        Kind::Count(..) => format!("a whole number in plain digits, {range}"),
        Kind::Size(..) => format!("bytes, plain or with KiB, MiB or GiB (such as 64MiB), {range}"),
        Kind::Period(..) => format!("a time with its unit (such as 50ms, 120s, 10m, 2h), {range}"),
        Kind::Sync(..) => format!("one of {range}"),
        Kind::Price => format!("US dollars per million tokens, {range}"),
        Kind::Money => format!("US dollars such as 0.25, {range}"),
        Kind::Share(..) => format!("a share such as 0.5, {range}"),
        Kind::Choice(_) => format!("one of {range}"),
        Kind::Text => "a text".to_owned(),
        Kind::Path => "a path".to_owned(),
        Kind::Url => "a URL such as http://127.0.0.1:4317, without user or password".to_owned(),
        Kind::Urls => {
            r#"a list such as ["http://10.0.0.5:7001"], in a variable or flag a,b"#.to_owned()
        }
        Kind::Origins => {
            r#"a list such as ["https://example.org"], or ["*"], in a variable or flag a,b"#
                .to_owned()
        }
        Kind::Words(_) => format!("a list of some of {range}, in a variable or flag a,b"),
        Kind::Fields => {
            r#"a list such as ["files__write/content"], a tool and a JSON pointer into its arguments, in a variable or flag a,b"#
                .to_owned()
        }
        Kind::Address => "IP:PORT such as 127.0.0.1:7070, [::1]:7070 or 0.0.0.0:7070".to_owned(),
        Kind::EnvName => {
            "the name of an environment variable that holds the key; the key itself does \
                          not belong in configuration"
                .to_owned()
        }
        Kind::Header => "the value of an HTTP header, visible ASCII".to_owned(),
        Kind::LogFilter => "a level (error, warn, info, debug, trace, off) or directives such as \
                            info,loopwright_server=debug"
            .to_owned(),
    };
    if key.optional {
        format!("{what}, or none")
    } else {
        what
    }
}

fn is_none(raw: &Raw) -> bool {
    matches!(raw, Raw::Null) || matches!(raw, Raw::Word(text) | Raw::Text(text) if text == "none")
}

fn checked(kind: &Kind, raw: &Raw) -> Option<Value> {
    match kind {
        Kind::Bool => flag(raw).map(Value::from),
        Kind::Count(min, max) => within(whole(raw)?, *min, *max).map(Value::from),
        Kind::Size(min, max) => {
            let bytes = whole(raw).or_else(|| ByteSize::parse(text(raw)?).map(ByteSize::get))?;
            within(bytes, *min, *max).map(|n| Value::from(ByteSize::new(n).to_string()))
        }
        Kind::Period(min, max) => {
            let millis = Period::parse(text(raw)?)?.as_millis();
            within(millis, *min, *max).map(|n| Value::from(Period::from_millis(n).to_string()))
        }
        Kind::Sync(min, max) => {
            let mode = SyncMode::parse(text(raw)?)?;
            if let SyncMode::Interval(period) = mode {
                within(period.as_millis(), *min, *max)?;
            }
            Some(Value::from(mode.to_string()))
        }
        Kind::Price => real(raw)
            .filter(|n| (0.0..=f64::from(MAX_PRICE)).contains(n))
            .map(Value::from),
        Kind::Money => real(raw)
            .filter(|n| (0.0..=f64::from(MAX_MONEY)).contains(n))
            .map(Value::from),
        Kind::Share(min, max) => real(raw)
            .filter(|n| (thousandths(*min)..=thousandths(*max)).contains(n))
            .map(Value::from),
        Kind::Choice(words) => text(raw)
            .filter(|t| words.iter().any(|w| w == t))
            .map(Value::from),
        Kind::Text | Kind::Path => text(raw).filter(|t| plain(t)).map(Value::from),
        Kind::Url => text(raw).filter(|t| is_url(t)).map(Value::from),
        Kind::Urls => list(raw, is_url),
        Kind::Origins => list(raw, |t| t == "*" || is_origin(t)),
        Kind::Words(words) => list(raw, |t| words.iter().any(|w| w == t)),
        Kind::Fields => list(raw, |t| FieldRule::parse(t).is_some()),
        Kind::Address => text(raw)?
            .parse::<SocketAddr>()
            .ok()
            .map(|a| Value::from(a.to_string())),
        Kind::EnvName => text(raw).filter(|t| is_env_name(t)).map(Value::from),
        Kind::Header => text(raw)
            .filter(|t| http::HeaderValue::from_str(t).is_ok())
            .map(Value::from),
        Kind::LogFilter => text(raw).filter(|t| is_log_filter(t)).map(Value::from),
    }
}

fn text(raw: &Raw) -> Option<&str> {
    match raw {
        Raw::Word(text) | Raw::Text(text) => Some(text),
        _ => None,
    }
}

fn flag(raw: &Raw) -> Option<bool> {
    match raw {
        Raw::Flag(flag) => Some(*flag),
        Raw::Word(text) => text.parse().ok(),
        _ => None,
    }
}

fn whole(raw: &Raw) -> Option<u64> {
    match raw {
        Raw::Whole(number) => u64::try_from(*number).ok(),
        Raw::Word(text) if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok(),
        _ => None,
    }
}

fn real(raw: &Raw) -> Option<f64> {
    match raw {
        Raw::Real(number) => Some(*number),
        Raw::Whole(number) => Some(f64::from(i32::try_from(*number).ok()?)),
        Raw::Word(text) if text.bytes().all(|b| b.is_ascii_digit() || b == b'.') => {
            text.parse().ok()
        }
        _ => None,
    }
}

/// A list of a file, or words with commas between them; each item is checked.
fn list(raw: &Raw, check: impl Fn(&str) -> bool) -> Option<Value> {
    let items = items(raw)?;
    items
        .iter()
        .all(|item| check(item))
        .then(|| Value::from(items))
}

fn items(raw: &Raw) -> Option<Vec<&str>> {
    match raw {
        Raw::Word(words) if words.is_empty() => Some(Vec::new()),
        Raw::Word(words) => Some(words.split(',').map(str::trim).collect()),
        Raw::List(items) => items.iter().map(text).collect(),
        _ => None,
    }
}

fn within(number: u64, min: u64, max: u64) -> Option<u64> {
    (min..=max).contains(&number).then_some(number)
}

fn plain(text: &str) -> bool {
    !text.trim().is_empty() && text.len() <= MAX_TEXT && !text.chars().any(char::is_control)
}

/// Credentials in a URL end up in logs and traces, so there is no place for them here.
fn is_url(text: &str) -> bool {
    let Ok(uri) = text.parse::<http::Uri>() else {
        return false;
    };
    let scheme = matches!(uri.scheme_str(), Some("http" | "https"));
    let host = uri.host().is_some_and(|host| !host.is_empty());
    let port_is_fine = uri
        .authority()
        .is_some_and(|a| a.port().is_none() || a.port_u16().is_some());
    scheme && host && port_is_fine && !text.contains(['@', '#', '?']) && plain(text)
}

fn is_origin(text: &str) -> bool {
    let rest = text.split_once("://").map_or("", |(_, rest)| rest);
    is_url(text) && !rest.contains('/')
}

pub(super) fn is_env_name(text: &str) -> bool {
    let first = text
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    first && text.len() <= 256 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Stricter than the filter's own parser, which takes a lone unknown word for a target's name.
fn is_log_filter(text: &str) -> bool {
    let level = |word: &str| {
        ["off", "error", "warn", "info", "debug", "trace"]
            .iter()
            .any(|l| word.eq_ignore_ascii_case(l))
    };
    let fine = |part: &str| part.rsplit_once('=').map_or(level(part), |(_, l)| level(l));
    plain(text) && text.split(',').all(fine) && tracing_subscriber::EnvFilter::try_new(text).is_ok()
}

fn secretive(text: &str) -> bool {
    text.contains('@')
        || text.starts_with("sk-")
        || text.to_ascii_lowercase().starts_with("bearer ")
}

fn quoted(text: &str) -> String {
    let head: String = text.chars().take(MAX_SHOWN).collect();
    let rest = if head.len() < text.len() { ".." } else { "" };
    format!("{head:?}{rest}")
}
