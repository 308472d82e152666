//! The namespace's own budget: it holds for every loop that starts after it, however the loop starts.

use anyhow::{Result, ensure};
use loopwright_client::Client;
use loopwright_proto::v1::{
    BudgetLimits, BudgetTerms, CreateBudgetRequest, EndReason, SendMessageRequest,
    send_message_request::Input,
};
use loopwright_tests::scene::{self, Stage, ask, end_of, refusal};

const SCRIPT: &str = "at_end: repeat
turns:
- { text: done, usage: { input: 300, output: 20 } }
";

async fn limit(client: &Client, limits: BudgetLimits) -> Result<()> {
    let terms = Some(BudgetTerms {
        limits: Some(limits),
        ..BudgetTerms::default()
    });
    let name = "namespace".to_owned();
    let made = client.create_budget(CreateBudgetRequest { name, terms });
    made.await?;
    Ok(())
}

fn say(session: &str) -> SendMessageRequest {
    SendMessageRequest {
        session_id: session.to_owned(),
        input: Some(Input::Text("go on".to_owned())),
        ..SendMessageRequest::default()
    }
}

/// Sends a message, which starts a loop: how the loop ended.
async fn goes_on(client: &Client, session: &str) -> Result<EndReason> {
    let sent = client.send_message(say(session)).await?;
    let entries = scene::to_end(client, session, &sent.loop_id).await?;
    Ok(end_of(&entries)?.reason())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loop_that_a_message_starts_is_charged_and_outlives_the_budget() -> Result<()> {
    let scene = Stage::new(&[("m", SCRIPT)])?.start()?;
    let client = &scene.client;
    let entries = scene.run(ask("m")).await?;
    let session = entries.first().map(|entry| entry.session_id.clone());
    let session = session.unwrap_or_default();
    assert_eq!(end_of(&entries)?.reason(), EndReason::Completed);

    let limits = BudgetLimits {
        max_total_tokens: Some(900),
        ..BudgetLimits::default()
    };
    limit(client, limits).await?;
    assert_eq!(goes_on(client, &session).await?, EndReason::Completed);
    // The ledger is told once the loop has ended.
    scene::eventually("the call is charged", async || {
        let settled = client.get_budget("namespace").await?.settled;
        let settled = settled.unwrap_or_default();
        Ok(settled.input_tokens + settled.output_tokens == 320)
    })
    .await?;
    let mut last = EndReason::Completed;
    for _ in 0..3 {
        last = goes_on(client, &session).await?;
    }
    assert_eq!(last, EndReason::BudgetExceeded, "no free ride");

    client.delete_budget("namespace").await?;
    assert_eq!(goes_on(client, &session).await?, EndReason::Completed);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_to_a_model_without_a_price_starts_nothing_under_a_limit_on_cost() -> Result<()> {
    let scene = Stage::new(&[("m", SCRIPT)])?.start()?;
    let entries = scene.run(ask("m")).await?;
    let session = entries.first().map(|entry| entry.session_id.clone());
    let limits = BudgetLimits {
        max_cost_micro_usd: Some(1_000_000),
        ..BudgetLimits::default()
    };
    limit(&scene.client, limits).await?;
    let message = say(&session.unwrap_or_default());
    let status = refusal(scene.client.send_message(message).await)?;
    assert_eq!(status.reason, "NO_PRICE");
    ensure!(status.message.contains("namespace"), "{status:?}");
    Ok(())
}
