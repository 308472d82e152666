//! The typed tree of configuration.
//!
//! Boundary: shapes, defaults and the words that describe them; where values come from is next
//! door. Invariant: this is the one place a key is declared. Its name, type, default (`Default`),
//! range (`x-min`, `x-max`) and description (the doc comment) all stand on the field, and the
//! reader, `config show`, `config init`, the table of keys and the tests are derived from here.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

mod agent;
mod model;
mod redaction;
mod server;

pub use agent::{
    BudgetConfig, CacheTtl, ContextConfig, LimitsConfig, LoopConfig, OnExhausted,
    PromptCacheConfig, RecapBy, RetryConfig,
};
pub use model::{LongContextConfig, ModelConfig, PriceConfig, Provider};
pub use redaction::{RedactionConfig, SecretKind};
pub use server::{
    ApprovalDefault, AuthConfig, LogFormat, OnChange, OnUnknown, ServerConfig, ServerLimitsConfig,
    SessionLogConfig, TelemetryConfig, ToolsConfig,
};

/// Everything that a server can be told. `Config::default()` is what it runs with when told
/// nothing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Defaults of a loop. A request may move each of them either way, up to `limits.*`.
    #[serde(rename = "loop")]
    pub loops: LoopConfig,
    /// Budgets of every loop: none = no limit, 0 = nothing allowed. A request may only narrow them.
    pub budget: BudgetConfig,
    /// What of a conversation is shown to the model.
    pub context: ContextConfig,
    /// Where sessions are kept, and how durably.
    pub session_log: SessionLogConfig,
    /// Upper bounds that no request can move.
    pub limits: LimitsConfig,
    /// Models by alias (`[a-z0-9_]+`). `anthropic/ID` and `openai/ID` need no entry here.
    #[schemars(extend("x-name" = "alias"))]
    pub models: BTreeMap<String, ModelConfig>,
    /// Calls to the tools of sidecars.
    pub tools: ToolsConfig,
    /// What is taken out of texts before the model, the log and watchers see them.
    pub redaction: RedactionConfig,
    /// Retries of model calls and of tool calls that are safe to repeat.
    pub retry: RetryConfig,
    /// The prompt cache of providers that want it marked.
    pub prompt_cache: PromptCacheConfig,
    /// The one listener, for gRPC, gRPC-Web, health, reflection and `/metrics`.
    pub server: ServerConfig,
    /// Logs, traces and metrics of the server itself.
    pub telemetry: TelemetryConfig,
}
