//! One request to a provider and its streamed reply.
//!
//! Boundary: HTTP. Makes one attempt; core decides whether there is another. Invariant: the request
//! lives in this future, so that dropping it closes the stream and frees the provider's slot.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use eventsource_stream::Event;
use futures_util::{Stream, StreamExt};
use http::{HeaderValue, header};
use loopwright_core::outcome::{ModelFailure, ModelFailureKind, ModelReply};
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    body::Pieces,
    failure::{Complaint, Fault, retry_after_ms},
    protocol::{Protocol, Said},
    reply::{check_size, malformed, too_large},
    sse::{Broken, Events, MAX_EVENT_BYTES},
    target::{Endpoint, Target},
};
use crate::effects::progress::ProgressSink;

/// Most of a refusal's body that is read, bytes.
const MOST_REFUSAL: usize = 64 * 1024;
/// How long the end of the body is waited for after the end of the reply, so that the connection
/// can be used again.
const LINGER: Duration = Duration::from_millis(100);

/// One attempt of a call, ready to go.
pub(super) struct Exchange {
    pub(super) client: reqwest::Client,
    pub(super) target: Arc<Target>,
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) protocol: Protocol,
    pub(super) body: Pieces,
    pub(super) traceparent: Option<String>,
    /// Longest silence: before the reply begins, and between its events.
    pub(super) idle: Duration,
}

impl Exchange {
    /// Makes the attempt.
    pub(super) async fn run(self, mut sink: ProgressSink) -> Result<ModelReply, ModelFailure> {
        let started = Instant::now();
        let body_crc = self.body.crc();
        let (endpoint, target) = (Arc::clone(&self.endpoint), Arc::clone(&self.target));
        match self.attempt(&mut sink).await {
            Ok(said) => Ok(ModelReply {
                parts: said.parts,
                stop: said.stop,
                usage: said.usage,
                response_id: said.response_id,
                body_crc,
                latency_ms: millis(started.elapsed()),
                first_token_ms: sink.first_at().map(|at| millis(at - started)),
                cost_micro_usd: said.usage.as_ref().and_then(|usage| target.cost(usage)),
                verdicts: Vec::new(),
            }),
            Err(mut fault) => {
                fault.message = format!("{}: {}", endpoint.name, fault.message);
                let failure = fault.into_failure(&endpoint.secrets, target.redaction, body_crc);
                let cost = failure.usage.as_ref().and_then(|usage| target.cost(usage));
                Err(ModelFailure {
                    cost_micro_usd: cost,
                    ..failure
                })
            }
        }
    }

    async fn attempt(self, sink: &mut ProgressSink) -> Result<Said, Fault> {
        let (idle, protocol) = (self.idle, self.protocol);
        let alias = self.target.model.alias.clone();
        let response = self.send().await?;
        let status = response.status().as_u16();
        if status != 200 {
            return Err(refusal(response, status, &alias).await);
        }
        let said = read(response, protocol, idle, sink).await;
        said.map_err(|fault| Fault {
            http_status: status,
            ..fault
        })
    }

    async fn send(self) -> Result<reqwest::Response, Fault> {
        let mut headers = self.endpoint.headers.clone();
        if let Some(value) = self
            .traceparent
            .and_then(|text| HeaderValue::from_str(&text).ok())
        {
            headers.insert("traceparent", value);
        }
        let request = self
            .client
            .post(self.endpoint.url.clone())
            .headers(headers)
            .body(reqwest::Body::wrap(self.body))
            .send();
        match timeout(self.idle, request).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(e)) if e.is_connect() => {
                let text = format!("cannot connect: {}", chain(e));
                Err(Fault::new(ModelFailureKind::Connect, text))
            }
            Ok(Err(e)) => {
                let text = format!("the connection broke before a reply came: {}", chain(e));
                Err(Fault::new(ModelFailureKind::Cut, text))
            }
            Err(_) => Err(stalled(self.idle)),
        }
    }
}

