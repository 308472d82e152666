//! What can be wrong with a configuration, worded for whoever has to put it right.
//!
//! Boundary: words only. Invariant: every message names its source, the key, the value unless it
//! may be a secret, and what was expected; problems are gathered, so that one start shows them all.

use std::fmt;
use std::path::PathBuf;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Nobody set it.
    Default,
    /// A line of a file; a YAML file has no line to show.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: Option<usize>,
    },
    /// An environment variable.
    Variable(String),
    /// The command line.
    Flag,
}

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A value that is not what the key takes.
    #[error("{origin}: {key} = {value}: expected {expected}")]
    Value {
        /// Where the value stands.
        origin: Source,
        /// The key.
        key: String,
        /// The value as written, or a note that it is not shown.
        value: String,
        /// What the key takes, with its range.
        expected: String,
    },
    /// A name that is no key.
    #[error("{origin}: {name} is not a key{}", hint(.nearest))]
    Unknown {
        /// Where the name stands.
        origin: Source,
        /// The name as written.
        name: String,
        /// The way out: the nearest key, as it would be written there.
        nearest: Option<String>,
    },
    /// Values that are fine by themselves and wrong together.
    #[error("{origin}: {key}: {problem}")]
    Rule {
        /// Where the key was set.
        origin: Source,
        /// The key.
        key: String,
        /// What is wrong, and the ways out.
        problem: String,
    },
    /// A file that cannot be used at all.
    #[error("{}: {problem}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong, and the ways out.
        problem: String,
    },
}

/// Every problem that was found, in the order of their sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File {
                path,
                line: Some(line),
            } => write!(f, "{}:{line}", path.display()),
            Self::File { path, line: None } => write!(f, "{}", path.display()),
            Self::Variable(name) => f.write_str(name),
            Self::Flag => f.write_str("command line"),
        }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [one] => write!(f, "the configuration cannot be used: {one}"),
            all => {
                write!(
                    f,
                    "the configuration cannot be used, {} problems:",
                    all.len()
                )?;
                all.iter().try_for_each(|error| write!(f, "\n  {error}"))
            }
        }
    }
}

impl std::error::Error for ConfigErrors {}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self(vec![error])
    }
}

fn hint(nearest: &Option<String>) -> String {
    match nearest {
        Some(name) => format!("; did you mean {name}?"),
        None => "; `loopwright config show` lists the keys".to_owned(),
    }
}
