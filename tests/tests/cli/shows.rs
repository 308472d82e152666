//! What is shown of sessions: lists, logs, conversations, live; and a reader that leaves early.

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use anyhow::{Context as _, Result, ensure};
use loopwright_proto::v1::{Entry, Message, Part, Role, ToolResultPart, event::Kind, part};
use loopwright_tests::{
    kit,
    probe::Probe,
    scene::{self, Scene, Stage, ask, kinds, loopwright},
};
use serde_json::Value;

const TWO_STEPS: &str = "\
- {text: I look, tool_calls: [{tool: probe__note}, {tool: none__such}]}
- {text: \"it says {{result.0}}\"}
";

/// A session with one loop of two steps: its id and its log.
async fn talked() -> Result<(Scene, String, Vec<Entry>)> {
    let scene = Stage::new(&[("m", TWO_STEPS)])?.start()?;
    let probe = Probe::serve().await?;
    kit::register(&scene.server.url, "probe", &probe.endpoint).await?;
    kit::wait_for_tools(&scene.client, &["probe__note"]).await?;
    let entries = scene.run(ask("m")).await?;
    let session = entries.first().context("an entry")?.session_id.clone();
    Ok((scene, session, entries))
}

fn show(scene: &Scene, args: &[&str]) -> Result<String> {
    let dir = tempfile::tempdir()?;
    let args: Vec<&str> = args
        .iter()
        .copied()
        .chain(["--server", &scene.server.url])
        .collect();
    let output = loopwright(dir.path(), &args)?.output()?;
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(0), "{args:?}: {err}");
    Ok(String::from_utf8(output.stdout)?)
}

#[tokio::test]
async fn sessions_and_their_logs_are_shown() -> Result<()> {
    let (scene, session, entries) = talked().await?;
    let listed = show(&scene, &["sessions", "list"])?;
    let row = listed.lines().find(|line| line.starts_with(&session));
    ensure!(row.is_some_and(|row| row.contains("completed")), "{listed}");
    let listed = show(&scene, &["sessions", "list", "--json"])?;
    let row: Value = serde_json::from_str(listed.trim())?;
    assert_eq!(row["sessionId"], session);

    let shown = show(&scene, &["log", "show", &session])?;
    let events: usize = entries.iter().map(|entry| entry.events.len()).sum();
    assert_eq!(shown.lines().count(), events, "one line an event: {shown}");
    let shown = show(&scene, &["log", "show", &session, "--json"])?;
    let read: Vec<Entry> = shown
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    assert_eq!(read, entries);

    let tools = show(&scene, &["tools", "list"])?;
    let row = tools.lines().find(|line| line.starts_with("probe__note"));
    ensure!(row.is_some_and(|row| row.contains("read only")), "{tools}");
    Ok(())
}

/// A conversation by a fold of this test's own: who says what, with tools' answers by call.
fn conversation(entries: &[Entry]) -> Vec<(Role, Vec<String>)> {
    let mut said: Vec<(Role, Vec<String>)> = Vec::new();
    let mut wanted = 0;
    let mut answers: Vec<(String, String)> = Vec::new();
    for kind in kinds(entries) {
        match kind {
            Kind::MessageAdded(added) => said.push((Role::User, words(added.message.as_ref()))),
            Kind::ModelCallCompleted(reply) => {
                said.push((Role::Assistant, words(reply.message.as_ref())));
                wanted = 0;
            }
            Kind::ToolCallRequested(_) => wanted += 1,
            Kind::ToolCallRejected(one) => answers.push((one.call.clone(), one.message.clone())),
            Kind::ToolCallCompleted(one) => {
                let parts = one.result.iter().flat_map(|result| &result.parts);
                answers.push((one.call.clone(), parts.filter_map(text).collect()));
            }
            _ => {}
        }
        // Answers stand in the order of the calls, once all of a step are there.
        if wanted > 0 && answers.len() == wanted {
            answers.sort();
            let texts = answers
                .drain(..)
                .map(|(call, text)| format!("{call}: {text}"));
            said.push((Role::Tool, texts.collect()));
            wanted = 0;
        }
    }
    said
}

fn text(part: &Part) -> Option<String> {
    match &part.kind {
        Some(part::Kind::Text(text)) => Some(text.clone()),
        _ => None,
    }
}

fn words(message: Option<&Message>) -> Vec<String> {
    let parts = message.iter().flat_map(|message| &message.parts);
    let shown = parts.filter_map(|part| match &part.kind {
        Some(part::Kind::ToolCall(call)) => Some(format!("{} {}", call.tool, call.arguments_json)),
        Some(part::Kind::ToolResult(ToolResultPart { call, parts, .. })) => {
            let said: String = parts.iter().filter_map(text).collect();
            Some(format!("{call}: {said}"))
        }
        _ => text(part),
    });
    shown.collect()
}

