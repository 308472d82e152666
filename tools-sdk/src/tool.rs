//! A tool: a name, a description, and an async function with typed arguments.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::answer::{Answer, IntoAnswer, ToolError};
use crate::context::ToolContext;
use crate::error::DefinitionError;
use crate::{name, schema};

/// Most characters of a description.
const MAX_DESCRIPTION_CHARS: usize = 4096;
/// How long the SDK remembers a call of an at-most-once tool, unless it is told otherwise.
const DEFAULT_REMEMBERED: Duration = Duration::from_secs(60 * 60);
/// Longest timeout that a server grants.
const MAX_TIMEOUT: Duration = Duration::from_secs(30 * 60);

type Body =
    Arc<dyn Fn(ToolContext, Value) -> BoxFuture<'static, Result<Answer, ToolError>> + Send + Sync>;

/// What running a tool twice would do: decides what Loopwright does when it cannot know whether a call
/// ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Changes nothing: run until there is a result.
    ReadOnly,
    /// Twice is the same as once: run until there is a result.
    Idempotent,
    /// The SDK remembers keys and runs each once: sent until there is a result, within the retention.
    Deduplicated {
        /// How long a key is remembered after its call ended.
        retention: Duration,
    },
    /// Not safe to repeat: sent once. Where the outcome is lost, the SDK is asked what became of the call,
    /// for as long as it remembers ([`Tool::remembered_for`]); beyond that it stays unknown. The default.
    AtMostOnce,
}

/// The arguments of a tool that takes none.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoArgs {}

/// A tool of a sidecar.
#[derive(Clone)]
pub struct Tool {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) input_schema: Value,
    pub(crate) output_schema: Option<Value>,
    pub(crate) effect: Effect,
    pub(crate) destructive: bool,
    pub(crate) timeout: Option<Duration>,
    pub(crate) max_concurrency: Option<u32>,
    pub(crate) lookup: bool,
    remembered_for: Duration,
    body: Body,
}

impl Tool {
    /// A tool from an async function. `name` matches `[a-z][a-z0-9_-]{0,37}` without `__`; `description`
    /// (at most 4,096 characters) is what the model is told. The JSON Schema comes from the argument type,
    /// doc comments included. At most once, until another effect is declared.
    pub fn new<A, R, F, Fut>(
        name: impl Into<String>,
        description: impl Into<String>,
        run: F,
    ) -> Self
    where
        A: DeserializeOwned + JsonSchema + Send + 'static,
        R: IntoAnswer + 'static,
        F: Fn(ToolContext, A) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, ToolError>> + Send + 'static,
    {
        let run = Arc::new(run);
        let body: Body = Arc::new(move |context, arguments| {
            let run = Arc::clone(&run);
            Box::pin(async move {
                let arguments = serde_json::from_value(arguments).map_err(|error| {
                    ToolError::not_executed(format!("the arguments cannot be read: {error}"))
                })?;
                run(context, arguments).await?.into_answer()
            })
        });
        Self {
            name: name.into(),
            description: description.into(),
            input_schema: schema::of_arguments::<A>(),
            output_schema: R::output_schema(),
            effect: Effect::AtMostOnce,
            destructive: false,
            timeout: None,
            max_concurrency: None,
            lookup: true,
            remembered_for: DEFAULT_REMEMBERED,
            body,
        }
    }

    /// It changes nothing.
    #[must_use]
    pub fn read_only(self) -> Self {
        self.effect(Effect::ReadOnly)
    }

    /// Running it twice with the same arguments is the same as once.
    #[must_use]
    pub fn idempotent(self) -> Self {
        self.effect(Effect::Idempotent)
    }

    /// The SDK runs each key once and answers a repeat with the first result, for `retention` after the
    /// call ended. The keys live in the process, unless the sidecar is told to remember them in a file
    /// ([`crate::Sidecar::remember_in`]). Such a call goes on when its caller is gone, so that a repeat can
    /// join it.
    #[must_use]
    pub fn deduplicated(self, retention: Duration) -> Self {
        self.effect(Effect::Deduplicated { retention })
    }

