//! A model provider for tests: both protocols over real HTTP, scripted, and as strict as the real
//! APIs.
//!
//! Boundary: an HTTP server on loopback; knows nothing of the server under test. Invariants: a
//! request that the real API would refuse is refused with 400, whatever is in the queue, and the
//! answer stays there; every request is recorded as it came, byte for byte.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use loopwright_tests::mock_model::{MockModel, Reply};
//! let mock = MockModel::start().await?;
//! mock.push(Reply::calls([("files__read", "{\"path\":\"a\"}")]));
//! mock.push(Reply::text("done").in_pieces(7));
//! let base_url = mock.openai_url();
//! # Ok(()) }
//! ```

use std::{
    collections::VecDeque,
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::{Context as _, Result};
use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing,
    serve::ListenerExt as _,
};
use bytes::Bytes;
use serde_json::Value;
use tokio::{net::TcpListener, sync::watch, task::AbortHandle};

mod answer;
mod anthropic;
mod cache;
mod openai;
pub mod rules;
mod stream;

pub use answer::{Answer, MockCall, Reply, Shape, Usage};
use stream::Open;

/// The protocol that a request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `/v1/messages`.
    Anthropic,
    /// `/v1/chat/completions`.
    OpenAi,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Its protocol.
    pub protocol: Protocol,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, byte for byte.
    pub body: Bytes,
    /// Why it was refused, where it was.
    pub refused: Option<String>,
}

/// A running mock. Dropping it stops it and closes what it still streams.
#[derive(Debug)]
pub struct MockModel {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: AbortHandle,
}

#[derive(Debug)]
struct Shared {
    inner: Mutex<Inner>,
    /// Requests seen, and streams open.
    counts: watch::Sender<(usize, usize)>,
    connections: AtomicUsize,
}

#[derive(Debug, Default)]
struct Inner {
    queue: VecDeque<Answer>,
    always: Option<Answer>,
    by: Option<By>,
    key: Option<String>,
    requests: Vec<Recorded>,
    cache: cache::Cache,
}

/// Answers a request by what it says.
struct By(Box<dyn Fn(&Value) -> Answer + Send>);

impl fmt::Debug for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("By")
    }
}

impl Recorded {
    /// The body as JSON.
    ///
    /// # Panics
    /// Where it is no JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a recorded body is JSON")
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl MockModel {
    /// Starts a mock on a free port of loopback.
    ///
    /// # Errors
    /// Where it cannot listen.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .await
            .context("the mock model")?;
        let address = listener.local_addr()?;
        let counts = watch::Sender::new((0, 0));
        let (inner, connections) = (Mutex::default(), AtomicUsize::new(0));
        let shared = Arc::new(Shared {
            inner,
            counts,
            connections,
        });
        let counting = Arc::clone(&shared);
        let listener = listener.tap_io(move |io| {
            counting.connections.fetch_add(1, Ordering::Relaxed);
            let _ = io.set_nodelay(true);
        });
        let router = Router::new()
            .route("/v1/messages", routing::post(messages))
            .route("/v1/chat/completions", routing::post(completions))
            .layer(axum::extract::DefaultBodyLimit::disable())
            .with_state(Arc::clone(&shared));
        let task = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self {
            address,
            shared,
            task: task.abort_handle(),
        })
    }

    /// What to put into `models.<alias>.base_url` for provider `openai`.
    #[must_use]
    pub fn openai_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// What to put into `models.<alias>.base_url` for provider `anthropic`.
    #[must_use]
    pub fn anthropic_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Adds the answer to one more request.
    pub fn push(&self, answer: impl Into<Answer>) {
        self.shared.lock().queue.push_back(answer.into());
    }

    /// Sets what every request gets once the queue is empty. Without it that is a 500.
    pub fn always(&self, answer: impl Into<Answer>) {
        self.shared.lock().always = Some(answer.into());
    }

    /// Sets what answers a request, a JSON object, once the queue is empty, and records none of them.
    pub fn by(&self, answer: impl Fn(&Value) -> Answer + Send + 'static) {
        self.shared.lock().by = Some(By(Box::new(answer)));
    }

    /// Answers 401 to every request without this key.
    pub fn require_key(&self, key: &str) {
        self.shared.lock().key = Some(key.to_owned());
    }

    /// All requests so far.
    #[must_use]
    pub fn requests(&self) -> Vec<Recorded> {
        self.shared.lock().requests.clone()
    }

    /// Streams that are being sent at this moment.
    #[must_use]
    pub fn open(&self) -> usize {
        self.shared.counts.borrow().1
    }

    /// Connections made so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Waits until so many requests have come.
    pub async fn until_requests(&self, count: usize) {
        let mut counts = self.shared.counts.subscribe();
        let _ = counts.wait_for(|(requests, _)| *requests >= count).await;
    }

    /// Waits until so many streams are open.
    pub async fn until_open(&self, count: usize) {
        let mut counts = self.shared.counts.subscribe();
        let _ = counts.wait_for(|(_, open)| *open == count).await;
    }
}

