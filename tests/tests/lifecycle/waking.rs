//! What comes later: a message to a session that nobody drives, tools after a restart, a watcher in
//! mid-call.

use anyhow::{Context as _, Result, ensure};
use loopwright_client::WatchEvent;
use loopwright_proto::v1::{
    SendMessageRequest, WatchLoopRequest, delta::Content, event::Kind,
    loop_service_client::LoopServiceClient, send_message_request::Input, watch_loop_response::Item,
};
use loopwright_tests::{
    kit::{self, Server},
    probe::Probe,
    scene::{PATIENCE, Stage, ask, end_of, eventually, has, kinds, to_end},
};

const TWO: &str = "- {text: first}\n- {text: second}\n";
const NOTE: &str = "- {tool_calls: [{tool: probe__note}]}\n- {text: \"it said {{last_result}}\"}\n";

fn epochs(entries: &[loopwright_proto::v1::Entry]) -> Vec<u64> {
    let attached = kinds(entries).filter_map(|kind| match kind {
        Kind::DriverAttached(attached) => Some(attached.epoch),
        _ => None,
    });
    attached.collect()
}

#[tokio::test]
async fn a_session_that_nobody_drives_wakes_for_a_message() -> Result<()> {
    let scene = Stage::new(&[("two", TWO)])?.start()?;
    let started = scene.client.start_loop(ask("two")).await?;
    let session = started.session_id;
    let entries = to_end(&scene.client, &session, "").await?;
    assert_eq!(end_of(&entries)?.result_text, "first");
    let tail = entries.len();
    eventually("the driver lets go", || async {
        Ok(scene.gauge("loopwright_drivers").await? == 0.0)
    })
    .await?;
    let message = SendMessageRequest {
        session_id: session.clone(),
        input: Some(Input::Text("go on".to_owned())),
        ..SendMessageRequest::default()
    };
    let sent = scene.client.send_message(message).await?;
    let entries = to_end(&scene.client, &session, &sent.loop_id).await?;
    // The model's second reply: the conversation was there.
    assert_eq!(end_of(&entries)?.result_text, "second");
    assert_eq!(epochs(&entries), [1, 2], "it did let go, without a word");
    assert!(entries.len() > tail);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_is_there_after_a_restart_without_registering_again() -> Result<()> {
    let mut scene = Stage::new(&[("note", NOTE)])?.start()?;
    let probe = Probe::serve().await?;
    kit::register(&scene.server.url, "probe", &probe.endpoint).await?;
    kit::wait_for_tools(&scene.client, &["probe__note"]).await?;
    let orderly: fn(&mut Server) -> Result<()> = |server| server.terminate().map(drop);
    for end in [Server::kill, orderly] {
        tokio::task::block_in_place(|| end(&mut scene.server))?;
        scene.server.restart()?;
        kit::wait_for_tools(&scene.client, &["probe__note"]).await?;
        let entries = scene.run(ask("note")).await?;
        assert_eq!(end_of(&entries)?.result_text, "it said note 1");
    }
    assert_eq!(probe.counts().came, 2);
    Ok(())
}

#[tokio::test]
async fn a_late_watcher_begins_with_the_text_so_far() -> Result<()> {
    tokio::time::timeout(PATIENCE, watch_late()).await?
}

async fn watch_late() -> Result<()> {
    let text: String = (0..400).map(|n| format!("{n:03} ")).collect();
    let script = format!("- {{text: {text:?}, chunk: {{chars: 4, delay_ms: 10}}}}\n");
    let scene = Stage::new(&[("slow", &script)])?.start()?;
    let started = scene.client.start_loop(ask("slow")).await?;
    let mut early = scene.client.watch(&started.session_id, 0);
    let enough = 200;
    loop {
        let event = early.next().await.context("the watch goes on")??;
        if matches!(event, WatchEvent::Delta(delta) if delta.offset >= enough) {
            break;
        }
    }
    let mut loops = LoopServiceClient::connect(scene.server.url.clone()).await?;
    let request = WatchLoopRequest {
        session_id: started.session_id,
        deltas: true,
        ..WatchLoopRequest::default()
    };
    let mut late = loops.watch_loop(request).await?.into_inner();
    let (mut shown, mut deltas) = (String::new(), 0);
    loop {
        match late.message().await?.context("the watch goes on")?.item {
            Some(Item::Delta(delta)) => {
                ensure!(delta.offset == shown.len() as u64, "a gap: {delta:?}");
                let Some(Content::Text(piece)) = delta.content else {
                    anyhow::bail!("{:?}", delta.content)
                };
                ensure!(
                    deltas > 0 || piece.len() as u64 >= enough,
                    "the text so far came in pieces: {piece:?}"
                );
                deltas += 1;
                shown.push_str(&piece);
            }
            Some(Item::Goodbye(_)) | None => anyhow::bail!("the watch ended after {shown:?}"),
            // The last words come in the fact alone.
            Some(Item::Entry(entry)) if has(&entry, |k| matches!(k, Kind::LoopEnded(_))) => break,
            Some(Item::Entry(_) | Item::Heartbeat(_)) => {}
        }
    }
    assert!(text.starts_with(&shown), "{shown:?}");
    assert!(deltas > 1, "it was to be watched live after that");
    Ok(())
}
