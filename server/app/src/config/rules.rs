//! Rules between keys, checked once every value is right by itself.
//!
//! Boundary: looks at a whole configuration and its provenance; changes nothing. Invariant: a
//! setting that could have no effect, and a bind beyond loopback that nobody guards, never start.

use super::Provenance;
use super::error::{ConfigError, Source};
use super::models;
use super::nearest::nearest;
use super::prices;
use super::types::{ApprovalDefault, Config, ModelConfig, PriceConfig, Provider};

/// Every rule that `config` breaks.
pub(super) fn broken(config: &Config, provenance: &Provenance) -> Vec<ConfigError> {
    let mut rules = Rules {
        provenance,
        errors: Vec::new(),
    };
    rules.security(config);
    rules.orders(config);
    rules.ceilings(config);
    rules.approvals(config);
    for (alias, model) in &config.models {
        rules.model(alias, model);
    }
    rules.default_model(config);
    rules.errors
}

struct Rules<'a> {
    provenance: &'a Provenance,
    errors: Vec<ConfigError>,
}

impl Rules<'_> {
    fn breach(&mut self, key: &str, problem: String) {
        let origin = self.provenance.get(key).cloned().unwrap_or(Source::Default);
        self.errors.push(ConfigError::Rule {
            origin,
            key: key.to_owned(),
            problem,
        });
    }

    fn security(&mut self, config: &Config) {
        let (listen, auth) = (config.server.listen, &config.server.auth);
        if !listen.ip().to_canonical().is_loopback() && auth.token_file.is_none() && !auth.insecure
        {
            let problem = format!(
                "{listen} is reachable from other machines; set server.auth.token_file to say \
                 who may \
                 call, or server.auth.insecure = true to let everybody, or listen on 127.0.0.1"
            );
            self.breach("server.listen", problem);
        }
        if auth.token_file.is_some() && auth.insecure {
            let problem = "does nothing beside server.auth.token_file; leave one of them out";
            self.breach("server.auth.insecure", problem.to_owned());
        }
    }

    fn orders(&mut self, config: &Config) {
        let pairs = [
            (
                "tools.timeout",
                config.tools.timeout,
                "tools.absolute_cap",
                config.tools.absolute_cap,
            ),
            (
                "retry.base_delay",
                config.retry.base_delay,
                "retry.max_delay",
                config.retry.max_delay,
            ),
        ];
        for (low_key, low, high_key, high) in pairs {
            if low > high {
                self.breach(
                    low_key,
                    format!("{low} is more than {high_key}, which is {high}"),
                );
            }
        }
    }

    fn ceilings(&mut self, config: &Config) {
        let (loops, limits) = (&config.loops, &config.limits);
        let wide = |n: Option<u32>| n.map(u64::from);
        let pairs = [
            (
                "loop.max_steps",
                u64::from(loops.max_steps),
                "limits.max_steps",
                wide(limits.max_steps),
            ),
            (
                "loop.max_output_tokens",
                loops.max_output_tokens,
                "limits.max_output_tokens",
                limits.max_output_tokens,
            ),
            (
                "loop.max_parallel_tool_calls",
                u64::from(loops.max_parallel_tool_calls),
                "limits.max_parallel_tool_calls",
                wide(limits.max_parallel_tool_calls),
            ),
        ];
        for (key, value, limit_key, limit) in pairs {
            if let Some(limit) = limit.filter(|limit| value > *limit) {
                self.breach(
                    key,
                    format!("{value} is more than {limit_key}, which is {limit}"),
                );
            }
        }
    }

    fn approvals(&mut self, config: &Config) {
        let tools = &config.tools;
        if tools.approval_default == ApprovalDefault::Allow && tools.approval_timeout.is_none() {
            let problem = "does nothing without tools.approval_timeout, since a call then waits \
                           without end; set how long it waits";
            self.breach("tools.approval_default", problem.to_owned());
        }
    }

    fn model(&mut self, alias: &str, model: &ModelConfig) {
        let key = |name: &str| format!("models.{alias}.{name}");
        let Some(provider) = model.provider else {
            let problem = "is missing; it is one of anthropic, openai, scripted";
            return self.breach(&key("provider"), problem.to_owned());
        };
        if model.api_key_env.is_some() && model.api_key_file.is_some() {
            let problem = "does nothing beside api_key_file; leave one of them out";
            self.breach(&key("api_key_env"), problem.to_owned());
        }
        for name in model.headers.keys() {
            if OURS.iter().any(|ours| name.eq_ignore_ascii_case(ours)) {
                let problem = "is a header that the server sets; a key goes into the variable or \
                 file \
                               that api_key_env or api_key_file names";
                self.breach(&key(&format!("headers.{name}")), problem.to_owned());
            }
        }
        self.price(alias, provider, model);
        if provider == Provider::Scripted {
            return self.scripted(alias, model);
        }
        if model.id.is_none() {
            let problem = format!(
                "is missing; it is the model's name at {}",
                provider.as_str()
            );
            self.breach(&key("id"), problem);
        }
        if model.script.is_some() {
            self.breach(
                &key("script"),
                "does nothing unless provider = \"scripted\"".to_owned(),
            );
        }
    }

    /// Half a price is none: what it leaves out would be a free ride.
    fn price(&mut self, alias: &str, provider: Provider, model: &ModelConfig) {
        let price = &model.price;
        let id = model.id.as_deref().unwrap_or(alias);
        if *price == PriceConfig::default() || prices::tariff(provider, id, model).is_some() {
            return;
        }
        for (name, _) in [("input", price.input), ("output", price.output)]
            .into_iter()
            .filter(|(_, set)| set.is_none())
        {
            let problem = "is missing: the built-in table has no price of this model, so both \
                           price.input and price.output are needed";
            self.breach(&format!("models.{alias}.price.{name}"), problem.to_owned());
        }
    }

    fn scripted(&mut self, alias: &str, model: &ModelConfig) {
        let key = |name: &str| format!("models.{alias}.{name}");
        if model.script.is_none() {
            let problem =
                "is missing; a scripted model takes its turns from that YAML or JSON file";
            self.breach(&key("script"), problem.to_owned());
        }
        let unused = [
            ("base_url", model.base_url.is_some()),
            ("api_key_env", model.api_key_env.is_some()),
            ("api_key_file", model.api_key_file.is_some()),
            ("headers", !model.headers.is_empty()),
        ];
        for (name, _) in unused.into_iter().filter(|(_, set)| *set) {
            self.breach(&key(name), "does nothing for a scripted model".to_owned());
        }
    }

    fn default_model(&mut self, config: &Config) {
        let Some(name) = &config.loops.model else {
            return;
        };
        if config.models.contains_key(name) || models::direct(name).is_some() {
            return;
        }
        let hint = nearest(name, config.models.keys().map(String::as_str))
            .map_or_else(String::new, |alias| format!(" (did you mean {alias}?)"));
        let problem = format!(
            "{name:?} is neither an alias of models{hint} nor provider/id such as {}",
            models::DEFAULT_ANTHROPIC
        );
        self.breach("loop.model", problem);
    }
}

/// Headers that the providers' code sets by itself.
const OURS: [&str; 7] = [
    "authorization",
    "x-api-key",
    "host",
    "content-type",
    "content-length",
    "transfer-encoding",
    "connection",
];
