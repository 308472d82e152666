use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use loopwright_log::{
    Id, JsonlLog, JsonlOptions, Log as _, NewRecord, StreamKey, SyncPolicy, Timestamp,
};
use loopwright_proto::v1::{EndReason, ForkSessionRequest, ImportHead};
use loopwright_tests::scene::{self, Scene, Stage};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::stage::{Recorded, SCRIPT, goes_on, listed, summary};

/// Entries of the session that is copied: enough that a copy takes a while.
const ENTRIES: u64 = 6_000;
/// Kills in mid-copy.
const KILLS: u32 = 6;

/// Makes a session longer than a person would, by detaching and attaching.
async fn lengthen(dir: &Path, session: &str) -> Result<()> {
    let options = JsonlOptions {
        sync: SyncPolicy::Never,
        ..JsonlOptions::new(dir)
    };
    let (log, _) = JsonlLog::open(options)?;
    let key = StreamKey::session(&Id::parse("default")?, &Id::parse(session)?);
    let mut tail = log.tail(&key).await?.context("a session")?;
    let body = r#"{"cause":"detach","events":[{"DriverDetached":{}}]}"#;
    while tail < ENTRIES {
        let record = NewRecord::new(Timestamp::from_unix_ms(tail), 9, body.into());
        tail = log.append(&key, tail, record).await?;
    }
    log.close().await?;
    Ok(())
}

/// A server with the session `s1` of [`ENTRIES`].
async fn long() -> Result<Recorded> {
    let mut recorded = Recorded::new().await?;
    recorded.scene.server.terminate()?;
    lengthen(&recorded.scene.server.dir().join("log"), "s1").await?;
    restart(&mut recorded.scene)?;
    Ok(recorded)
}

fn restart(scene: &mut Scene) -> Result<()> {
    scene.server.restart()?;
    scene.client = scene::client(&scene.server.url, None)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_in_mid_fork_leaves_a_whole_copy_or_none() -> Result<()> {
    let mut recorded = long().await?;
    let scene = &mut recorded.scene;
    let mut cut = 0;
    for kill in 0..KILLS {
        let request = ForkSessionRequest {
            request_id: format!("r{kill}"),
            session_id: "s1".to_owned(),
            new_session_id: format!("f{kill}"),
            ..ForkSessionRequest::default()
        };
        let client = scene.client.clone();
        let asked = request.clone();
        let forking = tokio::spawn(async move { client.fork_session(asked).await });
        // Somewhere in between, wherever that is on this machine.
        tokio::time::sleep(Duration::from_millis(u64::from(10 + 25 * kill))).await;
        scene.server.kill()?;
        let acknowledged = forking.await?.is_ok();
        restart(scene)?;
        let there = listed(&scene.client).await?.contains(&format!("f{kill}"));
        ensure!(there || !acknowledged, "an acknowledged fork is lost");
        let folder = format!("log/default/session/f{kill}");
        let folder = scene.server.dir().join(folder);
        if there {
            let tail = summary(&scene.client, &format!("f{kill}")).await?.tail_seq;
            ensure!(tail == ENTRIES + 1, "{tail}");
        } else {
            cut += 1;
            let gone = || std::future::ready(Ok(!folder.exists()));
            scene::eventually("half a copy is removed", gone).await?;
        }
        let made = scene.client.fork_session(request).await?;
        ensure!(made.tail_seq == ENTRIES + 1, "{made:?}");
    }
    ensure!(cut > 0, "no kill met a fork under way");
    ensure!(goes_on(&scene.client, "f0").await? == EndReason::Completed);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_in_mid_import_leaves_nothing() -> Result<()> {
    let mut recorded = Recorded::new().await?;
    let text = recorded.answer(&["log", "export", "s1"])?;
    let lines: Vec<Vec<u8>> = text
        .split_inclusive('\n')
        .map(|l| l.as_bytes().to_vec())
        .collect();
    let head = |request_id: &str| ImportHead {
        request_id: request_id.to_owned(),
        session_id: "copy".to_owned(),
        allow_cut: false,
    };
    for count in [1, 2, lines.len() - 1, lines.len()] {
        let (send, chunks) = mpsc::channel(lines.len());
        for line in &lines[..count] {
            send.send(line.clone()).await?;
        }
        let client = recorded.scene.client.clone();
        let head_of = head("r1");
        let importing = tokio::spawn(async move {
            client
                .import_session(head_of, ReceiverStream::new(chunks))
                .await
        });
        let file = recorded
            .scene
            .server
            .dir()
            .join("log/default/session/copy/log.jsonl");
        let begun = || std::future::ready(Ok(file.exists()));
        scene::eventually("its first line is filed", begun).await?;
        ensure!(
            listed(&recorded.scene.client).await? == ["s1"],
            "not before it is whole"
        );
        recorded.scene.server.kill()?;
        // The end of the stream never came, so it cannot have been acknowledged.
        drop(send);
        ensure!(importing.await?.is_err());
        recorded.scene.server.restart()?;
        recorded.scene.client = scene::client(&recorded.scene.server.url, None)?;
        ensure!(
            listed(&recorded.scene.client).await? == ["s1"],
            "after {count} lines"
        );
        let folder = recorded.scene.server.dir().join("log/default/session/copy");
        let gone = || std::future::ready(Ok(!folder.exists()));
        scene::eventually("half an import is removed", gone).await?;
    }
    let client = &recorded.scene.client;
    let made = client
        .import_session(head("r1"), tokio_stream::iter(lines))
        .await?;
    ensure!(made.tail_seq == recorded.entries.len() as u64 + 1);
    ensure!(goes_on(client, "copy").await? == EndReason::Completed);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_whose_client_goes_leaves_nothing() -> Result<()> {
    let recorded = Recorded::new().await?;
    let text = recorded.answer(&["log", "export", "s1"])?;
    let other = Stage::new(&[("m", SCRIPT)])?.start()?;
    let lines: Vec<Vec<u8>> = text
        .split_inclusive('\n')
        .map(|l| l.as_bytes().to_vec())
        .collect();
    let (send, chunks) = mpsc::channel(lines.len());
    for line in &lines[..3] {
        send.send(line.clone()).await?;
    }
    let client = other.client.clone();
    let importing = tokio::spawn(async move {
        let head = ImportHead::default();
        client
            .import_session(head, ReceiverStream::new(chunks))
            .await
    });
    let folder = other.server.dir().join("log/default/session/s1");
    scene::eventually("it has begun", || std::future::ready(Ok(folder.exists()))).await?;
    importing.abort();
    drop(send);
    scene::eventually("it is gone", || std::future::ready(Ok(!folder.exists()))).await?;
    let made = other
        .client
        .import_session(ImportHead::default(), tokio_stream::iter(lines))
        .await?;
    ensure!(made.session_id == "s1");
    Ok(())
}
