//! The configuration file: which one, and its values with their lines.
//!
//! Boundary: reads one file of TOML or YAML into a tree; knows no keys. Invariant: a file that was
//! named and cannot be read is an error, and a message about a file never quotes its text, since
//! that may hold a secret.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use toml::Spanned;

use super::error::ConfigError;
use super::kind::Raw;

/// A value of a file, or a table of them with the offset of each key.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    Leaf(Raw),
    Table(Vec<(String, Option<usize>, Node)>),
}

/// A file that was read.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Document {
    pub(super) path: PathBuf,
    pub(super) text: String,
    pub(super) root: Node,
}

const MAX_BYTES: u64 = 1 << 20;
const NAMES: [&str; 3] = ["loopwright.toml", "loopwright.yaml", "loopwright.yml"];
const CONFIG_VARIABLE: &str = "LOOPWRIGHT_CONFIG";

impl Document {
    /// The line of an offset, from 1.
    pub(super) fn line(&self, offset: usize) -> usize {
        line_of(&self.text, offset)
    }
}

/// The file to read: the named one, `LOOPWRIGHT_CONFIG`, the working directory's, the user's.
pub(super) fn locate(
    named: Option<&Path>,
    env: &BTreeMap<String, String>,
    cwd: &Path,
) -> Result<Option<PathBuf>, ConfigError> {
    if let Some(path) = named {
        return existing(path, cwd, "--config").map(Some);
    }
    if let Some(path) = env.get(CONFIG_VARIABLE) {
        return existing(Path::new(path), cwd, CONFIG_VARIABLE).map(Some);
    }
    let home = env.get("HOME").filter(|home| !home.is_empty());
    let user = match env
        .get("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .filter(|dir| dir.is_absolute())
    {
        Some(dir) => Some(dir),
        None => home.map(|home| Path::new(home).join(".config")),
    };
    for dir in [
        Some(cwd.to_path_buf()),
        user.map(|dir| dir.join("loopwright")),
    ]
    .into_iter()
    .flatten()
    {
        let found: Vec<PathBuf> = NAMES
            .iter()
            .map(|name| dir.join(name))
            .filter(|p| p.exists())
            .collect();
        match found.as_slice() {
            [] => {}
            [one] => return Ok(Some(one.clone())),
            [first, second, ..] => {
                let problem = format!(
                    "{} is there too; remove one, or name one with --config",
                    second.display()
                );
                return Err(ConfigError::File {
                    path: first.clone(),
                    problem,
                });
            }
        }
    }
    Ok(None)
}

/// Reads and parses a file; the ending of its name says how.
pub(super) fn read(path: &Path) -> Result<Document, ConfigError> {
    let problem = |problem: String| ConfigError::File {
        path: path.to_path_buf(),
        problem,
    };
    let parse = match path.extension().and_then(|e| e.to_str()) {
        Some("toml") => parse_toml,
        Some("yaml" | "yml") => parse_yaml,
        _ => {
            return Err(problem(
                "the name must end in .toml, .yaml or .yml".to_owned(),
            ));
        }
    };
    let size = std::fs::metadata(path)
        .map_err(|e| problem(format!("cannot be read: {e}")))?
        .len();
    if size > MAX_BYTES {
        return Err(problem(format!(
            "is {size} bytes long; at most {MAX_BYTES} are read"
        )));
    }
    let text =
        std::fs::read_to_string(path).map_err(|e| problem(format!("cannot be read: {e}")))?;
    let root = parse(&text).map_err(problem)?;
    Ok(Document {
        path: path.to_path_buf(),
        text,
        root,
    })
}

fn existing(path: &Path, cwd: &Path, by: &str) -> Result<PathBuf, ConfigError> {
    if path.as_os_str().is_empty() {
        let problem = format!("{by} is empty; name a file or leave it out");
        return Err(ConfigError::File {
            path: PathBuf::from(by),
            problem,
        });
    }
    let full = cwd.join(path);
    if full.is_file() {
        return Ok(full);
    }
    let problem = format!("there is no such file, and {by} names it");
    Err(ConfigError::File {
        path: full,
        problem,
    })
}

fn parse_toml(text: &str) -> Result<Node, String> {
    Node::deserialize(toml::de::Deserializer::new(text)).map_err(|error| {
        let line = error.span().map(|span| line_of(text, span.start));
        let key = line.and_then(|line| key_on(text, line));
        let place = match (line, key) {
            (Some(line), Some(key)) => format!("line {line}, {key}: "),
            (Some(line), None) => format!("line {line}: "),
            (None, _) => String::new(),
        };
        // A date is the only TOML value that no key takes; serde words it in terms of its own.
        let message = match error.message() {
            m if m.contains("spanned value") => "no key takes a date or a time of day",
            m if m.contains("number too large") => "the number is too large for any key",
            m => m,
        };
        format!("{place}not valid TOML: {message}")
    })
}

fn parse_yaml(text: &str) -> Result<Node, String> {
    let value: serde_yaml::Value = serde_yaml::from_str(text).map_err(|error| {
        let line = error
            .location()
            .map(|at| format!("line {}: ", at.line()))
            .unwrap_or_default();
        // The message quotes at most a key, never a value, once the location is cut off.
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or_default();
        format!("{line}not valid YAML: {message}")
    })?;
    match yaml_node(value)? {
        Node::Leaf(Raw::Null) => Ok(Node::Table(Vec::new())),
        table @ Node::Table(_) => Ok(table),
        Node::Leaf(_) => {
            Err("not a configuration: sections such as `loop:` are expected".to_owned())
        }
    }
}

fn yaml_node(value: serde_yaml::Value) -> Result<Node, String> {
    use serde_yaml::Value;
    Ok(Node::Leaf(match value {
        Value::Null => Raw::Null,
        Value::Bool(flag) => Raw::Flag(flag),
        Value::Number(n) => match (n.as_u64(), n.as_i64()) {
            (Some(n), _) => Raw::Whole(i128::from(n)),
            (None, Some(n)) => Raw::Whole(i128::from(n)),
            (None, None) => Raw::Real(n.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => Raw::Text(text),
        Value::Sequence(items) => {
            let items = items
                .into_iter()
                .map(yaml_node)
                .collect::<Result<Vec<_>, _>>()?;
            Raw::List(items.into_iter().map(flat).collect())
        }
        Value::Mapping(entries) => {
            let mut table = Vec::new();
            for (key, value) in entries {
                let Value::String(key) = key else {
                    return Err("a name that is not a text; quote it".to_owned());
                };
                table.push((key, None, yaml_node(value)?));
            }
            return Ok(Node::Table(table));
        }
        Value::Tagged(_) => return Err("tags (!name) are not used here".to_owned()),
    }))
}

fn flat(node: Node) -> Raw {
    match node {
        Node::Leaf(raw) => raw,
        Node::Table(_) => Raw::Table,
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|b| *b == b'\n').count() + 1
}

/// What stands before the `=` of a line: a key, which may be quoted where its value may not.
fn key_on(text: &str, line: usize) -> Option<&str> {
    let (key, _) = text.lines().nth(line - 1)?.split_once('=')?;
    let key = key.trim();
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    (!key.is_empty() && key.len() <= 80 && key.chars().all(fine)).then_some(key)
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Node, E> {
        Ok(Node::Leaf(Raw::Flag(flag)))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Node, E> {
        Ok(Node::Leaf(Raw::Whole(i128::from(number))))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Node, E> {
        Ok(Node::Leaf(Raw::Whole(i128::from(number))))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Node, E> {
        Ok(Node::Leaf(Raw::Real(number)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Leaf(Raw::Text(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element::<Node>()? {
            items.push(flat(item));
        }
        Ok(Node::Leaf(Raw::List(items)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut table = Vec::new();
        while let Some((key, value)) = map.next_entry::<Spanned<String>, Node>()? {
            let offset = key.span().start;
            table.push((key.into_inner(), Some(offset), value));
        }
        Ok(Node::Table(table))
    }
}
