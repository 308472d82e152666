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
    /// Not safe to repeat: sent once; where the outcome is lost, it stays unknown. The default.
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
