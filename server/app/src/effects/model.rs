//! Calls to models: Anthropic, anything that speaks OpenAI's chat completions, and scripts.
//!
//! Boundary: from a [`ModelRequest`] to a [`ModelReply`] or a [`ModelFailure`]; one attempt, never
//! a retry, since core decides that. Invariants: what was rendered once is sent again byte for byte
//! (see [`Transcript`]); a key leaves in its header and nowhere else; dropping the future of a call
//! drops its HTTP request.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use loopwright_core::{
    budget::Price,
    outcome::{ModelFailure, ModelFailureKind, ModelReply},
    prompt::ModelRequest,
};

use self::{
    body::Pieces,
    exchange::Exchange,
    failure::Fault,
    protocol::Protocol,
    target::{Route, Target},
    transcript::{Ask, Breakpoints},
};
use super::{CallTrace, progress::ProgressSink};
use crate::config::{
    Config, Provider,
    models::{ModelError, ResolvedModel, resolve},
};
use crate::redaction::Redaction;

mod anthropic;
mod body;
mod cost;
mod exchange;
mod failure;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod json;
mod openai;
mod protocol;
mod reply;
mod script;
mod scripted;
mod sse;
mod target;
mod transcript;

pub use body::RequestBody;
pub use script::{Script, ScriptError};
pub use transcript::Transcript;

/// Why a model cannot be called; the text names the ways out.
pub type NoModel = ModelError;

/// Targets kept ready: a client may name any `provider/id`.
const MAX_TARGETS: usize = 1024;

/// All models that can be called.
pub struct Models {
    config: Config,
    env: BTreeMap<String, String>,
    /// Made once; where TLS cannot be set up, the reason, and scripted models go on.
    client: Result<reqwest::Client, String>,
    scripts: BTreeMap<String, Arc<Script>>,
    embedded: BTreeMap<String, Arc<Script>>,
    targets: Mutex<BTreeMap<String, Arc<Target>>>,
    idle: Duration,
}

/// What [`Models`] takes beside the configuration.
#[derive(Clone, Debug)]
pub struct ModelsOptions {
    /// Scripted models that need no configuration, by alias: the text of each one's script.
    pub scripts: BTreeMap<String, String>,
    /// Longest silence of a provider, before its reply and between the events of it. Default 300 s:
    /// a model that reasons may say nothing for minutes.
    pub idle_timeout: Duration,
    /// Longest time to connect. Default 10 s.
    pub connect_timeout: Duration,
}

/// What is known of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelFacts {
    /// Its name: the alias, or `provider/id`.
    pub name: String,
    /// Who answers.
    pub provider: Provider,
    /// Its name at the provider.
    pub id: String,
    /// Tokens that it can take, where known.
    pub context_window: Option<u64>,
    /// Output tokens of one call, where known.
    pub max_output: Option<u64>,
    /// What its tokens cost at most, where it has a price.
    pub price: Option<Price>,
}

impl Default for ModelsOptions {
    fn default() -> Self {
        Self {
            scripts: BTreeMap::new(),
            idle_timeout: Duration::from_secs(300),
            connect_timeout: Duration::from_secs(10),
        }
    }
}

impl Models {
    /// The models of a configuration.
    ///
    /// # Errors
    /// A script cannot be used.
    pub fn new(
        config: &Config,
        env: &BTreeMap<String, String>,
        options: ModelsOptions,
    ) -> Result<Arc<Self>, ScriptError> {
        let mut scripts = BTreeMap::new();
        for (alias, model) in &config.models {
            if let (Some(Provider::Scripted), Some(path)) = (model.provider, &model.script) {
                scripts.insert(alias.clone(), Arc::new(Script::load(path)?));
            }
        }
        let mut embedded = BTreeMap::new();
        for (alias, text) in &options.scripts {
            embedded.insert(alias.clone(), Arc::new(Script::parse(alias, text)?));
        }
        Ok(Arc::new(Self {
            config: config.clone(),
            env: env.clone(),
            client: client(options.connect_timeout),
            scripts,
            embedded,
            targets: Mutex::default(),
            idle: options.idle_timeout,
        }))
    }

