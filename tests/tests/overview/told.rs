//! What a dashboard is told: everything that there is, then every change, over kills and slow readers.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail, ensure};
use loopwright_proto::v1::{
    DeleteSessionRequest, LoopState, WatchLoopsRequest, WatchLoopsResponse,
    loop_service_client::LoopServiceClient, watch_loops_response::Item,
};
use loopwright_tests::scene::{PATIENCE, Scene, Stage};
use tonic::{Streaming, transport::Channel};

use super::board::{Board, ask_in};

const SESSIONS: usize = 50;
const QUICK: &str = "at_end: repeat\nturns:\n- {text: one}\n";
const SLOW: &str = "at_end: repeat\nturns:\n- {text: late, delay_ms: 3000}\n";
/// What a client takes without reading, bytes.
const WINDOW: u32 = 65_535;

fn names() -> impl Iterator<Item = String> {
    (0..SESSIONS).map(|n| format!("s{n:02}"))
}

fn open_states() -> WatchLoopsRequest {
    let states = [LoopState::Running, LoopState::Waiting, LoopState::Paused];
    WatchLoopsRequest {
        states: states.map(i32::from).to_vec(),
        ..WatchLoopsRequest::default()
    }
}

#[tokio::test]
async fn who_comes_before_a_loop_and_who_comes_after_know_the_same() -> Result<()> {
    let scene = Stage::new(&[("quick", QUICK), ("slow", SLOW)])?.start()?;
    let mut early = scene.client.watch_loops(WatchLoopsRequest::default());
    let mut seen = Board::default();
    seen.until(&mut early, |seen| seen.snapshots == 1).await?;
    ensure!(seen.len() == 0);
    scene.run(ask_in("s1", "quick")).await?;
    scene.client.start_loop(ask_in("s2", "slow")).await?;
    seen.until(&mut early, |seen| seen.len() == 2 && seen.completed() == 1)
        .await?;

    let mut late = scene.client.watch_loops(WatchLoopsRequest::default());
    let mut snapshot = Board::default();
    snapshot
        .until(&mut late, |seen| seen.snapshots == 1)
        .await?;
    ensure!(snapshot.get("s1", "l1") == seen.get("s1", "l1"));
    ensure!(snapshot.count(LoopState::Running) == 1, "{snapshot:#?}");
    let mut open = scene.client.watch_loops(open_states());
    let mut going_on = Board::default();
    going_on
        .until(&mut open, |seen| seen.snapshots == 1)
        .await?;
    ensure!(going_on.len() == 1, "s1 has ended: {going_on:#?}");
    going_on
        .until(&mut open, |seen| seen.completed() == 1)
        .await?;
    late_deletion(&scene, &mut early, &mut seen).await
}

async fn late_deletion(
    scene: &Scene,
    watch: &mut loopwright_client::LoopsWatch,
    seen: &mut Board,
) -> Result<()> {
    seen.until(watch, |seen| seen.completed() == 2).await?;
    let request = DeleteSessionRequest {
        request_id: "d1".to_owned(),
        session_id: "s1".to_owned(),
    };
    scene.client.delete_session(request).await?;
    seen.until(watch, |seen| seen.len() == 1).await
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_sessions_over_a_kill_are_all_known_in_the_end() -> Result<()> {
    let mut scene = Stage::new(&[("quick", QUICK), ("slow", SLOW)])?.start()?;
    let mut watch = scene.client.watch_loops(WatchLoopsRequest::default());
    let mut seen = Board::default();
    let mut open = scene.client.watch_loops(open_states());
    let mut going_on = Board::default();
    going_on
        .until(&mut open, |seen| seen.snapshots == 1)
        .await?;
    for (n, name) in names().enumerate() {
        let model = if n % 2 == 0 { "quick" } else { "slow" };
        scene.client.start_loop(ask_in(&name, model)).await?;
    }
    seen.until(&mut watch, |seen| seen.completed() >= SESSIONS / 2)
        .await?;
    scene.server.kill()?;
    scene.server.restart()?;
    seen.until(&mut watch, |seen| {
        seen.len() == SESSIONS && seen.completed() == SESSIONS
    })
    .await?;
    ensure!(seen.lost > 0 && seen.snapshots >= 2, "{seen:#?}");
    let restarts = seen.get("s01", "l1").context("s01")?.driver_restarts;
    ensure!(restarts > 0, "it was taken up again");
    going_on
        .until(&mut open, |seen| {
            seen.snapshots >= 2 && seen.count(LoopState::Running) == 0
        })
        .await
}

async fn unread(scene: &Scene) -> Result<Streaming<WatchLoopsResponse>> {
    let narrow = Channel::from_shared(scene.server.url.clone())?;
    let narrow = narrow.initial_stream_window_size(WINDOW).connect().await?;
    let mut loops = LoopServiceClient::new(narrow);
    let request = WatchLoopsRequest::default();
    Ok(loops.watch_loops(request).await?.into_inner())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_that_does_not_read_hears_in_the_end_how_every_loop_ended() -> Result<()> {
    const ROUNDS: usize = 3;
    // Summaries of four KiB each: fifty of them are more than the window takes.
    let long = format!(
        "at_end: repeat\nturns:\n- {{text: {:?}}}\n",
        "ä".repeat(2_000)
    );
    let scene = Stage::new(&[("long", &long)])?.start()?;
    let mut slow = unread(&scene).await?;
    let mut quick = scene.client.watch_loops(WatchLoopsRequest::default());
    let mut seen = Board::default();
    for round in 1..=ROUNDS {
        for name in names() {
            scene.client.start_loop(ask_in(&name, "long")).await?;
        }
        seen.until(&mut quick, |seen| seen.completed() == SESSIONS * round)
            .await?;
    }
    let mut ended = BTreeSet::new();
    while ended.len() < SESSIONS * ROUNDS {
        let told = tokio::time::timeout(PATIENCE, slow.message()).await;
        let told = told.with_context(|| format!("{} ends were told", ended.len()))??;
        match told.and_then(|told| told.item).context("an item")? {
            Item::Changed(one) if one.state() == LoopState::Ended => {
                ended.insert((one.session_id, one.loop_id));
            }
            Item::Changed(_) | Item::SnapshotEnd(_) | Item::Heartbeat(_) => {}
            other => bail!("{other:?}"),
        }
    }
    Ok(())
}
