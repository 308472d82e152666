//! What the sidecars of the rigs are but for their tools, and for the moments at which those act.
//!
//! Boundary: serves SidecarService over [`Effects`], and outlives the server under test. Invariant: a
//! call that was taken on goes on when its caller is gone, as an effect that is under way does.

use std::{net::SocketAddr, time::Duration};

use anyhow::Result;
use loopwright_proto::v1::{
    AttachCallRequest, AttachCallResponse, CallToolRequest, CallToolResponse, DescribeRequest,
    DescribeResponse, EffectClass, LookupCallRequest, LookupCallResponse, NotExecuted, ToolSpec,
    call_tool_response::Kind,
    sidecar_service_server::{SidecarService, SidecarServiceServer},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::effects::Effects;
use crate::sidecar::serve_at;

/// Longer than any run.
const RETENTION: Duration = Duration::from_secs(24 * 60 * 60);

/// The tools of a rig; clones are the same.
pub trait Acting: Clone + Send + Sync + 'static {
    /// What they offer.
    fn tools(&self) -> Vec<ToolSpec>;

    /// What they did.
    fn effects(&self) -> &Effects;

    /// Runs a call to its end; nothing where it comes to nothing.
    fn run(&self, request: &CallToolRequest) -> impl Future<Output = Option<Kind>> + Send;
}

struct Served<A>(A);

/// Serves them on a free port: where.
///
/// # Errors
/// Where it cannot listen.
pub async fn serve(tools: impl Acting) -> Result<SocketAddr> {
    serve_at(SidecarServiceServer::new(Served(tools))).await
}

/// A tool of a class, whose sidecar can say what became of a call or cannot.
#[must_use]
pub fn tool(name: &str, class: EffectClass, lookup: bool) -> ToolSpec {
    ToolSpec {
        name: name.to_owned(),
        description: format!("Has an effect that is {}.", class.as_str_name()),
        input_schema_json: r#"{"type":"object"}"#.to_owned(),
        effect_class: class.into(),
        retention: (class == EffectClass::Deduplicated).then(|| RETENTION.into()),
        supports_lookup: lookup,
        supports_attach: lookup,
        ..ToolSpec::default()
    }
}

/// The answer to a call that is not executed.
#[must_use]
pub fn refused(reason: String) -> Kind {
    let retry_after = None;
    Kind::NotExecuted(NotExecuted {
        reason,
        retry_after,
    })
}

/// The one answer that comes of this, if one does; it comes about though nobody waits for it.
fn answer<T: Send + 'static>(
    coming: impl Future<Output = Option<T>> + Send + 'static,
) -> ReceiverStream<Result<T, Status>> {
    let (answer, stream) = mpsc::channel(1);
    tokio::spawn(async move {
        if let Some(came) = coming.await {
            // Nobody may be there to hear it.
            let _ = answer.send(Ok(came)).await;
        }
    });
    ReceiverStream::new(stream)
}

#[tonic::async_trait]
impl<A: Acting> SidecarService for Served<A> {
    type CallToolStream = ReceiverStream<Result<CallToolResponse, Status>>;
    type AttachCallStream = ReceiverStream<Result<AttachCallResponse, Status>>;

    async fn describe(
        &self,
        _: Request<DescribeRequest>,
    ) -> Result<Response<DescribeResponse>, Status> {
        Ok(Response::new(DescribeResponse {
            tools: self.0.tools(),
            ..DescribeResponse::default()
        }))
    }

    async fn call_tool(
        &self,
        request: Request<CallToolRequest>,
    ) -> Result<Response<Self::CallToolStream>, Status> {
        let (tools, request) = (self.0.clone(), request.into_inner());
        Ok(Response::new(answer(async move {
            let kind = Some(tools.run(&request).await?);
            Some(CallToolResponse { kind })
        })))
    }

    async fn lookup_call(
        &self,
        request: Request<LookupCallRequest>,
    ) -> Result<Response<LookupCallResponse>, Status> {
        let outcome = Some(self.0.effects().lookup(request.get_ref()));
        Ok(Response::new(LookupCallResponse { outcome }))
    }

    async fn attach_call(
        &self,
        request: Request<AttachCallRequest>,
    ) -> Result<Response<Self::AttachCallStream>, Status> {
        let (effects, request) = (self.0.effects().clone(), request.into_inner());
        Ok(Response::new(answer(async move {
            let kind = Some(effects.attach(&request).await);
            Some(AttachCallResponse { kind })
        })))
    }
}
