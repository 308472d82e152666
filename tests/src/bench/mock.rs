//! The mock of the benches: an OpenAI-compatible model without think time, and a sidecar with one
//! tool, in one process. It checks the work and takes the times.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use anyhow::{Context as _, Result};
use axum::{Router, extract::Query, extract::State, response::IntoResponse, routing};
use bytes::Bytes;
use loopwright_proto::v1::{
    AttachCallRequest, AttachCallResponse, CallToolRequest, CallToolResponse, DescribeRequest,
    DescribeResponse, EffectClass, LookupCallRequest, LookupCallResponse, ToolSpec,
    call_tool_response,
    sidecar_service_server::{SidecarService, SidecarServiceServer},
};
use serde::{Deserialize, Serialize};
use tokio::{net::TcpListener, sync::Notify};
use tonic::{Request, Response, Status};

use super::{
    goal::percentile,
    program::say,
    resume::{Since, Standing, Which},
};
use crate::sidecar::said;

/// What the mock saw of a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Seen {
    /// Loops that had their last reply.
    pub done: u32,
    /// Model calls answered.
    pub model_calls: u32,
    /// Tool calls answered.
    pub tool_calls: u32,
    /// From the first request read to the last reply ready, seconds.
    pub seconds: f64,
    /// Step overhead, milliseconds: half of the steps lie below.
    pub p50_ms: f64,
    /// And 99 in 100.
    pub p99_ms: f64,
    /// The overhead of each step of the first loop, in order, milliseconds.
    pub steps_ms: Vec<f64>,
    /// Bytes of the longest request.
    pub longest: u64,
}

#[derive(Default)]
pub(super) struct Loops {
    pub(super) by_number: HashMap<u32, OneLoop>,
    pub(super) marked: Option<Instant>,
}

#[derive(Default)]
pub(super) struct OneLoop {
    pub(super) step: u32,
    pub(super) since: Since,
    first: Option<Instant>,
    ready: Option<Instant>,
    tool_ms: f64,
    tool_calls: u32,
    overheads_ms: Vec<f64>,
    longest: u64,
    pub(super) done: bool,
}

#[derive(Clone, Default)]
struct Mock {
    loops: Arc<Mutex<Loops>>,
    ended: Arc<Notify>,
}

/// Runs the mock: prints `READY <model url> <sidecar url>` and serves until it is killed.
///
/// # Errors
/// Where it cannot listen.
pub async fn run() -> Result<()> {
    let mock = Mock::default();
    let model = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    let sidecar = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    let (model_at, sidecar_at) = (model.local_addr()?, sidecar.local_addr()?);
    let router = Router::new()
        .route("/v1/chat/completions", routing::post(chat))
        .route("/seen", routing::get(seen))
        .route("/mark", routing::post(mark))
        .route("/standing", routing::get(standing))
        .layer(axum::extract::DefaultBodyLimit::disable())
        .with_state(mock.clone());
    let incoming = tonic::transport::server::TcpIncoming::from(sidecar).with_nodelay(Some(true));
    let tools = tonic::transport::Server::builder()
        .add_service(SidecarServiceServer::new(mock))
        .serve_with_incoming(incoming);
    say(&format!("READY http://{model_at} http://{sidecar_at}"))?;
    let models = axum::serve(NoDelay(model), router);
    tokio::try_join!(async { models.await.context("model") }, async {
        tools.await.context("sidecar")
    })?;
    Ok(())
}

struct NoDelay(TcpListener);

impl axum::serve::Listener for NoDelay {
    type Io = tokio::net::TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (stream, addr) = axum::serve::Listener::accept(&mut self.0).await;
        stream
            .set_nodelay(true)
            .expect("a fresh socket takes the option");
        (stream, addr)
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

async fn chat(State(mock): State<Mock>, body: Bytes) -> impl IntoResponse {
    let read = Instant::now();
    let order = Order::find(&body).expect("a request of the bench names its loop");
    let reply = {
        let mut loops = mock.loops.lock().unwrap_or_else(PoisonError::into_inner);
        let one = loops.by_number.entry(order.number).or_default();
        one.first.get_or_insert(read);
        one.since.first.get_or_insert(read);
        if let Some(ready) = one.ready {
            let whole = read.duration_since(ready).as_secs_f64() * 1e3;
            one.overheads_ms
                .push(whole - std::mem::take(&mut one.tool_ms));
        }
        one.step += 1;
        one.longest = one.longest.max(body.len() as u64);
        one.done = one.step > order.steps;
        let reply = order.reply(one.step, one.done, body.len());
        one.ready = Some(Instant::now());
        reply
    };
    mock.ended.notify_waiters();
    ([("content-type", "text/event-stream")], reply)
}

/// What the first message of a loop asks of the mock.
struct Order {
    number: u32,
    steps: u32,
    bytes: u32,
    pieces: u32,
    counted: bool,
}

impl Order {
    fn find(body: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(body).ok()?;
        let order = &text[text.find("W loop=")?..];
        let mut words = order.split_whitespace().skip(1);
        let mut number = || words.next()?.split_once('=')?.1.parse().ok();
        Some(Self {
            number: number()?,
            steps: number()?,
            bytes: number()?,
            pieces: number()?,
            counted: number()? == 1,
        })
    }

