//! What entries tell of time, versions, statuses and caps, for people and for their tools.

use anyhow::{Context as _, Result, ensure};
use loopwright_proto::v1::{
    Entry, LoopLimits, OutputBound, StartLoopRequest, event::Kind, loop_ended::Detail,
};
use loopwright_tests::{
    kit,
    probe::Probe,
    scene::{Stage, ask, end_of, kinds},
};

const TOLD: &str = "
- {text: I look, fail: {status: 529, times: 1, retry_after_ms: 1}, tool_calls: [{tool: probe__note}]}
- {text: done}
";
const LONG: &str = "- {text: one two three four five six seven eight nine ten, repeat: 9}\n";

fn capped(model: &str, tokens: u64) -> StartLoopRequest {
    let mut request = ask(model);
    if let Some(agent) = &mut request.agent {
        agent.limits = Some(LoopLimits {
            max_output_tokens: Some(tokens),
            ..LoopLimits::default()
        });
    }
    request
}

fn bounds(entries: &[Entry]) -> Vec<(OutputBound, u64)> {
    let of = |kind: &Kind| match kind {
        Kind::ModelCallStarted(e) => Some((e.output_bound(), e.max_output_tokens)),
        _ => None,
    };
    kinds(entries).filter_map(of).collect()
}

#[tokio::test]
async fn entries_tell_when_by_whom_and_how() -> Result<()> {
    let stage = Stage::new(&[("told", TOLD)])?.set("retry.base_delay", "1ms");
    let scene = stage.start()?;
    let probe = Probe::serve().await?;
    kit::register(&scene.server.url, "probe", &probe.endpoint).await?;
    kit::wait_for_tools(&scene.client, &["probe__note"]).await?;
    let entries = scene.run(ask("told")).await?;

    let attached = kinds(&entries).find_map(|kind| match kind {
        Kind::DriverAttached(e) => Some((e.epoch, e.server_version.clone())),
        _ => None,
    });
    let version = env!("CARGO_PKG_VERSION").to_owned();
    assert_eq!(attached, Some((1, version)));

    let failed = kinds(&entries).find_map(|kind| match kind {
        Kind::ModelCallFailed(e) => Some(e.http_status),
        _ => None,
    });
    assert_eq!(failed, Some(529));

    let replied = kinds(&entries).find_map(|kind| match kind {
        Kind::ModelCallCompleted(e) => Some((e.time_to_first_token, e.latency)),
        _ => None,
    });
    let (first, whole) = replied.context("a reply")?;
    let first: std::time::Duration = first.context("the time to the first token")?.try_into()?;
    let whole: std::time::Duration = whole.context("the latency")?.try_into()?;
    ensure!(first <= whole, "{first:?} of {whole:?}");

    let started = entries.iter().find_map(|entry| {
        let started = kinds(std::slice::from_ref(entry)).find_map(|kind| match kind {
            Kind::ToolCallStarted(e) => e.deadline,
            _ => None,
        });
        Some((entry.committed_at?, started?))
    });
    let (at, deadline) = started.context("a deadline")?;
    // tools.timeout is two minutes.
    let left = deadline.seconds - at.seconds;
    ensure!((115..=125).contains(&left), "{left}");
    Ok(())
}

#[tokio::test]
async fn who_set_an_output_cap_is_told_and_what_it_cut() -> Result<()> {
    let stage = Stage::new(&[("long", LONG)])?.set("loop.max_output_retries", "0");
    let scene = stage.start()?;
    let entries = scene.run(capped("long", 5)).await?;
    assert_eq!(bounds(&entries), [(OutputBound::Request, 5)]);
    let end = end_of(&entries)?;
    let Some(Detail::MaxOutput(detail)) = &end.detail else {
        anyhow::bail!("{end:?}");
    };
    assert_eq!((detail.max_output_tokens, detail.retries), (5, 0));

    let entries = scene.run(ask("long")).await?;
    assert_eq!(bounds(&entries), [(OutputBound::Config, 4_096)]);
    Ok(())
}
