//! Keys of one entry of `models`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `models.<alias>.*`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    /// Who answers: `anthropic`, `openai` (any compatible endpoint) or `scripted` (turns from a
    /// file). Required.
    pub provider: Option<Provider>,
    /// The model's name as the provider knows it. Required, but for `scripted`.
    pub id: Option<String>,
    /// Where the API is: for `openai` up to and with `/v1`, for `anthropic` without it. None = the
    /// provider's own.
    #[schemars(extend("x-kind" = "url"))]
    pub base_url: Option<String>,
    /// The name of the environment variable that holds the API key. None, with no `base_url` =
    /// ANTHROPIC_API_KEY or OPENAI_API_KEY.
    #[schemars(extend("x-kind" = "env_name"))]
    pub api_key_env: Option<String>,
    /// A file that holds the API key and nothing else.
    #[schemars(extend("x-kind" = "path"))]
    pub api_key_file: Option<PathBuf>,
    /// Tokens that the model can take, input and output together.
    #[schemars(extend("x-min" = 1024, "x-max" = 1_000_000_000))]
    pub context_window: Option<u64>,
    /// Output tokens that the model can give in one call.
    #[schemars(extend("x-min" = 1, "x-max" = 10_000_000))]
    pub max_output: Option<u64>,
    /// Further HTTP headers, sent with every request. In the environment `_` stands for `-`. Never
    /// shown.
    #[schemars(extend("x-name" = "name", "x-kind" = "headers"))]
    pub headers: BTreeMap<String, String>,
    /// Prices in US dollars per million tokens. Without them those of the built-in table count, which
    /// `loopwright config prices` prints; a model that it does not have, or one at a `base_url`, has no
    /// price then: no cost is reported, and no budget that limits cost lets it be called.
    pub price: PriceConfig,
    /// The YAML or JSON file with the turns of a `scripted` model.
    #[schemars(extend("x-kind" = "path"))]
    pub script: Option<PathBuf>,
}

/// `models.<alias>.price.*`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PriceConfig {
    /// US dollars per million tokens of uncached input.
    pub input: Option<f64>,
    /// US dollars per million tokens of output.
    pub output: Option<f64>,
    /// US dollars per million tokens written to the prompt cache. None, outside the built-in table =
    /// as input.
    pub cache_write: Option<f64>,
    /// US dollars per million tokens written to the prompt cache to be kept for an hour. None, outside
    /// the built-in table = as other writes.
    pub cache_write_1h: Option<f64>,
    /// US dollars per million tokens read from the prompt cache. None, outside the built-in table = as
    /// input.
    pub cache_read: Option<f64>,
    /// Prices of calls with long prompts, where they differ.
    pub long_context: LongContextConfig,
}

/// `models.<alias>.price.long_context.*`: for all tokens of a call with a long prompt; a key that is
/// not set is as for other calls.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LongContextConfig {
    /// A prompt of more tokens than this is long, cached ones included. None = 200000.
    #[schemars(extend("x-min" = 1, "x-max" = 1_000_000_000))]
    pub above: Option<u64>,
    /// US dollars per million tokens of uncached input, where the prompt is long.
    pub input: Option<f64>,
    /// US dollars per million tokens of output, where the prompt is long.
    pub output: Option<f64>,
    /// US dollars per million tokens written to the prompt cache, where the prompt is long.
    pub cache_write: Option<f64>,
    /// The same, of those kept for an hour.
    pub cache_write_1h: Option<f64>,
    /// US dollars per million tokens read from the prompt cache, where the prompt is long.
    pub cache_read: Option<f64>,
}

/// A protocol to speak to a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// The Messages API.
    Anthropic,
    /// Chat completions, at OpenAI or any compatible endpoint.
    OpenAi,
    /// Turns read from a file: for tests and demonstrations.
    Scripted,
}

impl Provider {
    /// The name in configuration, in `provider/id` and in telemetry.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Anthropic => "anthropic",
            Self::OpenAi => "openai",
            Self::Scripted => "scripted",
        }
    }
}
