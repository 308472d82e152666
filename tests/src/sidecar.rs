//! Sidecars that a test serves itself: what all of them are but for their tools.
//!
//! Boundary: knows the protocol, and no tool. Invariant: whoever has an endpoint from here is answered
//! there until the runtime ends.

use std::{convert::Infallible, net::SocketAddr};

use anyhow::Result;
use axum::response::IntoResponse;
use futures_util::stream::BoxStream;
use loopwright_proto::v1::{
    AttachCallRequest, AttachCallResponse, CallToolRequest, CallToolResponse, DescribeRequest,
    DescribeResponse, LookupCallRequest, LookupCallResponse, Part, ToolResult, ToolSpec, part,
    sidecar_service_server::{SidecarService, SidecarServiceServer},
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, body::Body, server::NamedService};
use tower::Service;

/// What is said of one call.
pub type Answers = BoxStream<'static, Result<CallToolResponse, Status>>;

/// A sidecar that looks no call up and rejoins none.
#[tonic::async_trait]
pub trait Plain: Send + Sync + 'static {
    /// What it offers.
    fn tools(&self) -> Vec<ToolSpec>;

    /// Runs a call.
    async fn call(&self, request: Request<CallToolRequest>) -> Result<Answers, Status>;

    /// What it says to whoever asks what became of a call.
    fn no_lookup(&self) -> Status {
        Status::unimplemented("nothing is looked up here")
    }
}

struct Served<P>(P);

/// Serves a sidecar on a free port: its endpoint.
///
/// # Errors
/// Where it cannot listen.
pub async fn serve(sidecar: impl Plain) -> Result<String> {
    let at = serve_at(SidecarServiceServer::new(Served(sidecar))).await?;
    Ok(format!("http://{at}"))
}

/// Serves any gRPC service on a free port: where.
///
/// # Errors
/// Where it cannot listen.
pub async fn serve_at<S>(service: S) -> Result<SocketAddr>
where
    S: Service<http::Request<Body>, Error = Infallible>
        + NamedService
        + Clone
        + Send
        + Sync
        + 'static,
    S::Response: IntoResponse,
    S::Future: Send + 'static,
{
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    let at = listener.local_addr()?;
    let router = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
    Ok(at)
}

/// A result that says something.
#[must_use]
pub fn said(text: impl Into<String>) -> ToolResult {
    ToolResult {
        parts: vec![Part {
            kind: Some(part::Kind::Text(text.into())),
            ..Part::default()
        }],
        ..ToolResult::default()
    }
}

#[tonic::async_trait]
impl<P: Plain> SidecarService for Served<P> {
    type CallToolStream = Answers;

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
    ) -> Result<Response<Answers>, Status> {
        Ok(Response::new(self.0.call(request).await?))
    }

    async fn lookup_call(
        &self,
        _: Request<LookupCallRequest>,
    ) -> Result<Response<LookupCallResponse>, Status> {
        Err(self.0.no_lookup())
    }

    type AttachCallStream = BoxStream<'static, Result<AttachCallResponse, Status>>;

    async fn attach_call(
        &self,
        _: Request<AttachCallRequest>,
    ) -> Result<Response<Self::AttachCallStream>, Status> {
        Err(Status::unimplemented("nothing is rejoined here"))
    }
}
