//! How a loop comes down, from outside: told that it gets nowhere, told that few steps are left, and
//! given one last call to conclude.

use anyhow::{Context as _, Result, ensure};
use loopwright_proto::v1::{
    BudgetDimension, BudgetLimits, EndReason, Entry, GetModelRequestRequest, LoopLimits,
    MessageOrigin, StartLoopRequest, event::Kind, loop_ended::Detail, part,
};
use loopwright_tests::{
    kit::{self, Options, Sidecar},
    mock_model::{MockModel, Recorded, Reply, Usage},
    scene::{self, Stage, ask, end_of, kinds},
};
use serde_json::Value;

const STUCK: &str = "- {text: again, tool_calls: [{tool: none__such}], repeat: 99}\n";
const BUSY: &str =
    "- {tool_calls: [{tool: none__such, arguments: {at: '{{turn}}'}}], repeat: 99}\n";
const NOTE: &str = "[Left of your budget: ";

fn limited(model: &str, limits: LoopLimits) -> StartLoopRequest {
    let mut request = ask(model);
    if let Some(agent) = &mut request.agent {
        agent.limits = Some(limits);
    }
    request
}

/// What the loop itself told its model.
fn nudges(entries: &[Entry]) -> Vec<String> {
    let mut told = Vec::new();
    for kind in kinds(entries) {
        if let Kind::MessageAdded(added) = kind
            && added.origin() == MessageOrigin::Nudge
        {
            let parts = added.message.iter().flat_map(|message| &message.parts);
            told.extend(parts.filter_map(|part| match &part.kind {
                Some(part::Kind::Text(text)) => Some(text.clone()),
                _ => None,
            }));
        }
    }
    told
}

#[tokio::test]
async fn no_progress_ends_a_loop_after_a_nudge_and_new_arguments_are_progress() -> Result<()> {
    let scene = Stage::new(&[("stuck", STUCK), ("busy", BUSY)])?
        .set("loop.no_progress_limit", "6")
        .set("loop.wrapup_steps", "2")
        .start()?;
    let entries = scene.run(ask("stuck")).await?;
    let end = end_of(&entries)?;
    assert_eq!(end.reason(), EndReason::NoProgress);
    assert!(
        matches!(&end.detail, Some(Detail::NoProgress(detail)) if detail.steps == 6),
        "{end:?}"
    );
    assert_eq!(end.result_text, "again", "what was said is kept");
    let totals = end.totals.context("totals")?;
    assert_eq!(totals.steps, 7, "the first one was new");
    let told = nudges(&entries);
    ensure!(
        told.len() == 1 && told[0].contains("Nothing new came of the last 2 steps"),
        "{told:?}"
    );

    let limits = LoopLimits {
        max_steps: Some(12),
        ..LoopLimits::default()
    };
    let entries = scene.run(limited("busy", limits)).await?;
    assert_eq!(end_of(&entries)?.reason(), EndReason::MaxSteps);
    let told = nudges(&entries);
    ensure!(
        told.len() == 1 && told[0].contains("2 steps are left"),
        "{told:?}"
    );

    // A request may say otherwise, and 0 is never.
    let limits = LoopLimits {
        max_steps: Some(12),
        no_progress_limit: Some(0),
        wrapup_steps: Some(0),
        ..LoopLimits::default()
    };
    let entries = scene.run(limited("stuck", limits)).await?;
    assert_eq!(end_of(&entries)?.reason(), EndReason::MaxSteps);
    assert_eq!(nudges(&entries), Vec::<String>::new());
    Ok(())
}

fn of(call: &str) -> GetModelRequestRequest {
    GetModelRequestRequest {
        session_id: "s1".to_owned(),
        call: call.to_owned(),
        attempt: 1,
    }
}

fn counted(output: u64) -> Usage {
    Usage {
        input: 50,
        output,
        ..Usage::default()
    }
}

