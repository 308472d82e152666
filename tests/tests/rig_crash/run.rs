//! One run: the server, its sidecar and its clients, the kills, and then the oracle.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use loopwright_client::Client;
use loopwright_tests::{
    kit::{self, Server},
    rig::{
        self, Outcome,
        history::{self, COUNTS, History, Watched},
    },
    scene,
};
use tokio_util::sync::CancellationToken;

use super::{
    calls::Calls,
    files,
    kills::{self, Moments},
    lane::{self, Course, MODELS},
    plan::Plan,
    sidecar::{NAME, TOOLS, Tools},
};

/// Sessions at a time.
const LANES: u64 = 16;
/// Size of a journal segment, the smallest there is: that checkpoints, too, are cut short.
const SEGMENT: &str = "64KiB";
/// How long the loops that still run after the last kill may take.
const TO_THE_END: Duration = Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_that_is_killed_loses_nothing_and_repeats_nothing() -> Result<()> {
    let plan = Plan::from_env()?;
    let temp = tempfile::tempdir()?;
    let mut report = Outcome::new("crash", plan.seed);
    for count in COUNTS {
        report.count(count, 0);
    }
    let done = run(&plan, temp.path(), &mut report).await;
    report.take("the run", done);
    if !report.is_ok() {
        let kept = temp.keep();
        report.wrong(format!("all that there is to see is in {}", kept.display()));
    }
    report.finish(plan.kills.into())
}

async fn run(plan: &Plan, dir: &Path, report: &mut Outcome) -> Result<()> {
    let moments = Moments::default();
    let chance = plan.chance(2 << 32);
    let effect = Arc::clone(&moments.effect);
    let tools = Tools::new(&dir.join("effects"), chance, effect)?;
    let mut server = tokio::task::block_in_place(|| serve(plan, dir))?;
    let client = rig::patient(&server.url)?;
    kit::register(&server.url, NAME, &tools.serve().await?).await?;
    let names = TOOLS.map(|(name, _, _)| format!("{NAME}__{name}"));
    kit::wait_for_tools(&client, &names.each_ref().map(String::as_str)).await?;

    let course = Course {
        url: server.url.clone(),
        plan: *plan,
        moments: moments.clone(),
        closing: CancellationToken::new(),
        overdue: CancellationToken::new(),
    };
    let mut lanes = lane::start(&course, LANES);
    let killed = kills::kill_and_restart(&mut server, plan, &moments).await;
    course.closing.cancel();
    let mut histories: Vec<History> = Vec::new();
    let all = async {
        while let Some(of_lane) = lanes.join_next().await {
            histories.extend(of_lane?);
        }
        anyhow::Ok(())
    };
    let late = async {
        tokio::time::sleep(TO_THE_END).await;
        course.overdue.cancel();
        std::future::pending().await
    };
    tokio::select! {
        all = all => all?,
        () = late => {}
    }
    killed?;
    judge(report, &client, &mut server, &tools, &histories).await
}

async fn judge(
    report: &mut Outcome,
    client: &Client,
    server: &mut Server,
    tools: &Tools,
    histories: &[History],
) -> Result<()> {
    let mut logs = Vec::new();
    let mut calls = Calls::default();
    for history in histories {
        let log = scene::log(client, &history.session)
            .await
            .with_context(|| format!("{} cannot be read", history.session))?;
        history::check(report, history, &log, Watched::ToTheEnd);
        calls.follow(report, &history.session, &log);
        logs.push(log);
    }
    ensure!(server.terminate()? == 0, "{}", server.stderr());
    calls.check(report, &tools.effects()?);
    for (history, log) in histories.iter().zip(&logs) {
        files::check(report, server.dir(), &history.session, log)?;
    }
    Ok(())
}

fn serve(plan: &Plan, dir: &Path) -> Result<Server> {
    let mut options = kit::Options::default()
        .set("session_log.segment_bytes", SEGMENT)
        .set("tools.lease_ttl", "1h")
        .set("tools.on_unknown", "tell_model");
    for (model, delay_ms) in MODELS.into_iter().zip([1, 5]) {
        let path = dir.join(format!("{model}.yaml"));
        std::fs::write(&path, script(delay_ms))?;
        options = options
            .set(&format!("models.{model}.provider"), "scripted")
            .set(
                &format!("models.{model}.script"),
                path.display().to_string(),
            );
    }
    let free = rig::port(&mut plan.chance(3 << 32))?;
    options
        .set("server.listen", format!("127.0.0.1:{free}"))
        .start_in(dir)
}

/// Every tool in turn, then all of them side by side, then a last word; and from the start again.
fn script(delay_ms: u32) -> String {
    let mut turns = "at_end: repeat\nturns:\n".to_owned();
    let mut turn = |tools: &[&str]| {
        turns.push_str("- text: \"reply {{turn}}, which is streamed piece by piece\"\n");
        turns.push_str(&format!("  chunk: {{ chars: 8, delay_ms: {delay_ms} }}\n"));
        for (at, tool) in tools.iter().enumerate() {
            if at == 0 {
                turns.push_str("  tool_calls:\n");
            }
            let arguments = format!("{{ reply: \"{{{{turn}}}}\", at: {at} }}");
            turns.push_str(&format!(
                "  - tool: {NAME}__{tool}\n    arguments: {arguments}\n"
            ));
        }
    };
    for (tool, _, _) in TOOLS {
        turn(&[tool]);
    }
    turn(&[
        "send", "charge", "set", "look", "mail", "charge", "send", "mail",
    ]);
    turn(&[]);
    turns
}
