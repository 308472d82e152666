//! A server that is killed in the middle of a loop: the next one goes on, and nobody misses a thing.

use anyhow::{Context as _, Result, bail};
use loopwright_client::{Client, ClientOptions, WatchEvent};
use loopwright_proto::v1::{
    Agent, EndReason, Entry, StartLoopRequest, event::Kind, start_loop_request::Input,
};
use loopwright_tests::{
    kit::{self, Server},
    scene,
};

/// Six replies, each slow enough to be interrupted; the tool does not exist, which is an answer too.
fn script() -> String {
    let mut turns = String::from("turns:\n");
    for n in 0..5 {
        turns.push_str(&format!(
            "- text: \"step {n} of the work\"\n  chunk: {{ chars: 4, delay_ms: 20 }}\n"
        ));
        turns.push_str("  tool_calls:\n  - tool: none__such\n    arguments: {}\n");
    }
    turns.push_str("- text: \"all done\"\n");
    turns
}

fn serve(script: &str) -> Result<(Server, tempfile::TempDir)> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("script.yaml");
    std::fs::write(&path, script)?;
    let server = kit::Options::default()
        .set("models.slow.provider", "scripted")
        .set("models.slow.script", path.display().to_string())
        .start()?;
    Ok((server, dir))
}

fn request() -> StartLoopRequest {
    StartLoopRequest {
        agent: Some(Agent {
            model: "slow".to_owned(),
            ..Agent::default()
        }),
        input: Some(Input::Text("work".to_owned())),
        ..StartLoopRequest::default()
    }
}

fn is_end(entry: &Entry) -> Option<EndReason> {
    entry.events.iter().find_map(|event| match &event.kind {
        Some(Kind::LoopEnded(ended)) => Some(ended.reason()),
        _ => None,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_loop_goes_on_by_itself_and_its_watcher_sees_every_entry_once() -> Result<()> {
    let (mut server, _dir) = serve(&script())?;
    let client = Client::connect(ClientOptions::at(&server.url))?;
    let started = client.start_loop(request()).await?;
    let mut watch = client.watch(&started.session_id, 0);
    let mut seen: Vec<Entry> = Vec::new();
    let mut kills = 0;
    let reason = loop {
        let event = watch.next().await.context("the watch goes on")??;
        match event {
            WatchEvent::Entry(entry) => {
                let end = is_end(&entry);
                seen.push(entry);
                if let Some(reason) = end {
                    break reason;
                }
            }
            // In the middle of a reply: the worst moment.
            WatchEvent::Delta(delta) if kills < 3 && delta.offset > 8 => {
                kills += 1;
                server.kill()?;
                server.restart()?;
            }
            _ => {}
        }
    };
    assert_eq!(reason, EndReason::Completed);
    assert_eq!(kills, 3);
    let log = scene::log(&client, &started.session_id).await?;
    assert_eq!(seen, log);
    let epochs: Vec<u64> = attached(&log).collect();
    assert_eq!(
        epochs,
        [1, 2, 3, 4],
        "one attach for each start, and no more"
    );
    Ok(())
}

fn attached(log: &[Entry]) -> impl Iterator<Item = u64> {
    log.iter()
        .flat_map(|entry| &entry.events)
        .filter_map(|event| match &event.kind {
            Some(Kind::DriverAttached(attached)) => Some(attached.epoch),
            _ => None,
        })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orderly_end_leaves_nothing_to_recover_and_the_loop_goes_on() -> Result<()> {
    let (mut server, _dir) = serve(&script())?;
    let client = Client::connect(ClientOptions::at(&server.url))?;
    let started = client.start_loop(request()).await?;
    let mut watch = client.watch(&started.session_id, 0);
    loop {
        if let WatchEvent::Delta(_) = watch.next().await.context("the watch goes on")?? {
            break;
        }
    }
    let code = server.terminate()?;
    assert_eq!(code, 0, "{}", server.stderr());
    server.restart()?;
    loop {
        let event = watch.next().await.context("the watch goes on")??;
        let WatchEvent::Entry(entry) = event else {
            continue;
        };
        match is_end(&entry) {
            Some(EndReason::Completed) => return Ok(()),
            Some(other) => bail!("ended as {other:?}"),
            None => {}
        }
    }
}