    /// A reply as server-sent events: one tool call, or the last text, and the usage.
    fn reply(&self, step: u32, last: bool, asked_bytes: usize) -> String {
        let mut events = String::with_capacity(1024);
        let mut event = |delta: &str, finish: &str| {
            events
                .push_str("data: {\"id\":\"r\",\"object\":\"chat.completion.chunk\",\"choices\":");
            events.push_str("[{\"index\":0,\"delta\":");
            events.push_str(delta);
            events.push_str(",\"finish_reason\":");
            events.push_str(finish);
            events.push_str("}]}\n\n");
        };
        for _ in 1..self.pieces {
            event("{\"content\":\"some words \"}", "null");
        }
        if last {
            event("{\"role\":\"assistant\",\"content\":\"done\"}", "null");
            event("{}", "\"stop\"");
        } else {
            let (number, bytes) = (self.number, self.bytes);
            let call = format!(
                "{{\"role\":\"assistant\",\"tool_calls\":[{{\"index\":0,\"id\":\"t{step}\",\
                 \"type\":\"function\",\"function\":{{\"name\":\"bench__work\",\"arguments\":\
                 \"{{\\\"loop\\\":{number},\\\"bytes\\\":{bytes},\\\"step\\\":{step}}}\"}}}}]}}"
            );
            event(&call, "null");
            event("{}", "\"tool_calls\"");
        }
        let prompt = if self.counted { asked_bytes / 4 } else { 100 };
        let total = prompt + 20;
        events.push_str(&format!(
            "data: {{\"id\":\"r\",\"choices\":[],\"usage\":{{\"prompt_tokens\":{prompt},\
             \"completion_tokens\":20,\"total_tokens\":{total}}}}}\n\ndata: [DONE]\n\n",
        ));
        events
    }
}

async fn mark(State(mock): State<Mock>) {
    mock.loops
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .mark();
}

async fn standing(State(mock): State<Mock>, Query(which): Query<Which>) -> axum::Json<Standing> {
    let loops = mock.loops.lock().unwrap_or_else(PoisonError::into_inner);
    axum::Json(loops.standing(which))
}

/// Waits until every loop of a run has had its last reply, and tells what was seen.
async fn seen(State(mock): State<Mock>, Query(which): Query<Which>) -> axum::Json<Seen> {
    loop {
        let changed = mock.ended.notified();
        let seen = mock.seen(&which);
        if seen.done == which.loops {
            return axum::Json(seen);
        }
        changed.await;
    }
}

impl Mock {
    fn seen(&self, which: &Which) -> Seen {
        let loops = self.loops.lock().unwrap_or_else(PoisonError::into_inner);
        let range = which.base..which.base + which.loops;
        let all: Vec<&OneLoop> = range.filter_map(|n| loops.by_number.get(&n)).collect();
        let overheads: Vec<f64> = all
            .iter()
            .flat_map(|l| l.overheads_ms.iter().copied())
            .collect();
        let first = all.iter().filter_map(|l| l.first).min();
        let last = all.iter().filter_map(|l| l.ready).max();
        let seconds = first
            .zip(last)
            .map_or(0.0, |(f, l)| l.duration_since(f).as_secs_f64());
        let count = |of: fn(&OneLoop) -> u32| all.iter().map(|one| of(one)).sum();
        Seen {
            done: count(|one| u32::from(one.done)),
            model_calls: count(|one| one.step),
            tool_calls: count(|one| one.tool_calls),
            seconds,
            p50_ms: percentile(&overheads, 50.0),
            p99_ms: percentile(&overheads, 99.0),
            steps_ms: all
                .first()
                .map(|one| one.overheads_ms.clone())
                .unwrap_or_default(),
            longest: all.iter().map(|one| one.longest).max().unwrap_or_default(),
        }
    }
}

#[derive(Deserialize)]
struct WorkArgs {
    #[serde(rename = "loop")]
    number: u32,
    bytes: usize,
}

#[tonic::async_trait]
impl SidecarService for Mock {
    type CallToolStream = tokio_stream::Once<Result<CallToolResponse, Status>>;

    /// Also the floor's tool call: a unary of about the size of a result.
    async fn describe(
        &self,
        _: Request<DescribeRequest>,
    ) -> Result<Response<DescribeResponse>, Status> {
        let work = ToolSpec {
            name: "work".to_owned(),
            description: "x".repeat(100),
            input_schema_json:
                "{\"type\":\"object\",\"properties\":{\"loop\":{\"type\":\"integer\"},\
                                \"bytes\":{\"type\":\"integer\"}}}"
                    .to_owned(),
            effect_class: EffectClass::Idempotent.into(),
            ..ToolSpec::default()
        };
        Ok(Response::new(DescribeResponse {
            tools: vec![work],
            ..DescribeResponse::default()
        }))
    }

    async fn call_tool(
        &self,
        request: Request<CallToolRequest>,
    ) -> Result<Response<Self::CallToolStream>, Status> {
        let began = Instant::now();
        let args: WorkArgs = serde_json::from_str(&request.get_ref().arguments_json)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let result = call_tool_response::Kind::Result(said("y".repeat(args.bytes)));
        let response = CallToolResponse { kind: Some(result) };
        let mut loops = self.loops.lock().unwrap_or_else(PoisonError::into_inner);
        let one = loops.by_number.entry(args.number).or_default();
        one.tool_calls += 1;
        one.since.first.get_or_insert(began);
        one.tool_ms += began.elapsed().as_secs_f64() * 1e3;
        Ok(Response::new(tokio_stream::once(Ok(response))))
    }

    async fn lookup_call(
        &self,
        _: Request<LookupCallRequest>,
    ) -> Result<Response<LookupCallResponse>, Status> {
        Err(Status::unimplemented("nothing is looked up here"))
    }

    type AttachCallStream = tokio_stream::Empty<Result<AttachCallResponse, Status>>;

    async fn attach_call(
        &self,
        _: Request<AttachCallRequest>,
    ) -> Result<Response<Self::AttachCallStream>, Status> {
        Err(Status::unimplemented("nothing is rejoined here"))
    }
}
