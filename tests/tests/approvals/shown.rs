//! What `run` says while it waits: a command line that can be given as it stands.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
    process::Stdio,
};

use anyhow::{Context as _, Result, ensure};
use loopwright_tests::scene::loopwright;

use super::talk::{Set, TWICE};

/// Gives the command line of a line such as `  run it:   loopwright approve ..`.
fn give(dir: &Path, line: &str) -> Result<std::process::Output> {
    let (_, command) = line.split_once("loopwright ").context("a command")?;
    let command = command.replace(" --reason \"..\"", "");
    let args: Vec<&str> = command.split_whitespace().collect();
    Ok(loopwright(dir, &args)?.output()?)
}

#[tokio::test(flavor = "multi_thread")]
async fn run_shows_the_commands_that_answer_and_goes_on_when_one_is_given() -> Result<()> {
    let set = Set::with(&[("twice", TWICE)], &[]).await?;
    let dir = tempfile::tempdir()?;
    for (answer, ends_with, exit) in [("approve", "lost 1\n", 0), ("deny", "allow", 0)] {
        let args = ["run", "work", "--server", &set.scene.server.url];
        let mut child = loopwright(dir.path(), &args)?
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(child.stderr.take().context("stderr")?).lines();
        let mut seen = Vec::new();
        let command = loop {
            let line = lines
                .next()
                .with_context(|| format!("no {answer}: {seen:#?}"))??;
            if line.contains(&format!("loopwright {answer} ")) {
                break line;
            }
            seen.push(line);
        };
        let asked = seen.iter().any(|line| line.contains("waits for approval"));
        ensure!(asked, "{seen:#?}");
        let given = give(dir.path(), &command)?;
        ensure!(given.status.success(), "{command}: {given:?}");
        let rest: Vec<String> = lines.collect::<Result<_, _>>()?;
        let mut out = String::new();
        child
            .stdout
            .take()
            .context("stdout")?
            .read_to_string(&mut out)?;
        assert_eq!(child.wait()?.code(), Some(exit), "{rest:#?}");
        ensure!(out.contains(ends_with), "{out}\n{rest:#?}");
    }
    Ok(())
}
