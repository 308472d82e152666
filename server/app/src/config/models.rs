//! Which model a name means.
//!
//! Boundary: from a name to everything a provider needs; makes no request. Invariant: an API key
//! goes only where its owner sent it: a key from ANTHROPIC_API_KEY or OPENAI_API_KEY never to a
//! `base_url` of the configuration, unless `api_key_env` names it there.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use super::nearest::nearest;
use super::prices::{self, Tariff};
use super::types::{Config, ModelConfig, Provider};

/// The model of ANTHROPIC_API_KEY when none is named.
pub const DEFAULT_ANTHROPIC: &str = "anthropic/claude-sonnet-5-5";
/// The model of OPENAI_API_KEY when none is named.
pub const DEFAULT_OPENAI: &str = "openai/gpt-5.5";

/// An API key. It is never printed: `Debug` shows that there is one, and no more.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

/// A model, ready to be called.
#[derive(Debug, Clone, PartialEq)]
pub struct ResolvedModel {
    /// The name that was asked for: an alias, or `provider/id`.
    pub alias: String,
    /// The protocol.
    pub provider: Provider,
    /// The model's name at the provider; the alias for a scripted one.
    pub id: String,
    /// Where the API is, without a slash at the end; empty for a scripted one.
    pub base_url: String,
    /// The key, unless the endpoint needs none.
    pub api_key: Option<ApiKey>,
    /// Tokens that the model can take, where known.
    pub context_window: Option<u64>,
    /// Output tokens of one call, where known.
    pub max_output: Option<u64>,
    /// Further headers of every request.
    pub headers: BTreeMap<String, String>,
    /// What its tokens cost, where known.
    pub price: Option<Tariff>,
    /// The turns of a scripted model.
    pub script: Option<PathBuf>,
}

/// Why a name means no model. Each text says what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// No model was named, and none is there.
    #[error(
        "no model is configured: set ANTHROPIC_API_KEY or OPENAI_API_KEY, or describe one as \
         models.<alias> and name it in loop.model or in the request, or run \
         `loopwright demo`, which \
         needs none"
    )]
    None,
    /// The name is unknown.
    #[error(
        "there is no model {name:?}{hint}: name an alias of models{known}, or provider/id such \
         as {}",
        DEFAULT_ANTHROPIC
    )]
    Unknown {
        /// The name as asked for.
        name: String,
        /// A near name, worded, or nothing.
        hint: String,
        /// The aliases that are there, worded, or nothing.
        known: String,
    },
    /// The variable that should hold the key is not set, or empty.
    #[error("model {alias:?} needs an API key, and {variable} is not set: {way_out}")]
    KeyVariable {
        /// The model.
        alias: String,
        /// The variable.
        variable: String,
        /// What to do.
        way_out: String,
    },
    /// The file that should hold the key cannot be used.
    #[error("model {alias:?} needs an API key, and models.{alias}.api_key_file names {}, which \
     {problem}", .path.display())]
    KeyFile {
        /// The model.
        alias: String,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

impl ApiKey {
    /// The key itself, to be put into a request and nowhere else.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(..)")
    }
}

/// The model that `name` means, or the default one when there is no name.
///
/// A name is an alias of `models`, or `anthropic/ID` or `openai/ID`. The default is `loop.model`,
/// else [`DEFAULT_ANTHROPIC`] when ANTHROPIC_API_KEY is set, else [`DEFAULT_OPENAI`] when
/// OPENAI_API_KEY is set.
///
/// # Errors
/// The name means nothing, there is no model at all, or the model's key is not there.
pub fn resolve(
    config: &Config,
    env: &BTreeMap<String, String>,
    name: Option<&str>,
) -> Result<ResolvedModel, ModelError> {
    let name = match name
        .filter(|name| !name.is_empty())
        .or(config.loops.model.as_deref())
    {
        Some(name) => name,
        None => default_name(env).ok_or(ModelError::None)?,
    };
    if let Some(model) = config.models.get(name) {
        return configured(name, model, env);
    }
    let Some((provider, id)) = direct(name) else {
        return Err(unknown(config, env, name));
    };
    let (base_url, variable) = home(provider);
    let way_out =
        "set it, or describe the model as models.<alias> with a key of its own".to_owned();
    let api_key = Some(from_variable(name, variable, env, way_out)?);
    let (context_window, max_output) = known_limits(name);
    Ok(ResolvedModel {
        alias: name.to_owned(),
        provider,
        id: id.to_owned(),
        base_url: base_url.to_owned(),
        api_key,
        context_window,
        max_output,
        headers: BTreeMap::new(),
        price: Tariff::known(provider, id),
        script: None,
    })
}

/// Where the key of a configured model comes from, in words; `None` where it needs none.
pub(crate) fn key_source(model: &ModelConfig) -> Option<String> {
    let provider = model.provider.unwrap_or(Provider::Scripted);
    match (&model.api_key_env, &model.api_key_file) {
        (Some(variable), _) => Some(variable.clone()),
        (None, Some(path)) => Some(path.display().to_string()),
        (None, None) if model.base_url.is_some() || provider == Provider::Scripted => None,
        (None, None) => Some(home(provider).1.to_owned()),
    }
}

