//! `loopwright budget`, as a person uses it, and what a loop says that meets such a budget.

use anyhow::{Context as _, Result, ensure};
use loopwright_proto::v1::{
    Agent, BudgetDimension, DeleteSessionRequest, EndReason, GetLoopRequest, LoopState,
    StartLoopRequest, event::Kind, loop_ended::Detail,
};
use loopwright_tests::scene::{self, Scene, Stage, ask, end_of, refusal};
use tonic::Code;

const SCRIPT: &str = "at_end: repeat
turns:
- { text: done, usage: { input: 300, output: 20 } }
";

fn budget(scene: &Scene, args: &[&str]) -> Result<(i32, String, String)> {
    let dir = scene.server.dir();
    let mut command = scene::loopwright(dir, &["budget"])?;
    let output = command
        .args(args)
        .args(["--server", &scene.server.url])
        .output()?;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).context("output is no text");
    let code = output.status.code().context("ended by a signal")?;
    Ok((code, text(output.stdout)?, text(output.stderr)?))
}

fn charged(names: &[&str]) -> StartLoopRequest {
    let mut request = ask("m");
    if let Some(agent) = &mut request.agent {
        *agent = Agent {
            budgets: names.iter().map(|name| (*name).to_owned()).collect(),
            ..agent.clone()
        };
    }
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_is_made_shown_raised_and_deleted_from_the_command_line() -> Result<()> {
    let scene = Stage::new(&[("m", SCRIPT)])?.start()?;
    let (code, made, _) = budget(
        &scene,
        &["create", "team", "--max-tokens", "5k", "--period", "day"],
    )?;
    ensure!(
        code == 0 && made.contains("0 of 5,000") && made.contains("each day"),
        "{made}"
    );
    let entries = scene.run(charged(&["team"])).await?;
    assert_eq!(end_of(&entries)?.reason(), EndReason::Completed);
    let (_, shown, _) = budget(&scene, &["show", "team"])?;
    ensure!(
        shown.contains("█") && shown.contains("320 of 5,000"),
        "{shown}"
    );
    let (_, set, _) = budget(&scene, &["set", "team", "--max-tokens", "400"])?;
    ensure!(
        set.contains("320 of 400") && set.contains("each day"),
        "{set}"
    );
    let entries = scene.run(charged(&["team"])).await?;
    let end = end_of(&entries)?;
    let Some(Detail::BudgetExceeded(detail)) = &end.detail else {
        anyhow::bail!("{end:?}");
    };
    let named = detail.budget.clone().unwrap_or_default().name;
    assert_eq!(
        (named.as_str(), detail.limit, detail.used),
        ("team", 400, 320)
    );
    let (code, _, bad) = budget(&scene, &["set", "team", "--max-tokens", "1e6"])?;
    ensure!(
        code == 2 && bad.contains("1e6") && bad.contains("1.5M"),
        "{bad}"
    );
    let (code, _, _) = budget(&scene, &["rm", "team"])?;
    assert_eq!(code, 0);
    let (code, _, gone) = budget(&scene, &["show", "team"])?;
    ensure!(
        code == 1 && gone.contains("no budget `team`"),
        "{code} {gone}"
    );
    let (_, _, none) = budget(&scene, &["list"])?;
    ensure!(none.contains("budget create"), "{none}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_namespaces_budget_is_charged_with_loops_that_name_none() -> Result<()> {
    let scene = Stage::new(&[("m", SCRIPT)])?.start()?;
    budget(&scene, &["create", "namespace", "--max-tokens", "1M"])?;
    let entries = scene.run(ask("m")).await?;
    assert_eq!(end_of(&entries)?.reason(), EndReason::Completed);
    let (_, shown, _) = budget(&scene, &["show", "namespace"])?;
    ensure!(shown.contains("320 of 1,000,000"), "{shown}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn tool_calls_and_time_have_their_limits_and_their_bars() -> Result<()> {
    let scene = Stage::new(&[("m", SCRIPT)])?.start()?;
    let made = [
        "create",
        "team",
        "--max-tool-calls",
        "5",
        "--max-wall-time",
        "15m",
    ];
    let (code, shown, _) = budget(&scene, &made)?;
    ensure!(
        code == 0 && shown.contains("0 of 5") && shown.contains("0 ms of 15 min"),
        "{shown}"
    );
    let entries = scene.run(charged(&["team"])).await?;
    let end = end_of(&entries)?;
    assert_eq!(end.reason(), EndReason::Completed);
    let time = async || -> Result<u64> {
        let team = scene.client.get_budget("team").await?;
        Ok(team.settled.unwrap_or_default().wall_time_ms)
    };
    scene::eventually("its time is charged", async || Ok(time().await? > 0)).await?;
    let whole = end.totals.unwrap_or_default();
    let whole = whole.wall_time.unwrap_or_default();
    let whole = u64::try_from(whole.seconds * 1_000 + i64::from(whole.nanos / 1_000_000))?;
    ensure!(time().await? <= whole, "{} of {whole} ms", time().await?);
    let limit = loopwright_proto::v1::BudgetLimits {
        max_wall_time: Some(loopwright_proto::well_known::Duration::default()),
        ..Default::default()
    };
    let request = loopwright_proto::v1::CreateBudgetRequest {
        name: "none".to_owned(),
        terms: Some(loopwright_proto::v1::BudgetTerms {
            limits: Some(limit),
            ..Default::default()
        }),
    };
    scene.client.create_budget(request).await?;
    let entries = scene.run(charged(&["none"])).await?;
    let end = end_of(&entries)?;
    let Some(Detail::BudgetExceeded(detail)) = &end.detail else {
        anyhow::bail!("{end:?}");
    };
    assert_eq!(
        (detail.dimension(), detail.limit),
        (BudgetDimension::WallTimeMs, 0)
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_takes_the_id_of_a_deleted_one_is_charged_anew() -> Result<()> {
    let mut scene = Stage::new(&[("m", SCRIPT)])?.start()?;
    budget(&scene, &["create", "team", "--max-tokens", "10k"])?;
    for _ in 0..2 {
        let request = StartLoopRequest {
            session_id: "again".to_owned(),
            ..charged(&["team"])
        };
        let entries = scene.run(request).await?;
        assert_eq!(end_of(&entries)?.reason(), EndReason::Completed);
        let request = DeleteSessionRequest {
            session_id: "again".to_owned(),
            ..DeleteSessionRequest::default()
        };
        scene.client.delete_session(request).await?;
    }
    scene.server.kill()?;
    scene.server.restart()?;
    scene::eventually("nothing is set aside", async || {
        Ok(scene.client.get_budget("team").await?.open_reservations == 0)
    })
    .await?;
    let team = scene.client.get_budget("team").await?;
    let settled = team.settled.unwrap_or_default();
    assert_eq!(settled.model_calls, 2);
    ensure!(
        settled.input_tokens >= 600,
        "at least what both used: {settled:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_be_a_free_ride_is_refused_before_it_starts() -> Result<()> {
    let scene = Stage::new(&[("m", SCRIPT)])?.start()?;
    let status = refusal(scene.client.start_loop(charged(&["nobody"])).await)?;
    assert_eq!(
        (status.code, status.reason.as_str()),
        (Code::FailedPrecondition, "BUDGET_NOT_FOUND")
    );
    budget(&scene, &["create", "money", "--max-cost", "0.25"])?;
    let status = refusal(scene.client.start_loop(charged(&["money"])).await)?;
    assert_eq!(
        (status.code, status.reason.as_str()),
        (Code::FailedPrecondition, "NO_PRICE")
    );
    ensure!(
        status.message.contains("models.<alias>.price"),
        "{status:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_call_gives_back_is_there_for_the_next_one_of_the_same_entry() -> Result<()> {
    // The call takes all that there is, uses little, and asks for a tool that is refused at once: one
    // entry settles it and asks for the next one.
    let script = "turns:
- { tool_calls: [{ tool: none__such, arguments: {} }], usage: { input: 300, output: 20 } }
- { text: done, usage: { input: 400, output: 20 } }
";
    let scene = Stage::new(&[("m", script)])?.start()?;
    budget(&scene, &["create", "team", "--max-tokens", "3k"])?;
    let entries = scene.run(charged(&["team"])).await?;
    assert_eq!(end_of(&entries)?.reason(), EndReason::Completed);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn money_is_reserved_at_the_dearest_price_and_settled_at_the_real_one() -> Result<()> {
    let stage = Stage::new(&[("m", SCRIPT)])?
        .set("models.m.price.input", "3")
        .set("models.m.price.output", "15");
    let scene = stage.start()?;
    budget(&scene, &["create", "money", "--max-cost", "0.01"])?;
    let entries = scene.run(charged(&["money"])).await?;
    assert_eq!(end_of(&entries)?.reason(), EndReason::Completed);
    let org = scene.client.get_budget("money").await?;
    let cost = org.settled.unwrap_or_default().cost_micro_usd;
    assert_eq!(cost, Some(300 * 3 + 20 * 15), "of 10,000 micro-USD");
    let mut last = EndReason::Completed;
    for _ in 0..12 {
        let entries = scene.run(charged(&["money"])).await?;
        last = end_of(&entries)?.reason();
    }
    assert_eq!(last, EndReason::BudgetExceeded);
    let settled = scene
        .client
        .get_budget("money")
        .await?
        .settled
        .unwrap_or_default();
    ensure!(settled.cost_micro_usd <= Some(10_000), "{settled:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loop_waits_for_a_budget_that_says_so_and_goes_on_when_it_is_raised() -> Result<()> {
    let mut scene = Stage::new(&[("m", SCRIPT)])?.start()?;
    let made = [
        "create",
        "team",
        "--max-tokens",
        "100",
        "--on-exhausted",
        "pause",
    ];
    let (code, shown, _) = budget(&scene, &made)?;
    ensure!(code == 0 && shown.contains("loops wait for it"), "{shown}");
    let started = scene.client.start_loop(charged(&["team"])).await?;
    let session = started.session_id.clone();
    let paused = |kind: &Kind| matches!(kind, Kind::LoopPaused(_));
    scene::until(&scene.client, &session, |entry| scene::has(entry, paused)).await?;
    let state = async |client: &loopwright_client::Client| {
        let request = GetLoopRequest {
            session_id: session.clone(),
            ..GetLoopRequest::default()
        };
        let shown = client.get_loop(request).await?.r#loop.unwrap_or_default();
        anyhow::Ok(shown.state())
    };
    assert_eq!(state(&scene.client).await?, LoopState::Paused);
    scene.server.kill()?;
    scene.server.restart()?;
    assert_eq!(
        state(&scene.client).await?,
        LoopState::Paused,
        "after a crash too"
    );
    budget(&scene, &["set", "team", "--max-tokens", "10k"])?;
    let entries = scene::to_end(&scene.client, &started.session_id, &started.loop_id).await?;
    assert_eq!(end_of(&entries)?.reason(), EndReason::Completed);
    let resumed = |kind: &&Kind| matches!(kind, Kind::LoopPaused(_) | Kind::LoopResumed(_));
    assert_eq!(
        scene::kinds(&entries).filter(resumed).count(),
        2,
        "each is said once"
    );
    Ok(())
}
