//! Caps that are no budget: steps, calls of one tool, calls at once, time; and what is tried again.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use loopwright_proto::v1::{
    DeadlineKind, EndReason, Entry, LoopLimits, ModelCallFailed, ModelFailureKind,
    StartLoopRequest, ToolRejectKind, event::Kind, loop_ended::Detail,
};
use loopwright_proto::well_known;
use loopwright_tests::{
    kit,
    probe::Probe,
    scene::{self, Scene, Stage, ask, end_of, kinds},
};

const TURNS: &str = "- {text: again, tool_calls: [{tool: none__such}], repeat: 99}\n";
const SILENT: &str = "- {text: never, delay_ms: 3600000}\n";

/// One step that asks for so many calls of a tool of the probe, then an end.
fn asks(tool: &str, calls: usize) -> String {
    let call = format!("{{tool: probe__{tool}}}");
    let calls = vec![call; calls].join(", ");
    format!("- {{tool_calls: [{calls}]}}\n- {{text: done}}\n")
}

async fn with_probe(stage: Stage) -> Result<(Scene, Probe)> {
    let scene = stage.start()?;
    let probe = Probe::serve().await?;
    kit::register(&scene.server.url, "probe", &probe.endpoint).await?;
    kit::wait_for_tools(&scene.client, &["probe__note"]).await?;
    Ok((scene, probe))
}

fn limited(model: &str, limits: LoopLimits) -> StartLoopRequest {
    let mut request = ask(model);
    if let Some(agent) = &mut request.agent {
        agent.limits = Some(limits);
    }
    request
}

#[tokio::test]
async fn steps_and_time_end_a_loop() -> Result<()> {
    let scene = Stage::new(&[("turns", TURNS), ("silent", SILENT)])?.start()?;
    let limits = LoopLimits {
        max_steps: Some(3),
        ..LoopLimits::default()
    };
    let entries = scene.run(limited("turns", limits)).await?;
    let end = end_of(&entries)?;
    assert_eq!(end.reason(), EndReason::MaxSteps);
    assert!(
        matches!(&end.detail, Some(Detail::MaxSteps(detail)) if detail.limit == 3),
        "{end:?}"
    );
    let totals = end.totals.context("totals")?;
    assert_eq!((totals.steps, totals.model_calls), (3, 3));

    let limits = LoopLimits {
        deadline: Some(well_known::Duration::from(Duration::from_millis(300))),
        ..LoopLimits::default()
    };
    let entries = scene.run(limited("silent", limits)).await?;
    let end = end_of(&entries)?;
    let loop_deadline = DeadlineKind::Loop;
    assert!(
        matches!(&end.detail, Some(Detail::Deadline(detail)) if detail.kind() == loop_deadline),
        "{end:?}"
    );
    let abandoned = kinds(&entries).any(|kind| matches!(kind, Kind::ModelCallAbandoned(_)));
    assert!(abandoned, "the call under way is closed");
    Ok(())
}

#[tokio::test]
async fn calls_of_one_name_beyond_their_cap_are_refused_and_never_sent() -> Result<()> {
    let stage = Stage::new(&[("four", &asks("note", 4))])?;
    let (scene, probe) = with_probe(stage.set("loop.max_tool_calls_per_name", "2")).await?;
    let entries = scene.run(ask("four")).await?;
    assert_eq!(end_of(&entries)?.reason(), EndReason::Completed);
    let rejected: Vec<ToolRejectKind> = kinds(&entries)
        .filter_map(|kind| match kind {
            Kind::ToolCallRejected(rejected) => Some(rejected.kind()),
            _ => None,
        })
        .collect();
    assert_eq!(rejected, [ToolRejectKind::CapExceeded; 2]);
    assert_eq!(probe.counts().came, 2, "at the sidecar");
    Ok(())
}

/// Calls that were dispatched and have no outcome, after each entry.
fn open(entries: &[Entry]) -> Vec<i32> {
    let mut now = 0;
    let after = entries.iter().map(|entry| {
        for kind in kinds(std::slice::from_ref(entry)) {
            now += match kind {
                Kind::ToolCallStarted(_) => 1,
                Kind::ToolCallCompleted(_) | Kind::ToolCallFailed(_) => -1,
                _ => 0,
            };
        }
        now
    });
    after.collect()
}

#[tokio::test]
async fn no_more_calls_run_at_once_than_may() -> Result<()> {
    let stage = Stage::new(&[("eight", &asks("hold", 8))])?;
    let (scene, probe) = with_probe(stage.set("loop.max_parallel_tool_calls", "3")).await?;
    let started = scene.client.start_loop(ask("eight")).await?;
    // One at a time, so that a call too many would be seen to run beside those that are held.
    for let_go in 0..8 {
        let held = 3.min(8 - let_go);
        let came = (let_go + 3).min(8);
        probe
            .until(|counts| counts.running == held && counts.came == came)
            .await?;
        probe.let_go(1);
    }
    let entries = scene::to_end(&scene.client, &started.session_id, "").await?;
    assert_eq!(probe.counts().most, 3);
    assert_eq!(open(&entries).into_iter().max(), Some(3), "by the log");
    assert_eq!(end_of(&entries)?.totals.map(|t| t.tool_calls), Some(8));
    Ok(())
}

