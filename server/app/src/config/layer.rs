//! The layers that set values: a file, the environment, the command line.
//!
//! Boundary: from raw names and values to checked settings with their sources; which layer wins is
//! decided next door. Invariant: whatever is no key of the schema is an error, in every layer,
//! whether or not a higher layer sets the same key.

use std::collections::BTreeMap;

use figment::value::Value;

use super::error::{ConfigError, Source};
use super::file::{Document, Node};
use super::kind::{self, Raw};
use super::nearest::nearest;
use super::schema::{Key, Kind, schema, variable};

/// One checked value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Setting {
    /// The concrete path: names stand where the schema has `<alias>` and `<name>`.
    pub(super) path: Vec<String>,
    pub(super) value: Value,
    pub(super) source: Source,
}

/// What one layer says, and what is wrong with it.
#[derive(Debug, Default)]
pub(super) struct Layer {
    pub(super) settings: Vec<Setting>,
    pub(super) errors: Vec<ConfigError>,
}

const PREFIX: &str = "LOOPWRIGHT_";

/// The settings of a file.
pub(super) fn from_file(document: &Document) -> Layer {
    let mut layer = Layer::default();
    layer.table(document, &document.root, &mut Vec::new());
    layer
}

/// The settings of the environment: `LOOPWRIGHT_A__B`.
pub(super) fn from_env(env: &BTreeMap<String, String>) -> Layer {
    let mut layer = Layer::default();
    let ours = env
        .iter()
        .filter_map(|(name, value)| Some((name, name.strip_prefix(PREFIX)?, value)));
    for (name, rest, value) in ours {
        let origin = Source::Variable(name.clone());
        if rest.contains("__") {
            layer.variable(name, rest, value, origin);
        } else if let Some(key) = folded(rest) {
            // Kubernetes sets LOOPWRIGHT_SERVICE_HOST and the like: only a folded key is a mistake.
            layer.errors.push(unknown(origin, name, Some(key)));
        }
    }
    layer
}

/// The settings of the command line, by key.
pub(super) fn from_flags(flags: &BTreeMap<String, String>) -> Layer {
    let mut layer = Layer::default();
    for (name, value) in flags {
        let path: Vec<String> = name.split('.').map(str::to_owned).collect();
        match find(&path) {
            Some(key) => layer.set(key, path, &Raw::Word(value.clone()), Source::Flag),
            None => layer.errors.push(unknown(Source::Flag, name, near(name))),
        }
    }
    layer
}

impl Layer {
    fn table(&mut self, document: &Document, node: &Node, path: &mut Vec<String>) {
        let Node::Table(entries) = node else { return };
        for (name, offset, child) in entries {
            let line = offset.map(|offset| document.line(offset));
            let origin = Source::File {
                path: document.path.clone(),
                line,
            };
            path.push(name.clone());
            let dotted = path.join(".");
            match (find(path), child) {
                (Some(key), Node::Leaf(raw)) => self.set(key, path.clone(), raw, origin),
                (Some(key), Node::Table(_)) => self.set(key, path.clone(), &Raw::Table, origin),
                (None, Node::Table(_)) if is_section(path) => self.table(document, child, path),
                (None, Node::Leaf(_)) if is_section(path) => self.errors.push(ConfigError::Rule {
                    origin,
                    key: dotted,
                    problem: "is a section; it takes keys, not a value".to_owned(),
                }),
                (None, _) => self.errors.push(unknown(origin, &dotted, near(&dotted))),
            }
            path.pop();
        }
    }

    fn variable(&mut self, name: &str, rest: &str, value: &str, origin: Source) {
        let path = variable_path(rest);
        let dotted = path.join(".");
        match find(&path) {
            Some(_) if rest != rest.to_uppercase() => {
                self.errors
                    .push(unknown(origin, name, Some(variable(&dotted))));
            }
            Some(key) => self.set(key, path, &Raw::Word(value.to_owned()), origin),
            None => {
                let near = near(&dotted).map(|key| variable(&key));
                self.errors.push(unknown(origin, name, near));
            }
        }
    }

