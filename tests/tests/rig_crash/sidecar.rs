//! Five tools, of each effect class, that write down what they did.
//!
//! Boundary: serves SidecarService, and outlives the server under test. Invariant: one line for each
//! real effect, in the file before the answer leaves; a call goes on when its caller is gone, as an
//! effect that is under way does.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Result;
use loopwright_proto::v1::{
    AttachCallRequest, AttachCallResponse, CallToolRequest, CallToolResponse, DescribeRequest,
    DescribeResponse, EffectClass, LookupCallRequest, LookupCallResponse, NotExecuted, ToolSpec,
    call_tool_response,
    sidecar_service_server::{SidecarService, SidecarServiceServer},
};
use loopwright_tests::rig::{
    Chance,
    effects::{self, Effect, Effects},
};
use tokio::{
    net::TcpListener,
    sync::{Notify, mpsc},
};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status};

/// The name that it registers by.
pub(super) const NAME: &str = "rig";
/// Longest pause of a call before its effect, and again after it, milliseconds.
const LONGEST_PAUSE_MS: u64 = 25;
/// Longer than any run.
const RETENTION: Duration = Duration::from_secs(24 * 60 * 60);
/// The tools, by name; and whether the sidecar can say what became of a call.
pub(super) const TOOLS: [(&str, EffectClass, bool); 5] = [
    ("look", EffectClass::ReadOnly, false),
    ("set", EffectClass::Idempotent, false),
    ("charge", EffectClass::Deduplicated, false),
    ("send", EffectClass::AtMostOnce, false),
    ("mail", EffectClass::AtMostOnce, true),
];

/// The sidecar.
#[derive(Clone)]
pub(super) struct Tools(Arc<Shared>);

struct Shared {
    effects: Effects,
    chance: Mutex<Chance>,
    /// Told at every effect.
    had_effect: Arc<Notify>,
}

impl Tools {
    /// Tools that write to `path` and tell `had_effect`.
    pub(super) fn new(path: &Path, chance: Chance, had_effect: Arc<Notify>) -> Result<Self> {
        Ok(Self(Arc::new(Shared {
            effects: Effects::new(path)?,
            chance: Mutex::new(chance),
            had_effect,
        })))
    }

    /// Serves them; answers where.
    pub(super) async fn serve(&self) -> Result<String> {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let routes = tonic::transport::Server::builder()
            .add_service(SidecarServiceServer::new(self.clone()));
        tokio::spawn(routes.serve_with_incoming(TcpListenerStream::new(listener)));
        Ok(url)
    }

    /// Every effect so far, as the file has it.
    pub(super) fn effects(&self) -> Result<Vec<Effect>> {
        self.0.effects.all()
    }

    async fn run(&self, request: &CallToolRequest) -> call_tool_response::Kind {
        let refused = |reason| {
            call_tool_response::Kind::NotExecuted(NotExecuted {
                reason,
                ..NotExecuted::default()
            })
        };
        let running = match self.0.effects.begin(request) {
            Ok(running) => running,
            Err(reason) => return refused(reason),
        };
        self.pause().await;
        let tool = TOOLS.iter().find(|(name, _, _)| *name == request.tool);
        let class = tool.map_or(EffectClass::AtMostOnce, |(_, class, _)| *class);
        let done = self.0.effects.act(request, class);
        self.0.had_effect.notify_waiters();
        self.pause().await;
        drop(running);
        match done {
            Ok(text) => call_tool_response::Kind::Result(effects::said(&text)),
            Err(reason) => refused(reason),
        }
    }

    async fn pause(&self) {
        let chance = self.0.chance.lock();
        let pause = chance
            .unwrap_or_else(PoisonError::into_inner)
            .below(LONGEST_PAUSE_MS);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}

#[tonic::async_trait]
impl SidecarService for Tools {
    type CallToolStream = ReceiverStream<Result<CallToolResponse, Status>>;

    async fn describe(
        &self,
        _: Request<DescribeRequest>,
    ) -> Result<Response<DescribeResponse>, Status> {
        let tools = TOOLS.map(|(name, class, lookup)| ToolSpec {
            name: name.to_owned(),
            description: format!("Has an effect that is {}.", class.as_str_name()),
            input_schema_json: r#"{"type":"object"}"#.to_owned(),
            effect_class: class.into(),
            retention: (class == EffectClass::Deduplicated).then(|| RETENTION.into()),
            supports_lookup: lookup,
            supports_attach: lookup,
            ..ToolSpec::default()
        });
        Ok(Response::new(DescribeResponse {
            tools: tools.to_vec(),
            ..DescribeResponse::default()
        }))
    }

    async fn call_tool(
        &self,
        request: Request<CallToolRequest>,
    ) -> Result<Response<Self::CallToolStream>, Status> {
        let (answer, stream) = mpsc::channel(1);
        let tools = self.clone();
        tokio::spawn(async move {
            let kind = Some(tools.run(request.get_ref()).await);
            // Nobody may be there to hear it.
            let _ = answer.send(Ok(CallToolResponse { kind })).await;
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn lookup_call(
        &self,
        request: Request<LookupCallRequest>,
    ) -> Result<Response<LookupCallResponse>, Status> {
        let outcome = Some(self.0.effects.lookup(request.get_ref()));
        Ok(Response::new(LookupCallResponse { outcome }))
    }

    type AttachCallStream = ReceiverStream<Result<AttachCallResponse, Status>>;

    async fn attach_call(
        &self,
        request: Request<AttachCallRequest>,
    ) -> Result<Response<Self::AttachCallStream>, Status> {
        let (answer, stream) = mpsc::channel(1);
        let effects = self.0.effects.clone();
        tokio::spawn(async move {
            let kind = Some(effects.attach(request.get_ref()).await);
            // Nobody may be there to hear it.
            let _ = answer.send(Ok(AttachCallResponse { kind })).await;
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}
