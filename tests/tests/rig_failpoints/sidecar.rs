//! The sidecar of one lane: one tool, which stops where it is told to.
//!
//! Boundary: serves SidecarService and outlives the server under test. Invariant: a call that was taken
//! on goes on when its caller is gone, until its fate is known.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use loopwright_proto::v1::{
    AttachCallRequest, AttachCallResponse, CallToolRequest, CallToolResponse, DescribeRequest,
    DescribeResponse, EffectClass, LookupCallRequest, LookupCallResponse, NotExecuted, ToolSpec,
    call_tool_response,
    sidecar_service_server::{SidecarService, SidecarServiceServer},
};
use loopwright_tests::rig::{
    effects::{self, Effects},
    valve::Valve,
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status};

use super::lanes::{Fate, Lane, Point};

/// Longer than any run.
const RETENTION: Duration = Duration::from_secs(24 * 60 * 60);

/// Where a session's first call is to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    /// It has not come.
    Armed(Point),
    /// It has come, and waits.
    Reached,
    Released(Fate),
}

/// The sidecar; clones are the same.
#[derive(Clone)]
pub(super) struct Sidecar(Arc<Shared>);

struct Shared {
    lane: Lane,
    effects: Effects,
    gates: watch::Sender<BTreeMap<String, Gate>>,
}

impl Sidecar {
    /// Serves it behind a proxy of its own.
    pub(super) async fn serve(lane: Lane, effects: &Effects) -> Result<(Self, Valve)> {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let valve = Valve::start(listener.local_addr()?).await?;
        let sidecar = Self(Arc::new(Shared {
            lane,
            effects: effects.clone(),
            gates: watch::Sender::default(),
        }));
        let routes = tonic::transport::Server::builder()
            .add_service(SidecarServiceServer::new(sidecar.clone()));
        tokio::spawn(routes.serve_with_incoming(TcpListenerStream::new(listener)));
        Ok((sidecar, valve))
    }

    /// The first call of this session is to stop there.
    pub(super) fn arm(&self, session: &str, point: Point) {
        self.set(session, Gate::Armed(point));
    }

    /// Waits until it has.
    pub(super) async fn until_reached(&self, session: &str) -> Result<()> {
        let mut gates = self.0.gates.subscribe();
        let reached = |gates: &BTreeMap<String, Gate>| gates.get(session) == Some(&Gate::Reached);
        gates.wait_for(reached).await.context("a gate")?;
        Ok(())
    }

    /// Says what becomes of it.
    pub(super) fn release(&self, session: &str, fate: Fate) {
        self.set(session, Gate::Released(fate));
    }

    fn set(&self, session: &str, gate: Gate) {
        self.0.gates.send_modify(|gates| {
            gates.insert(session.to_owned(), gate);
        });
    }

    /// Stops a call that is to stop here; false where it is lost.
    async fn pass(&self, request: &CallToolRequest, point: Point) -> bool {
        let session = &request.session_id;
        let stops = self.0.gates.send_if_modified(|gates| {
            let gate = gates.get_mut(session);
            let armed = gate.filter(|gate| **gate == Gate::Armed(point) && request.attempt == 1);
            armed.map(|gate| *gate = Gate::Reached).is_some()
        });
        if !stops {
            return true;
        }
        let mut gates = self.0.gates.subscribe();
        let released = |gates: &BTreeMap<String, Gate>| gates.get(session) != Some(&Gate::Reached);
        let gates = gates.wait_for(released).await;
        gates.is_ok_and(|gates| gates.get(session) != Some(&Gate::Released(Fate::Lost)))
    }

    async fn run(&self, request: &CallToolRequest) -> Option<call_tool_response::Kind> {
        use call_tool_response::Kind;
        let refused = |reason| {
            let retry_after = None;
            Some(Kind::NotExecuted(NotExecuted {
                reason,
                retry_after,
            }))
        };
        let running = match self.0.effects.begin(request) {
            Ok(running) => running,
            Err(reason) => return refused(reason),
        };
        if !self.pass(request, Point::AfterSend).await {
            self.0.effects.forget(&request.key);
            return None;
        }
        let done = self.0.effects.act(request, self.0.lane.class);
        let is_kept = self.pass(request, Point::AfterEffect).await;
        if !is_kept {
            self.0.effects.forget(&request.key);
        }
        drop(running);
        match done {
            Ok(text) => is_kept.then(|| Kind::Result(effects::said(&text))),
            Err(reason) => refused(reason),
        }
    }
}

#[tonic::async_trait]
impl SidecarService for Sidecar {
    type CallToolStream = ReceiverStream<Result<CallToolResponse, Status>>;
    type AttachCallStream = ReceiverStream<Result<AttachCallResponse, Status>>;

    async fn describe(
        &self,
        _: Request<DescribeRequest>,
    ) -> Result<Response<DescribeResponse>, Status> {
        let Lane { class, lookup, .. } = self.0.lane;
        let tool = ToolSpec {
            name: "act".to_owned(),
            description: format!("Has an effect that is {}.", class.as_str_name()),
            input_schema_json: r#"{"type":"object"}"#.to_owned(),
            effect_class: class.into(),
            retention: (class == EffectClass::Deduplicated).then(|| RETENTION.into()),
            supports_lookup: lookup,
            supports_attach: lookup,
            ..ToolSpec::default()
        };
        Ok(Response::new(DescribeResponse {
            tools: vec![tool],
            ..DescribeResponse::default()
        }))
    }

    async fn call_tool(
        &self,
        request: Request<CallToolRequest>,
    ) -> Result<Response<Self::CallToolStream>, Status> {
        let (answer, stream) = mpsc::channel(1);
        let sidecar = self.clone();
        tokio::spawn(async move {
            if let Some(kind) = sidecar.run(request.get_ref()).await {
                // Nobody may be there to hear it.
                let kind = Some(kind);
                let _ = answer.send(Ok(CallToolResponse { kind })).await;
            }
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
