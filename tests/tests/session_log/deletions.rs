use anyhow::{Result, ensure};
use loopwright_client::{Error, WatchEvent};
use loopwright_proto::v1::{DeleteSessionRequest, EndReason, StartLoopRequest};
use loopwright_tests::scene::{self, Stage, ask, refusal};

use super::stage::{Recorded, goes_on, listed};

fn delete(request_id: &str, session: &str) -> DeleteSessionRequest {
    DeleteSessionRequest {
        request_id: request_id.to_owned(),
        session_id: session.to_owned(),
    }
}

#[tokio::test]
async fn what_was_deleted_stays_deleted_and_its_id_is_free() -> Result<()> {
    let mut recorded = Recorded::new().await?;
    let folder = recorded.scene.server.dir().join("log/default/session/s1");
    let filed = || std::future::ready(Ok(folder.exists()));
    scene::eventually("its file is written", filed).await?;
    let mut watch = recorded.scene.client.watch("s1", 0);
    while !matches!(watch.next().await, Some(Ok(WatchEvent::Heartbeat { .. }))) {}
    recorded
        .scene
        .client
        .delete_session(delete("r1", "s1"))
        .await?;
    recorded.crash().await?;
    loop {
        match watch.next().await {
            Some(Err(Error::SessionDeleted { .. })) => break,
            Some(Ok(_)) => {}
            other => anyhow::bail!("the watcher was not told: {other:?}"),
        }
    }
    let client = &recorded.scene.client;
    ensure!(listed(client).await?.is_empty() && !folder.exists());
    client.delete_session(delete("r1", "s1")).await?;
    let gone = refusal(client.delete_session(delete("r2", "s1")).await)?;
    ensure!(gone.reason == "SESSION_NOT_FOUND", "{gone:?}");
    ensure!(goes_on(client, "s1").await? == EndReason::Completed);
    recorded.crash().await?;
    let client = &recorded.scene.client;
    let entries = scene::log(client, "s1").await?;
    ensure!(entries[0].seq == 1 && entries[0].committed_at != recorded.entries[0].committed_at);
    client.delete_session(delete("r1", "s1")).await?;
    ensure!(
        listed(client).await? == ["s1"],
        "the new one is not what r1 deleted"
    );
    let asked = recorded.said(&["log", "rm", "s1"])?;
    ensure!(
        asked.status.code() == Some(2),
        "nobody can be asked: {asked:?}"
    );
    recorded.answer(&["log", "rm", "s1", "--yes"])?;
    ensure!(listed(&recorded.scene.client).await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_session_with_a_running_loop_is_not_deleted() -> Result<()> {
    let slow = "- {text: never, delay_ms: 3600000}\n";
    let scene = Stage::new(&[("m", slow)])?.start()?;
    let request = StartLoopRequest {
        session_id: "s1".to_owned(),
        ..ask("m")
    };
    scene.client.start_loop(request).await?;
    let refused = refusal(scene.client.delete_session(delete("", "s1")).await)?;
    ensure!(refused.reason == "LOOP_RUNNING", "{refused:?}");
    scene
        .client
        .cancel_loop(loopwright_proto::v1::CancelLoopRequest {
            session_id: "s1".to_owned(),
            ..Default::default()
        })
        .await?;
    scene::to_end(&scene.client, "s1", "").await?;
    scene.client.delete_session(delete("", "s1")).await?;
    ensure!(listed(&scene.client).await?.is_empty());
    Ok(())
}
