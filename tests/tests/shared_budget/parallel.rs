//! 64 loops on a budget for ten, with a server that is killed again and again.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use futures_util::future::try_join_all;
use loopwright_client::{Client, ClientOptions};
use loopwright_proto::v1::{
    Agent, BudgetLimits, BudgetTerms, CreateBudgetRequest, EndReason, LoopLimits, StartLoopRequest,
    start_loop_request::Input,
};
use loopwright_tests::scene::{self, Stage};

use super::ledger::Ledger;

const LOOPS: usize = 64;
const KILLS: usize = 6;
/// Of one loop that no kill has touched: four calls of 320 tokens.
const OF_A_LOOP: u64 = 4 * 320;

/// Four slow replies, each with a call of a tool that is not there.
const SCRIPT: &str = "turns:
- { text: one, chunk: { chars: 1, delay_ms: 10 }, usage: { input: 300, output: 20 }, tool_calls: [{ tool: none__such, arguments: {} }] }
- { text: two, chunk: { chars: 1, delay_ms: 10 }, usage: { input: 300, output: 20 }, tool_calls: [{ tool: none__such, arguments: {} }] }
- { text: three, chunk: { chars: 1, delay_ms: 10 }, usage: { input: 300, output: 20 }, tool_calls: [{ tool: none__such, arguments: {} }] }
- { text: four, chunk: { chars: 1, delay_ms: 10 }, usage: { input: 300, output: 20 } }
";

fn start() -> StartLoopRequest {
    let limits = LoopLimits {
        max_output_tokens: Some(100),
        ..LoopLimits::default()
    };
    StartLoopRequest {
        agent: Some(Agent {
            budgets: vec!["pool".to_owned()],
            limits: Some(limits),
            ..Agent::default()
        }),
        input: Some(Input::Text("work".to_owned())),
        ..StartLoopRequest::default()
    }
}

async fn create(client: &Client, name: &str, parent: &str, total: u64) -> Result<()> {
    let limits = BudgetLimits {
        max_total_tokens: Some(total),
        ..BudgetLimits::default()
    };
    let terms = Some(BudgetTerms {
        parent: parent.to_owned(),
        limits: Some(limits),
        period: None,
    });
    let name = name.to_owned();
    client
        .create_budget(CreateBudgetRequest { name, terms })
        .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_loops_never_spend_more_than_there_is_whatever_is_killed() -> Result<()> {
    let mut scene = Stage::new(&[("m", SCRIPT)])?.start()?;
    let client = Client::connect(ClientOptions::at(&scene.server.url))?;
    let limit = 10 * OF_A_LOOP;
    create(&client, "org", "", limit).await?;
    create(&client, "pool", "org", 2 * limit).await?;
    let started = try_join_all((0..LOOPS).map(|_| client.start_loop(start()))).await?;
    for kill in 1..=KILLS {
        // Once the ledger has moved on from the last kill.
        let before = tail_of(&client).await?;
        scene::eventually("the ledger moves or all loops are over", async || {
            Ok(tail_of(&client).await? > before || over(&client, &started).await?)
        })
        .await?;
        scene.server.kill()?;
        scene
            .server
            .restart()
            .with_context(|| format!("after kill {kill}"))?;
    }
    let mut reasons = BTreeSet::new();
    let (mut used, mut calls) = (0, 0);
    for one in &started {
        let entries = scene::to_end(&client, &one.session_id, &one.loop_id).await?;
        let end = scene::end_of(&entries)?;
        ensure!(
            matches!(
                end.reason(),
                EndReason::Completed | EndReason::BudgetExceeded
            ),
            "{end:?}"
        );
        reasons.insert(end.reason());
        let totals = end.totals.unwrap_or_default();
        let usage = totals.usage.unwrap_or_default();
        used += usage.input_tokens + usage.output_tokens;
        calls += totals.model_calls;
    }
    ensure!(
        reasons.contains(&EndReason::BudgetExceeded),
        "it was no limit at all"
    );
    scene::eventually("nothing is set aside any more", async || {
        Ok(client.get_budget("org").await?.open_reservations == 0)
    })
    .await?;
    let org = client.get_budget("org").await?;
    let settled = org.settled.unwrap_or_default();
    let tokens = settled.input_tokens + settled.output_tokens;
    assert_eq!(
        tokens, used,
        "what the sessions say they used is what the budget was charged"
    );
    ensure!(
        tokens > limit / 2,
        "only {tokens} of {limit} were used: loops starved"
    );
    scene.server.terminate()?;
    let ledger = Ledger::read(scene.server.dir())?;
    assert_eq!(ledger.open(), Vec::<&String>::new());
    ensure!(ledger.estimated > 0, "no kill cut a call: {ledger:?}");
    ensure!(
        ledger.reserved >= usize::try_from(calls)?,
        "{calls} calls, {ledger:?}"
    );
    Ok(())
}

async fn tail_of(client: &Client) -> Result<u64> {
    let budget = client.get_budget("org").await?;
    let settled = budget.settled.unwrap_or_default();
    Ok(settled.input_tokens + settled.output_tokens)
}

async fn over(
    client: &Client,
    started: &[loopwright_proto::v1::StartLoopResponse],
) -> Result<bool> {
    let request = loopwright_proto::v1::ListLoopsRequest {
        states: vec![loopwright_proto::v1::LoopState::Ended.into()],
        page_size: 500,
        ..Default::default()
    };
    Ok(client.list_loops(request).await?.loops.len() == started.len())
}
