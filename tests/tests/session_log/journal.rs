//! Rot in the journal that all sessions share: a start that is refused, what tells of it, the repair.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Output,
};

use anyhow::{Context as _, Result, ensure};
use loopwright_proto::v1::{EndReason, SessionState, Verdict};
use loopwright_tests::scene::{self, loopwright};
use serde_json::Value;

use super::stage::{Recorded, goes_on, listed, summary};

/// Overwrites the second record of `s1` in the journal, so that nothing tells whose it was, and leaves
/// the first one alone in the session's file. Where the bytes are, and how many.
fn spoil(dir: &Path) -> Result<(PathBuf, usize, usize)> {
    let segments = fs::read_dir(dir.join("journal"))?;
    let segments = segments.map(|one| one.map(|one| one.path()));
    let segments = segments.collect::<std::io::Result<Vec<_>>>()?;
    let head = b"{\"v\":1,\"stream\":\"session/default/s1\",\"seq\":2,";
    for path in segments {
        let mut bytes = fs::read(&path)?;
        let Some(at) = bytes.windows(head.len()).position(|one| one == head) else {
            continue;
        };
        let end = bytes[at..].iter().position(|byte| *byte == b'\n');
        let len = end.context("a whole line")?;
        bytes[at..at + len].fill(b'#');
        fs::write(&path, bytes)?;
        let image = dir.join("default/session/s1/log.jsonl");
        let text = fs::read_to_string(&image).unwrap_or_default();
        if let Some(first) = text.split_inclusive('\n').next() {
            fs::write(&image, first)?;
        }
        return Ok((path, at, len + 1));
    }
    anyhow::bail!("no segment holds {}", String::from_utf8_lossy(head))
}

fn words(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// Every word that stands there.
fn says(text: &str, all: &[&str]) -> Result<()> {
    for one in all {
        ensure!(text.contains(one), "no {one:?} in {text}");
    }
    Ok(())
}

#[tokio::test]
async fn rot_that_is_nobodys_is_told_accepted_by_a_repair_and_lived_with() -> Result<()> {
    let mut recorded = Recorded::new().await?;
    ensure!(goes_on(&recorded.scene.client, "s2").await? == EndReason::Completed);
    recorded.scene.server.kill()?;
    let dir = recorded.scene.server.dir().join("log");
    let shown = dir.to_str().context("a plain path")?.to_owned();
    let (segment, at, len) = spoil(&dir)?;
    let rotten = format!("{len} bytes at {at} of {}", segment.display());
    let way_out = format!("`loopwright log repair --dir {shown}`");

    let refused = recorded.scene.server.restart();
    let refused = format!("{:#}", refused.err().context("a start on rot")?);
    says(&refused, &[&rotten, &way_out])?;
    let home = recorded.scene.server.dir().to_owned();
    let run = |args: &[&str]| -> Result<_> { Ok(words(&loopwright(&home, args)?.output()?)) };
    let (code, _, err) = run(&["log", "verify", "s2", "--dir", &shown])?;
    ensure!(code == Some(7), "{err}");
    says(&err, &[&rotten, &way_out])?;
    let (code, out, err) = run(&["doctor", "--dir", &shown])?;
    ensure!(code == Some(1), "{out}{err}");
    says(
        &out,
        &[&rotten, &way_out, "s1 in namespace default is CORRUPT"],
    )?;

    let (code, out, err) = run(&["log", "repair", "--dir", &shown])?;
    ensure!(code == Some(0), "{err}");
    let kept = dir.join("quarantine");
    let told = [
        "a server starts there again",
        &rotten,
        &format!("kept in {}", kept.display()),
        "nothing tells whose",
        "CORRUPT: s1 in namespace default, good up to seq 1",
        "`loopwright log repair s1 --namespace default",
    ];
    says(&out, &told)?;
    let (code, again, err) = run(&["log", "repair", "--dir", &shown, "--json"])?;
    ensure!(code == Some(0), "{err}");
    let again: Value = serde_json::from_str(&again)?;
    let damaged = &again["damaged"][0]["stream"];
    ensure!(
        damaged == "session/default/s1" && again["set_aside"] == Value::Array(vec![]),
        "{again}"
    );

    recorded.scene.server.restart()?;
    let client = scene::client(&recorded.scene.server.url, None)?;
    ensure!(listed(&client).await? == ["s1", "s2"]);
    ensure!(summary(&client, "s1").await?.state() == SessionState::Corrupt);
    ensure!(summary(&client, "s2").await?.state() == SessionState::Idle);
    ensure!(client.verify_session("s1").await?.verdict() == Verdict::Corrupt);
    ensure!(client.verify_session("s2").await?.verdict() == Verdict::Good);
    ensure!(goes_on(&client, "s2").await? == EndReason::Completed);
    Ok(())
}

#[tokio::test]
async fn a_repair_of_one_session_says_what_else_it_did() -> Result<()> {
    let mut recorded = Recorded::new().await?;
    ensure!(goes_on(&recorded.scene.client, "s2").await? == EndReason::Completed);
    recorded.scene.server.kill()?;
    let dir = recorded.scene.server.dir().join("log");
    let shown = dir.to_str().context("a plain path")?.to_owned();
    let (segment, at, len) = spoil(&dir)?;
    let out = recorded.answer(&["log", "repair", "s2", "--dir", &shown])?;
    let rotten = format!("{len} bytes at {at} of {}", segment.display());
    let told = [
        "s2: nothing was wrong with its own file",
        "the journal, which all sessions share, was repaired with it",
        &rotten,
        "nothing tells whose",
        "CORRUPT: s1 in namespace default",
    ];
    says(&out, &told)
}
