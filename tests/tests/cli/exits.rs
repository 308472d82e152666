//! How `loopwright run` ends: the numbers that scripts rely on.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
    process::{Command, Output, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use loopwright_tests::scene::{Scene, Stage, loopwright};
use serde_json::Value;

const MODELS: &[(&str, &str)] = &[
    (
        "good",
        "- {text: hello there, usage: {input: 10, output: 5}}\n",
    ),
    (
        "again",
        "- {text: again, tool_calls: [{tool: none__such}], repeat: 99}\n",
    ),
    ("auth", "- {text: never, fail: {kind: auth}}\n"),
    ("refuses", "- {text: no, stop: refusal}\n"),
    ("silent", "- {text: never, delay_ms: 3600000}\n"),
];

fn run(scene: &Scene, dir: &Path, args: &[&str]) -> Result<Command> {
    let mut all = vec!["run", "--server", &scene.server.url];
    all.extend(args);
    loopwright(dir, &all)
}

fn said(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[tokio::test]
async fn each_way_to_end_has_its_number() -> Result<()> {
    let scene = Stage::new(MODELS)?.start()?;
    let dir = tempfile::tempdir()?;
    // Arguments, exit code, what stands on standard error.
    let rows: &[(&[&str], i32, &str)] = &[
        (&["hi", "--model", "good"], 0, "tokens"),
        (&["hi", "--model", "nobody"], 1, "models"),
        (&["", "--model", "good"], 2, "empty"),
        (&["hi", "--max-steps", "many"], 2, "--max-steps"),
        (&["hi", "--session", "No/Such"], 2, "session_id"),
        (
            &["hi", "--model", "good", "--max-tokens", "100"],
            3,
            "budget",
        ),
        (&["hi", "--model", "again", "--max-steps", "2"], 4, "step"),
        (
            &["hi", "--model", "silent", "--deadline", "1"],
            4,
            "deadline",
        ),
        (&["hi", "--model", "auth"], 5, "model"),
        (&["hi", "--model", "refuses"], 5, "refusal"),
    ];
    for (args, code, word) in rows {
        let output = run(&scene, dir.path(), args)?.output()?;
        let (out, err) = said(&output);
        ensure!(output.status.code() == Some(*code), "{args:?}: {output:?}");
        ensure!(
            err.to_lowercase().contains(word),
            "{args:?}: no {word} in {err}"
        );
        if *code == 0 {
            assert_eq!(out.trim_end(), "hello there", "the reply alone");
        }
    }
    Ok(())
}

#[test]
fn where_no_server_answers_the_ways_out_are_named() -> Result<()> {
    let dir = tempfile::tempdir()?;
    // A port that was free a moment ago.
    let free = std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
    let url = format!("http://{free}");
    let output = loopwright(dir.path(), &["sessions", "list", "--server", &url])?.output()?;
    let (out, err) = said(&output);
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert_eq!(out, "");
    for way_out in [&*url, "loopwright serve", "--server", "LOOPWRIGHT_SERVER"] {
        ensure!(err.contains(way_out), "no {way_out} in {err}");
    }
    Ok(())
}

#[tokio::test]
async fn json_is_one_object_a_line_from_the_first_entry_to_the_end() -> Result<()> {
    let scene = Stage::new(MODELS)?.start()?;
    let dir = tempfile::tempdir()?;
    let output = run(&scene, dir.path(), &["hi", "--json"])?.output()?;
    let (out, err) = said(&output);
    assert_eq!(output.status.code(), Some(0), "{err}");
    let lines: Vec<Value> = out
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()
        .context(out.clone())?;
    let seqs: Vec<&str> = lines
        .iter()
        .filter_map(|line| line.pointer("/entry/seq")?.as_str())
        .collect();
    assert_eq!(seqs.first(), Some(&"1"), "{out}");
    let last = lines.last().and_then(|line| line.pointer("/entry/events"));
    let last = last.and_then(Value::as_array).context("the last entry")?;
    let end = last.iter().find_map(|event| event.get("loopEnded"));
    let reason = end.and_then(|end| end.get("reason")?.as_str());
    assert_eq!(reason, Some("END_REASON_COMPLETED"), "{out}");
    Ok(())
}

#[tokio::test]
async fn ctrl_c_cancels_waits_for_the_end_and_is_130() -> Result<()> {
    let scene = Stage::new(MODELS)?.start()?;
    let dir = tempfile::tempdir()?;
    let mut child = run(&scene, dir.path(), &["hi", "--model", "silent", "--json"])?
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut out = BufReader::new(child.stdout.take().context("stdout")?);
    let mut line = String::new();
    while !line.contains("modelCallStarted") {
        line.clear();
        ensure!(
            out.read_line(&mut line)? > 0,
            "it ended: {:?}",
            child.wait()?
        );
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT)?;
    let mut rest = String::new();
    out.read_to_string(&mut rest)?;
    let output = child.wait_with_output()?;
    assert_eq!(output.status.code(), Some(130), "{}", said(&output).1);
    ensure!(rest.contains("END_REASON_CANCELLED"), "{rest}");
    ensure!(rest.contains("Ctrl-C"), "why stands in the log: {rest}");
    Ok(())
}

#[test]
fn a_local_run_needs_no_server_and_leaves_a_log() -> Result<()> {
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("m.yaml"), "- {text: from within}\n")?;
    let config = "[loop]\nmodel = \"m\"\n[models.m]\nprovider = \"scripted\"\nscript = \"m.yaml\"\n\
                  [session_log]\ndir = \"kept\"\n";
    std::fs::write(dir.path().join("loopwright.toml"), config)?;
    let args = ["run", "--local", "--session", "mine", "hi"];
    let output = loopwright(dir.path(), &args)?.output()?;
    let (out, err) = said(&output);
    assert_eq!(output.status.code(), Some(0), "{err}");
    assert_eq!(out.trim_end(), "from within");
    let mut files = vec![dir.path().join("kept")];
    let mut told = false;
    while let Some(path) = files.pop() {
        if path.is_dir() {
            for entry in std::fs::read_dir(path)? {
                files.push(entry?.path());
            }
        } else {
            told |= String::from_utf8_lossy(&std::fs::read(path)?).contains("from within");
        }
    }
    ensure!(told, "no file of the log holds the reply");
    // And the next one goes on with it.
    std::fs::write(
        dir.path().join("m.yaml"),
        "- {text: one}\n- {text: \"{{last_user}}\"}\n",
    )?;
    let args = ["run", "--local", "--session", "mine", "and on"];
    let output = loopwright(dir.path(), &args)?.output()?;
    assert_eq!(said(&output).0.trim_end(), "and on", "{}", said(&output).1);
    Ok(())
}
