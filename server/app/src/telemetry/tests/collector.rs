//! The exporter against a real gRPC server that takes what a collector takes.

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use http_body_util::{BodyExt, Full};
use tokio::sync::mpsc;
use tokio_stream::wrappers::TcpListenerStream;

use super::*;

const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// Keeps the request and answers with an empty message, as a collector does.
async fn take(State(taken): State<mpsc::UnboundedSender<Vec<u8>>>, body: Body) -> Response {
    let request = body.collect().await.unwrap().to_bytes();
    taken.send(request.to_vec()).unwrap();
    let trailers = async { Some(Ok(http::HeaderMap::from_iter([status_ok()]))) };
    let message = Full::new(bytes::Bytes::from_static(&[0; 5])).with_trailers(trailers);
    Response::builder()
        .header("content-type", "application/grpc")
        .body(Body::new(message))
        .unwrap()
}

fn status_ok() -> (http::HeaderName, http::HeaderValue) {
    (
        http::HeaderName::from_static("grpc-status"),
        http::HeaderValue::from_static("0"),
    )
}

#[tokio::test]
async fn the_last_spans_reach_the_collector_at_shutdown() {
    let (taken, mut requests) = mpsc::unbounded_channel();
    let router = axum::Router::new()
        .route(EXPORT, post(take))
        .with_state(taken);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let server = tonic::transport::Server::builder()
        .add_routes(router.into())
        .serve_with_incoming(TcpListenerStream::new(listener));
    let server = tokio::spawn(server);

    let exporter = exporter(&endpoint).unwrap();
    let provider = provider("the-service", |builder| {
        builder.with_batch_exporter(exporter)
    });
    let (telemetry, layer) = traced(Some(&provider), "the-service");
    let layers: Vec<BoxedLayer> = layer.into_iter().collect();
    let guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(layers));
    drop(model_call(&telemetry, Some(CALLER)));
    drop(guard);
    TelemetryGuard {
        provider: Some(provider),
    }
    .shutdown(Duration::from_secs(10))
    .await;

    let request = requests.try_recv().unwrap();
    let holds = |text: &str| {
        request
            .windows(text.len())
            .any(|window| window == text.as_bytes())
    };
    assert!(holds("chat m-1") && holds("the-service") && holds("gen_ai.provider.name"));
    server.abort();
}

#[test]
fn outside_a_runtime_the_exporter_is_refused_rather_than_a_panic() {
    let error = exporter("http://127.0.0.1:4317").unwrap_err();
    assert_eq!(error, "can be set up only within the runtime");
}
