//! A model writes what is told in the place of dropped turns: charged, durable, and never waited for in vain.

use anyhow::{Context as _, Result, ensure};
use loopwright_proto::v1::{
    Agent, ContextCompacted, ContextOptions, EndReason, Entry, GetModelRequestRequest, LoopLimits,
    ModelCallPurpose, ModelCallStarted, RecapFallback, RecapKind, StartLoopRequest, event::Kind,
    start_loop_request::Input,
};
use loopwright_tests::scene::{self, Stage, end_of, kinds};

/// The first compaction is after step 65, and then there is one every 15 or 20 steps.
const STEPS: u32 = 120;
const WRITER: &str = "\
at_end: repeat
turns:
- text: The vault opens with Q7-kite; all else is routine.
  delay_ms: 300
";
const BROKEN: &str = "at_end: repeat\nturns:\n- fail: { status: 500 }\n";

fn start(session: &str) -> StartLoopRequest {
    let limits = LoopLimits {
        max_steps: Some(STEPS),
        max_output_tokens: Some(1_000),
        ..LoopLimits::default()
    };
    let context = ContextOptions {
        max_tokens: Some(20_000),
        recap: RecapKind::Model.into(),
        recap_model: "writer".to_owned(),
        ..ContextOptions::default()
    };
    StartLoopRequest {
        session_id: session.to_owned(),
        agent: Some(Agent {
            limits: Some(limits),
            context: Some(context),
            ..Agent::default()
        }),
        input: Some(Input::Text("Work without end.".to_owned())),
        ..StartLoopRequest::default()
    }
}

fn compactions(entries: &[Entry]) -> Vec<&ContextCompacted> {
    let compacted = kinds(entries).filter_map(|kind| match kind {
        Kind::ContextCompacted(compacted) => Some(compacted),
        _ => None,
    });
    compacted.collect()
}

fn recaps(entries: &[Entry]) -> Vec<&ModelCallStarted> {
    let started = kinds(entries).filter_map(|kind| match kind {
        Kind::ModelCallStarted(started) => Some(started),
        _ => None,
    });
    started
        .filter(|call| call.purpose() == ModelCallPurpose::Recap)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_writes_the_recap_also_when_the_server_dies_meanwhile() -> Result<()> {
    let mut scene = Stage::new(&[("m", &super::script()), ("writer", WRITER)])?.start()?;
    let started = scene.client.start_loop(start("s1")).await?;
    let asks = |kind: &Kind| matches!(kind, Kind::ModelCallStarted(call) if call.purpose() == ModelCallPurpose::Recap);
    scene::until(&scene.client, "s1", |entry| scene::has(entry, asks)).await?;
    scene.server.kill()?;
    scene.server.restart()?;
    let entries = scene::to_end(&scene.client, "s1", &started.loop_id).await?;
    let end = end_of(&entries)?;
    assert_eq!(end.reason(), EndReason::MaxSteps);
    let done = compactions(&entries);
    ensure!(done.len() >= 3, "{} compactions", done.len());
    for one in &done {
        ensure!(one.recap_by_model && one.target_met, "{one:?}");
        ensure!(
            one.recap.contains("Work without end.") && one.recap.contains("Q7-kite"),
            "{}",
            one.recap
        );
    }
    let calls = recaps(&entries);
    let attempts: Vec<u32> = calls.iter().map(|call| call.attempt).collect();
    assert_eq!(attempts.get(..3), Some(&[1, 2, 1][..]), "made again once");
    assert_eq!(calls.len(), done.len() + 1);
    let totals = end.totals.as_ref().context("totals")?;
    let (all, steps) = (totals.model_calls, u64::from(totals.steps));
    assert_eq!((steps, all), (u64::from(STEPS), steps + calls.len() as u64));

    let asked = GetModelRequestRequest {
        session_id: "s1".to_owned(),
        call: calls.first().context("a recap")?.call.clone(),
        ..GetModelRequestRequest::default()
    };
    let (_, body) = scene.client.get_model_request(asked).await?;
    let body = String::from_utf8_lossy(&body);
    ensure!(
        body.contains("You write the summary") && body.contains("Work without end."),
        "{body}"
    );
    let dir = tempfile::tempdir()?;
    let replay = ["log", "replay", "s1", "--server", &scene.server.url];
    let replayed = scene::loopwright(dir.path(), &replay)?.output()?;
    ensure!(replayed.status.success(), "{replayed:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_fails_costs_the_loop_nothing_but_its_recap() -> Result<()> {
    let scene = Stage::new(&[("m", &super::script()), ("writer", BROKEN)])?.start()?;
    let entries = scene.run(start("s1")).await?;
    assert_eq!(end_of(&entries)?.reason(), EndReason::MaxSteps);
    let done = compactions(&entries);
    ensure!(done.len() >= 3, "{} compactions", done.len());
    for one in &done {
        assert_eq!(
            (one.recap_by_model, one.recap_fallback()),
            (false, RecapFallback::Failed)
        );
        ensure!(one.recap.contains("Work without end."), "{}", one.recap);
    }
    assert_eq!(recaps(&entries).len(), done.len(), "none is tried again");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_nobody_knows_is_refused_before_the_loop() -> Result<()> {
    let scene = Stage::new(&[("m", &super::script())])?.start()?;
    let refused = scene::refusal(scene.client.start_loop(start("s1")).await)?;
    ensure!(refused.message.contains("writer"), "{refused:?}");
    let mut request = start("s2");
    if let Some(context) = request
        .agent
        .as_mut()
        .and_then(|agent| agent.context.as_mut())
    {
        context.recap = RecapKind::Heuristic.into();
    }
    let refused = scene::refusal(scene.client.start_loop(request).await)?;
    ensure!(
        refused.message.contains("agent.context.recap_model"),
        "{refused:?}"
    );
    Ok(())
}