#[tokio::test]
async fn messages_at_a_seq_are_the_conversation_as_it_stood_there() -> Result<()> {
    let (scene, session, entries) = talked().await?;
    let mut longest = 0;
    for at in 1..=entries.len() {
        let seq = at.to_string();
        let args = [
            "log",
            "show",
            &session,
            "--messages",
            "--at",
            &seq,
            "--json",
        ];
        let shown = show(&scene, &args)?;
        let messages: Vec<Message> = shown
            .lines()
            .map(serde_json::from_str)
            .collect::<Result<_, _>>()?;
        let shown: Vec<(Role, Vec<String>)> = messages
            .iter()
            .map(|message| (message.role(), words(Some(message))))
            .collect();
        assert_eq!(shown, conversation(&entries[..at]), "at {at}");
        longest = longest.max(shown.len());
    }
    assert_eq!(longest, 4, "user, assistant, tools, assistant");
    let shown = show(&scene, &["log", "show", &session, "--messages"])?;
    for word in ["user:", "I look", "note 1", "it says note 1"] {
        ensure!(shown.contains(word), "no {word} in {shown}");
    }
    Ok(())
}

#[tokio::test]
async fn a_watch_begins_after_its_cursor_and_ends_with_ctrl_c() -> Result<()> {
    let (scene, session, entries) = talked().await?;
    let dir = tempfile::tempdir()?;
    let url = &scene.server.url;
    let args = ["watch", &session, "--after", "2", "--json", "--server", url];
    let mut child = loopwright(dir.path(), &args)?
        .stdout(Stdio::piped())
        .spawn()?;
    let mut out = BufReader::new(child.stdout.take().context("stdout")?).lines();
    for entry in &entries[2..] {
        let line: Value = serde_json::from_str(&out.next().context("a line")??)?;
        let seq = line.pointer("/entry/seq").and_then(Value::as_str);
        assert_eq!(seq, Some(&*entry.seq.to_string()), "{line}");
    }
    ensure!(child.try_wait()?.is_none(), "a watch goes on");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT)?;
    assert_eq!(child.wait()?.code(), Some(130));
    Ok(())
}

#[tokio::test]
async fn a_reader_that_leaves_early_is_no_error() -> Result<()> {
    let text = "word ".repeat(100_000);
    let script = format!("- {{text: {text:?}, usage: {{input: 1, output: 1}}}}\n");
    let scene = Stage::new(&[("long", &script)])?.start()?;
    let entries = scene.run(ask("long")).await?;
    let session = &entries.first().context("an entry")?.session_id;
    let dir = tempfile::tempdir()?;
    let server = ["--server", &scene.server.url];
    let commands: [&[&str]; 5] = [
        &["log", "show", session, "--json"],
        &["log", "show", session, "--messages"],
        &["run", "hi", "--model", "long"],
        &["sessions", "list"],
        &["config", "docs"],
    ];
    for args in commands {
        let at = if args[0] == "config" {
            &[][..]
        } else {
            &server
        };
        let args: Vec<&str> = args.iter().chain(at).copied().collect();
        let mut child = loopwright(dir.path(), &args)?
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        // As `| head -0` does.
        drop(child.stdout.take());
        let output = child.wait_with_output()?;
        let err = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(0), "{args:?}: {err}");
        ensure!(
            !err.contains("error") && !err.contains("panic"),
            "{args:?}: {err}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn what_is_not_there_is_said_with_the_way_out() -> Result<()> {
    let scene = Stage::new(&[("m", TWO_STEPS)])?.start()?;
    let dir = tempfile::tempdir()?;
    let url = &scene.server.url;
    let rows: [(&[&str], i32, &str); 4] = [
        (&["log", "show", "nobody"], 1, "sessions list"),
        (&["watch", "nobody"], 1, "sessions list"),
        (&["log", "show", "nobody", "--at", "1"], 2, "--messages"),
        (&["run", "hi", "--tools", "no__tool"], 1, "tools list"),
    ];
    for (args, code, way_out) in rows {
        let args: Vec<&str> = args.iter().copied().chain(["--server", url]).collect();
        let output = loopwright(dir.path(), &args)?.output()?;
        let err = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(code), "{args:?}: {err}");
        ensure!(err.contains(way_out), "{args:?}: no {way_out} in {err}");
        ensure!(output.stdout.is_empty(), "{args:?}: errors go to stderr");
    }
    // The list is empty and says how to begin.
    let output = loopwright(dir.path(), &["sessions", "list", "--server", url])?.output()?;
    ensure!(output.status.success() && output.stdout.is_empty());
    ensure!(String::from_utf8_lossy(&output.stderr).contains("loopwright run"));
    scene::log(&scene.client, "nobody")
        .await
        .map_or(Ok(()), |_| anyhow::bail!("asking made a session"))
}
