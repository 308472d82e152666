//! What a session had set aside that nobody can drive on: it counts as used, whole.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use loopwright_proto::v1::{
    Agent, BudgetLimits, BudgetTerms, CreateBudgetRequest, EndReason, GetSessionRequest,
    SessionState, StartLoopRequest, event::Kind,
};
use loopwright_tests::scene::{self, Stage, ask, end_of};

use super::ledger::Ledger;

/// A reply that outlives the test.
const SCRIPT: &str = "turns:
- { text: a reply that takes its time, chunk: { chars: 1, delay_ms: 60000 } }
";

/// One that does not.
const QUICK: &str = "turns:
- { text: done, usage: { input: 300, output: 20 } }
";

/// Changes one byte in the line of a file, from 1.
fn spoil(path: &Path, line: usize) -> Result<()> {
    let mut bytes = fs::read(path)?;
    let lines = bytes.split_inclusive(|byte| *byte == b'\n');
    let start: usize = lines.take(line - 1).map(<[u8]>::len).sum();
    bytes[start + 100] ^= 1;
    Ok(fs::write(path, bytes)?)
}

fn charged(model: &str) -> StartLoopRequest {
    let asked = ask(model);
    StartLoopRequest {
        session_id: "s".to_owned(),
        agent: asked.agent.map(|agent| Agent {
            budgets: vec!["team".to_owned()],
            ..agent
        }),
        ..asked
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corrupt_session_is_charged_with_all_that_it_had_set_aside() -> Result<()> {
    let mut scene = Stage::new(&[("m", SCRIPT), ("quick", QUICK)])?.start()?;
    let limits = BudgetLimits {
        max_total_tokens: Some(100_000),
        ..BudgetLimits::default()
    };
    let terms = Some(BudgetTerms {
        limits: Some(limits),
        ..BudgetTerms::default()
    });
    let name = "team".to_owned();
    let request = CreateBudgetRequest { name, terms };
    scene.client.create_budget(request).await?;
    scene.client.start_loop(charged("m")).await?;
    let begun = |kind: &Kind| matches!(kind, Kind::ModelCallStarted(_));
    scene::until(&scene.client, "s", |entry| scene::has(entry, begun)).await?;
    let reserved = scene.client.get_budget("team").await?.reserved;
    let reserved = reserved.unwrap_or_default();
    ensure!(reserved.output_tokens == 4_096, "{reserved:?}");
    // In order: its last records are in its file then, and nowhere else.
    scene.server.terminate()?;
    let log = scene.server.dir().join("log");
    spoil(&log.join("default/session/s/log.jsonl"), 3)?;

    scene.server.restart()?;
    let client = scene::client(&scene.server.url, None)?;
    let request = GetSessionRequest {
        session_id: "s".to_owned(),
    };
    let shown = client.get_session(request).await?.session;
    let state = shown.unwrap_or_default().state();
    ensure!(state == SessionState::Corrupt, "{state:?}");
    scene::eventually("nothing is set aside", async || {
        Ok(client.get_budget("team").await?.open_reservations == 0)
    })
    .await?;
    let settled = client.get_budget("team").await?.settled;
    let settled = settled.unwrap_or_default();
    let whole = |of: &loopwright_proto::v1::BudgetAmount| {
        (of.input_tokens, of.output_tokens, of.model_calls)
    };
    ensure!(whole(&settled) == whole(&reserved), "{settled:?}");
    scene.server.terminate()?;
    let ledger = Ledger::read(scene.server.dir())?;
    ensure!(
        ledger.whole.len() == 1 && ledger.open().is_empty(),
        "{ledger:?}"
    );

    // Cut back, the session comes to the very name of the call that it has lost, and goes on.
    let dir = log.to_str().context("a plain path")?;
    let mut repair = scene::loopwright(scene.server.dir(), &["log", "repair", "s", "--dir", dir])?;
    let repaired = repair.output()?;
    ensure!(repaired.status.success(), "{repaired:?}");
    scene.server.restart()?;
    let client = scene::client(&scene.server.url, None)?;
    let started = client.start_loop(charged("quick")).await?;
    let entries = scene::to_end(&client, "s", &started.loop_id).await?;
    let end = end_of(&entries)?;
    ensure!(end.reason() == EndReason::Completed, "{end:?}");
    scene::eventually("the call is charged", async || {
        let team = client.get_budget("team").await?;
        let calls = team.settled.unwrap_or_default().model_calls;
        Ok(calls == 2 && team.open_reservations == 0)
    })
    .await?;
    Ok(())
}
