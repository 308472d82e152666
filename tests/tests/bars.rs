//! Bars of the loop that have no other home, each under its name: from outside, against the binary.
//! `CONTRIBUTING.md` lists all bars with their tests.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use futures_util::future::try_join_all;
use loopwright_client::Error;
use loopwright_proto::v1::{
    BudgetLimits, EndReason, LoopLimits, StartLoopRequest, event::Kind, loop_ended::Detail,
};
use loopwright_tests::{
    kit,
    probe::Probe,
    scene::{self, Stage, ask, end_of, kinds},
};
use serde_json::Value;
use tonic::Code;

const FIVE_STEPS: &str = "
at_end: repeat
turns:
- {text: 'reply {{turn}}', tool_calls: [{tool: none__such, arguments: {at: '{{turn}}'}}], repeat: 5}
- {text: done}
";
const THREE_HELD: &str = "
- {tool_calls: [{tool: probe__hold}, {tool: probe__hold, arguments: {a: 1}}, {tool: probe__hold}]}
- {text: done}
";
/// One step of 100 output tokens, then a reply that never comes.
const HANGS: &str = "
- {text: so, tool_calls: [{tool: none__such}], usage: {input: 10, output: 100}}
- {text: never, delay_ms: 3600000}
";

fn named(model: &str, session: &str) -> StartLoopRequest {
    StartLoopRequest {
        session_id: session.to_owned(),
        ..ask(model)
    }
}

