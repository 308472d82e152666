//! Configuration: defaults < file (TOML or YAML) < environment (`LOOPWRIGHT_A__B`) < command line.
//!
//! Boundary: reads the sources that it is given, and the one file that they lead to; the real
//! environment is read in [`Sources::from_process`] alone. Invariant: strict. A name that is no
//! key, and a value that is not exactly what its key takes, stop the start with every problem at
//! once, each with its source and the way out; nothing falls back silently.
//!
//! The keys are declared once, as the fields of [`Config`] with their doc comments; [`schema`]
//! derives from them what the reader, [`show`], [`init_text`] and [`markdown`] go by.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider as FigmentProvider};

mod error;
mod file;
mod kind;
mod layer;
pub mod models;
mod nearest;
mod prices;
mod render;
mod rules;
mod schema;
pub mod tokens;
mod types;
pub mod units;

#[cfg(test)]
mod tests;

pub use error::{ConfigError, ConfigErrors, Source};
pub use prices::{LongRates, PRICES_READ_ON, PRICES_SOURCES, Rates, Tariff, price_list};
pub use render::{init_text, markdown, show};
pub use schema::{Key, Kind, schema};
pub use types::*;

use layer::{Layer, Setting};

/// Where each key that somebody set came from, by its full name; a key that is not here is at its
/// default.
pub type Provenance = BTreeMap<String, Source>;

/// Everything that configuration may be read from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The file that `--config` names.
    pub config_path: Option<PathBuf>,
    /// The environment.
    pub env: BTreeMap<String, String>,
    /// The working directory: `./loopwright.toml` is looked for here, and relative paths start
    /// here.
    pub cwd: PathBuf,
    /// Values of the command line, by key.
    pub flags: BTreeMap<String, String>,
}

/// A configuration, and how it came about.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The effective values; paths in it are absolute.
    pub config: Config,
    /// Where they came from.
    pub provenance: Provenance,
    /// The file that was read, if there was one.
    pub file: Option<PathBuf>,
}

impl Sources {
    /// The real environment and working directory. A foreign variable that is not UTF-8 is left
    /// out.
    ///
    /// # Errors
    /// The working directory is gone, or a `LOOPWRIGHT_` variable is not UTF-8.
    pub fn from_process(
        config_path: Option<PathBuf>,
        flags: BTreeMap<String, String>,
    ) -> std::io::Result<Self> {
        let env = readable(std::env::vars_os())?;
        Ok(Self {
            config_path,
            env,
            cwd: std::env::current_dir()?,
            flags,
        })
    }
}

/// Splits the argument of `--set KEY=VALUE`.
///
/// # Errors
/// There is no `=`, or nothing before it; the text says how it is written.
pub fn parse_set(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok((key.trim().to_owned(), value.to_owned()))
        }
        _ => Err("expected KEY=VALUE, such as loop.max_steps=20".to_owned()),
    }
}

/// Reads, checks and merges all sources.
///
/// # Errors
/// Every problem of every source at once; rules between keys are looked at when there is none.
pub fn load(sources: &Sources) -> Result<Loaded, ConfigErrors> {
    let file = file::locate(sources.config_path.as_deref(), &sources.env, &sources.cwd)?;
    let document = file.as_deref().map(file::read);
    let mut layers = Vec::new();
    match document {
        None => {}
        Some(Ok(document)) => layers.push(layer::from_file(&document)),
        Some(Err(error)) => layers.push(Layer {
            settings: Vec::new(),
            errors: vec![error],
        }),
    }
    layers.push(layer::from_env(&sources.env));
    layers.push(layer::from_flags(&sources.flags));

    let errors: Vec<ConfigError> = layers
        .iter()
        .flat_map(|layer| layer.errors.clone())
        .collect();
    if !errors.is_empty() {
        return Err(ConfigErrors(errors));
    }
    let (mut config, provenance) = merge(&layers)?;
    settle_paths(&mut config, &provenance, sources)?;
    match rules::broken(&config, &provenance) {
        broken if broken.is_empty() => Ok(Loaded {
            config,
            provenance,
            file,
        }),
        broken => Err(ConfigErrors(broken)),
    }
}

/// Looks at what only shows when it is used: token file, API keys, script files.
///
/// # Errors
/// Every problem that would stop the start, or a model's first call.
pub fn check(loaded: &Loaded, env: &BTreeMap<String, String>) -> Result<(), Vec<String>> {
    let config = &loaded.config;
    let mut problems = Vec::new();
    if let Some(path) = &config.server.auth.token_file {
        problems.extend(tokens::Tokens::read(path).err().map(|e| e.to_string()));
    }
    for alias in config.models.keys() {
        match models::resolve(config, env, Some(alias)) {
            Err(error) => problems.push(error.to_string()),
            Ok(model) => problems.extend(model.script.filter(|path| !path.is_file()).map(|path| {
                format!(
                    "models.{alias}.script names {}, and there is no such file",
                    path.display()
                )
            })),
        }
    }
    if let Some(name) = config
        .loops
        .model
        .as_deref()
        .filter(|name| !config.models.contains_key(*name))
    {
        problems.extend(
            models::resolve(config, env, Some(name))
                .err()
                .map(|e| e.to_string()),
        );
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(problems)
    }
}

