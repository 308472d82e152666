use std::{fs, process::Stdio};

use anyhow::{Context as _, Result, ensure};
use loopwright_proto::v1::{EndReason, ImportHead};
use loopwright_tests::scene::{self, Stage, loopwright};

use super::stage::{Recorded, SCRIPT, goes_on, listed, summary};

#[tokio::test]
async fn a_session_moves_to_another_server_through_a_pipe() -> Result<()> {
    let recorded = Recorded::new().await?;
    let mut other = Stage::new(&[("m", SCRIPT)])?.start()?;
    let dir = tempfile::tempdir()?;
    let from = [
        "log",
        "export",
        "s1",
        "--server",
        &recorded.scene.server.url,
    ];
    let mut export = loopwright(dir.path(), &from)?
        .stdout(Stdio::piped())
        .spawn()?;
    let to = ["log", "import", "-", "--server", &other.server.url];
    let import = loopwright(dir.path(), &to)?
        .stdin(export.stdout.take().context("a pipe")?)
        .output()?;
    ensure!(export.wait()?.success());
    ensure!(
        import.stdout == b"s1\n",
        "{}",
        String::from_utf8_lossy(&import.stderr)
    );
    other.server.kill()?;
    other.server.restart()?;
    let client = scene::client(&other.server.url, None)?;

    let (old, new) = (&recorded.entries, scene::log(&client, "s1").await?);
    ensure!(
        new.len() == old.len() + 1,
        "all of them, and the closing one"
    );
    for (old, new) in old.iter().zip(&new) {
        ensure!(
            (&old.events, old.seq, old.committed_at) == (&new.events, new.seq, new.committed_at),
            "{old:?} {new:?}"
        );
    }
    let messages = |url: &str| -> Result<Vec<u8>> {
        let args = ["log", "show", "s1", "--messages", "--server", url];
        Ok(loopwright(dir.path(), &args)?.output()?.stdout)
    };
    let said = messages(&recorded.scene.server.url)?;
    ensure!(
        !said.is_empty() && said == messages(&other.server.url)?,
        "the conversation"
    );
    let [before, after] = [&recorded.scene.client, &client];
    let (before, after) = (summary(before, "s1").await?, summary(after, "s1").await?);
    ensure!((before.totals, before.title) == (after.totals, after.title));
    ensure!(goes_on(&client, "s1").await? == EndReason::Completed);
    Ok(())
}

#[tokio::test]
async fn an_export_to_a_file_is_checked_line_by_line() -> Result<()> {
    let recorded = Recorded::new().await?;
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("s1.jsonl");
    let file = path.to_str().context("a plain path")?;
    recorded.answer(&["log", "export", "s1", "-o", file])?;
    let text = fs::read_to_string(&path)?;
    let lines: Vec<&str> = text.lines().collect();
    ensure!(lines.len() == recorded.entries.len() + 1);
    let spoiled = dir.path().join("spoiled.jsonl");
    let refused = |lines: &[&str]| -> Result<String> {
        fs::write(&spoiled, lines.join("\n"))?;
        let spoiled = spoiled.to_str().context("a plain path")?;
        let output = recorded.said(&["log", "import", spoiled, "--as", "copy"])?;
        ensure!(!output.status.success());
        Ok(String::from_utf8(output.stderr)?)
    };
    for at in 0..lines.len() - 1 {
        let mut one_less = lines.clone();
        one_less.remove(at);
        let words = refused(&one_less)?;
        ensure!(
            words.contains("line ") && words.contains("EXPORT_DAMAGED"),
            "{at}: {words}"
        );
    }
    let changed = lines[2].replacen("work", "play", 1);
    let mut other = lines.clone();
    other[2] = &changed;
    let words = refused(&other)?;
    ensure!(words.contains("line 3: checksum"), "{words}");
    let words = refused(&lines[..lines.len() - 1])?;
    ensure!(words.contains("is cut"), "{words}");
    ensure!(
        listed(&recorded.scene.client).await? == ["s1"],
        "nothing of it is left"
    );

    let taken = recorded.said(&["log", "import", file])?;
    let words = String::from_utf8_lossy(&taken.stderr).into_owned();
    ensure!(words.contains("SESSION_EXISTS"), "{words}");
    let id = recorded.answer(&["log", "import", file, "--as", "copy"])?;
    ensure!(id == "copy\n" && listed(&recorded.scene.client).await? == ["copy", "s1"]);
    Ok(())
}

#[tokio::test]
async fn an_import_that_was_acknowledged_is_there_after_a_kill() -> Result<()> {
    let mut recorded = Recorded::new().await?;
    let text = recorded.answer(&["log", "export", "s1"])?;
    let head = ImportHead {
        request_id: "r1".to_owned(),
        session_id: "copy".to_owned(),
        allow_cut: false,
    };
    let chunks = |text: &str| {
        let chunks: Vec<Vec<u8>> = text.as_bytes().chunks(777).map(<[u8]>::to_vec).collect();
        tokio_stream::iter(chunks)
    };
    let import = |text: &str| {
        recorded
            .scene
            .client
            .import_session(head.clone(), chunks(text))
    };
    let made = import(&text).await?;
    recorded.crash().await?;
    let import = |text: &str| {
        recorded
            .scene
            .client
            .import_session(head.clone(), chunks(text))
    };
    ensure!(
        import(&text).await?.state_hash == made.state_hash,
        "the same answer"
    );
    ensure!(goes_on(&recorded.scene.client, "copy").await? == EndReason::Completed);
    Ok(())
}

#[tokio::test]
async fn a_data_directory_is_read_while_its_server_runs_and_when_none_does() -> Result<()> {
    let mut recorded = Recorded::new().await?;
    let dir = recorded.scene.server.dir().join("log");
    let dir = dir.to_str().context("a plain path")?.to_owned();
    let online = recorded.answer(&["log", "show", "s1"])?;
    let export = recorded.answer(&["log", "export", "s1"])?;
    for running in [true, false] {
        if !running {
            recorded.scene.server.kill()?;
        }
        let show = recorded.answer(&["log", "show", "s1", "--dir", &dir])?;
        ensure!(show == online, "{running}: {show}");
        let lines = recorded.answer(&["log", "export", "s1", "--dir", &dir])?;
        ensure!(lines == export, "{running}");
        let good = recorded.answer(&["log", "verify", "s1", "--dir", &dir])?;
        ensure!(good.starts_with("s1: good: "), "{running}: {good}");
        let nobody = recorded.said(&["log", "verify", "nope", "--dir", &dir])?;
        ensure!(nobody.status.code() == Some(1), "{nobody:?}");
    }
    Ok(())
}