/// `provider/id`, for the providers that need no configuration.
pub(super) fn direct(name: &str) -> Option<(Provider, &str)> {
    let (provider, id) = name.split_once('/')?;
    let provider = match provider {
        "anthropic" => Provider::Anthropic,
        "openai" => Provider::OpenAi,
        _ => return None,
    };
    (!id.is_empty()).then_some((provider, id))
}

fn configured(
    alias: &str,
    model: &ModelConfig,
    env: &BTreeMap<String, String>,
) -> Result<ResolvedModel, ModelError> {
    // Rules refuse an alias without a provider; scripted needs the least if they were not asked.
    let provider = model.provider.unwrap_or(Provider::Scripted);
    let (base_url, variable) = home(provider);
    let api_key = match (&model.api_key_env, &model.api_key_file) {
        (Some(variable), _) => {
            let way_out = format!("set it, or name another in models.{alias}.api_key_env");
            Some(from_variable(alias, variable, env, way_out)?)
        }
        (None, Some(path)) => Some(from_file(alias, path)?),
        (None, None) if model.base_url.is_some() || provider == Provider::Scripted => None,
        (None, None) => {
            let way_out = format!("set it, or models.{alias}.api_key_env or api_key_file");
            Some(from_variable(alias, variable, env, way_out)?)
        }
    };
    let id = model.id.clone().unwrap_or_else(|| alias.to_owned());
    let known = match model.base_url {
        None => known_limits(&format!("{}/{id}", provider.as_str())),
        Some(_) => (None, None),
    };
    Ok(ResolvedModel {
        alias: alias.to_owned(),
        provider,
        price: prices::tariff(provider, &id, model),
        id,
        base_url: model
            .base_url
            .as_deref()
            .unwrap_or(base_url)
            .trim_end_matches('/')
            .to_owned(),
        api_key,
        context_window: model.context_window.or(known.0),
        max_output: model.max_output.or(known.1),
        headers: model.headers.clone(),
        script: model.script.clone(),
    })
}

fn default_name(env: &BTreeMap<String, String>) -> Option<&'static str> {
    let set = |name: &str| env.get(name).is_some_and(|key| !key.trim().is_empty());
    if set("ANTHROPIC_API_KEY") {
        Some(DEFAULT_ANTHROPIC)
    } else {
        set("OPENAI_API_KEY").then_some(DEFAULT_OPENAI)
    }
}

/// The provider's own endpoint, and the variable of its key.
const fn home(provider: Provider) -> (&'static str, &'static str) {
    match provider {
        Provider::Anthropic => ("https://api.anthropic.com", "ANTHROPIC_API_KEY"),
        Provider::OpenAi => ("https://api.openai.com/v1", "OPENAI_API_KEY"),
        Provider::Scripted => ("", ""),
    }
}

/// Window and output cap of the default models, as their providers publish them.
fn known_limits(name: &str) -> (Option<u64>, Option<u64>) {
    match name {
        DEFAULT_ANTHROPIC => (Some(1_000_000), Some(128_000)),
        DEFAULT_OPENAI => (Some(1_050_000), Some(128_000)),
        _ => (None, None),
    }
}

fn from_variable(
    alias: &str,
    variable: &str,
    env: &BTreeMap<String, String>,
    way_out: String,
) -> Result<ApiKey, ModelError> {
    match env
        .get(variable)
        .map(|key| key.trim())
        .filter(|key| !key.is_empty())
    {
        Some(key) => Ok(ApiKey(key.to_owned())),
        None => Err(ModelError::KeyVariable {
            alias: alias.to_owned(),
            variable: variable.to_owned(),
            way_out,
        }),
    }
}

fn from_file(alias: &str, path: &std::path::Path) -> Result<ApiKey, ModelError> {
    let failed = |problem: String| ModelError::KeyFile {
        alias: alias.to_owned(),
        path: path.to_path_buf(),
        problem,
    };
    let text = std::fs::read_to_string(path).map_err(|e| failed(format!("cannot be read: {e}")))?;
    match text.trim() {
        "" => Err(failed("is empty".to_owned())),
        key if key.len() > 16 << 10 || key.contains(char::is_control) => {
            Err(failed("holds more than one line".to_owned()))
        }
        key => Ok(ApiKey(key.to_owned())),
    }
}

fn unknown(config: &Config, env: &BTreeMap<String, String>, name: &str) -> ModelError {
    if config.models.is_empty() && default_name(env).is_none() && !name.contains('/') {
        return ModelError::None;
    }
    let aliases: Vec<&str> = config.models.keys().map(String::as_str).collect();
    let hint = nearest(name, aliases.iter().copied())
        .map_or_else(String::new, |alias| format!(" (did you mean {alias:?}?)"));
    let known = if aliases.is_empty() {
        " (there is none)".to_owned()
    } else {
        format!(" ({})", aliases.join(", "))
    };
    ModelError::Unknown {
        name: name.to_owned(),
        hint,
        known,
    }
}