/// The reply of an answer that is to be a stream of events.
async fn read(
    response: reqwest::Response,
    protocol: Protocol,
    idle: Duration,
    sink: &mut ProgressSink,
) -> Result<Said, Fault> {
    let kind = response.headers().get(header::CONTENT_TYPE);
    let kind = kind
        .and_then(|kind| kind.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    if kind.contains("json") || kind.contains("html") {
        return Err(no_stream(response, &kind).await);
    }
    let mut events = Events::new(response.bytes_stream());
    let mut reader = protocol.reader();
    while let Some(event) = next_event(&mut events, idle, sink).await? {
        if !event.data.trim().is_empty() && reader.event(&event, sink)? {
            let _ = timeout(LINGER, events.next()).await;
            break;
        }
    }
    let said = reader.finish()?;
    check_size(&said.parts).map_err(|fault| Fault {
        usage: said.usage,
        ..fault
    })?;
    Ok(said)
}

/// The next event, or why there is none. Progress that waits is sent meanwhile.
async fn next_event<S>(
    events: &mut Events<S, reqwest::Error>,
    idle: Duration,
    sink: &mut ProgressSink,
) -> Result<Option<Event>, Fault>
where
    S: Stream<Item = Result<Bytes, reqwest::Error>> + Unpin,
{
    let deadline = Instant::now() + idle;
    loop {
        let until = sink.due().map_or(deadline, |due| due.min(deadline));
        match timeout_at(until, events.next()).await {
            Ok(Ok(event)) => return Ok(event),
            Ok(Err(Broken::TooLarge)) => return Err(too_large(MAX_EVENT_BYTES)),
            Ok(Err(Broken::Malformed(what))) => return Err(malformed(&what)),
            Ok(Err(Broken::Transport(e))) => {
                let text = format!("the stream broke off: {}", chain(e));
                return Err(Fault::new(ModelFailureKind::Cut, text));
            }
            Err(_) if Instant::now() >= deadline => return Err(stalled(idle)),
            Err(_) => sink.flush(),
        }
    }
}

/// What a status other than 200 means.
async fn refusal(response: reqwest::Response, status: u16, alias: &str) -> Fault {
    let retry_after_ms = retry_after_ms(response.headers(), std::time::SystemTime::now());
    let complaint = Complaint::read(&read_some(response).await);
    let kind = complaint.kind(status);
    let way_out = match kind {
        ModelFailureKind::Auth => "; check its API key".to_owned(),
        ModelFailureKind::NoSuchModel => {
            format!("; check models.{alias}.id and models.{alias}.base_url")
        }
        _ if (300..400).contains(&status) => {
            format!("; redirects are not followed: set models.{alias}.base_url to where it leads")
        }
        _ => String::new(),
    };
    let message = format!("answered {status}: {}{way_out}", complaint.message);
    Fault {
        retry_after_ms,
        http_status: status,
        ..Fault::new(kind, message)
    }
}

/// What a reply that is no stream means: an error told with the wrong status, or another service.
async fn no_stream(response: reqwest::Response, kind: &str) -> Fault {
    let body = read_some(response).await;
    let error = serde_json::from_str::<serde_json::Value>(&body)
        .is_ok_and(|body| body.get("error").is_some_and(|error| !error.is_null()));
    if error {
        let complaint = Complaint::read(&body);
        let message = format!("answered 200 with an error: {}", complaint.message);
        return Fault::new(complaint.kind_in_stream(false), message);
    }
    malformed(&format!(
        "it comes as {kind} where a stream of events was asked for"
    ))
}

async fn read_some(response: reqwest::Response) -> String {
    let mut body = Vec::new();
    let mut chunks = response.bytes_stream();
    let read = async {
        while let Some(Ok(chunk)) = chunks.next().await {
            body.extend_from_slice(&chunk);
            if body.len() >= MOST_REFUSAL {
                body.truncate(MOST_REFUSAL);
                break;
            }
        }
    };
    let _ = timeout(Duration::from_secs(10), read).await;
    String::from_utf8_lossy(&body).into_owned()
}

fn stalled(idle: Duration) -> Fault {
    let text = format!("nothing came for {} ms", idle.as_millis());
    Fault::new(ModelFailureKind::Stalled, text)
}

/// An error with its causes, without the address: that may hold what is not to be shown.
fn chain(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