    /// Sets what running it twice would do.
    #[must_use]
    pub fn effect(mut self, effect: Effect) -> Self {
        self.effect = effect;
        self
    }

    /// How long the SDK remembers a call of an at-most-once tool after it ended, so that a server that lost
    /// the outcome can ask for it, or rejoin the call while it runs: 1 hour by default, above 0. The calls
    /// are remembered in the process, and in the sidecar's file where it has one
    /// ([`crate::Sidecar::remember_in`]). Where memory runs short they are forgotten earlier; nothing is
    /// refused for them. Of a call that is not remembered it is said that it never started for half of that
    /// time: so much may the server's clock differ from this host's. A deduplicated tool has its retention instead; of the other effects nothing is
    /// remembered.
    #[must_use]
    pub fn remembered_for(mut self, time: Duration) -> Self {
        self.remembered_for = time;
        self
    }

    /// Remembers nothing of an at-most-once tool, and answers no question about its calls: a lost outcome
    /// is unknown at once. A deduplicated tool still remembers its keys, but is asked nothing. For tools
    /// whose answers must not be kept.
    #[must_use]
    pub fn without_lookup(mut self) -> Self {
        self.lookup = false;
        self
    }

    /// Its effect cannot be undone: an unknown outcome asks a person.
    #[must_use]
    pub fn destructive(mut self) -> Self {
        self.destructive = true;
        self
    }

    /// Longest silence of a call: above 0, at most 30 minutes. The server's default is 120 s.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Most calls at a time, over all sessions, from 1; more are not executed and may be tried again.
    #[must_use]
    pub fn max_concurrency(mut self, calls: u32) -> Self {
        self.max_concurrency = Some(calls);
        self
    }

    /// Runs the tool's function on arguments that fit the schema.
    pub(crate) async fn run(&self, ctx: ToolContext, args: Value) -> Result<Answer, ToolError> {
        (self.body)(ctx, args).await
    }

    /// How long its calls are remembered, and whether they may be forgotten earlier; `None`: not at all.
    pub(crate) fn memory(&self) -> Option<(Duration, bool)> {
        match self.effect {
            Effect::Deduplicated { retention } => Some((retention, false)),
            Effect::AtMostOnce if self.lookup => Some((self.remembered_for, true)),
            Effect::AtMostOnce | Effect::ReadOnly | Effect::Idempotent => None,
        }
    }

    /// Whether a server may ask what became of a call.
    pub(crate) fn can_be_asked(&self) -> bool {
        self.lookup && self.memory().is_some()
    }

    /// Checks everything but the schema.
    pub(crate) fn check(&self) -> Result<(), DefinitionError> {
        name::check_tool(&self.name)?;
        let why = if self.description.trim().is_empty() {
            "its description is empty, and a model chooses by the description"
        } else if self.description.chars().count() > MAX_DESCRIPTION_CHARS {
            "its description has more than 4096 characters"
        } else if self
            .timeout
            .is_some_and(|time| time.is_zero() || time > MAX_TIMEOUT)
        {
            "its timeout must be above 0 and at most 30 minutes"
        } else if self.max_concurrency == Some(0) {
            "its max_concurrency is 0, so that no call could ever run; leave it out for no limit"
        } else if self.effect
            == (Effect::Deduplicated {
                retention: Duration::ZERO,
            })
        {
            "its retention must be above 0"
        } else if self.remembered_for.is_zero() {
            "it is remembered for no time at all; use without_lookup for that"
        } else {
            return Ok(());
        };
        Err(DefinitionError::Tool {
            tool: self.name.clone(),
            why: why.to_owned(),
        })
    }
}

impl fmt::Debug for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tool")
            .field("name", &self.name)
            .field("effect", &self.effect)
            .finish_non_exhaustive()
    }
}
