use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use loopwright_proto::v1::{
    EndReason, ForkSessionRequest, IntegrityReport, ReadEntriesRequest, SessionState, Verdict,
};
use loopwright_tests::scene;
use serde_json::Value;

use super::stage::{Recorded, goes_on, is_idle, listed, summary};

/// Changes one byte in the line of a file, from 1: where the line begins.
fn spoil(path: &Path, line: usize) -> Result<u64> {
    let mut bytes = fs::read(path)?;
    let start: usize = bytes
        .split_inclusive(|byte| *byte == b'\n')
        .take(line - 1)
        .map(<[u8]>::len)
        .sum();
    bytes[start + 150] ^= 1;
    fs::write(path, bytes)?;
    Ok(start as u64)
}

fn dir_of(recorded: &Recorded) -> Result<String> {
    let dir = recorded.scene.server.dir().join("log");
    Ok(dir.to_str().context("a plain path")?.to_owned())
}

/// A recorded session whose fourth line was damaged while no server ran; where that begins, and how
/// many lines there are.
async fn damaged() -> Result<(Recorded, u64, u64)> {
    let mut recorded = Recorded::new().await?;
    // In order: its last records are in its file then, and nowhere else.
    recorded.scene.server.terminate()?;
    let file = recorded
        .scene
        .server
        .dir()
        .join("log/default/session/s1/log.jsonl");
    // Its driver may have said that it let go.
    let lines = fs::read_to_string(&file)?.lines().count() as u64;
    let byte = spoil(&file, 4)?;
    Ok((recorded, byte, lines))
}

fn check(report: &IntegrityReport, byte: u64, tail: u64) -> Result<()> {
    ensure!(report.verdict() == Verdict::Corrupt, "{report:?}");
    ensure!(report.good_through == 3, "{report:?}");
    let place = report.place.as_ref().context("a place")?;
    ensure!(
        place.file.ends_with("default/session/s1/log.jsonl"),
        "{place:?}"
    );
    ensure!((place.line, place.byte) == (4, byte), "{place:?}");
    ensure!(
        report.entries_after == tail - 4 && report.last_seq_after == tail,
        "{report:?}"
    );
    ensure!(report.problem.contains("checksum"), "{report:?}");
    ensure!(
        report
            .ways_out
            .iter()
            .any(|way| way.contains("log repair s1"))
    );
    Ok(())
}

#[tokio::test]
async fn a_damaged_session_is_told_by_whatever_looks_and_goes_on_after_its_repair() -> Result<()> {
    let (mut recorded, byte, tail) = damaged().await?;
    let dir = dir_of(&recorded)?;
    // Before a server has seen it.
    let offline = recorded.said(&["log", "verify", "s1", "--dir", &dir, "--json"])?;
    ensure!(offline.status.code() == Some(7), "{offline:?}");
    check(&serde_json::from_slice(&offline.stdout)?, byte, tail)?;
    recorded.scene.server.restart()?;
    recorded.scene.client = scene::client(&recorded.scene.server.url, None)?;
    let client = &recorded.scene.client;
    ensure!(summary(client, "s1").await?.state() == SessionState::Corrupt);
    ensure!(listed(client).await? == ["s1"]);
    check(&client.verify_session("s1").await?, byte, tail)?;
    let online = recorded.said(&["log", "verify", "s1"])?;
    ensure!(online.status.code() == Some(7), "{online:?}");
    let text = String::from_utf8(online.stdout)?;
    ensure!(
        text.starts_with("s1: DAMAGED") && text.contains("entries 1 to 3"),
        "{text}"
    );

    let mut entries = client.read_entries(ReadEntriesRequest {
        session_id: "s1".to_owned(),
        ..ReadEntriesRequest::default()
    });
    for old in &recorded.entries[..3] {
        ensure!(&entries.next().await.context("an entry")?? == old);
    }
    let end = entries.next().await.context("a word about the damage")?;
    ensure!(scene::refusal(end)?.reason == "SESSION_CORRUPT");
    let fork = ForkSessionRequest {
        session_id: "s1".to_owned(),
        new_session_id: "saved".to_owned(),
        ..ForkSessionRequest::default()
    };
    ensure!(
        client.fork_session(fork).await?.tail_seq == 4,
        "what is left, and the closing entry"
    );
    ensure!(goes_on(client, "saved").await? == EndReason::Completed);
    ensure!(goes_on(client, "s1").await.is_err(), "it takes no more");

    let held = recorded.said(&["log", "repair", "s1", "--dir", &dir])?;
    let words = String::from_utf8_lossy(&held.stderr).into_owned();
    let pid = recorded.scene.server.pid().to_string();
    ensure!(
        held.status.code() == Some(1) && words.contains(&pid),
        "names the holder: {words}"
    );
    recorded.scene.server.terminate()?;
    let done = recorded.answer(&["log", "repair", "s1", "--dir", &dir, "--json"])?;
    let done: Value = serde_json::from_str(&done)?;
    ensure!(done["tail_seq"] == 3 && done["line"] == 4, "{done}");
    let kept = done["kept_in"].as_str().context("what was cut is kept")?;
    let lines = fs::read_to_string(kept)?.lines().count();
    ensure!(lines as u64 == tail - 3, "{lines}");
    recorded.scene.server.restart()?;
    let client = scene::client(&recorded.scene.server.url, None)?;
    let good = client.verify_session("s1").await?;
    ensure!(good.verdict() == Verdict::Good, "{good:?}");
    // Its loop was cut open by the damage, and ends like any that a crash cut.
    scene::eventually("it is idle", || is_idle(&client, "s1")).await?;
    ensure!(goes_on(&client, "s1").await? == EndReason::Completed);
    Ok(())
}

#[tokio::test]
async fn a_repair_of_what_is_good_or_nowhere_changes_nothing() -> Result<()> {
    let mut recorded = Recorded::new().await?;
    let dir = dir_of(&recorded)?;
    recorded.scene.server.terminate()?;
    let file = recorded
        .scene
        .server
        .dir()
        .join("log/default/session/s1/log.jsonl");
    let before = fs::read(&file)?;
    let done = recorded.answer(&["log", "repair", "s1", "--dir", &dir])?;
    ensure!(done.contains("nothing was wrong"), "{done}");
    ensure!(fs::read(&file)? == before);
    let nobody = recorded.said(&["log", "repair", "s2", "--dir", &dir])?;
    let words = String::from_utf8_lossy(&nobody.stderr).into_owned();
    ensure!(
        nobody.status.code() == Some(1) && words.contains("no session \"s2\""),
        "{words}"
    );
    Ok(())
}
