use anyhow::{Context as _, Result, ensure};
use loopwright_proto::v1::{EndReason, ForkSessionRequest, event::Kind};
use loopwright_tests::scene::{self, kinds};

use super::stage::{Recorded, goes_on, is_idle, listed};

#[tokio::test]
async fn a_fork_at_every_seq_goes_on_and_repeats_no_tool_call() -> Result<()> {
    let mut recorded = Recorded::new().await?;
    let tail = recorded.entries.len() as u64;
    for seq in 1..=tail {
        let request = ForkSessionRequest {
            request_id: format!("fork-{seq}"),
            session_id: "s1".to_owned(),
            seq,
            new_session_id: format!("f{seq}"),
            ..ForkSessionRequest::default()
        };
        let made = recorded.scene.client.fork_session(request.clone()).await?;
        ensure!(
            made.tail_seq == seq + 1 && made.labels["team"] == "blue",
            "{made:?}"
        );
        if seq % 3 == 0 {
            recorded.crash().await?;
            let again = recorded.scene.client.fork_session(request).await?;
            ensure!(again.state_hash == made.state_hash, "{again:?} {made:?}");
        }
    }
    recorded.crash().await?;
    let client = &recorded.scene.client;
    for seq in 1..=tail {
        let fork = format!("f{seq}");
        ensure!(is_idle(client, &fork).await?, "{fork}");
        let before = scene::log(client, &fork).await?;
        ensure!(before.len() as u64 == seq + 1, "nothing moved by itself");
        let starts =
            |kind: &Kind| matches!(kind, Kind::ToolCallStarted(_) | Kind::ModelCallStarted(_));
        let closing = before.last().context("a closing entry")?;
        ensure!(!scene::has(closing, starts), "{closing:?}");
        let end = goes_on(client, &fork).await.with_context(|| fork.clone())?;
        ensure!(end == EndReason::Completed, "{fork}: {end:?}");
        let after = scene::log(client, &fork).await?;
        let old: Vec<&str> = kinds(&before)
            .filter_map(|kind| match kind {
                Kind::ToolCallRequested(e) => Some(e.call.as_str()),
                _ => None,
            })
            .collect();
        let repeated = kinds(&after[before.len()..])
            .any(|kind| matches!(kind, Kind::ToolCallStarted(e) if old.contains(&e.call.as_str())));
        ensure!(!repeated, "{fork} dispatched a call of the original");
    }
    let original = scene::log(client, "s1").await?;
    ensure!(original == recorded.entries, "the original is only read");
    ensure!(listed(client).await?.len() as u64 == tail + 1);
    Ok(())
}

#[tokio::test]
async fn the_command_line_forks_and_shows_the_tail() -> Result<()> {
    let recorded = Recorded::new().await?;
    let id = recorded.answer(&["log", "fork", "s1", "--at", "3", "--label", "a=b"])?;
    let id = id.trim();
    ensure!(listed(&recorded.scene.client).await? == [id, "s1"]);
    let tail = recorded.answer(&["log", "tail", id, "-n", "1", "--json"])?;
    ensure!(
        tail.lines().count() == 1 && tail.contains("sessionForked"),
        "{tail}"
    );
    let tail = recorded.answer(&["log", "tail", "s1", "-n", "2"])?;
    ensure!(
        tail.lines()
            .last()
            .is_some_and(|line| line.contains("LoopEnded")),
        "{tail}"
    );
    let over = recorded.said(&["log", "fork", "s1", "--at", "99"])?;
    ensure!(over.status.code() == Some(1), "{over:?}");
    let words = String::from_utf8_lossy(&over.stderr).into_owned();
    ensure!(words.contains("past the last entry"), "{words}");
    Ok(())
}
