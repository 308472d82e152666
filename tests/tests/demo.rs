//! The demo, as a newcomer runs it, and what it leaves behind, as `jq` sees it.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use loopwright_tests::kit::{self, Build};

struct Demo {
    said: String,
    dir: tempfile::TempDir,
}

fn demo(args: &[&str]) -> Result<Demo> {
    demo_in(tempfile::tempdir()?, args)
}

fn demo_in(dir: tempfile::TempDir, args: &[&str]) -> Result<Demo> {
    let mut command = Command::new(kit::binary(Build::Debug)?);
    kit::without_loopwright(&mut command);
    command
        .arg("demo")
        .arg("--dir")
        .arg(dir.path())
        .args(args)
        .current_dir(dir.path());
    let output = command.output()?;
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    ensure!(
        output.status.success(),
        "the demo ended with {}:\n{said}",
        output.status
    );
    Ok(Demo { said, dir })
}

/// What `jq` makes of the log of the demo's one session.
fn jq(demo: &Demo, filter: &str) -> Result<String> {
    let sessions = demo.dir.path().join("log/default/session");
    let session = std::fs::read_dir(&sessions)?
        .next()
        .context("a session")??
        .path();
    let output = Command::new("jq")
        .args(["-s", "-c", filter])
        .arg(session.join("log.jsonl"))
        .output();
    let output = output.context("jq is needed: apt-get install jq")?;
    ensure!(
        output.status.success(),
        "jq: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| path.display().to_string())
}

#[test]
fn the_demo_runs_both_tools_and_changes_a_file() -> Result<()> {
    let demo = demo(&[])?;
    let completed = jq(
        &demo,
        "[.[].events[] | select(.ToolCallCompleted) | .ToolCallCompleted.output.is_error // false]",
    )?;
    assert_eq!(completed, "[false,false,false]", "{}", demo.said);
    let asked = jq(
        &demo,
        "[.[].events[].ModelCallCompleted? | .parts[]?.tool_call.tool // empty]",
    )?;
    assert_eq!(asked, r#"["files__read","calc__evaluate","files__write"]"#);
    let ended = jq(
        &demo,
        "[.[].events[] | select(.LoopEnded) | .LoopEnded.reason]",
    )?;
    assert_eq!(ended, r#"["completed"]"#);
    assert_eq!(
        read(&demo.dir.path().join("files/total.txt"))?.trim(),
        "13.8"
    );
    assert!(
        demo.said.contains("jq -c"),
        "the demo says how to look at its log:\n{}",
        demo.said
    );
    Ok(())
}

#[test]
fn a_crash_in_mid_call_repeats_nothing() -> Result<()> {
    let dir = tempfile::tempdir()?;
    // What an earlier demo left there is not taken for an effect of this one.
    std::fs::create_dir(dir.path().join("files"))?;
    std::fs::write(dir.path().join("files/journal.txt"), "shipped\n")?;
    let demo = demo_in(dir, &["--crash"])?;
    assert!(
        demo.said.contains("the same ids, and nothing repeated"),
        "{}",
        demo.said
    );
    assert_eq!(
        read(&demo.dir.path().join("files/journal.txt"))?,
        "shipped\n"
    );
    let epochs = jq(
        &demo,
        "[.[].events[] | select(.DriverAttached) | .DriverAttached.epoch]",
    )?;
    assert_eq!(epochs, "[1,2]", "{}", demo.said);
    let dispatched = jq(
        &demo,
        "[.[].events[] | select(.ToolCallStarted) | .ToolCallStarted | [.call, .attempt]]",
    )?;
    assert_eq!(dispatched, r#"[["c2",1],["c2",2]]"#);
    Ok(())
}

#[test]
fn a_demo_that_is_told_to_stop_leaves_no_process_behind() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut command = Command::new(kit::binary(Build::Debug)?);
    kit::without_loopwright(&mut command);
    command
        .args(["demo", "--crash", "--dir"])
        .arg(dir.path())
        .current_dir(dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut demo = command.spawn()?;
    let said = BufReader::new(demo.stderr.take().context("a piped stderr")?);
    // "server .. (process 1)", "sidecars .. (processes 2, 3)"
    let mut children: Vec<u32> = Vec::new();
    for line in said.lines() {
        let line = line?;
        if let Some((_, pids)) = line.split_once("(process") {
            let numbers = pids.split(|c: char| !c.is_ascii_digit());
            children.extend(numbers.filter_map(|number| number.parse::<u32>().ok()));
        }
        if children.len() == 3 {
            break;
        }
    }
    assert_eq!(children.len(), 3, "a server and two sidecars");
    let pid = rustix::process::Pid::from_child(&demo);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
    let status = demo.wait()?;
    assert_eq!(status.code(), Some(130));
    for child in children {
        let left = Path::new("/proc").join(child.to_string());
        assert!(!left.exists(), "process {child} lives on");
    }
    Ok(())
}