fn readable(
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> std::io::Result<BTreeMap<String, String>> {
    let mut env = BTreeMap::new();
    for (name, value) in variables {
        match (name.into_string(), value.into_string()) {
            (Ok(name), Ok(value)) => drop(env.insert(name, value)),
            (Ok(name), Err(_)) if name.starts_with("LOOPWRIGHT_") => {
                let problem = format!("{name} is not UTF-8; set it anew");
                return Err(std::io::Error::new(
                    std::io::ErrorKind::InvalidData,
                    problem,
                ));
            }
            _ => {}
        }
    }
    Ok(env)
}

fn merge(layers: &[Layer]) -> Result<(Config, Provenance), ConfigErrors> {
    let mut figment = Figment::new();
    let mut provenance = Provenance::new();
    for layer in layers {
        figment = figment.merge(layer);
        for setting in &layer.settings {
            provenance.insert(setting.path.join("."), setting.source.clone());
        }
    }
    let config = figment.extract().map_err(|error| {
        // Every value was checked against the schema, so this names a fault of ours, not of theirs.
        let key = error.path.join(".");
        let origin = provenance.get(&key).cloned().unwrap_or(Source::Default);
        ConfigError::Rule {
            origin,
            key,
            problem: error.kind.to_string(),
        }
    })?;
    Ok((config, provenance))
}

impl FigmentProvider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named("configuration")
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let mut dict = Dict::new();
        for setting in &self.settings {
            nest(&mut dict, setting);
        }
        Ok(Map::from([(Profile::Default, dict)]))
    }
}

/// Not `figment::util::nest`: the name of a header may hold a dot.
fn nest(dict: &mut Dict, setting: &Setting) {
    let Some((last, sections)) = setting.path.split_last() else {
        return;
    };
    let mut dict = dict;
    for section in sections {
        let entry = dict
            .entry(section.clone())
            .or_insert_with(|| Value::from(Dict::new()));
        let Value::Dict(_, inner) = entry else { return };
        dict = inner;
    }
    dict.insert(last.clone(), setting.value.clone());
}

/// Makes every path absolute: `~/` is the home folder, other relative ones start at `cwd`.
fn settle_paths(
    config: &mut Config,
    provenance: &Provenance,
    sources: &Sources,
) -> Result<(), ConfigErrors> {
    let dir = "session_log.dir";
    let data_home = sources
        .env
        .get("XDG_DATA_HOME")
        .map(PathBuf::from)
        .filter(|d| d.is_absolute());
    if let Some(data_home) = data_home.filter(|_| !provenance.contains_key(dir)) {
        config.session_log.dir = data_home.join("loopwright");
    }
    let home = sources
        .env
        .get("HOME")
        .filter(|home| !home.is_empty())
        .map(PathBuf::from);
    let mut errors = Vec::new();
    for (key, path) in paths(config) {
        match absolute(path, home.as_deref(), &sources.cwd) {
            Some(full) => *path = full,
            None => errors.push(ConfigError::Rule {
                origin: provenance.get(&key).cloned().unwrap_or(Source::Default),
                problem: format!(
                    "{} starts at the home folder, and HOME is not set; set HOME, or {} to a \
                     full path",
                    path.display(),
                    schema::variable(&key)
                ),
                key,
            }),
        }
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(ConfigErrors(errors))
    }
}

fn paths(config: &mut Config) -> Vec<(String, &mut PathBuf)> {
    let mut paths = vec![("session_log.dir".to_owned(), &mut config.session_log.dir)];
    paths.extend(
        config
            .server
            .auth
            .token_file
            .as_mut()
            .map(|p| ("server.auth.token_file".to_owned(), p)),
    );
    paths.extend(
        config
            .tools
            .unix_dir
            .as_mut()
            .map(|p| ("tools.unix_dir".to_owned(), p)),
    );
    for (alias, model) in &mut config.models {
        let file = model
            .api_key_file
            .as_mut()
            .map(|p| (format!("models.{alias}.api_key_file"), p));
        let script = model
            .script
            .as_mut()
            .map(|p| (format!("models.{alias}.script"), p));
        paths.extend(file.into_iter().chain(script));
    }
    paths
}

fn absolute(path: &Path, home: Option<&Path>, cwd: &Path) -> Option<PathBuf> {
    match path.strip_prefix("~") {
        Ok(rest) => Some(home?.join(rest)),
        Err(_) => Some(cwd.join(path)),
    }
}