fn failures(entries: &[Entry]) -> Vec<(&Entry, &ModelCallFailed)> {
    let mut found = Vec::new();
    for entry in entries {
        for kind in kinds(std::slice::from_ref(entry)) {
            if let Kind::ModelCallFailed(failed) = kind {
                found.push((entry, failed));
            }
        }
    }
    found
}

#[tokio::test]
async fn what_may_pass_is_tried_again_and_each_attempt_is_an_entry() -> Result<()> {
    let models = [
        ("busy", "- {text: at last, fail: {status: 529, times: 2}}\n"),
        (
            "asks_for_time",
            "- {text: at last, fail: {status: 429, times: 1, retry_after_ms: 400}}\n",
        ),
        ("broke", "- {text: never, fail: {kind: quota}}\n"),
        ("dead", "- {text: never, fail: {status: 500}}\n"),
    ];
    let stage = Stage::new(&models)?.set("retry.max_attempts", "3");
    let scene = stage
        .set("retry.base_delay", "1ms")
        .set("retry.max_delay", "2ms")
        .start()?;

    let entries = scene.run(ask("busy")).await?;
    assert_eq!(end_of(&entries)?.result_text, "at last");
    let attempts: Vec<u32> = failures(&entries).iter().map(|(_, f)| f.attempt).collect();
    assert_eq!(attempts, [1, 2]);
    ensure!(
        failures(&entries)
            .iter()
            .all(|(_, failed)| failed.retry_at.is_some())
    );
    let calls = end_of(&entries)?.totals.map(|totals| totals.model_calls);
    assert_eq!(calls, Some(3), "every attempt is charged");

    let entries = scene.run(ask("asks_for_time")).await?;
    assert_eq!(end_of(&entries)?.result_text, "at last");
    let all = failures(&entries);
    let (entry, failed) = all.first().context("a failure")?;
    let (at, then) = (
        entry.committed_at.context("when")?,
        failed.retry_at.context("then")?,
    );
    let wait = (then.seconds - at.seconds) * 1000 + i64::from(then.nanos - at.nanos) / 1_000_000;
    // A millisecond of rounding: the failure is dated before it is committed.
    ensure!(
        (350..2_000).contains(&wait),
        "retried after {wait} ms, against the wish"
    );

    for (model, attempts, kind) in [
        ("broke", 1, ModelFailureKind::QuotaExhausted),
        ("dead", 3, ModelFailureKind::ServerError),
    ] {
        let entries = scene.run(ask(model)).await?;
        assert_eq!(failures(&entries).len(), attempts, "{model}");
        let end = end_of(&entries)?;
        assert!(
            matches!(&end.detail, Some(Detail::ModelFailed(detail)) if detail.kind() == kind),
            "{end:?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_call_that_was_not_executed_is_tried_again_where_that_is_of_use() -> Result<()> {
    let models = [
        ("flaky", &*asks("flaky", 2)),
        ("closed", &asks("closed", 1)),
    ];
    let stage = Stage::new(&models)?.set("retry.base_delay", "1ms");
    let (scene, probe) = with_probe(stage.set("retry.max_delay", "2ms")).await?;
    let entries = scene.run(ask("flaky")).await?;
    assert_eq!(end_of(&entries)?.reason(), EndReason::Completed);
    let mut attempts: Vec<u32> = probe.calls().iter().map(|call| call.attempt).collect();
    attempts.sort_unstable();
    assert_eq!(attempts, [1, 1, 2, 2]);
    let failed = kinds(&entries).filter(|kind| matches!(kind, Kind::ToolCallFailed(_)));
    assert_eq!(failed.count(), 2);
    // The key of a call stays the same over its attempts, and no two calls share one.
    let mut keys: Vec<String> = probe.calls().into_iter().map(|call| call.key).collect();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 2, "{keys:?}");

    let entries = scene.run(ask("closed")).await?;
    assert_eq!(end_of(&entries)?.reason(), EndReason::Completed);
    assert_eq!(probe.counts().came, 5, "it was of no use to try again");
    let final_failure = kinds(&entries).find_map(|kind| match kind {
        Kind::ToolCallFailed(failed) => Some(failed.clone()),
        _ => None,
    });
    let failed = final_failure.context("a failure")?;
    ensure!(
        failed.message.contains("not now") && failed.retry_at.is_none(),
        "{failed:?}"
    );
    Ok(())
}
