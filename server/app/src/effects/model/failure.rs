//! What a provider's refusal means, from its status and its words.
//!
//! Boundary: pure; decides no retry. Invariant: a text that leaves here holds no key.

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use loopwright_core::{
    message::clamp,
    outcome::{ModelFailure, ModelFailureKind},
    usage::Usage,
};
use serde::Deserialize;
use serde_json::Value;

use crate::redaction::Redaction;

/// Longest message kept, bytes.
const MOST_MESSAGE: usize = 2 * 1024;
/// Shortest value that is hidden where it turns up in a message: less would garble plain words.
const LEAST_SECRET: usize = 6;

/// A failed attempt, before the request's checksum is added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) kind: ModelFailureKind,
    pub(super) message: String,
    pub(super) retry_after_ms: Option<u64>,
    /// Of the answer; 0 where there was none.
    pub(super) http_status: u16,
    pub(super) usage: Option<Usage>,
}

/// What a provider says of an error, wherever it says it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Complaint {
    /// `error.type`.
    pub(super) kind: String,
    /// `error.code`.
    pub(super) code: String,
    /// `error.message`, or the whole body where it is no JSON.
    pub(super) message: String,
}

impl Fault {
    pub(super) fn new(kind: ModelFailureKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            retry_after_ms: None,
            http_status: 0,
            usage: None,
        }
    }

    /// The failure that core is told, with every secret taken out: our own, and those of the kinds that
    /// are not to be let in.
    pub(super) fn into_failure(
        self,
        secrets: &[String],
        redaction: Redaction,
        body_crc: String,
    ) -> ModelFailure {
        let mut message = self.message;
        for secret in secrets.iter().filter(|secret| secret.len() >= LEAST_SECRET) {
            message = message.replace(secret.as_str(), "***");
        }
        redaction.owned(&mut message);
        let message: String = message
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        ModelFailure {
            kind: self.kind,
            message: clamp(&message, MOST_MESSAGE).to_owned(),
            retry_after_ms: self.retry_after_ms,
            http_status: self.http_status,
            usage: self.usage,
            cost_micro_usd: None,
            body_crc,
        }
    }
}

impl Complaint {
    /// What an error's body says: `{"error": {..}}`, `{"error": ".."}`, `{"message": ..}` or plain
    /// text.
    pub(super) fn read(body: &str) -> Self {
        let Ok(Value::Object(all)) = serde_json::from_str::<Value>(body) else {
            return Self {
                message: body.trim().to_owned(),
                ..Self::default()
            };
        };
        let text = |value: Option<&Value>| match value {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            _ => String::new(),
        };
        let inner = match all.get("error") {
            Some(Value::Object(inner)) => inner,
            Some(Value::String(message)) => {
                return Self {
                    message: message.clone(),
                    ..Self::default()
                };
            }
            _ => &all,
        };
        let message = text(inner.get("message").or_else(|| inner.get("detail")));
        Self {
            kind: text(inner.get("type")),
            code: text(inner.get("code")),
            message: if message.is_empty() {
                body.trim().to_owned()
            } else {
                message
            },
        }
    }

    /// What a refusal with this status means.
    pub(super) fn kind(&self, status: u16) -> ModelFailureKind {
        use ModelFailureKind as Kind;
        if self.is_quota() || status == 402 {
            return Kind::Quota;
        }
        let refused = (400..500).contains(&status) && !matches!(status, 401 | 403 | 404 | 429);
        if status == 413 || ((refused || status >= 500) && self.is_context()) {
            return Kind::ContextTooLong;
        }
        if self.code == "model_not_found" {
            return Kind::NoSuchModel;
        }
        match status {
            401 | 403 => Kind::Auth,
            404 => Kind::NoSuchModel,
            409 | 425 => Kind::TryAgain,
            429 => Kind::RateLimited,
            529 => Kind::Overloaded,
            // Whoever says so in the provider's own words refused the request; a proxy that gave up
            // waiting does not know whether the model ran.
            503 if self.is_typed() => Kind::Overloaded,
            408 | 500.. => Kind::Server,
            _ => Kind::InvalidRequest,
        }
    }

