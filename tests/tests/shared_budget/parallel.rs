//! 64 loops on a budget for ten, with a server that is killed again and again.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use futures_util::future::try_join_all;
use loopwright_client::{Client, ClientOptions};
use loopwright_proto::v1::{
    Agent, BudgetLimits, BudgetTerms, CreateBudgetRequest, EndReason, Entry, LoopLimits,
    ModelFailureKind, StartLoopRequest, event::Kind, start_loop_request::Input,
};
use loopwright_tests::scene::{self, Stage};

use super::ledger::Ledger;

const LOOPS: usize = 64;
const KILLS: usize = 6;
/// Loops that the budget is for.
const PAID: u64 = 10;

/// Slow replies, counted at a token for each byte and an overhead for each prompt and message: a call of
/// a tool that is not there, refused once at no cost, so that there are repeats however fast the budget
/// is used up by what is cut, one that is cut, one that a provider refuses for now, one that stalls, one
/// that nobody counts.
const SCRIPT: &str = "tokenizer: { bytes_per_token: 1, prompt: 200, message: 20 }
turns:
- { text: begin it, fail: { kind: overloaded, times: 1 }, chunk: { chars: 1, delay_ms: 30 }, tool_calls: [{ tool: none__such, arguments: {} }] }
- { text: go on, fail: { kind: cut, times: 1 }, chunk: { chars: 1, delay_ms: 30 }, tool_calls: [{ tool: none__such, arguments: {} }] }
- { text: wait, fail: { kind: overloaded, times: 2 }, chunk: { chars: 1, delay_ms: 30 }, tool_calls: [{ tool: none__such, arguments: {} }] }
- { text: hold on, fail: { kind: stalled, times: 1 }, chunk: { chars: 1, delay_ms: 30 }, tool_calls: [{ tool: none__such, arguments: {} }] }
- { text: that is all, no_usage: true, chunk: { chars: 1, delay_ms: 30 } }
";

fn start(budget: &str) -> StartLoopRequest {
    let limits = LoopLimits {
        max_output_tokens: Some(100),
        ..LoopLimits::default()
    };
    StartLoopRequest {
        agent: Some(Agent {
            budgets: vec![budget.to_owned()],
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
    let stage = Stage::new(&[("m", SCRIPT)])?.set("retry.base_delay", "20ms");
    let mut scene = stage.start()?;
    let client = Client::connect(ClientOptions::at(&scene.server.url))?;
    let limit = PAID * of_a_loop(&client).await?;
    create(&client, "org", "", limit).await?;
    create(&client, "pool", "org", 2 * limit).await?;
    let started = try_join_all((0..LOOPS).map(|_| client.start_loop(start("pool")))).await?;
    for kill in 1..=KILLS {
        // Once the ledger has moved on from the last kill.
        let before = settled(&client, "org").await?;
        scene::eventually("the ledger moves or all loops are over", async || {
            Ok(settled(&client, "org").await? > before || over(&client, &started).await?)
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
    let mut attempts = Attempts::default();
    for one in &started {
        let entries = scene::to_end(&client, &one.session_id, &one.loop_id).await?;
        attempts.note(&one.session_id, &entries);
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
    let tokens = settled(&client, "org").await?;
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
    attempts.check(&ledger)?;
    ensure!(
        ledger.reserved >= usize::try_from(calls)?,
        "{calls} calls, {ledger:?}"
    );
    Ok(())
}

/// What became of attempts of model calls, as the sessions' logs say.
#[derive(Default)]
struct Attempts {
    /// Those that nobody counted and that may have run: session, call, attempt.
    uncounted: BTreeSet<(String, String, u32)>,
    /// How many of them a kill cut, and how many calls were tried again.
    killed: usize,
    repeated: usize,
}

impl Attempts {
    fn note(&mut self, session: &str, entries: &[Entry]) {
        let mut begun = BTreeSet::new();
        for kind in scene::kinds(entries) {
            let key = |call: &str, attempt| (session.to_owned(), call.to_owned(), attempt);
            match kind {
                Kind::ModelCallStarted(e) => {
                    self.repeated += usize::from(e.attempt > 1);
                    begun.insert(key(&e.call, e.attempt));
                }
                Kind::ModelCallFailed(e)
                    if matches!(
                        e.kind(),
                        ModelFailureKind::Connection | ModelFailureKind::Timeout
                    ) =>
                {
                    self.uncounted.insert(key(&e.call, e.attempt));
                }
                Kind::ModelCallAbandoned(e) if begun.contains(&key(&e.call, e.attempt)) => {
                    self.killed += 1;
                    self.uncounted.insert(key(&e.call, e.attempt));
                }
                _ => {}
            }
        }
    }

    /// Each attempt that was cut, stalled or killed was settled at its whole reservation.
    fn check(&self, ledger: &Ledger) -> Result<()> {
        ensure!(self.repeated > 0, "nothing was tried again");
        ensure!(self.killed > 0, "no kill cut a call");
        let missing: Vec<_> = self.uncounted.difference(&ledger.whole).collect();
        ensure!(missing.is_empty(), "not settled whole: {missing:?}");
        Ok(())
    }
}

/// What one loop uses that no kill touches.
async fn of_a_loop(client: &Client) -> Result<u64> {
    create(client, "probe", "", 1_000_000).await?;
    let started = client.start_loop(start("probe")).await?;
    let entries = scene::to_end(client, &started.session_id, &started.loop_id).await?;
    assert_eq!(scene::end_of(&entries)?.reason(), EndReason::Completed);
    scene::eventually("the loop is settled", async || {
        Ok(client.get_budget("probe").await?.open_reservations == 0)
    })
    .await?;
    settled(client, "probe").await
}

async fn settled(client: &Client, name: &str) -> Result<u64> {
    let budget = client.get_budget(name).await?;
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
    Ok(client.list_loops(request).await?.loops.len() > started.len())
}
