//! `loopwright log replay`: a session of the real server decided again, and kept as a golden one.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Output,
};

use anyhow::{Context as _, Result, ensure};
use loopwright_tests::{
    kit,
    probe::Probe,
    scene::{Scene, Stage, ask, loopwright},
};
use serde_json::Value;

const TWO_STEPS: &str = "\
- {text: I look, tool_calls: [{tool: probe__note}, {tool: none__such}]}
- {text: \"it says {{result.0}}\"}
";

/// A server, the session that ran on it, and a place for files.
struct Recorded {
    scene: Scene,
    session: String,
    dir: tempfile::TempDir,
}

impl Recorded {
    async fn new() -> Result<Self> {
        let scene = Stage::new(&[("m", TWO_STEPS)])?.start()?;
        let probe = Probe::serve().await?;
        kit::register(&scene.server.url, "probe", &probe.endpoint).await?;
        kit::wait_for_tools(&scene.client, &["probe__note"]).await?;
        let entries = scene.run(ask("m")).await?;
        let session = entries.first().context("an entry")?.session_id.clone();
        Ok(Self {
            scene,
            session,
            dir: tempfile::tempdir()?,
        })
    }

    /// The session's file, once the server has filed all of it.
    fn file(&mut self) -> Result<PathBuf> {
        self.scene.server.terminate()?;
        let log = self.scene.server.dir().join("log/default/session");
        Ok(log.join(&self.session).join("log.jsonl"))
    }

    fn replay(&self, args: &[&str]) -> Result<Output> {
        let args: Vec<&str> = ["log", "replay"].iter().chain(args).copied().collect();
        Ok(loopwright(self.dir.path(), &args)?.output()?)
    }
}

fn said(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    format!("{out}{err}")
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path of text")
}

#[tokio::test]
async fn a_recorded_session_is_decided_as_it_was_and_becomes_a_golden_one() -> Result<()> {
    let mut recorded = Recorded::new().await?;
    let (session, url) = (recorded.session.clone(), recorded.scene.server.url.clone());
    let dir = recorded.scene.server.dir().join("log");
    let dir = text(&dir)?;
    // From the running server, from its directory beside it, and from both when it has gone.
    for (args, code, words) in [
        (
            vec![session.as_str(), "--server", &url],
            0,
            "all as logged (1 loop",
        ),
        (vec![&session, "--dir", dir], 0, "all as logged (1 loop"),
        (vec!["nobody", "--server", &url], 1, "nobody"),
        (
            vec!["nobody", "--dir", dir],
            1,
            "there is no session nobody",
        ),
        (
            vec![&session, "--dir", dir, "--namespace", "acme"],
            1,
            "of namespace acme",
        ),
        (
            vec![&session, "--dir", "/nowhere"],
            1,
            "there is no log in this directory",
        ),
        (vec!["No/Such", "--dir", dir], 1, "is not an id"),
        (vec![], 2, "SESSION"),
        (vec![&session, "--file", "x"], 2, "cannot be used with"),
    ] {
        let told = recorded.replay(&args)?;
        ensure!(
            told.status.code() == Some(code),
            "{args:?}: {}",
            said(&told)
        );
        ensure!(said(&told).contains(words), "{args:?}: {}", said(&told));
    }
    let file = recorded.file()?;
    let golden = recorded.dir.path().join("golden.jsonl");
    let made = recorded.replay(&["--file", text(&file)?, "--golden", text(&golden)?])?;
    ensure!(made.status.code() == Some(0), "{}", said(&made));
    ensure!(
        said(&made).contains("all as logged (1 loop"),
        "{}",
        said(&made)
    );
    ensure!(
        said(&made).contains("Read it before you commit it"),
        "{}",
        said(&made)
    );
    let (logged, kept) = (fs::read_to_string(&file)?, fs::read_to_string(&golden)?);
    assert_eq!(logged.lines().count(), kept.lines().count());
    ensure!(kept.contains("I look"), "the conversation is in it: {kept}");

    let again = recorded.replay(&["--file", text(&golden)?, "--json"])?;
    ensure!(again.status.code() == Some(0), "{}", said(&again));
    let report: Value = serde_json::from_slice(&again.stdout)?;
    assert_eq!(report["equal"], true);
    assert_eq!(report["counts"]["entries"], logged.lines().count());
    Ok(())
}

#[tokio::test]
async fn an_edited_log_is_told_by_its_first_divergence() -> Result<()> {
    let mut recorded = Recorded::new().await?;
    let logged = fs::read_to_string(recorded.file()?)?;
    let edited = recorded.dir.path().join("edited.jsonl");
    fs::write(&edited, logged.replace("\"step\":2", "\"step\":7"))?;
    let due: u64 = logged
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find(|record| record["events"].to_string().contains("\"step\":2"))
        .and_then(|record| record["seq"].as_u64())
        .context("a second step")?;

    let golden = recorded.dir.path().join("never.jsonl");
    let told = recorded.replay(&["--file", text(&edited)?, "--golden", text(&golden)?])?;
    let words = said(&told);
    ensure!(told.status.code() == Some(1), "{words}");
    ensure!(
        words.contains(&format!("diverges at seq {due} ")),
        "{words}"
    );
    ensure!(words.contains("-       \"step\": 7,"), "{words}");
    ensure!(words.contains("+       \"step\": 2,"), "{words}");
    ensure!(!golden.exists(), "a golden session that fails was kept");

    let told = recorded.replay(&["--file", text(&edited)?, "--json"])?;
    let report: Value = serde_json::from_slice(&told.stdout)?;
    assert_eq!(
        (&report["equal"], &report["seq"]),
        (&Value::from(false), &Value::from(due))
    );
    ensure!(report["decided"] != report["logged"] && report["decided"].is_array());
    Ok(())
}
