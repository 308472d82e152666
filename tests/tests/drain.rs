//! SIGTERM: the server is gone within ten seconds, in order, whatever hangs on it.

use std::{
    net::TcpStream,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use loopwright_client::{Client, ClientOptions, WatchEvent};
use loopwright_proto::v1::{
    Agent, EndReason, StartLoopRequest, event::Kind, start_loop_request::Input,
};
use loopwright_tests::kit::{self, Server, Sidecar};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

/// As Kubernetes and people count.
const WITHIN: Duration = Duration::from_secs(10);

const SCRIPT: &str = "turns:
- tool_calls:
  - tool: files__append_line
    arguments: { path: journal.txt, line: shipped }
- text: done
";

fn serve(dir: &tempfile::TempDir) -> Result<Server> {
    let script = dir.path().join("script.yaml");
    std::fs::write(&script, SCRIPT)?;
    kit::Options::default()
        .set("models.m.provider", "scripted")
        .set("models.m.script", script.display().to_string())
        .start()
}

/// Starts a loop and waits until its tool call is under way.
async fn until_in_call(client: &Client) -> Result<String> {
    let request = StartLoopRequest {
        agent: Some(Agent {
            model: "m".to_owned(),
            ..Agent::default()
        }),
        input: Some(Input::Text("go".to_owned())),
        ..StartLoopRequest::default()
    };
    let session = client.start_loop(request).await?.session_id;
    let mut watch = client.watch(&session, 0);
    loop {
        let event = watch.next().await.context("the watch goes on")??;
        let WatchEvent::Entry(entry) = event else {
            continue;
        };
        let started = |event: &loopwright_proto::v1::Event| {
            matches!(event.kind, Some(Kind::ToolCallStarted(_)))
        };
        if entry.events.iter().any(started) {
            return Ok(session);
        }
    }
}

async fn ended(client: &Client, session: &str) -> Result<EndReason> {
    let mut watch = client.watch(session, 0);
    loop {
        let event = watch.next().await.context("the watch goes on")??;
        let WatchEvent::Entry(entry) = event else {
            continue;
        };
        for event in entry.events {
            if let Some(Kind::LoopEnded(ended)) = event.kind {
                return Ok(ended.reason());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_is_gone_in_time_and_in_order_whatever_hangs() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut server = serve(&dir)?;
    let root = dir.path().display().to_string();
    let slow = ["files", "--root", &root, "--append-delay-ms", "4000"];
    let _sidecar = Sidecar::start(&server, &slow)?;
    let client = Client::connect(ClientOptions::at(&server.url))?;
    kit::wait_for_tools(&client, &["files__append_line"]).await?;
    let session = until_in_call(&client).await?;
    let address = server.url.trim_start_matches("http://").to_owned();
    // A client that says nothing, and one whose stream never ends.
    let _silent = TcpStream::connect(&address)?;
    let channel = tonic::transport::Endpoint::from_shared(server.url.clone())?;
    let mut health = HealthClient::new(channel.connect().await?);
    let mut watched = health
        .watch(HealthCheckRequest::default())
        .await?
        .into_inner();
    watched.message().await?.context("how it is")?;

    let began = Instant::now();
    let (mut server, code) = tokio::task::spawn_blocking(move || {
        let code = server.terminate();
        (server, code)
    })
    .await?;
    let took = began.elapsed();
    let said = server.stderr();
    ensure!(code? == 0, "{said}");
    ensure!(took < WITHIN, "it took {took:?}: {said}");
    ensure!(
        !said.contains("leaving it behind"),
        "the log was not closed: {said}"
    );

    server.restart()?;
    let reason = ended(&client, &session).await?;
    ensure!(reason == EndReason::Completed, "{reason:?}");
    let journal = std::fs::read_to_string(dir.path().join("journal.txt"))?;
    ensure!(journal == "shipped\n", "{journal:?}");
    Ok(())
}
