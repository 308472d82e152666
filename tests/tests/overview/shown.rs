//! `loopwright top`, and a client in another language.

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use anyhow::{Context as _, Result, ensure};
use loopwright_tests::{
    install, polyglot,
    scene::{Stage, loopwright},
};

use super::board::ask_in;

const QUICK: &str = "at_end: repeat\nturns:\n- {text: all is well}\n";
const SLOW: &str = "at_end: repeat\nturns:\n- {text: late, delay_ms: 2000}\n";

#[tokio::test]
async fn top_shows_what_goes_on() -> Result<()> {
    let scene = Stage::new(&[("quick", QUICK), ("slow", SLOW)])?.start()?;
    scene.run(ask_in("done", "quick")).await?;
    scene.client.start_loop(ask_in("busy", "slow")).await?;
    let dir = tempfile::tempdir()?;
    let top = |args: &[&str]| -> Result<String> {
        let mut words = vec!["top", "--server", scene.server.url.as_str()];
        words.extend(args);
        let output = loopwright(dir.path(), &words)?.output()?;
        ensure!(output.status.success(), "{output:?}");
        Ok(String::from_utf8(output.stdout)?)
    };
    let shown = top(&["--once"])?;
    let lines: Vec<&str> = shown.lines().collect();
    ensure!(lines.len() == 2, "{shown}");
    ensure!(lines[0].starts_with("SESSION  LOOP  STATE"), "{shown}");
    ensure!(lines[1].starts_with("busy     l1    running"), "{shown}");
    let shown = top(&["--once", "--all"])?;
    ensure!(shown.lines().count() == 3, "{shown}");
    let done = shown.lines().last().context("a line")?;
    ensure!(
        done.starts_with("done     l1    completed") && done.ends_with("all is well"),
        "{shown}"
    );

    // Without a terminal: a line for each change, as it comes.
    let words = ["top", "--server", scene.server.url.as_str()];
    let mut live = loopwright(dir.path(), &words)?
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let stdout = live.stdout.take().context("a pipe")?;
    let last = BufReader::new(stdout)
        .lines()
        .find(|line| line.as_ref().is_ok_and(|line| line.contains("completed")));
    live.kill()?;
    live.wait()?;
    let last = last.context("the end of the loop")??;
    ensure!(last.starts_with("busy/l1  completed  step 1"), "{last}");
    Ok(())
}

#[tokio::test]
async fn a_python_dashboard_sees_every_loop() -> Result<()> {
    let Some(mut python) = polyglot::python("board.py") else {
        return Ok(());
    };
    let scene = Stage::new(&[("quick", QUICK), ("slow", SLOW)])?.start()?;
    scene.run(ask_in("s1", "quick")).await?;
    scene.client.start_loop(ask_in("s2", "slow")).await?;
    let address = scene.server.url.trim_start_matches("http://").to_owned();
    let said = tokio::task::spawn_blocking(move || install::output(python.arg(address))).await??;
    ensure!(said.starts_with("2 loops\n"), "{said}");
    ensure!(said.contains("s1/l1 LOOP_STATE_ENDED"), "{said}");
    let last = said.lines().last();
    ensure!(last == Some("s2/l1 LOOP_STATE_ENDED"), "{said}");
    Ok(())
}
