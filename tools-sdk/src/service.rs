//! SidecarService on the wire: turns requests into calls of the toolbox and what is heard into messages.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use futures_util::stream;
use loopwright_proto::v1;
use loopwright_proto::v1::sidecar_service_server::SidecarService;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use crate::answer::Outcome;
use crate::inquiry::{NotAsked, Question, Rejoined};
use crate::running::{Heard, Listener};
use crate::toolbox::Toolbox;
use crate::wire;

/// Longest trace context that is read, in bytes.
const MAX_TRACEPARENT_BYTES: usize = 256;

/// The service over one sidecar's tools.
pub(crate) struct ToolboxService {
    pub(crate) toolbox: Arc<Toolbox>,
    pub(crate) version: String,
}

#[tonic::async_trait]
impl SidecarService for ToolboxService {
    type CallToolStream = Pin<Box<dyn Stream<Item = Result<v1::CallToolResponse, Status>> + Send>>;

    async fn describe(
        &self,
        _: Request<v1::DescribeRequest>,
    ) -> Result<Response<v1::DescribeResponse>, Status> {
        let version = self.version.clone();
        Ok(Response::new(v1::DescribeResponse {
            tools: self.toolbox.specs(),
            version,
            instance: Some(self.toolbox.memory.instance()),
        }))
    }

    async fn call_tool(
        &self,
        request: Request<v1::CallToolRequest>,
    ) -> Result<Response<Self::CallToolStream>, Status> {
        let carried = traceparent(request.metadata());
        let connection = request.extensions().get().cloned();
        let request = request.into_inner();
        let traceparent = carried.or_else(|| well_formed(&request.traceparent));
        tracing::debug!(tool = %request.tool, key = %request.key, attempt = request.attempt, "call");
        Ok(Response::new(
            match self.toolbox.begin(request, traceparent, connection) {
                Ok(listener) => Box::pin(messages(listener)),
                Err(outcome) => Box::pin(only(&outcome)),
            },
        ))
    }

    async fn lookup_call(
        &self,
        request: Request<v1::LookupCallRequest>,
    ) -> Result<Response<v1::LookupCallResponse>, Status> {
        let request = request.into_inner();
        tracing::debug!(tool = %request.tool, key = %request.key, attempt = request.attempt, "lookup");
        let found = self.toolbox.look_up(request).await.map_err(not_asked)?;
        Ok(Response::new(wire::lookup_message(found)))
    }

    type AttachCallStream =
        Pin<Box<dyn Stream<Item = Result<v1::AttachCallResponse, Status>> + Send>>;

    async fn attach_call(
        &self,
        request: Request<v1::AttachCallRequest>,
    ) -> Result<Response<Self::AttachCallStream>, Status> {
        let connection = request.extensions().get().cloned();
        let rejoined = self.toolbox.rejoin(request.into_inner(), connection);
        Ok(Response::new(match rejoined.await.map_err(not_asked)? {
            Rejoined::Ended(found) => Box::pin(stream::iter(wire::attach_end(found).map(Ok))),
            Rejoined::Call(listener, question) => {
                Box::pin(rest(Arc::clone(&self.toolbox), listener, question))
            }
        }))
    }
}

fn not_asked(NotAsked(why): NotAsked) -> Status {
    Status::unimplemented(why)
}

/// The rest of a call that was rejoined.
fn rest(
    toolbox: Arc<Toolbox>,
    listener: Listener,
    question: Question,
) -> impl Stream<Item = Result<v1::AttachCallResponse, Status>> {
    stream::unfold(Some((toolbox, listener, question)), |rest| async {
        let (toolbox, mut listener, question) = rest?;
        Some(match listener.next().await {
            Heard::Progress(progress) => {
                let rest = Some((toolbox, listener, question));
                (Ok(wire::attach_progress(progress)), rest)
            }
            Heard::Outcome(outcome) => {
                let found = toolbox.end_of(&question, outcome).await;
                let end = wire::attach_end(found);
                (end.ok_or_else(went_down), None)
            }
            Heard::Lost => (Err(went_down()), None),
        })
    })
}

fn went_down() -> Status {
    Status::unavailable("the sidecar went down in mid-call")
}

fn only(outcome: &Outcome) -> impl Stream<Item = Result<v1::CallToolResponse, Status>> + use<> {
    stream::iter([Ok(wire::outcome_message(outcome))])
}

/// The messages of one call. Dropped with the stream, the listener tells the tool to stop.
fn messages(listener: Listener) -> impl Stream<Item = Result<v1::CallToolResponse, Status>> {
    stream::unfold(Some(listener), |listener| async {
        let mut listener = listener?;
        Some(match listener.next().await {
            Heard::Progress(progress) => (Ok(wire::progress_message(progress)), Some(listener)),
            Heard::Outcome(outcome) => (Ok(wire::outcome_message(&outcome)), None),
            Heard::Lost => (Err(went_down()), None),
        })
    })
}

fn traceparent(metadata: &MetadataMap) -> Option<String> {
    well_formed(metadata.get("traceparent")?.to_str().ok()?)
}

fn well_formed(traceparent: &str) -> Option<String> {
    let fits = traceparent.is_ascii() && traceparent.len() <= MAX_TRACEPARENT_BYTES;
    (fits && traceparent.split('-').count() >= 4).then(|| traceparent.to_owned())
}
