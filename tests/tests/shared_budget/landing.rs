//! A loop near the limit of a shared budget, from outside: what it is told, its last call, and the warning.

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use loopwright_client::Client;
use loopwright_proto::v1::{
    Agent, BudgetDimension, BudgetLimits, BudgetTerms, CreateBudgetRequest, EndReason, Entry,
    GetModelRequestRequest, LoopLimits, MessageOrigin, StartLoopRequest, event::Kind,
    loop_ended::Detail,
};
use loopwright_tests::{
    kit::{self, Options, Sidecar},
    mock_model::{MockModel, Recorded, Reply, Usage},
    scene::{self, Stage, ask, end_of, kinds},
};

use super::ledger::Ledger;

const NOTE: &str = "[Left of your budget: ";

fn counted(output: u64) -> Usage {
    Usage {
        input: 50,
        output,
        ..Usage::default()
    }
}

/// A budget of 350 output tokens, which warns at half of them.
fn team() -> CreateBudgetRequest {
    let limits = BudgetLimits {
        max_output_tokens: Some(350),
        warn_at: Some(0.5),
        ..BudgetLimits::default()
    };
    let terms = Some(BudgetTerms {
        limits: Some(limits),
        ..BudgetTerms::default()
    });
    let name = "team".to_owned();
    CreateBudgetRequest { name, terms }
}

/// A loop of which 100 tokens of every reply are kept for the last one.
fn request() -> StartLoopRequest {
    let limits = LoopLimits {
        final_call_tokens: Some(200),
        tell_budget: Some(true),
        ..LoopLimits::default()
    };
    let asked = ask("m");
    StartLoopRequest {
        session_id: "s1".to_owned(),
        agent: asked.agent.map(|agent| Agent {
            budgets: vec!["team".to_owned()],
            limits: Some(limits),
            ..agent
        }),
        ..asked
    }
}

/// Limit and use of each warning of the shared budget.
fn warnings(entries: &[Entry]) -> Vec<(u64, u64)> {
    let warnings = kinds(entries).filter_map(|kind| match kind {
        Kind::BudgetWarning(e) if e.budget.as_ref().is_some_and(|b| b.name == "team") => {
            Some((e.limit, e.used))
        }
        _ => None,
    });
    warnings.collect()
}

