//! Limits that move while a loop goes on: up to what the server allows, and down to its end; loops
//! that wait at a limit, and the budget of a whole session.

use anyhow::{Context as _, Result, ensure};
use loopwright_proto::v1::{
    Agent, BudgetDimension, BudgetExceededDetail, BudgetLimits, BudgetScope, BudgetWarning,
    EndReason, Entry, GetLoopRequest, LoopLimits, LoopState, OnExhausted, StartLoopRequest,
    UpdateLimitsRequest, event::Kind, loop_ended::Detail, start_loop_request::Input,
};
use loopwright_tests::{
    kit,
    probe::Probe,
    scene::{self, Scene, Stage, ask, end_of, has, kinds, refusal, to_end, until},
};
use tonic::Code;

/// Calls a tool that answers when it is let go, again and again.
const HOLDS: &str = "
at_end: repeat
turns:
- {tool_calls: [{tool: probe__hold}], usage: {input: 10, output: 100}}
";
/// Says one thing, ten tokens read and a hundred written.
const SAYS: &str = "
at_end: repeat
turns:
- {text: done, usage: {input: 10, output: 100}}
";

fn steps(max_steps: u32) -> LoopLimits {
    LoopLimits {
        max_steps: Some(max_steps),
        ..LoopLimits::default()
    }
}

fn budget(budget: BudgetLimits) -> LoopLimits {
    LoopLimits {
        budget: Some(budget),
        ..LoopLimits::default()
    }
}

fn calls(limit: u64) -> BudgetLimits {
    BudgetLimits {
        max_model_calls: Some(limit),
        ..BudgetLimits::default()
    }
}

fn update(session: &str, limits: LoopLimits) -> UpdateLimitsRequest {
    UpdateLimitsRequest {
        session_id: session.to_owned(),
        limits: Some(limits),
        ..UpdateLimitsRequest::default()
    }
}

fn limited(limits: LoopLimits) -> StartLoopRequest {
    let mut request = ask("m");
    if let Some(agent) = &mut request.agent {
        agent.limits = Some(limits);
    }
    request
}

async fn with_probe(stage: Stage) -> Result<(Scene, Probe)> {
    let scene = stage.start()?;
    let probe = Probe::serve().await?;
    kit::register(&scene.server.url, "probe", &probe.endpoint).await?;
    kit::wait_for_tools(&scene.client, &["probe__hold"]).await?;
    Ok((scene, probe))
}

/// Lets each held call go until the loop has ended.
async fn run_out(scene: &Scene, probe: &Probe, session: &str, of: &str) -> Result<Vec<Entry>> {
    probe.let_go(100);
    to_end(&scene.client, session, of).await
}

fn exceeded(entries: &[Entry]) -> Result<BudgetExceededDetail> {
    match &end_of(entries)?.detail {
        Some(Detail::BudgetExceeded(detail)) => Ok(detail.clone()),
        other => anyhow::bail!("{other:?}"),
    }
}

