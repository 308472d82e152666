//! SIGTERM: not serving, goodbye, exit 0 within ten seconds, whatever hangs.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use loopwright_proto::v1::{
    ConverseAttach, ConverseRequest, ConverseResponse, Entry, Goodbye, GoodbyeReason,
    WatchLoopRequest, WatchLoopResponse, converse_request::Command, converse_response, event::Kind,
    loop_service_client::LoopServiceClient, watch_loop_response::Item,
};
use loopwright_tests::{
    kit::{self, Server},
    probe::Probe,
    scene::{self, Scene, Stage, ask, has, to_end, until},
};
use tokio::{io::AsyncWriteExt as _, net::TcpStream, sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};
use tonic_health::{
    ServingStatus,
    pb::{HealthCheckRequest, HealthCheckResponse, health_client::HealthClient},
};

const WITHIN: Duration = Duration::from_secs(10);
/// What a connection begins with, and empty settings.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const SILENT: &str = "- {text: never, delay_ms: 3600000}\n";
const HOLD: &str = "- {tool_calls: [{tool: probe__hold}]}\n- {text: done}\n";

/// What a client takes without reading, bytes.
const WINDOW: u32 = 65_535;

/// More than the flow control of a client that does not read lets through.
fn long() -> String {
    let text = "word ".repeat(100_000);
    format!("- {{text: {text:?}, usage: {{input: 1, output: 1}}}}\n")
}

/// Everything that may hang at once.
struct Hanging {
    unread: Streaming<WatchLoopResponse>,
    idle: Streaming<ConverseResponse>,
    _up: mpsc::Sender<ConverseRequest>,
    _sockets: Vec<TcpStream>,
}

async fn loops(url: &str) -> Result<LoopServiceClient<Channel>> {
    Ok(LoopServiceClient::connect(url.to_owned()).await?)
}

async fn watch(url: &str, session: &str, after_seq: u64) -> Result<Streaming<WatchLoopResponse>> {
    let request = WatchLoopRequest {
        session_id: session.to_owned(),
        after_seq,
        ..WatchLoopRequest::default()
    };
    Ok(loops(url).await?.watch_loop(request).await?.into_inner())
}

/// A watcher that does not read, with room for little.
async fn unread(url: &str, session: &str) -> Result<Streaming<WatchLoopResponse>> {
    let narrow = Channel::from_shared(url.to_owned())?.initial_stream_window_size(WINDOW);
    let request = WatchLoopRequest {
        session_id: session.to_owned(),
        ..WatchLoopRequest::default()
    };
    let mut loops = LoopServiceClient::new(narrow.connect().await?);
    Ok(loops.watch_loop(request).await?.into_inner())
}

/// A watcher that does not read, an idle conversation, and connections that say no more.
async fn hang(scene: &Scene, idle: &str) -> Result<Hanging> {
    let url = &scene.server.url;
    let unread = unread(url, idle).await?;
    let (up, commands) = mpsc::channel(1);
    let attach = ConverseAttach {
        session_id: idle.to_owned(),
        ..ConverseAttach::default()
    };
    let command = Some(Command::Attach(attach));
    up.send(ConverseRequest { command }).await?;
    let commands = ReceiverStream::new(commands);
    let mut talk = loops(url).await?.converse(commands).await?.into_inner();
    let first = talk.message().await?.context("a reply")?.item;
    ensure!(
        matches!(first, Some(converse_response::Item::Reply(_))),
        "{first:?}"
    );
    let mut sockets = Vec::new();
    for begin in [&b""[..], &PREFACE[..5], PREFACE, b"GET / HTTP/1.1\r\nHo"] {
        let mut socket = TcpStream::connect(url.trim_start_matches("http://")).await?;
        socket.write_all(begin).await?;
        sockets.push(socket);
    }
    Ok(Hanging {
        unread,
        idle: talk,
        _up: up,
        _sockets: sockets,
    })
}

async fn health(url: &str) -> Result<Streaming<HealthCheckResponse>> {
    let mut health = HealthClient::new(Channel::from_shared(url.to_owned())?.connect().await?);
    let request = HealthCheckRequest::default();
    let mut says = health.watch(request).await?.into_inner();
    let now = says.message().await?.context("a first word")?.status();
    ensure!(now as i32 == ServingStatus::Serving as i32, "{now:?}");
    Ok(says)
}