    /// What an error inside a stream means. Once the reply has begun it may have been charged, and
    /// what would have been a refusal before is a server's error.
    pub(super) fn kind_in_stream(&self, begun: bool) -> ModelFailureKind {
        use ModelFailureKind as Kind;
        let status = match (self.kind.as_str(), self.code.parse::<u16>()) {
            (_, Ok(code @ 400..=599)) => code,
            ("invalid_request_error" | "exceed_context_size_error", _) => 400,
            ("authentication_error", _) => 401,
            ("billing_error", _) => 402,
            ("permission_error", _) => 403,
            ("not_found_error", _) => 404,
            ("request_too_large", _) => 413,
            ("rate_limit_error" | "rate_limit_exceeded", _) => 429,
            ("overloaded_error", _) => 529,
            _ if self.code == "rate_limit_exceeded" => 429,
            _ => 500,
        };
        match self.kind(status) {
            Kind::RateLimited | Kind::Overloaded | Kind::TryAgain if begun => Kind::Server,
            kind => kind,
        }
    }

    /// Whether it is a provider's error as its protocol has it, rather than any text.
    fn is_typed(&self) -> bool {
        !self.kind.is_empty() || !self.code.is_empty()
    }

    /// The account has nothing left: waiting does not help.
    fn is_quota(&self) -> bool {
        const WORDS: [&str; 4] = [
            "insufficient_quota",
            "billing_hard_limit_reached",
            "billing_not_active",
            "billing_error",
        ];
        const PHRASES: [&str; 3] = [
            "credit balance is too low",
            "insufficient balance",
            "insufficient credits",
        ];
        let message = self.message.to_lowercase();
        WORDS
            .iter()
            .any(|&word| self.kind == word || self.code == word)
            || PHRASES.iter().any(|phrase| message.contains(phrase))
    }

    /// The prompt does not fit. Words of Anthropic, OpenAI, llama.cpp and vLLM.
    fn is_context(&self) -> bool {
        const WORDS: [&str; 2] = ["context_length_exceeded", "exceed_context_size_error"];
        const PHRASES: [&str; 7] = [
            "prompt is too long",
            "exceed context limit",
            "maximum context length",
            "context window",
            "context_length_exceeded",
            "exceeds the available context size",
            "reduce the length of the messages",
        ];
        let message = self.message.to_lowercase();
        WORDS
            .iter()
            .any(|&word| self.kind == word || self.code == word)
            || PHRASES.iter().any(|phrase| message.contains(phrase))
    }
}

/// What the headers of a refusal say of the next try: `retry-after-ms`, or `retry-after` in seconds
/// or as a date, from `now`. A date that has passed is 0.
pub(super) fn retry_after_ms(headers: &HeaderMap, now: SystemTime) -> Option<u64> {
    let text = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(str::trim)
    };
    let millis = |number: &str, scale: f64| {
        let number: f64 = number.parse().ok()?;
        let millis = Duration::try_from_secs_f64(number * scale)
            .ok()?
            .as_millis();
        u64::try_from(millis).ok()
    };
    if let Some(found) = text("retry-after-ms").and_then(|value| millis(value, 0.001)) {
        return Some(found);
    }
    let value = text("retry-after")?;
    millis(value, 1.0).or_else(|| {
        let date = httpdate::parse_http_date(value).ok()?;
        let wait = date.duration_since(now).unwrap_or_default();
        u64::try_from(wait.as_millis()).ok()
    })
}

/// A counter as providers send it: a number, or null, or nothing. What is no count is nothing.
pub(super) fn count<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    let value = Option::<Value>::deserialize(from)?;
    Ok(value.and_then(|value| {
        let rounded = || value.as_f64().filter(|n| *n >= 0.0).map(|n| n as u64);
        value.as_u64().or_else(rounded)
    }))
}

#[cfg(test)]
mod tests;
