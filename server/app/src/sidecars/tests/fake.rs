//! A sidecar that does what a test wants, in a runtime of its own so that it can be killed.

use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::{Stream, StreamExt, stream};
use loopwright_proto::v1::call_tool_response::Kind;
use loopwright_proto::v1::lookup_call_response::Outcome;
use loopwright_proto::v1::sidecar_service_server::{SidecarService, SidecarServiceServer};
use loopwright_proto::v1::{
    AttachCallRequest, AttachCallResponse, CallNeverStarted, CallNotKnown, CallRunning,
    CallToolRequest, CallToolResponse, DescribeRequest, DescribeResponse, LookupCallRequest,
    LookupCallResponse, NotExecuted, Part, ToolProgress, ToolResult, ToolSpec,
    attach_call_response, part,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, watch};
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tonic::{Request, Response, Status};
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

/// A running sidecar; dropped, it dies with all its connections.
pub(crate) struct Fake {
    runtime: Option<Runtime>,
    endpoint: String,
    health: HealthReporter,
    pub state: Arc<Script>,
}

/// What it says and what it saw.
pub(crate) struct Script {
    pub tools: Mutex<Vec<ToolSpec>>,
    /// What it says that it is.
    pub instance: Mutex<Option<String>>,
    pub calls: Mutex<Vec<(CallToolRequest, Option<String>)>>,
    pub lookups: Mutex<Vec<LookupCallRequest>>,
    pub rejoined: Mutex<Vec<AttachCallRequest>>,
    pub started: watch::Sender<u32>,
    pub cancelled: watch::Sender<u32>,
    pub running: watch::Sender<u32>,
    pub most_running: AtomicU64,
    /// Calls of `gated` end when there is a permit.
    pub gate: Semaphore,
}

/// A tool that takes any object.
pub(crate) fn tool(name: &str) -> ToolSpec {
    ToolSpec {
        name: name.to_owned(),
        description: format!("Does {name}."),
        input_schema_json: r#"{"type":"object"}"#.to_owned(),
        ..ToolSpec::default()
    }
}

impl Fake {
    /// Serves tools of these names on a free port of loopback.
    pub(crate) fn tcp(tools: &[&str]) -> Self {
        Self::at("127.0.0.1:0", script(tools))
    }

    /// Serves at this address.
    pub(crate) fn at(address: &str, state: Arc<Script>) -> Self {
        let runtime = runtime();
        let listener = runtime
            .block_on_elsewhere(TcpListener::bind(address.to_owned()))
            .unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (health, server) = services(&state);
        runtime.spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Self {
            runtime: Some(runtime),
            endpoint,
            health,
            state,
        }
    }