    /// Whether there is a model that needs no more than its name, or not even that.
    #[must_use]
    pub fn has_any(&self) -> bool {
        !self.config.models.is_empty()
            || !self.embedded.is_empty()
            || resolve(&self.config, &self.env, None).is_ok()
    }

    /// What is known of the model with this name; an empty name means the default model.
    ///
    /// # Errors
    /// The name means nothing, there is no model at all, or its key is missing.
    pub fn check(&self, model: &str) -> Result<ModelFacts, NoModel> {
        let model = self.resolve(model)?;
        Ok(ModelFacts {
            name: model.alias,
            provider: model.provider,
            id: model.id,
            context_window: model.context_window,
            max_output: model.max_output,
            price: model
                .price
                .map(|tariff| cost::most(&tariff, self.config.prompt_cache.ttl)),
        })
    }

    /// Who answers for a model, as meters and spans name it; `unknown` where it cannot be called.
    #[must_use]
    pub fn provider_of(&self, model: &str) -> &'static str {
        self.target(model)
            .map_or("unknown", |target| target.model.provider.as_str())
    }

    /// Whether an agent's `provider_options` can be sent.
    ///
    /// # Errors
    /// They are no JSON object, or set what the loop sets itself.
    pub fn check_options(options: &str) -> Result<(), String> {
        protocol::check_options(options)
    }

    /// Makes one attempt of a call. What is new in the conversation is rendered into `transcript`
    /// now: a cache, of which a session keeps one; starting from an empty one gives the same bytes.
    /// Dropping the future gives the request up. `ModelReply::verdicts` is left empty.
    pub fn call(
        self: &Arc<Self>,
        transcript: &mut Transcript,
        request: ModelRequest,
        trace: CallTrace,
        sink: ProgressSink,
    ) -> BoxFuture<'static, Result<ModelReply, ModelFailure>> {
        match self.start(transcript, request, trace, sink) {
            Ok(call) => call,
            Err(fault) => {
                let failure = fault.into_failure(&[], self.redaction(), String::new());
                futures_util::future::ready(Err(failure)).boxed()
            }
        }
    }

    /// The body of a request as [`Models::call`] would send it now: the same bytes while neither this
    /// version nor the model's configuration has changed. A scripted model is sent none; what is shown
    /// is what an OpenAI-compatible one would be.
    ///
    /// # Errors
    /// Why the model cannot be called, or not with this request.
    pub fn body(&self, request: &ModelRequest) -> Result<RequestBody, String> {
        let target = self.target(&request.model).map_err(|fault| fault.message)?;
        let pieces = self.render(&mut Transcript::default(), &target, request)?;
        Ok(RequestBody {
            provider: target.model.provider.as_str(),
            pieces,
        })
    }

    /// The one place where a request becomes bytes.
    fn render(
        &self,
        transcript: &mut Transcript,
        target: &Target,
        request: &ModelRequest,
    ) -> Result<Pieces, String> {
        let (protocol, completion_tokens) = target.form();
        let cap = target.cap(request.max_output_tokens);
        let tail = protocol.tail(completion_tokens, cap, request)?;
        transcript.body(Ask {
            protocol,
            id: &target.model.id,
            request,
            cache: self.breakpoints(protocol, &target.model.id),
            tail,
        })
    }

    fn start(
        self: &Arc<Self>,
        transcript: &mut Transcript,
        request: ModelRequest,
        trace: CallTrace,
        sink: ProgressSink,
    ) -> Result<BoxFuture<'static, Result<ModelReply, ModelFailure>>, Fault> {
        let target = self.target(&request.model)?;
        let (protocol, endpoint) = match &target.route {
            Route::Script(script) => {
                let script = Arc::clone(script);
                return Ok(scripted::run(target, script, request, sink).boxed());
            }
            Route::Http(protocol, endpoint) => (*protocol, Arc::clone(endpoint)),
        };
        let client = self.client.clone();
        let client = client.map_err(|e| Fault::new(ModelFailureKind::Connect, e))?;
        let unfit = |what| Fault::new(ModelFailureKind::InvalidRequest, what);
        let body = self.render(transcript, &target, &request).map_err(unfit)?;
        let (traceparent, idle) = (trace.traceparent, self.idle);
        let target = Arc::clone(&target);
        let exchange = Exchange {
            client,
            target,
            endpoint,
            protocol,
            body,
            traceparent,
            idle,
        };
        let models = Arc::clone(self);
        Ok(async move {
            let outcome = exchange.run(sink).await;
            if outcome
                .as_ref()
                .is_err_and(|e| e.kind == ModelFailureKind::Auth)
            {
                // The key may have been replaced in its file: the next call reads it again.
                models.targets().remove(&request.model);
            }
            outcome
        }
        .boxed())
    }

    fn resolve(&self, name: &str) -> Result<ResolvedModel, NoModel> {
        if self.embedded.contains_key(name) && !self.config.models.contains_key(name) {
            return Ok(embedded(name));
        }
        resolve(&self.config, &self.env, Some(name))
    }

    fn target(&self, name: &str) -> Result<Arc<Target>, Fault> {
        if let Some(target) = self.targets().get(name) {
            return Ok(Arc::clone(target));
        }
        let model = self.resolve(name).map_err(|e| {
            let kind = match &e {
                ModelError::KeyVariable { .. } | ModelError::KeyFile { .. } => {
                    ModelFailureKind::Auth
                }
                ModelError::None | ModelError::Unknown { .. } => ModelFailureKind::NoSuchModel,
            };
            Fault::new(kind, e.to_string())
        })?;
        let script = self
            .scripts
            .get(&model.alias)
            .or_else(|| self.embedded.get(&model.alias));
        let ttl = self.config.prompt_cache.ttl;
        let target = Target::new(model, script.cloned(), self.redaction(), ttl)?;
        let target = Arc::new(target);
        let mut targets = self.targets();
        if targets.len() >= MAX_TARGETS {
            targets.clear();
        }
        targets.insert(name.to_owned(), Arc::clone(&target));
        Ok(target)
    }

    fn redaction(&self) -> Redaction {
        Redaction::from(&self.config)
    }

    fn targets(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<Target>>> {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// OpenAI keeps prefixes without being asked.
    fn breakpoints(&self, protocol: Protocol, id: &str) -> Option<Breakpoints> {
        let cache = &self.config.prompt_cache;
        match protocol {
            Protocol::Anthropic if cache.enabled => Some(anthropic::breakpoints(id, cache.ttl)),
            Protocol::Anthropic | Protocol::OpenAi => None,
        }
    }
}

/// Makes ring the process's cryptography for TLS. The first caller decides; later calls do nothing.
pub fn install_crypto() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// One client for all models: it keeps their connections. No redirect is followed, since a key in a
/// header of its own would go along.
fn client(connect_timeout: Duration) -> Result<reqwest::Client, String> {
    install_crypto();
    reqwest::Client::builder()
        .connect_timeout(connect_timeout)
        .redirect(reqwest::redirect::Policy::none())
        .tcp_nodelay(true)
        .pool_idle_timeout(Duration::from_secs(60))
        .user_agent(concat!("loopwright/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|e| format!("the HTTP client could not be set up: {e}"))
}

fn embedded(alias: &str) -> ResolvedModel {
    ResolvedModel {
        alias: alias.to_owned(),
        provider: Provider::Scripted,
        id: alias.to_owned(),
        base_url: String::new(),
        api_key: None,
        context_window: None,
        max_output: None,
        headers: BTreeMap::new(),
        price: None,
        script: None,
    }
}

#[cfg(test)]
mod tests;