impl Drop for MockModel {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(self: &Arc<Self>, protocol: Protocol, headers: HeaderMap, body: Bytes) -> Response {
        let mut inner = self.lock();
        let refused = check(protocol, inner.key.as_deref(), &headers, &body);
        let recorded = Recorded {
            protocol,
            headers,
            body: body.clone(),
            refused: refused.as_ref().err().map(|(_, why)| why.clone()),
        };
        if inner.by.is_none() {
            inner.requests.push(recorded);
        }
        let requests = inner.requests.len();
        let request = match refused {
            Ok(request) => request,
            Err((status, why)) => {
                self.counts.send_modify(|counts| counts.0 = requests);
                return refusal(protocol, status, &why);
            }
        };
        let cached = inner.cache.look(protocol, &request, &body);
        let answer = inner.queue.pop_front().or_else(|| inner.always.clone());
        let answer = answer.or_else(|| inner.by.as_ref().map(|by| (by.0)(&request)));
        drop(inner);
        self.counts.send_modify(|counts| counts.0 = requests);
        match answer {
            Some(Answer::Reply(reply)) => {
                let text = match protocol {
                    Protocol::Anthropic => anthropic::stream(&reply, cached),
                    Protocol::OpenAi => openai::stream(&reply, cached),
                };
                stream::response(reply.shape, text.into_bytes(), Open::new(Arc::clone(self)))
            }
            Some(Answer::Raw { shape, body }) => {
                stream::response(shape, body, Open::new(Arc::clone(self)))
            }
            Some(Answer::Status {
                status,
                headers,
                body,
            }) => {
                let status = StatusCode::from_u16(status).expect("the test names a status");
                let mut response = (status, body).into_response();
                for (name, value) in headers {
                    let name = header::HeaderName::from_static(name);
                    response
                        .headers_mut()
                        .insert(name, value.parse().expect("a header's value"));
                }
                response
            }
            None => refusal(protocol, 500, "the mock has no answer left"),
        }
    }
}

async fn messages(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    shared.answer(Protocol::Anthropic, headers, body)
}

async fn completions(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    shared.answer(Protocol::OpenAi, headers, body)
}

fn check(
    protocol: Protocol,
    key: Option<&str>,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Value, (u16, String)> {
    let text = |name| {
        headers
            .get(name)
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default()
    };
    if let Some(key) = key {
        let right = match protocol {
            Protocol::Anthropic => text("x-api-key") == key,
            Protocol::OpenAi => text("authorization") == format!("Bearer {key}"),
        };
        if !right {
            return Err((
                401,
                format!("invalid key {}{}", text("x-api-key"), text("authorization")),
            ));
        }
    }
    if text("content-length").is_empty() {
        // Not a rule of the APIs: a body whose length is known must say so.
        return Err((411, "the body has no content-length".to_owned()));
    }
    // Anthropic, "Versioning": the header is required.
    if protocol == Protocol::Anthropic && text("anthropic-version") != "2023-06-01" {
        return Err((400, "anthropic-version: header is required".to_owned()));
    }
    let request: Value =
        serde_json::from_slice(body).map_err(|e| (400, format!("the body is no JSON: {e}")))?;
    rules::check(protocol, &request).map_err(|why| (400, why))?;
    Ok(request)
}

fn refusal(protocol: Protocol, status: u16, why: &str) -> Response {
    let kind = match status {
        400 => "invalid_request_error",
        401 => "authentication_error",
        _ => "api_error",
    };
    let error = serde_json::json!({"type": kind, "message": why});
    let body = match protocol {
        Protocol::Anthropic => serde_json::json!({"type": "error", "error": error}),
        Protocol::OpenAi => serde_json::json!({"error": error}),
    };
    let status = StatusCode::from_u16(status).expect("one of ours");
    (
        status,
        [(header::CONTENT_TYPE, "application/json")],
        body.to_string(),
    )
        .into_response()
}
