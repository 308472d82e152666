//! The time that a loop may run: it ends with what runs given up, over a crash too, or waits while
//! its time stands still; and a limit is removed from the command line.

use anyhow::{Context as _, Result, ensure};
use loopwright_proto::v1::{
    BudgetDimension, BudgetExceededDetail, BudgetLimits, BudgetScope, BudgetTerms, BudgetWarning,
    CancelLoopRequest, CreateBudgetRequest, EndReason, GetLoopRequest, LoopEnded, LoopLimits,
    LoopState, OnExhausted, StartLoopRequest, UpdateLimitsRequest, event::Kind, loop_ended::Detail,
};
use loopwright_proto::well_known;
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

async fn with_probe(stage: Stage) -> Result<(Scene, Probe)> {
    let scene = stage.start()?;
    let probe = Probe::serve().await?;
    registered(&scene, &probe).await?;
    Ok((scene, probe))
}

async fn registered(scene: &Scene, probe: &Probe) -> Result<()> {
    kit::register(&scene.server.url, "probe", &probe.endpoint).await?;
    kit::wait_for_tools(&scene.client, &["probe__hold"]).await
}

fn time(millis: i32) -> BudgetLimits {
    BudgetLimits {
        max_wall_time: Some(well_known::Duration {
            seconds: i64::from(millis / 1_000),
            nanos: millis % 1_000 * 1_000_000,
        }),
        ..BudgetLimits::default()
    }
}

fn limited(budget: BudgetLimits) -> StartLoopRequest {
    let mut request = ask("m");
    if let Some(agent) = &mut request.agent {
        agent.limits = Some(LoopLimits {
            budget: Some(budget),
            ..LoopLimits::default()
        });
    }
    request
}

fn millis(span: Option<&well_known::Duration>) -> Result<i64> {
    let span = span.context("a time")?;
    Ok(span.seconds * 1_000 + i64::from(span.nanos / 1_000_000))
}