    fn set(&mut self, key: &Key, mut path: Vec<String>, raw: &Raw, source: Source) {
        if let (Kind::Header, Some(name)) = (&key.kind, path.last_mut()) {
            // Two spellings of one header would both be sent.
            name.make_ascii_lowercase();
        }
        match kind::read(key, raw) {
            Ok(value) => self.settings.push(Setting {
                path,
                value,
                source,
            }),
            Err(expected) => self.errors.push(ConfigError::Value {
                origin: source,
                key: path.join("."),
                value: kind::shown(key, raw),
                expected,
            }),
        }
    }
}

/// The key that a concrete path stands for.
pub(super) fn find(path: &[String]) -> Option<&'static Key> {
    schema().iter().find(|key| {
        key.segments().count() == path.len()
            && key.segments().zip(path).all(|(k, p)| stands_for(k, p))
    })
}

fn is_section(path: &[String]) -> bool {
    schema().iter().any(|key| {
        key.segments().count() > path.len()
            && key.segments().zip(path).all(|(k, p)| stands_for(k, p))
    })
}

fn stands_for(segment: &str, name: &str) -> bool {
    match segment {
        "<alias>" => is_alias(name),
        "<name>" => http::HeaderName::from_bytes(name.as_bytes()).is_ok(),
        fixed => fixed == name,
    }
}

/// `[a-z0-9_]+`, less what the environment cannot spell.
fn is_alias(name: &str) -> bool {
    let fine = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    let spelled = !name.contains("__") && !name.starts_with('_') && !name.ends_with('_');
    !name.is_empty() && name.len() <= 64 && name.bytes().all(fine) && spelled
}

fn variable_path(rest: &str) -> Vec<String> {
    let mut path: Vec<String> = rest.to_lowercase().split("__").map(str::to_owned).collect();
    if let [models, _, headers, name] = path.as_mut_slice()
        && models == "models"
        && headers == "headers"
    {
        *name = name.replace('_', "-");
    }
    path
}

/// The nearest key, with the names of one's own that `name` already has.
fn near(name: &str) -> Option<String> {
    let own: Vec<&str> = name.split('.').collect();
    if let ["models", alias, rest @ ..] = own.as_slice()
        && !is_alias(alias)
    {
        return spelled_alias(alias).map(|alias| [&["models", &alias], rest].concat().join("."));
    }
    let spelled = |key: &Key| {
        let names = key
            .segments()
            .enumerate()
            .map(|(at, segment)| match (segment, own.get(at)) {
                ("<alias>" | "<name>", Some(own)) if stands_for(segment, own) => own,
                _ => segment,
            });
        names.collect::<Vec<_>>().join(".")
    };
    let sections = schema()
        .iter()
        .filter_map(|key| key.path.rsplit_once('.'))
        .map(|(section, _)| section);
    let sections = sections
        .filter(|section| !section.contains('<'))
        .map(str::to_owned);
    let all: Vec<String> = schema().iter().map(spelled).chain(sections).collect();
    let fits =
        |path: &&str| path.split('.').count() == own.len() || path.rsplit('.').next() == Some(name);
    nearest(name, all.iter().map(String::as_str).filter(fits)).map(str::to_owned)
}

/// The alias that `name` would be in lower case, with `_` for what an alias cannot hold.
fn spelled_alias(name: &str) -> Option<String> {
    let lower = name.to_ascii_lowercase();
    let words: Vec<&str> = lower
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .collect();
    Some(words.join("_")).filter(|alias| is_alias(alias))
}

/// The variable of the key that `rest` would be if its underscores were left out.
fn folded(rest: &str) -> Option<String> {
    let fold = |text: &str| text.replace(['_', '.'], "").to_lowercase();
    let rest = fold(rest);
    schema()
        .iter()
        .find_map(|key| match key.path.split_once("<alias>") {
            None => (fold(&key.path) == rest).then(|| key.variable()),
            Some((head, tail)) => {
                let alias = rest.strip_prefix(&fold(head))?.strip_suffix(&fold(tail))?;
                let path = format!("{head}{alias}{tail}");
                (!alias.is_empty() && !tail.contains('<')).then(|| variable(&path))
            }
        })
}

fn unknown(origin: Source, name: &str, nearest: Option<String>) -> ConfigError {
    ConfigError::Unknown {
        origin,
        name: name.to_owned(),
        nearest,
    }
}