/// The seqs of a session's file, each line of which must be of that session and whole.
fn file_of(dir: &Path, session: &str) -> Result<Vec<u64>> {
    let path = dir.join(format!("log/default/session/{session}/log.jsonl"));
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let seqs = text.lines().map(|line| {
        let line: Value = serde_json::from_str(line)?;
        let stream = format!("session/default/{session}");
        ensure!(line["stream"] == stream.as_str(), "{stream} has {line}");
        line["seq"].as_u64().context("a seq")
    });
    seqs.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_busy_sessions_on_one_data_dir_lose_and_mix_no_line() -> Result<()> {
    let mut scene = Stage::new(&[("busy", FIVE_STEPS)])?.start()?;
    let sessions: Vec<String> = (0..8).map(|number| format!("s{number}")).collect();
    let loops = sessions
        .iter()
        .map(|session| scene.run(named("busy", session)));
    let shown = try_join_all(loops).await?;
    scene.server.terminate()?;
    for (session, entries) in sessions.iter().zip(&shown) {
        assert_eq!(end_of(entries)?.reason(), EndReason::Completed);
        let seqs = file_of(scene.server.dir(), session)?;
        let dense: Vec<u64> = (1..=seqs.len() as u64).collect();
        assert_eq!(seqs, dense, "{session}: a line is lost, doubled or swapped");
        let last = entries.last().map(|entry| entry.seq);
        ensure!(
            last <= seqs.last().copied(),
            "{session}: {last:?} was shown"
        );
        let replies = kinds(entries).filter(|kind| matches!(kind, Kind::ModelCallCompleted(_)));
        assert_eq!(replies.count(), 6, "{session}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn results_of_parallel_tools_are_durable_one_by_one_as_they_finish() -> Result<()> {
    let mut scene = Stage::new(&[("held", THREE_HELD)])?
        .set("tools.lease_ttl", "1h")
        .start()?;
    let probe = Probe::serve().await?;
    kit::register(&scene.server.url, "probe", &probe.endpoint).await?;
    kit::wait_for_tools(&scene.client, &["probe__hold"]).await?;
    let started = scene.client.start_loop(named("held", "s1")).await?;
    probe.until(|counts| counts.running == 3).await?;
    probe.let_go(1);
    let is_result = |kind: &Kind| matches!(kind, Kind::ToolCallCompleted(_));
    let seen = scene::until(&scene.client, "s1", |entry| scene::has(entry, is_result)).await?;
    let entry = seen.last().context("an entry")?.clone();
    let results = kinds(std::slice::from_ref(&entry)).filter(|kind| is_result(kind));
    assert_eq!(results.count(), 1, "one result, while two calls still run");
    assert_eq!(probe.counts().running, 2);

    // As a power cut: what came is kept, and not asked for again.
    scene.server.kill()?;
    scene.server.restart()?;
    let client = scene::client(&scene.server.url, None)?;
    let kept = scene::log(&client, "s1").await?;
    ensure!(kept.contains(&entry), "the result is gone");
    probe.let_go(9);
    let entries = scene::to_end(&client, "s1", &started.loop_id).await?;
    assert_eq!(end_of(&entries)?.reason(), EndReason::Completed);
    let mut answered = BTreeSet::new();
    for kind in kinds(&entries) {
        if let Kind::ToolCallCompleted(done) = kind {
            ensure!(answered.insert(done.call.clone()), "{} twice", done.call);
        }
    }
    assert_eq!(answered.len(), 3, "each call has exactly one result");
    let calls = probe.calls();
    let done = kinds(std::slice::from_ref(&entry)).find_map(|kind| match kind {
        Kind::ToolCallCompleted(done) => Some(format!("/{}", done.call)),
        _ => None,
    });
    let done = done.context("a result")?;
    let again = calls.iter().filter(|call| call.key.ends_with(&done));
    assert_eq!(again.count(), 1, "a call with a result is sent once");
    Ok(())
}

/// Every path below, but for what the log keeps for itself.
fn paths(dir: &Path, found: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        found.push(path.display().to_string());
        if path.is_dir() {
            paths(&path, found)?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_that_would_leave_the_root_are_refused_and_nothing_is_outside_of_it() -> Result<()> {
    let mut scene = Stage::new(&[("m", "- {text: done, repeat: 9}\n")])?.start()?;
    let long = "a".repeat(300);
    let refused = [
        "..", ".", "../up", "a/b", "/etc", "a\0b", "A", "aB", "a.b", "-a", "_a", "\u{e9}", &long,
    ];
    for id in refused {
        match scene.client.start_loop(named("m", id)).await {
            Err(Error::Rejected(rejection)) => {
                assert_eq!(rejection.code, Code::InvalidArgument, "{id:?}");
                let text = format!("{rejection:?}");
                ensure!(text.contains("session_id"), "{id:?}: {text}");
            }
            other => panic!("{id:?}: {other:?}"),
        }
    }
    // What is told apart stays apart.
    for id in ["a-b", "a_b", "ab"] {
        let entries = scene.run(named("m", id)).await?;
        assert_eq!(end_of(&entries)?.reason(), EndReason::Completed);
    }
    // Files of sessions are written behind; an orderly end writes them all.
    scene.server.terminate()?;
    let mut all = Vec::new();
    let root = scene.server.dir();
    paths(root, &mut all)?;
    let log = root.join("log").display().to_string();
    let outside: Vec<_> = all
        .iter()
        .filter(|path| !path.starts_with(&log) && !path.ends_with("stderr.log"))
        .collect();
    ensure!(outside.is_empty(), "outside of {log}: {outside:?}");
    let sessions = fs::read_dir(root.join("log/default/session"))?;
    let mut names = sessions
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<Vec<_>>>()?;
    names.sort();
    assert_eq!(names, ["a-b", "a_b", "ab"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_does_not_reset_a_budget() -> Result<()> {
    let mut scene = Stage::new(&[("hangs", HANGS)])?.start()?;
    let budget = BudgetLimits {
        max_output_tokens: Some(350),
        ..BudgetLimits::default()
    };
    let mut request = named("hangs", "s1");
    if let Some(agent) = &mut request.agent {
        agent.limits = Some(LoopLimits {
            budget: Some(budget),
            ..LoopLimits::default()
        });
    }
    let started = scene.client.start_loop(request).await?;
    let second = |kind: &Kind| matches!(kind, Kind::ModelCallStarted(call) if call.step == 2);
    scene::until(&scene.client, "s1", |entry| scene::has(entry, second)).await?;
    scene.server.kill()?;
    scene.server.restart()?;
    let client = scene::client(&scene.server.url, None)?;
    let entries = scene::to_end(&client, "s1", &started.loop_id).await?;
    let end = end_of(&entries)?;
    let Some(Detail::BudgetExceeded(detail)) = &end.detail else {
        anyhow::bail!("{end:?}");
    };
    // 100 were used, and the 250 that were reserved for the call that was lost count whole.
    assert_eq!((detail.limit, detail.used), (350, 350));
    assert_eq!(end.result_text, "so");
    Ok(())
}
