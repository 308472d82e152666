//! A collector of traces that keeps what it is sent.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    trace::v1::Span,
};
use prost::Message as _;
use tonic::{Request, Response, Status};

use crate::sidecar::serve_at;

/// The collector; clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Collector(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

impl Collector {
    /// Serves it until the runtime ends: itself, and its endpoint.
    ///
    /// # Errors
    /// Where it cannot listen.
    pub async fn serve() -> Result<(Self, String)> {
        let collector = Self::default();
        let at = serve_at(TraceServiceServer::new(collector.clone())).await?;
        Ok((collector, format!("http://{at}")))
    }

    /// Every span that came.
    #[must_use]
    pub fn spans(&self) -> Vec<Span> {
        let resources = self.came().into_iter().flat_map(|came| came.resource_spans);
        let scopes = resources.flat_map(|resource| resource.scope_spans);
        scopes.flat_map(|scope| scope.spans).collect()
    }

    /// All that came, as it came.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.came()
            .iter()
            .flat_map(|came| came.encode_to_vec())
            .collect()
    }

    fn came(&self) -> Vec<ExportTraceServiceRequest> {
        let came = self.0.lock();
        came.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let came = self.0.lock();
        came.unwrap_or_else(PoisonError::into_inner)
            .push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}
