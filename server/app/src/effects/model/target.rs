//! A model, ready to be called: where, with which headers, or from which script.
//!
//! Boundary: from configuration to what a call needs; makes no request. Invariant: the key stands
//! in a header that is marked sensitive, and in the list of what must not leave in a message.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use loopwright_core::{outcome::ModelFailureKind, usage::Usage};
use reqwest::Url;

use super::{anthropic, cost, failure::Fault, protocol::Protocol, script::Script};
use crate::config::{CacheTtl, Provider, models::ResolvedModel};
use crate::redaction::Redaction;

/// A model and the way to it.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) model: ResolvedModel,
    pub(super) route: Route,
    /// What is taken out of errors.
    pub(super) redaction: Redaction,
    /// How long a provider that is asked to is to keep prefixes.
    pub(super) ttl: CacheTtl,
}

/// Who answers.
#[derive(Debug)]
pub(super) enum Route {
    /// A provider.
    Http(Protocol, Arc<Endpoint>),
    /// Nobody: the turns are written down.
    Script(Arc<Script>),
}

/// Where a provider is.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    /// Values that no message may show.
    pub(super) secrets: Vec<String>,
    /// How messages name it: the alias and the host.
    pub(super) name: String,
    /// Whether the output cap is called `max_completion_tokens`.
    pub(super) completion_tokens: bool,
}

impl Target {
    /// The target of a model; `script` is its script, where it is a scripted one.
    pub(super) fn new(
        model: ResolvedModel,
        script: Option<Arc<Script>>,
        redaction: Redaction,
        ttl: CacheTtl,
    ) -> Result<Self, Fault> {
        let route = match (model.provider, script) {
            (Provider::Scripted, Some(script)) => Route::Script(script),
            (Provider::Scripted, None) => {
                let text = format!(
                    "model `{}` has no script: set models.{0}.script",
                    model.alias
                );
                return Err(Fault::new(ModelFailureKind::NoSuchModel, text));
            }
            (Provider::Anthropic, _) => {
                let endpoint = Endpoint::new(&model, anthropic_url(&model.base_url))?;
                Route::Http(Protocol::Anthropic, Arc::new(endpoint))
            }
            (Provider::OpenAi, _) => {
                let endpoint =
                    Endpoint::new(&model, format!("{}/chat/completions", model.base_url))?;
                Route::Http(Protocol::OpenAi, Arc::new(endpoint))
            }
        };
        Ok(Self {
            model,
            route,
            redaction,
            ttl,
        })
    }

    /// The output cap of a call.
    pub(super) fn cap(&self, asked: u64) -> u64 {
        self.model.max_output.map_or(asked, |most| asked.min(most))
    }

    /// How the requests to it are written, and whether the output cap is `max_completion_tokens`. A
    /// script is sent nothing; what it would be sent is written as most servers read it.
    pub(super) fn form(&self) -> (Protocol, bool) {
        match &self.route {
            Route::Http(protocol, endpoint) => (*protocol, endpoint.completion_tokens),
            Route::Script(_) => (Protocol::OpenAi, false),
        }
    }

    /// What a call cost, micro-USD rounded up; `None` for a model without a price.
    pub(super) fn cost(&self, usage: &Usage) -> Option<u64> {
        let tariff = self.model.price.as_ref()?;
        Some(cost::of(tariff, self.ttl, usage))
    }
}

impl Endpoint {
    fn new(model: &ResolvedModel, url: String) -> Result<Self, Fault> {
        let alias = &model.alias;
        let invalid = |what: String| Fault::new(ModelFailureKind::InvalidRequest, what);
        let url: Url = url
            .parse()
            .map_err(|e| invalid(format!("models.{alias}.base_url makes no address: {e}")))?;
        let host = match (url.host_str(), url.port()) {
            (Some(host), Some(port)) => format!("{host}:{port}"),
            (host, _) => host.unwrap_or_default().to_owned(),
        };
        let mut headers = HeaderMap::new();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        headers.insert(
            header::ACCEPT,
            HeaderValue::from_static("text/event-stream"),
        );
        let mut secrets = Vec::new();
        if let Some(key) = &model.api_key {
            let key = key.expose();
            let (name, text) = match model.provider {
                Provider::Anthropic => (HeaderName::from_static("x-api-key"), key.to_owned()),
                Provider::OpenAi | Provider::Scripted => {
                    (header::AUTHORIZATION, format!("Bearer {key}"))
                }
            };
            let unfit = |_| {
                let text = format!("the API key of model `{alias}` holds what no header can carry");
                Fault::new(ModelFailureKind::Auth, text)
            };
            headers.insert(name, secret(&text).map_err(unfit)?);
            secrets.push(key.to_owned());
        }
        if model.provider == Provider::Anthropic {
            let version = HeaderValue::from_static(anthropic::VERSION);
            headers.insert(HeaderName::from_static("anthropic-version"), version);
        }
        for (name, value) in &model.headers {
            let unfit = || invalid(format!("models.{alias}.headers.{name} is no HTTP header"));
            let name: HeaderName = name.parse().map_err(|_| unfit())?;
            headers.insert(name, secret(value).map_err(|_| unfit())?);
            secrets.push(value.clone());
        }
        let completion_tokens = completion_tokens(&host, &model.id);
        let name = format!("model `{alias}` at {host}");
        Ok(Self {
            url,
            headers,
            secrets,
            name,
            completion_tokens,
        })
    }
}

fn secret(text: &str) -> Result<HeaderValue, http::header::InvalidHeaderValue> {
    let mut value = HeaderValue::from_str(text)?;
    value.set_sensitive(true);
    Ok(value)
}

/// The configuration wants the base without `/v1`; with it, it is right all the same.
fn anthropic_url(base: &str) -> String {
    let base = base.trim_end_matches('/');
    format!("{}/v1/messages", base.strip_suffix("/v1").unwrap_or(base))
}

/// OpenAI deprecated `max_tokens`, and its reasoning models refuse it; other servers of the
/// protocol may know nothing else.
fn completion_tokens(host: &str, id: &str) -> bool {
    let id = id.rsplit('/').next().unwrap_or(id);
    let reasons = ["o1", "o3", "o4", "gpt-5", "gpt-6"].iter().any(|family| {
        let rest = id.strip_prefix(family);
        rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_alphanumeric()))
    });
    host == "api.openai.com" || reasons
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cap_has_the_name_that_the_server_takes() {
        assert!(completion_tokens("api.openai.com", "gpt-4o"));
        assert!(completion_tokens("x.openai.azure.com", "o3-mini"));
        assert!(completion_tokens("openrouter.ai", "openai/gpt-5.5"));
        assert!(!completion_tokens("127.0.0.1:8080", "qwen2.5"));
        assert!(!completion_tokens("127.0.0.1:8080", "o1x"));
    }

    #[test]
    fn both_forms_of_the_base_are_understood() {
        assert_eq!(anthropic_url("http://h/"), "http://h/v1/messages");
        assert_eq!(anthropic_url("http://h/v1"), "http://h/v1/messages");
    }
}
