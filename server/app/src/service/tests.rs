//! The router on a real port: every protocol that it speaks, and how it stops.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use loopwright_proto::v1::{
    self, loop_service_client::LoopServiceClient,
    session_log_service_client::SessionLogServiceClient, watch_loop_response::Item,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, timeout},
};
use tonic::{Code, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use super::{
    caller::Gate,
    fixture,
    health::Health,
    router,
    serve::{Http2Settings, serve},
    tools::Tools,
};
use crate::drain::Drain;

const QUICK: &str = "at_end: repeat\nturns:\n- text: one\n";
const GRACE: Duration = Duration::from_millis(500);

struct Server {
    addr: SocketAddr,
    drain: Drain,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

impl Server {
    async fn start() -> Self {
        let (mut state, drain) = fixture::state(QUICK);
        let mut config = (*state.config).clone();
        config.server.cors_origins = vec!["https://app.example".into()];
        state.config = Arc::new(config);
        let health = Health::serving().await;
        let tools = Tools::new(Arc::clone(&state.sidecars));
        let metrics = Arc::new(|| "loopwright_up 1\n".to_owned());
        let router = router(&state, tools, Gate::new(None), &health, metrics);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let settings = Http2Settings {
            max_concurrent_streams: 100,
            keepalive_interval: Duration::from_secs(30),
        };
        let stopped = async move {
            stopped.await.unwrap();
            health.not_serving().await;
        };
        let serving = tokio::spawn(serve(listener, router, settings, stopped, GRACE));
        Self {
            addr,
            drain,
            stop,
            serving,
        }
    }

    async fn channel(&self) -> Channel {
        let endpoint = Channel::from_shared(format!("http://{}", self.addr)).unwrap();
        endpoint.connect().await.unwrap()
    }

    /// One HTTP/1.1 exchange, as text.
    async fn http(&self, head: &str, body: &[u8]) -> String {
        let mut socket = TcpStream::connect(self.addr).await.unwrap();
        let length = body.len();
        let head =
            format!("{head}\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
        socket.write_all(head.as_bytes()).await.unwrap();
        socket.write_all(body).await.unwrap();
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }
}

fn start() -> v1::StartLoopRequest {
    v1::StartLoopRequest {
        request_id: "r1".into(),
        session_id: "s1".into(),
        agent: Some(v1::Agent {
            model: "m".into(),
            ..Default::default()
        }),
        input: Some(v1::start_loop_request::Input::Text("go".into())),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_stock_client_starts_a_loop_watches_it_and_reads_its_log() {
    let server = Server::start().await;
    let mut loops = LoopServiceClient::new(server.channel().await);
    let started = loops.start_loop(start()).await.unwrap().into_inner();
    assert_eq!(
        (started.session_id.as_str(), started.loop_id.as_str()),
        ("s1", "l1")
    );
    let watch = v1::WatchLoopRequest {
        session_id: "s1".into(),
        loop_id: "l1".into(),
        ..Default::default()
    };
    let mut items = loops.watch_loop(watch).await.unwrap().into_inner();
    let mut seqs = Vec::new();
    while let Some(item) = items.message().await.unwrap() {
        if let Some(Item::Entry(entry)) = item.item {
            seqs.push(entry.seq);
        }
    }
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());

    let mut logs = SessionLogServiceClient::new(server.channel().await);
    let request = v1::ReadEntriesRequest {
        session_id: "s1".into(),
        ..Default::default()
    };
    let read = logs.read_entries(request).await.unwrap().into_inner();
    assert_eq!(
        read.count().await,
        seqs.len() + 1,
        "every entry and a heartbeat"
    );

    let attach = v1::ConverseAttach {
        session_id: "s1".into(),
        ..Default::default()
    };
    let command = Some(v1::converse_request::Command::Attach(attach));
    let up = tokio_stream::iter([v1::ConverseRequest { command }]);
    let mut down = loops.converse(up).await.unwrap().into_inner();
    let first = down.message().await.unwrap().unwrap().item.unwrap();
    assert!(matches!(first, v1::converse_response::Item::Reply(reply) if reply.session_id == "s1"));

    let missing = v1::WatchLoopRequest {
        session_id: "s9".into(),
        ..Default::default()
    };
    let refused = loops.watch_loop(missing).await.unwrap_err();
    let reason = tonic_types::StatusExt::get_details_error_info(&refused)
        .unwrap()
        .reason;
    assert_eq!(
        (refused.code(), reason.as_str()),
        (Code::NotFound, "SESSION_NOT_FOUND")
    );
}

#[tokio::test]
async fn health_is_told_as_a_whole_and_by_service() {
    let server = Server::start().await;
    let mut health = HealthClient::new(server.channel().await);
    for service in ["", "loopwright.v1.LoopService", "loopwright.v1.ToolService"] {
        let request = HealthCheckRequest {
            service: service.into(),
        };
        assert_eq!(
            health.check(request).await.unwrap().into_inner().status,
            1,
            "{service}"
        );
    }
    let unknown = HealthCheckRequest {
        service: "nobody".into(),
    };
    assert_eq!(
        health.check(unknown).await.unwrap_err().code(),
        Code::NotFound
    );
}

#[tokio::test]
async fn reflection_lists_what_is_served() {
    let server = Server::start().await;
    let mut reflection = ServerReflectionClient::new(server.channel().await);
    let list = Some(MessageRequest::ListServices(String::new()));
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: list,
    };
    let answers = reflection
        .server_reflection_info(tokio_stream::iter([request]))
        .await
        .unwrap();
    let answer = answers
        .into_inner()
        .message()
        .await
        .unwrap()
        .unwrap()
        .message_response;
    let Some(MessageResponse::ListServicesResponse(listed)) = answer else {
        panic!("{answer:?}")
    };
    let mut names: Vec<_> = listed.service.into_iter().map(|one| one.name).collect();
    names.sort();
    let expected = [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "loopwright.v1.LoopService",
        "loopwright.v1.SessionLogService",
        "loopwright.v1.ToolService",
    ];
    assert_eq!(names, expected, "what sidecars serve is not served here");
}

#[tokio::test]
async fn a_browser_calls_over_http_1() {
    let server = Server::start().await;
    let call = "POST /loopwright.v1.SessionLogService/ListSessions HTTP/1.1\r\n\
                content-type: application/grpc-web+proto\r\norigin: https://app.example";
    let answer = server.http(call, &[0, 0, 0, 0, 0]).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(
        answer.contains("access-control-allow-origin: https://app.example"),
        "{answer}"
    );
    let exposed = "access-control-expose-headers: grpc-message,grpc-status,grpc-status-details-bin";
    assert!(answer.contains(exposed), "{answer}");
    assert!(
        answer.contains("grpc-status:0"),
        "the trailers are the body's last frame: {answer}"
    );

    let preflight = "OPTIONS /loopwright.v1.LoopService/StartLoop HTTP/1.1\r\n\
                     origin: https://app.example\r\naccess-control-request-method: POST\r\n\
                     access-control-request-headers: x-grpc-web,content-type";
    let answer = server.http(preflight, b"").await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("x-grpc-web"),
        "{answer}"
    );
    let other = preflight.replace("app.example", "evil.example");
    let answer = server.http(&other, b"").await;
    assert!(!answer.contains("access-control-allow-origin"), "{answer}");
}

#[tokio::test]
async fn what_is_not_there_is_said_in_the_callers_own_protocol() {
    let server = Server::start().await;
    let rpc = "POST /no.Such/Rpc HTTP/1.1\r\ncontent-type: application/grpc-web+proto";
    let answer = server.http(rpc, &[0, 0, 0, 0, 0]).await;
    assert!(answer.contains("grpc-status: 12"), "{answer}");
    let odd =
        "POST /loopwright.v1.LoopService/Nope HTTP/1.1\r\ncontent-type: application/grpc-web+proto";
    assert!(
        server
            .http(odd, &[0, 0, 0, 0, 0])
            .await
            .contains("grpc-status: 12")
    );
    let page = server.http("GET /index.html HTTP/1.1", b"").await;
    assert!(
        page.starts_with("HTTP/1.1 404") && page.contains("speaks gRPC"),
        "{page}"
    );
    let metrics = server.http("GET /metrics HTTP/1.1", b"").await;
    assert!(
        metrics.starts_with("HTTP/1.1 200") && metrics.contains("loopwright_up 1"),
        "{metrics}"
    );
}

#[tokio::test]
async fn a_stop_says_goodbye_and_is_over_within_the_grace_whatever_hangs() {
    let server = Server::start().await;
    let mut loops = LoopServiceClient::new(server.channel().await);
    loops.start_loop(start()).await.unwrap();
    let watch = v1::WatchLoopRequest {
        session_id: "s1".into(),
        ..Default::default()
    };
    let mut items = loops.watch_loop(watch).await.unwrap().into_inner();
    let mut health = HealthClient::new(server.channel().await);
    // Its client never ends it: this is what hangs.
    let mut watched = health
        .watch(HealthCheckRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(watched.message().await.unwrap().unwrap().status, 1);

    let began = Instant::now();
    server.drain.begin();
    server.stop.send(()).unwrap();
    assert_eq!(
        watched.message().await.unwrap().unwrap().status,
        2,
        "not serving"
    );
    let mut last = None;
    while let Some(item) = items.message().await.unwrap() {
        last = item.item;
    }
    assert!(
        matches!(last, Some(Item::Goodbye(goodbye)) if goodbye.cursor > 0),
        "{last:?}"
    );
    timeout(GRACE * 4, server.serving).await.unwrap().unwrap();
    assert!(
        began.elapsed() >= GRACE,
        "the one that hangs was waited for, and no longer"
    );
    assert!(TcpStream::connect(server.addr).await.is_err());
}