/// What the model was told is read back from the log.
async fn reads_back(client: &Client, entries: &[Entry], sent: &[Recorded]) -> Result<()> {
    let calls = kinds(entries).filter_map(|kind| match kind {
        Kind::ModelCallStarted(e) => Some(e.call.clone()),
        _ => None,
    });
    for (call, request) in calls.zip(sent) {
        let asked = GetModelRequestRequest {
            session_id: "s1".to_owned(),
            call,
            attempt: 1,
        };
        let (head, body) = client.get_model_request(asked).await?;
        ensure!(head.exact, "{head:?}");
        ensure!(String::from_utf8(body)? == request.text());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_budget_is_told_of_warned_of_and_leaves_a_last_call() -> Result<()> {
    let mock = MockModel::start().await?;
    let options = Options::default()
        .set("loop.model", "m")
        .set("models.m.provider", "openai")
        .set("models.m.id", "local")
        .set("models.m.base_url", mock.openai_url());
    let temp = tempfile::tempdir()?;
    let mut server = options.start_in(temp.path())?;
    let client = scene::client(&server.url, None)?;
    let _calc = Sidecar::start(&server, &["calc"])?;
    kit::wait_for_tools(&client, &["calc__evaluate"]).await?;
    client.create_budget(team()).await?;
    for sum in ["1+1", "2+2"] {
        let arguments = format!("{{\"expression\":\"{sum}\"}}");
        mock.push(Reply::calls([("calc__evaluate", &*arguments)]).usage(counted(100)));
    }
    mock.push(Reply::text("two, and four").usage(counted(20)));
    let started = client.start_loop(request()).await?;
    let entries = scene::to_end(&client, "s1", &started.loop_id).await?;

    let end = end_of(&entries)?;
    let Some(Detail::BudgetExceeded(detail)) = &end.detail else {
        anyhow::bail!("{end:?}");
    };
    let named = detail.budget.clone().unwrap_or_default().name;
    assert_eq!(named, "team");
    assert_eq!(
        (detail.dimension(), detail.limit, detail.used),
        (BudgetDimension::OutputTokens, 350, 200)
    );
    assert_eq!(end.result_text, "two, and four");
    let sent = mock.requests();
    assert_eq!(sent.len(), 3, "the third one is the last call");
    let choice = |request: &Recorded| request.json()["tool_choice"].to_string();
    ensure!(choice(&sent[2]).contains("none"), "{}", choice(&sent[2]));
    ensure!(!choice(&sent[1]).contains("none"), "{}", choice(&sent[1]));
    for (request, left) in sent.iter().zip([350, 250, 150]) {
        let note = format!("{NOTE}{left} of 350 output tokens.]");
        ensure!(request.text().contains(&note), "{}", request.text());
    }

    // The second call came to the line, and it was said while the loop was going on.
    assert_eq!(warnings(&entries), [(350, 200)]);
    scene::eventually("nothing is set aside", async || {
        Ok(client.get_budget("team").await?.open_reservations == 0)
    })
    .await?;
    let settled = client.get_budget("team").await?.settled;
    assert_eq!(settled.unwrap_or_default().output_tokens, 220);

    server.kill()?;
    server.restart()?;
    let client = scene::client(&server.url, None)?;
    reads_back(&client, &entries, &sent).await?;
    let all = scene::log(&client, "s1").await?;
    assert_eq!(warnings(&all).len(), 1, "once");
    Ok(())
}

/// Steps that go on until something ends them, and an answer to whoever asks for the last one.
const BUSY: &str = "at_end: repeat
turns:
- { text: still at it, usage: { input: 300, output: 20 }, tool_calls: [{ tool: none__such, arguments: {} }] }
";

#[tokio::test(flavor = "multi_thread")]
async fn loops_that_come_to_the_end_together_never_pass_it_and_some_conclude() -> Result<()> {
    const LIMIT: u64 = 20_000;
    let mut scene = Stage::new(&[("m", BUSY)])?
        .set("budget.final_call_tokens", "4000")
        .start()?;
    let limits = BudgetLimits {
        max_total_tokens: Some(LIMIT),
        ..BudgetLimits::default()
    };
    let terms = Some(BudgetTerms {
        limits: Some(limits),
        ..BudgetTerms::default()
    });
    let name = "team".to_owned();
    let made = CreateBudgetRequest { name, terms };
    scene.client.create_budget(made).await?;
    let request = || {
        let limits = LoopLimits {
            max_output_tokens: Some(100),
            ..LoopLimits::default()
        };
        let asked = ask("m");
        StartLoopRequest {
            agent: asked.agent.map(|agent| Agent {
                budgets: vec!["team".to_owned()],
                limits: Some(limits),
                ..agent
            }),
            ..asked
        }
    };
    let all = try_join_all((0..6).map(|_| scene.run(request()))).await?;
    let mut concluded = 0;
    for entries in &all {
        let end = end_of(entries)?;
        ensure!(end.reason() == EndReason::BudgetExceeded, "{end:?}");
        let nudges = kinds(entries).filter(
            |kind| matches!(kind, Kind::MessageAdded(e) if e.origin() == MessageOrigin::Nudge),
        );
        let nudges = nudges.count();
        ensure!(nudges <= 1, "{nudges} last calls");
        concluded += nudges;
    }
    ensure!(concluded > 0, "no loop made a last call");
    scene::eventually("nothing is set aside", async || {
        Ok(scene.client.get_budget("team").await?.open_reservations == 0)
    })
    .await?;
    scene.server.terminate()?;
    let ledger = Ledger::read(scene.server.dir())?;
    let settled = ledger.budgets.get("team").map_or(0, |team| team.settled);
    ensure!(
        (LIMIT / 2..=LIMIT).contains(&settled) && ledger.open().is_empty(),
        "{settled} of {LIMIT}: {ledger:?}"
    );
    Ok(())
}