fn scope(budget: Option<&loopwright_proto::v1::BudgetRef>) -> Option<BudgetScope> {
    budget.map(loopwright_proto::v1::BudgetRef::scope)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_loop_gets_more_steps_and_no_more_than_the_server_allows() -> Result<()> {
    let stage = Stage::new(&[("m", HOLDS)])?
        .set("loop.max_steps", "4")
        .set("limits.max_steps", "4");
    let (scene, probe) = with_probe(stage).await?;
    let started = scene.client.start_loop(limited(steps(1))).await?;
    let session = &started.session_id;
    probe.until(|counts| counts.running == 1).await?;
    let refused = scene.client.update_limits(update(session, steps(5))).await;
    let refused = refusal(refused)?;
    assert_eq!(refused.code, Code::InvalidArgument);
    for part in [
        "limits.max_steps",
        "5 is above",
        "limits.max_steps = 4",
        "it stays",
    ] {
        ensure!(
            refused.message.contains(part),
            "{part}: {}",
            refused.message
        );
    }
    let nothing = scene
        .client
        .update_limits(update(session, LoopLimits::default()));
    assert_eq!(refusal(nothing.await)?.code, Code::InvalidArgument);
    let mut command = scene::loopwright(scene.server.dir(), &["limits", session])?;
    let output = command
        .args(["--max-steps", "3", "--server", &scene.server.url])
        .output()?;
    ensure!(output.status.success(), "{output:?}");
    let entries = run_out(&scene, &probe, session, &started.loop_id).await?;
    let end = end_of(&entries)?;
    assert_eq!(end.reason(), EndReason::MaxSteps);
    assert_eq!(end.totals.as_ref().context("totals")?.steps, 3);
    let updated = kinds(&entries).find_map(|kind| match kind {
        Kind::LimitsUpdated(e) => Some((e.limits.and_then(|l| l.max_steps), e.by.clone())),
        _ => None,
    });
    assert_eq!(updated, Some((Some(3), "local".to_owned())));
    let ended = scene.client.update_limits(update(session, steps(3))).await;
    assert_eq!(refusal(ended)?.reason, "NO_LOOP");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_moves_below_what_is_used_and_up_to_what_is_configured() -> Result<()> {
    let stage = Stage::new(&[("m", HOLDS)])?.set("budget.max_model_calls", "5");
    let (scene, probe) = with_probe(stage).await?;
    let request = limited(budget(calls(2)));
    let started = scene.client.start_loop(request).await?;
    let session = &started.session_id;
    probe.until(|counts| counts.running == 1).await?;
    let wider = scene
        .client
        .update_limits(update(session, budget(calls(6))));
    let wider = refusal(wider.await)?;
    for part in [
        "limits.budget.max_model_calls",
        "6 is wider than budget.max_model_calls = 5",
    ] {
        ensure!(wider.message.contains(part), "{}", wider.message);
    }
    scene
        .client
        .update_limits(update(session, budget(calls(5))))
        .await?;
    let lower = budget(BudgetLimits {
        max_output_tokens: Some(50),
        ..BudgetLimits::default()
    });
    scene.client.update_limits(update(session, lower)).await?;
    let entries = run_out(&scene, &probe, session, &started.loop_id).await?;
    let detail = exceeded(&entries)?;
    assert_eq!(detail.dimension(), BudgetDimension::OutputTokens);
    assert_eq!((detail.limit, detail.used), (50, 100));
    assert_eq!(end_of(&entries)?.totals.as_ref().map(|t| t.steps), Some(1));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn at_its_limit_a_loop_waits_over_a_crash_until_it_is_raised() -> Result<()> {
    let stage = Stage::new(&[("m", HOLDS)])?.set("budget.on_exhausted", "pause");
    let (mut scene, probe) = with_probe(stage).await?;
    let request = limited(budget(calls(1)));
    let started = scene.client.start_loop(request).await?;
    let session = started.session_id.clone();
    probe.let_go(100);
    let paused = |kind: &Kind| matches!(kind, Kind::LoopPaused(_));
    let entries = until(&scene.client, &session, |e| has(e, paused)).await?;
    let waits = kinds(&entries).find_map(|kind| match kind {
        Kind::LoopPaused(e) => e.budget.clone(),
        _ => None,
    });
    let waits = waits.context("what it waits for")?;
    assert_eq!(scope(waits.budget.as_ref()), Some(BudgetScope::Loop));
    assert_eq!(waits.dimension(), BudgetDimension::ModelCalls);
    scene.server.kill()?;
    scene.server.restart()?;
    kit::register(&scene.server.url, "probe", &probe.endpoint).await?;
    kit::wait_for_tools(&scene.client, &["probe__hold"]).await?;
    let request = GetLoopRequest {
        session_id: session.clone(),
        ..GetLoopRequest::default()
    };
    let shown = scene.client.get_loop(request).await?.r#loop;
    assert_eq!(shown.context("a loop")?.state(), LoopState::Paused);
    let resume = loopwright_proto::v1::ResumeLoopRequest {
        session_id: session.clone(),
        ..Default::default()
    };
    let still = refusal(scene.client.resume_loop(resume).await)?;
    assert_eq!(still.reason, "BUDGET_EXHAUSTED");
    ensure!(still.message.contains("UpdateLimits"), "{}", still.message);
    let raised = budget(BudgetLimits {
        on_exhausted: OnExhausted::End.into(),
        ..calls(2)
    });
    scene.client.update_limits(update(&session, raised)).await?;
    let entries = to_end(&scene.client, &session, &started.loop_id).await?;
    assert_eq!(exceeded(&entries)?.used, 2, "it went on, and then ended");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_has_a_budget_over_its_loops_and_is_warned_before_its_end() -> Result<()> {
    let mut scene = Stage::new(&[("m", SAYS)])?.start()?;
    let agent = Agent {
        model: "m".to_owned(),
        session_budget: Some(calls(3)),
        limits: Some(budget(BudgetLimits {
            warn_at: Some(0.6),
            ..BudgetLimits::default()
        })),
        ..Agent::default()
    };
    let start = |session: &str, agent: Option<Agent>| StartLoopRequest {
        session_id: session.to_owned(),
        agent,
        input: Some(Input::Text("work".to_owned())),
        ..StartLoopRequest::default()
    };
    let first = scene.client.start_loop(start("", Some(agent))).await?;
    let session = first.session_id.clone();
    to_end(&scene.client, &session, &first.loop_id).await?;
    scene.server.kill()?;
    scene.server.restart()?;
    let mut entries = Vec::new();
    for _ in 0..3 {
        let next = scene.client.start_loop(start(&session, None)).await?;
        entries = to_end(&scene.client, &session, &next.loop_id).await?;
    }
    let detail = exceeded(&entries)?;
    assert_eq!(scope(detail.budget.as_ref()), Some(BudgetScope::Session));
    assert_eq!((detail.limit, detail.used), (3, 3));
    let warnings: Vec<&BudgetWarning> = kinds(&entries)
        .filter_map(|kind| match kind {
            Kind::BudgetWarning(e) => Some(e),
            _ => None,
        })
        .collect();
    let [warning] = warnings[..] else {
        anyhow::bail!("{warnings:?}");
    };
    assert_eq!(scope(warning.budget.as_ref()), Some(BudgetScope::Session));
    assert_eq!((warning.limit, warning.used), (3, 2));
    Ok(())
}
