//! What the server shows of itself: all gRPC services, and the little HTTP beside them, as one
//! router for one port.
//!
//! Boundary: from bytes on the wire to commands for drivers and reads of the log, and back; nothing
//! of a session is decided here. Every request but health and reflection passes the caller layer.

pub mod budgets;
pub mod caller;
mod converse;
pub mod convert;
pub mod cursor;
pub mod health;
pub mod loops;
pub mod overview;
mod page;
pub mod serve;
pub mod session_log;
pub mod status;
pub mod tools;
pub mod watch;
pub mod wire;

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use loopwright_log::Log;
use loopwright_proto::v1::{
    budget_service_server::BudgetServiceServer,
    loop_service_server::LoopServiceServer,
    session_log_service_server::SessionLogServiceServer,
    tool_service_server::{ToolService, ToolServiceServer},
};
use tonic::{codec::CompressionEncoding, service::Routes};
use tonic_web::GrpcWebLayer;
use tower::ServiceExt as _;
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::{
    config::Config, drain::DrainSignal, driver::Drivers, effects::model::Models, index::Index,
    ledger::Ledgers, redaction::Fields, sidecars::Sidecars,
};
use budgets::Budgets;
use caller::{CallerLayer, Gate};
use health::Health;
use loops::Loops;
use overview::Overview;
use session_log::{SessionLogs, Transfers};
use watch::{Seats, Watching};

/// What handlers work with; cheap to clone.
#[derive(Clone)]
pub struct ServiceState {
    /// The configuration.
    pub config: Arc<Config>,
    /// The log.
    pub log: Arc<dyn Log>,
    /// Takes commands.
    pub drivers: Arc<Drivers>,
    /// Says which models there are.
    pub models: Arc<Models>,
    /// Says which tools there are.
    pub sidecars: Arc<Sidecars>,
    /// Budgets that sessions share.
    pub ledgers: Arc<Ledgers>,
    /// Sessions in short.
    pub index: Arc<Index>,
    /// What of tools' arguments is not shown.
    pub fields: Fields,
    /// What all dashboards share.
    pub overview: Arc<Overview>,
    /// Room for watchers.
    pub seats: Arc<Seats>,
    /// Room for copies, exports and imports of sessions.
    pub transfers: Arc<Transfers>,
    /// Says when to say goodbye.
    pub drain: DrainSignal,
}

/// What the libraries for browsers (connect-web, grpc-web) send.
const REQUEST_HEADERS: [&str; 10] = [
    "authorization",
    "connect-protocol-version",
    "connect-timeout-ms",
    "content-type",
    "grpc-timeout",
    "traceparent",
    "tracestate",
    "x-grpc-web",
    "x-user-agent",
    "x-request-id",
];
/// What they must be let read.
const RESPONSE_HEADERS: [&str; 3] = ["grpc-message", "grpc-status", "grpc-status-details-bin"];
/// How long a browser may go by what it was told of an origin.
const PREFLIGHT_AGE: Duration = Duration::from_secs(2 * 60 * 60);

/// The text of `/metrics`, made when it is asked for.
pub type MetricsText = Arc<dyn Fn() -> String + Send + Sync>;

impl ServiceState {
    /// What watching takes.
    #[must_use]
    pub fn watching(&self) -> Watching {
        Watching {
            log: Arc::clone(&self.log),
            index: Arc::clone(&self.index),
            seats: Arc::clone(&self.seats),
            fields: self.fields.clone(),
            drain: self.drain.clone(),
        }
    }
}

/// Everything on the one port.
pub fn router(
    state: &ServiceState,
    tools: impl ToolService,
    gate: Gate,
    health: &Health,
    metrics: MetricsText,
) -> Router {
    let server = &state.config.server;
    let limit = server.limits.max_message_bytes.as_usize();
    let grpc = services(state, tools, health, limit)
        .fallback(no_such_rpc)
        .layer(CallerLayer::new(gate))
        // It answers 400 to whatever is not gRPC over HTTP/1, so it stands around gRPC alone.
        .layer(GrpcWebLayer::new())
        .layer(cors(&server.cors_origins))
        .with_state(());
    Router::new()
        .route(
            "/metrics",
            get(move || async move { metrics_response(&metrics) }),
        )
        .fallback(move |request: Request| other(grpc, request))
}

fn services(
    state: &ServiceState,
    tools: impl ToolService,
    health: &Health,
    limit: usize,
) -> Router {
    let gzip = CompressionEncoding::Gzip;
    let loops = LoopServiceServer::new(Loops(state.clone()))
        .accept_compressed(gzip)
        .max_decoding_message_size(limit);
    let logs = SessionLogServiceServer::new(SessionLogs(state.clone()))
        .accept_compressed(gzip)
        .max_decoding_message_size(limit);
    let tools = ToolServiceServer::new(tools)
        .accept_compressed(gzip)
        .max_decoding_message_size(limit);
    let budgets = BudgetServiceServer::new(Budgets(state.clone()))
        .accept_compressed(gzip)
        .max_decoding_message_size(limit);
    let mut routes = Routes::new(loops).add_service(logs).add_service(tools);
    routes = routes.add_service(budgets);
    routes = routes.add_service(health.service());
    if state.config.server.reflection {
        routes = health::with_reflection(routes);
    }
    let [watch, overview, converse, read] = std::array::from_fn(|_| state.clone());
    routes
        .into_axum_router()
        .merge(wire::server_stream(
            "/loopwright.v1.LoopService/WatchLoop",
            limit,
            move |request| loops::watch_loop(watch.clone(), request),
        ))
        .merge(wire::server_stream(
            "/loopwright.v1.LoopService/WatchLoops",
            limit,
            move |request| loops::watch_loops(overview.clone(), request),
        ))
        .merge(wire::both_ways(
            "/loopwright.v1.LoopService/Converse",
            limit,
            move |request| converse::converse(converse.clone(), request),
        ))
        .merge(wire::server_stream(
            "/loopwright.v1.SessionLogService/ReadEntries",
            limit,
            move |request| session_log::read_entries(read.clone(), request),
        ))
}

/// Whatever is not a page of its own: gRPC in one of its forms, or nothing.
async fn other(grpc: Router, request: Request) -> Response {
    let kind = request.headers().get(header::CONTENT_TYPE);
    let is_grpc = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    let asks = request
        .headers()
        .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let is_preflight = request.method() == Method::OPTIONS && asks;
    if is_grpc || is_preflight {
        let Ok(response) = grpc.oneshot(request).await;
        return response;
    }
    let text =
        "There is no such page. This port speaks gRPC and gRPC-Web; GET /metrics is plain.\n";
    (StatusCode::NOT_FOUND, text).into_response()
}

async fn no_such_rpc(request: Request) -> Response {
    status::unimplemented(request.uri().path())
        .into_http::<tonic::body::Body>()
        .map(Body::new)
}

fn metrics_response(metrics: &MetricsText) -> Response {
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], metrics()).into_response()
}

/// Which web pages may call (`server.cors_origins`): none, these, or with `*` any.
fn cors(origins: &[String]) -> CorsLayer {
    let origin = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(
            origins
                .iter()
                .filter_map(|origin| HeaderValue::from_str(origin).ok()),
        )
    };
    CorsLayer::new()
        .allow_origin(origin)
        .allow_methods([Method::POST])
        .allow_headers(REQUEST_HEADERS.map(HeaderName::from_static))
        .expose_headers(RESPONSE_HEADERS.map(HeaderName::from_static))
        .max_age(PREFLIGHT_AGE)
}