/// A loop of 350 output tokens, of which 100 are held back, that uses 100 a step.
fn request() -> StartLoopRequest {
    let budget = BudgetLimits {
        max_output_tokens: Some(350),
        ..BudgetLimits::default()
    };
    let limits = LoopLimits {
        budget: Some(budget),
        final_call_tokens: Some(200),
        tell_budget: Some(true),
        ..LoopLimits::default()
    };
    StartLoopRequest {
        session_id: "s1".to_owned(),
        ..limited("m", limits)
    }
}

/// The messages of a request, the note at their end left out.
fn said(request: &Recorded) -> Result<Vec<Value>> {
    let json = request.json();
    let mut all = json["messages"].as_array().context("messages")?.clone();
    let last = all.pop().context("a message")?;
    ensure!(last.to_string().contains(NOTE), "no note: {last}");
    let mut text = Value::Array(all).to_string();
    ensure!(!text.contains(NOTE), "a note of another call: {text}");
    // Where a provider's cache is asked to break follows the tail.
    text = text.replace(",\"cache_control\":{\"type\":\"ephemeral\"}", "");
    text = text.replace("\"cache_control\":{\"type\":\"ephemeral\"},", "");
    Ok(serde_json::from_str(&text)?)
}

async fn lands(provider: &str, base_url: &str, mock: &MockModel) -> Result<()> {
    let options = Options::default()
        .set("loop.model", "m")
        .set("models.m.provider", provider)
        .set("models.m.id", "local")
        .set("models.m.base_url", base_url);
    let temp = tempfile::tempdir()?;
    let mut server = options.start_in(temp.path())?;
    let client = scene::client(&server.url, None)?;
    let _calc = Sidecar::start(&server, &["calc"])?;
    kit::wait_for_tools(&client, &["calc__evaluate"]).await?;
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
    assert_eq!(
        (detail.dimension(), detail.limit, detail.used),
        (BudgetDimension::OutputTokens, 350, 200)
    );
    assert_eq!(end.result_text, "two, and four");
    let used = end.totals.and_then(|totals| totals.usage);
    assert_eq!(used.context("usage")?.output_tokens, 220);

    let sent = mock.requests();
    assert_eq!(sent.len(), 3);
    for (at, pair) in sent.windows(2).enumerate() {
        ensure!(pair[0].json()["tools"] == pair[1].json()["tools"], "{at}");
        let (before, after) = (said(&pair[0])?, said(&pair[1])?);
        ensure!(
            after.starts_with(&before),
            "call {at} changes what was said"
        );
    }
    let choice = |request: &Recorded| request.json()["tool_choice"].to_string();
    ensure!(choice(&sent[2]).contains("none"), "{}", choice(&sent[2]));
    ensure!(!choice(&sent[1]).contains("none"), "{}", choice(&sent[1]));
    for (request, left) in sent.iter().zip([350, 250, 150]) {
        let note = format!("{NOTE}{left} of 350 output tokens.]");
        ensure!(request.text().contains(&note), "{}", request.text());
    }
    let told = nudges(&entries);
    ensure!(
        told.len() == 1 && told[0].contains("your last reply"),
        "{told:?}"
    );

    // The log holds no note, and says all the same what the model was sent.
    ensure!(!format!("{entries:?}").contains(NOTE));
    server.kill()?;
    server.restart()?;
    let client = scene::client(&server.url, None)?;
    let calls = kinds(&entries).filter_map(|kind| match kind {
        Kind::ModelCallStarted(e) => Some(e.call.clone()),
        _ => None,
    });
    for (call, sent) in calls.zip(&sent) {
        let (head, body) = client.get_model_request(of(&call)).await?;
        ensure!(head.exact, "{head:?}");
        ensure!(String::from_utf8(body)? == sent.text(), "{call}");
    }
    Ok(())
}

#[tokio::test]
async fn the_last_call_of_an_openai_model_concludes_without_tools() -> Result<()> {
    let mock = MockModel::start().await?;
    let url = mock.openai_url();
    lands("openai", &url, &mock).await.context("openai")
}

#[tokio::test]
async fn the_last_call_of_an_anthropic_model_concludes_without_tools() -> Result<()> {
    let mock = MockModel::start().await?;
    let url = mock.anthropic_url();
    lands("anthropic", &url, &mock).await.context("anthropic")
}