/// Ends the server: its exit code and how long it took. One that does not end is killed.
async fn terminate(server: &mut Server) -> Result<(i32, Duration)> {
    let pid = i32::try_from(server.pid())?;
    let watchdog = tokio::spawn(async move {
        tokio::time::sleep(WITHIN * 2).await;
        if let Some(pid) = rustix::process::Pid::from_raw(pid) {
            // It has ended where this fails.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    });
    let begun = Instant::now();
    let code = tokio::task::block_in_place(|| server.terminate());
    watchdog.abort();
    Ok((code?, begun.elapsed()))
}

/// The goodbye that a stream ends with.
async fn goodbye(mut stream: Streaming<WatchLoopResponse>) -> Result<Goodbye> {
    let mut last = None;
    while let Some(next) = stream.message().await? {
        last = next.item;
    }
    match last {
        Some(Item::Goodbye(goodbye)) => Ok(goodbye),
        other => anyhow::bail!("the watch ended with {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_in_ten_seconds_whatever_hangs_and_a_restart_resumes() -> Result<()> {
    let models = [("silent", SILENT), ("hold", HOLD), ("long", &long())];
    let mut scene = Stage::new(&models)?.start()?;
    let probe = Probe::serve().await?;
    kit::register(&scene.server.url, "probe", &probe.endpoint).await?;
    kit::wait_for_tools(&scene.client, &["probe__hold"]).await?;
    let idle = scene.client.start_loop(ask("long")).await?;
    to_end(&scene.client, &idle.session_id, "").await?;
    let silent = scene.client.start_loop(ask("silent")).await?;
    let held = scene.client.start_loop(ask("hold")).await?;
    probe.until(|counts| counts.running == 1).await?;
    let tail = scene::log(&scene.client, &silent.session_id).await?.len() as u64;

    let mut says = health(&scene.server.url).await?;
    let open = watch(&scene.server.url, &silent.session_id, 0).await?;
    let mut hanging = hang(&scene, &idle.session_id).await?;
    let told = tokio::spawn(goodbye(open));
    let (code, took) = terminate(&mut scene.server).await?;
    assert_eq!(code, 0, "{}", scene.server.stderr());
    assert!(took < WITHIN, "{took:?}");

    let now = says.message().await?.context("a second word")?.status();
    assert_eq!(now as i32, ServingStatus::NotServing as i32);
    let goodbye = told.await??;
    assert_eq!(goodbye.reason(), GoodbyeReason::Draining);
    assert_eq!(goodbye.cursor, tail);
    let mut last = None;
    while let Ok(Ok(Some(next))) = timeout(WITHIN, hanging.idle.message()).await {
        last = next.item;
    }
    assert!(
        matches!(last, Some(converse_response::Item::Goodbye(_))),
        "{last:?}"
    );
    // It did hang: what was not read was cut.
    let cut = loop {
        match hanging.unread.message().await {
            Ok(Some(_)) => {}
            end => break end.is_err(),
        }
    };
    assert!(cut, "all of it came");

    scene.server.restart()?;
    resumed(&scene, &silent.session_id).await?;
    probe.until(|counts| counts.came == 2).await?;
    probe.let_go(1);
    let entries = to_end(&scene.client, &held.session_id, "").await?;
    let attempts: Vec<u32> = probe.calls().iter().map(|call| call.attempt).collect();
    assert_eq!(attempts, [1, 2], "{entries:#?}");
    Ok(())
}

/// The first driver let go in order, and the second one calls the model again.
async fn resumed(scene: &Scene, session: &str) -> Result<()> {
    let again = |entry: &Entry| {
        has(
            entry,
            |k| matches!(k, Kind::ModelCallStarted(s) if s.attempt == 2),
        )
    };
    let entries = until(&scene.client, session, again).await?;
    let epochs: Vec<(char, u64)> = scene::kinds(&entries)
        .filter_map(|kind| match kind {
            Kind::DriverAttached(attached) => Some(('+', attached.epoch)),
            Kind::DriverDetached(detached) => Some(('-', detached.epoch)),
            _ => None,
        })
        .collect();
    ensure!(epochs == [('+', 1), ('-', 1), ('+', 2)], "{epochs:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_nothing_that_hangs_does_not_wait() -> Result<()> {
    let models = [("silent", SILENT), ("quick", "- {text: done}\n")];
    let mut scene = Stage::new(&models)?.start()?;
    let running = scene.client.start_loop(ask("silent")).await?;
    let idle = scene.client.start_loop(ask("quick")).await?;
    to_end(&scene.client, &idle.session_id, "").await?;
    let mut told = Vec::new();
    for session in [&running.session_id, &idle.session_id] {
        let open = watch(&scene.server.url, session, 0).await?;
        told.push(tokio::spawn(goodbye(open)));
    }
    let (code, took) = terminate(&mut scene.server).await?;
    assert_eq!(code, 0, "{}", scene.server.stderr());
    // Half of server.shutdown_grace: neither the model call nor a watch is waited for.
    assert!(took < Duration::from_secs(4), "{took:?}");
    for told in told {
        told.await??;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_log_has_failed_says_that_it_does_not_serve_and_exits() -> Result<()> {
    let mut scene = Stage::new(&[("m", "turns:\n- {text: one}\n")])?.start()?;
    let mut says = health(&scene.server.url).await?;
    // Whoever else writes to the journal ends the log for good, as a sync that fails does.
    for segment in std::fs::read_dir(scene.server.dir().join("log/journal"))? {
        let mut segment = std::fs::OpenOptions::new()
            .append(true)
            .open(segment?.path())?;
        std::io::Write::write_all(&mut segment, b"nobody's\n")?;
    }
    ensure!(
        scene.client.start_loop(ask("m")).await.is_err(),
        "acknowledged"
    );
    let mut last = None;
    while let Ok(Some(now)) = timeout(WITHIN, says.message()).await? {
        last = Some(now.status() as i32);
    }
    let port = scene.server.url.trim_start_matches("http://");
    let is_closed = TcpStream::connect(port).await.is_err();
    ensure!(
        last == Some(ServingStatus::NotServing as i32) || is_closed,
        "it says that it serves: {last:?}"
    );
    // It ends by itself; who asks for it only waits.
    let (code, _) = terminate(&mut scene.server).await?;
    ensure!(code == 1, "{code}");
    Ok(())
}