    /// Serves at a unix socket.
    pub(crate) fn unix(path: &Path, tools: &[&str]) -> Self {
        let (runtime, state) = (runtime(), script(tools));
        let path = path.to_owned();
        let endpoint = format!("unix:{}", path.display());
        let listener = runtime
            .block_on_elsewhere(async move { UnixListener::bind(path) })
            .unwrap();
        let (health, server) = services(&state);
        runtime.spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));
        Self {
            runtime: Some(runtime),
            endpoint,
            health,
            state,
        }
    }

    /// Answers calls of any tool, and lookups, with these bytes of HTTP; serves all else as ever.
    pub(crate) fn raw(answer: Raw) -> Self {
        let (runtime, state) = (runtime(), script(&["any"]));
        let listener = runtime
            .block_on_elsewhere(TcpListener::bind("127.0.0.1:0"))
            .unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let service = SidecarServiceServer::from_arc(Arc::clone(&state));
        let (health, _) = tonic_health::server::health_reporter();
        let rest = tonic::service::Routes::new(service).into_axum_router();
        let mut router = axum::Router::new();
        for rpc in ["CallTool", "LookupCall"] {
            let raw = axum::routing::post(move || async move { answer() });
            router = router.route(&format!("/loopwright.v1.SidecarService/{rpc}"), raw);
        }
        let router = router.fallback_service(rest);
        let server = tonic::transport::Server::builder().add_routes(router.into());
        runtime.spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Self {
            runtime: Some(runtime),
            endpoint,
            health,
            state,
        }
    }

    /// What its health service says from now on.
    pub(crate) fn set_serving(&self, serving: bool) {
        let health = self.health.clone();
        let status = if serving {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        let runtime = self.runtime.as_ref().unwrap();
        runtime.block_on_elsewhere(async move { health.set_service_status("", status).await });
    }

    /// Where it serves.
    pub(crate) fn endpoint(&self) -> String {
        self.endpoint.clone()
    }

    /// `host:port`.
    pub(crate) fn address(&self) -> String {
        self.endpoint.trim_start_matches("http://").to_owned()
    }

    /// Dies now, and is dead on return; its address and its script stay.
    pub(crate) fn kill(mut self) -> (String, Arc<Script>) {
        let state = Arc::clone(&self.state);
        let address = self.address();
        if let Some(runtime) = self.runtime.take() {
            let end = move || runtime.shutdown_timeout(std::time::Duration::from_secs(30));
            std::thread::spawn(end).join().unwrap();
        }
        (address, state)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Makes an answer, byte for byte.
pub(crate) type Raw = fn() -> http::Response<axum::body::Body>;

/// Counts what flows back from a server.
pub(crate) struct Proxy {
    pub endpoint: String,
    pub bytes_back: Arc<AtomicU64>,
}

impl Proxy {
    /// Passes connections on to `to`, for as long as the test's runtime lives.
    pub(crate) async fn to(to: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let bytes_back = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&bytes_back);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let far = TcpStream::connect(&to).await.unwrap();
                let (mut near_in, mut near_out) = near.into_split();
                let (mut far_in, mut far_out) = far.into_split();
                tokio::spawn(async move { tokio::io::copy(&mut near_in, &mut far_out).await });
                let count = Arc::clone(&count);
                tokio::spawn(async move {
                    let mut piece = vec![0; 64 << 10];
                    while let Ok(read @ 1..) = far_in.read(&mut piece).await {
                        count.fetch_add(read as u64, Ordering::Relaxed);
                        if near_out.write_all(&piece[..read]).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self {
            endpoint,
            bytes_back,
        }
    }
}

/// What it serves and nothing seen yet.
pub(crate) fn script(tools: &[&str]) -> Arc<Script> {
    Arc::new(Script {
        tools: Mutex::new(tools.iter().map(|name| tool(name)).collect()),
        instance: Mutex::default(),
        calls: Mutex::default(),
        lookups: Mutex::default(),
        rejoined: Mutex::default(),
        started: watch::Sender::new(0),
        cancelled: watch::Sender::new(0),
        running: watch::Sender::new(0),
        most_running: AtomicU64::new(0),
        gate: Semaphore::new(0),
    })
}

type Answers = Pin<Box<dyn Stream<Item = Result<CallToolResponse, Status>> + Send>>;

#[tonic::async_trait]
impl SidecarService for Script {
    async fn describe(
        &self,
        _: Request<DescribeRequest>,
    ) -> Result<Response<DescribeResponse>, Status> {
        let tools = self.tools.lock().unwrap().clone();
        Ok(Response::new(DescribeResponse {
            tools,
            version: "1.2.3".to_owned(),
            instance: self.instance.lock().unwrap().clone(),
        }))
    }

    type CallToolStream = Answers;

    async fn call_tool(
        &self,
        request: Request<CallToolRequest>,
    ) -> Result<Response<Answers>, Status> {
        let header = request.metadata().get("traceparent");
        let header = header.map(|value| value.to_str().unwrap().to_owned());
        let call = request.into_inner();
        self.calls.lock().unwrap().push((call.clone(), header));
        self.started.send_modify(|count| *count += 1);
        let answers = match call.tool.as_str() {
            "hang" => return self.hang().await,
            // The end of their first attempt is for a lookup to tell.
            "done" | "joins" | "never" | "unsure" if call.attempt == 1 => return self.hang().await,
            "hang_later" => Guarded::over(self, stream::pending()),
            "gated" => return self.gated().await,
            "huge" => one(Kind::Result(text(&"x".repeat(100 << 20)))),
            "long" => one(Kind::Result(text(&"ä".repeat(40_000)))),
            "refuse" => one(not_executed(None)),
            "later" => one(not_executed(Some(std::time::Duration::from_secs(1).into()))),
            "silent" => Box::pin(stream::empty()),
            "internal" => return Err(Status::internal("it broke")),
            "unimplemented" => return Err(Status::unimplemented("no such tool")),
            "begun" => Box::pin(stream::iter([
                Ok(progress(0.5)),
                Err(Status::unimplemented("after it had begun")),
            ])),
            "result_then_error" => Box::pin(stream::iter([
                Ok(CallToolResponse {
                    kind: Some(Kind::Result(text("done"))),
                }),
                Err(Status::internal("too late")),
            ])),
            "fails" => one(Kind::Result(ToolResult {
                is_error: true,
                ..text("no such file")
            })),
            "structured" => one(Kind::Result(ToolResult {
                structured_json: r#"{"sum":12345678901234567890}"#.to_owned(),
                ..ToolResult::default()
            })),
            "bulky" => one(Kind::Result(ToolResult {
                structured_json: bulky(),
                ..text("see the table")
            })),
            "garbled" => one(Kind::Result(ToolResult {
                structured_json: "{\"sum\": 1,".to_owned(),
                ..text("summed up")
            })),
            _ => one(Kind::Result(text(&call.arguments_json))),
        };
        Ok(Response::new(answers))
    }

    async fn lookup_call(
        &self,
        request: Request<LookupCallRequest>,
    ) -> Result<Response<LookupCallResponse>, Status> {
        let request = request.into_inner();
        let tool = request.tool.clone();
        let times = {
            let mut lookups = self.lookups.lock().unwrap();
            lookups.push(request);
            lookups.iter().filter(|lookup| lookup.tool == tool).count()
        };
        let outcome = match (tool.as_str(), times) {
            ("mute", _) => return Ok(std::future::pending().await),
            ("refuses", _) => return Err(Status::unimplemented("what is a lookup")),
            ("breaks", _) => return Err(Status::internal("the book is lost")),
            ("odd", _) => None,
            ("never", _) => Some(Outcome::NeverStarted(CallNeverStarted {})),
            ("unsure", _) => Some(Outcome::NotKnown(CallNotKnown {
                reason: "it was long ago".to_owned(),
            })),
            ("giant", _) => Some(Outcome::Completed(text(&"x".repeat(100 << 20)))),
            ("frail" | "alone", 2..) | ("done", _) => Some(Outcome::Completed(text("looked up"))),
            _ => Some(Outcome::Running(CallRunning {})),
        };
        Ok(Response::new(LookupCallResponse { outcome }))
    }

    type AttachCallStream = Pin<Box<dyn Stream<Item = Result<AttachCallResponse, Status>> + Send>>;

    async fn attach_call(
        &self,
        request: Request<AttachCallRequest>,
    ) -> Result<Response<Self::AttachCallStream>, Status> {
        use attach_call_response::Kind;
        let request = request.into_inner();
        let tool = request.tool.clone();
        self.rejoined.lock().unwrap().push(request);
        self.started.send_modify(|count| *count += 1);
        let progress = Kind::Progress(ToolProgress {
            fraction: Some(0.5),
            message: "still on it".to_owned(),
        });
        let say = |kind| Ok(AttachCallResponse { kind: Some(kind) });
        let last = match tool.as_str() {
            "frail" => Err(Status::unavailable("gone again")),
            "endless" => {
                let guard = OnDrop(self.cancelled.clone());
                let begun = stream::iter([say(progress)]).chain(stream::pending());
                return Ok(Response::new(Box::pin(begun.map(move |said| {
                    let _ = &guard;
                    said
                }))));
            }
            "ends_never" => say(Kind::NeverStarted(CallNeverStarted {})),
            "ends_unsure" => say(Kind::NotKnown(CallNotKnown {
                reason: "which call?".to_owned(),
            })),
            "ends_giant" => say(Kind::Result(text(&"x".repeat(100 << 20)))),
            _ => say(Kind::Result(text("rejoined"))),
        };
        Ok(Response::new(Box::pin(stream::iter([say(progress), last]))))
    }
}

impl Script {
    async fn hang(&self) -> Result<Response<Answers>, Status> {
        let _guard = OnDrop(self.cancelled.clone());
        std::future::pending().await
    }

    async fn gated(&self) -> Result<Response<Answers>, Status> {
        self.running.send_modify(|count| *count += 1);
        self.most_running
            .fetch_max(u64::from(*self.running.borrow()), Ordering::SeqCst);
        let _running = Running(self.running.clone());
        self.gate.acquire().await.unwrap().forget();
        Ok(Response::new(one(Kind::Result(text("through")))))
    }
}

/// A call that runs, until it ends or is given up.
struct Running(watch::Sender<u32>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

struct OnDrop(watch::Sender<u32>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count += 1);
    }
}

struct Guarded;

impl Guarded {
    fn over(
        script: &Script,
        answers: impl Stream<Item = Result<CallToolResponse, Status>> + Send + 'static,
    ) -> Answers {
        let guard = OnDrop(script.cancelled.clone());
        Box::pin(answers.map(move |answer| {
            let _ = &guard;
            answer
        }))
    }
}

pub(crate) fn progress(fraction: f64) -> CallToolResponse {
    let progress = ToolProgress {
        fraction: Some(fraction),
        message: "on it".to_owned(),
    };
    CallToolResponse {
        kind: Some(Kind::Progress(progress)),
    }
}

/// A structured result that is too large for an entry.
pub(crate) fn bulky() -> String {
    format!("[\"{}\"]", "x".repeat(64 << 10))
}

pub(crate) fn text(text: &str) -> ToolResult {
    let part = Part {
        kind: Some(part::Kind::Text(text.to_owned())),
        full: None,
    };
    ToolResult {
        parts: vec![part],
        ..ToolResult::default()
    }
}

fn not_executed(retry_after: Option<loopwright_proto::well_known::Duration>) -> Kind {
    Kind::NotExecuted(NotExecuted {
        reason: "the disk is away".to_owned(),
        retry_after,
    })
}

fn one(kind: Kind) -> Answers {
    Box::pin(stream::iter([Ok(CallToolResponse { kind: Some(kind) })]))
}

fn services(state: &Arc<Script>) -> (HealthReporter, tonic::transport::server::Router) {
    let (health, health_service) = tonic_health::server::health_reporter();
    let service = SidecarServiceServer::from_arc(Arc::clone(state));
    let server = tonic::transport::Server::builder().add_service(service);
    (health, server.add_service(health_service))
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

trait Elsewhere {
    /// Runs `work` in this runtime, waiting for it from inside another one.
    fn block_on_elsewhere<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> T;
}

impl Elsewhere for Runtime {
    fn block_on_elsewhere<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> T {
        let (done, answer) = std::sync::mpsc::channel();
        self.spawn(async move { done.send(work.await) });
        answer.recv().unwrap()
    }
}