fn is_of_time(detail: &BudgetExceededDetail) -> bool {
    let scope = detail.budget.as_ref().map(|budget| budget.scope());
    scope == Some(BudgetScope::Loop) && detail.dimension() == BudgetDimension::WallTimeMs
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loop_ends_when_its_time_is_up_and_a_crash_gives_it_no_more() -> Result<()> {
    let stage = Stage::new(&[("m", HOLDS)])?.set("budget.max_wall_time", "1500ms");
    let (mut scene, probe) = with_probe(stage).await?;
    let wider = refusal(scene.client.start_loop(limited(time(1_501))).await)?;
    assert_eq!(wider.code, Code::InvalidArgument);
    ensure!(
        wider
            .message
            .contains("agent.limits.budget.max_wall_time: 1501ms is wider")
            && wider.message.contains("budget.max_wall_time = 1500ms"),
        "{}",
        wider.message
    );
    let started = scene.client.start_loop(ask("m")).await?;
    probe.until(|counts| counts.running == 1).await?;
    scene.server.kill()?;
    scene.server.restart()?;
    registered(&scene, &probe).await?;
    let entries = to_end(&scene.client, &started.session_id, &started.loop_id).await?;
    let end: &LoopEnded = end_of(&entries)?;
    assert_eq!(end.reason(), EndReason::BudgetExceeded);
    let Some(Detail::BudgetExceeded(detail)) = &end.detail else {
        anyhow::bail!("{end:?}");
    };
    ensure!(is_of_time(detail), "{detail:?}");
    ensure!(detail.limit == 1_500 && detail.used >= 1_500, "{detail:?}");
    let totals = end.totals.as_ref().context("totals")?;
    assert_eq!(
        millis(totals.wall_time.as_ref())?,
        i64::try_from(detail.used)?
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loop_waits_for_time_and_goes_on_when_the_limit_is_removed() -> Result<()> {
    let (scene, probe) = with_probe(Stage::new(&[("m", HOLDS)])?).await?;
    let request = limited(BudgetLimits {
        on_exhausted: OnExhausted::Pause.into(),
        ..time(400)
    });
    let started = scene.client.start_loop(request).await?;
    let session = started.session_id.clone();
    probe.until(|counts| counts.running == 1).await?;
    let paused = |kind: &Kind| matches!(kind, Kind::LoopPaused(_));
    let entries = until(&scene.client, &session, |entry| has(entry, paused)).await?;
    let warned: Vec<&BudgetWarning> = kinds(&entries)
        .filter_map(|kind| match kind {
            Kind::BudgetWarning(e) => Some(e),
            _ => None,
        })
        .collect();
    let [warning] = warned[..] else {
        anyhow::bail!("{warned:?}");
    };
    assert_eq!(warning.dimension(), BudgetDimension::WallTimeMs);
    ensure!(
        warning.limit == 400 && (320..400).contains(&warning.used),
        "in time: {warning:?}"
    );
    let waits = kinds(&entries).find_map(|kind| match kind {
        Kind::LoopPaused(e) => e.budget.clone(),
        _ => None,
    });
    ensure!(waits.as_ref().is_some_and(is_of_time), "{waits:?}");
    assert_eq!(probe.counts().running, 1, "what runs is left to end");
    let shown = async || -> Result<(LoopState, i64)> {
        let request = GetLoopRequest {
            session_id: session.clone(),
            ..GetLoopRequest::default()
        };
        let shown = scene.client.get_loop(request).await?;
        let summary = shown.r#loop.context("a loop")?;
        let totals = summary.totals.as_ref().context("totals")?;
        Ok((summary.state(), millis(totals.wall_time.as_ref())?))
    };
    let stood = shown().await?;
    assert_eq!(stood.0, LoopState::Paused);
    probe.let_go(100);
    let ended = |kind: &Kind| matches!(kind, Kind::ToolCallCompleted(_));
    until(&scene.client, &session, |entry| has(entry, ended)).await?;
    assert_eq!(shown().await?, stood, "its time stands still");
    let mut command = scene::loopwright(scene.server.dir(), &["limits", &session])?;
    let output = command
        .args(["--max-wall-time", "none", "--max-steps", "2"])
        .args(["--server", &scene.server.url])
        .output()?;
    ensure!(output.status.success(), "{output:?}");
    let entries = to_end(&scene.client, &session, &started.loop_id).await?;
    assert_eq!(end_of(&entries)?.reason(), EndReason::MaxSteps);
    let limits = kinds(&entries).find_map(|kind| match kind {
        Kind::LimitsUpdated(e) => e.limits,
        _ => None,
    });
    let budget = limits.and_then(|limits| limits.budget).context("limits")?;
    assert_eq!(budget.max_wall_time, None);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_limits_is_not_removed() -> Result<()> {
    let stage = Stage::new(&[("m", HOLDS)])?.set("budget.max_model_calls", "5");
    let (scene, probe) = with_probe(stage).await?;
    let own = BudgetLimits {
        max_model_calls: Some(1),
        max_tool_calls: Some(9),
        ..BudgetLimits::default()
    };
    let started = scene.client.start_loop(limited(own)).await?;
    probe.until(|counts| counts.running == 1).await?;
    let clear = UpdateLimitsRequest {
        session_id: started.session_id.clone(),
        clear_budget: vec![
            BudgetDimension::ModelCalls.into(),
            BudgetDimension::ToolCalls.into(),
        ],
        ..UpdateLimitsRequest::default()
    };
    scene.client.update_limits(clear.clone()).await?;
    let both = UpdateLimitsRequest {
        limits: Some(LoopLimits {
            budget: Some(own),
            ..LoopLimits::default()
        }),
        ..clear
    };
    let refused = refusal(scene.client.update_limits(both).await)?;
    assert_eq!(refused.code, Code::InvalidArgument);
    ensure!(
        refused.message.contains("clear_budget[0]: MODEL_CALLS"),
        "{}",
        refused.message
    );
    probe.let_go(100);
    let entries = to_end(&scene.client, &started.session_id, &started.loop_id).await?;
    let Some(Detail::BudgetExceeded(detail)) = &end_of(&entries)?.detail else {
        anyhow::bail!("{:?}", end_of(&entries)?);
    };
    assert_eq!(
        (detail.dimension(), detail.limit, detail.used),
        (BudgetDimension::ModelCalls, 5, 5)
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn shared_budgets_are_charged_with_a_loops_time_to_its_end() -> Result<()> {
    let (scene, probe) = with_probe(Stage::new(&[("m", HOLDS)])?).await?;
    let terms = BudgetTerms {
        limits: Some(time(900_000)),
        ..BudgetTerms::default()
    };
    let request = CreateBudgetRequest {
        name: "team".to_owned(),
        terms: Some(terms),
    };
    scene.client.create_budget(request).await?;
    let mut request = ask("m");
    if let Some(agent) = &mut request.agent {
        agent.budgets = vec!["team".to_owned()];
    }
    let started = scene.client.start_loop(request).await?;
    probe.until(|counts| counts.running == 1).await?;
    let charged = async || -> Result<i64> {
        let team = scene.client.get_budget("team").await?;
        let settled = team.settled.unwrap_or_default();
        Ok(i64::try_from(settled.wall_time_ms)?)
    };
    scene::eventually("its call is settled", async || {
        let team = scene.client.get_budget("team").await?;
        Ok(team.open_reservations == 0 && team.settled.is_some_and(|of| of.model_calls == 1))
    })
    .await?;
    let before = charged().await?;
    let cancel = CancelLoopRequest {
        session_id: started.session_id.clone(),
        ..CancelLoopRequest::default()
    };
    scene.client.cancel_loop(cancel).await?;
    let entries = to_end(&scene.client, &started.session_id, &started.loop_id).await?;
    let totals = end_of(&entries)?.totals.as_ref().context("totals")?;
    let whole = millis(totals.wall_time.as_ref())?;
    ensure!(
        whole > before,
        "its tool ran on: {whole} ms, {before} before"
    );
    scene::eventually("all of its time is charged", async || {
        Ok(charged().await? == whole)
    })
    .await?;
    let team = scene.client.get_budget("team").await?;
    assert_eq!(team.open_reservations, 0);
    assert_eq!(team.settled.unwrap_or_default().model_calls, 1);
    Ok(())
}
