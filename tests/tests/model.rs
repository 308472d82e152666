//! Loops on a real model, over both protocols. `LOOPWRIGHT_TEST_MODEL_URL` names an endpoint that
//! speaks OpenAI's at `/v1/chat/completions` and Anthropic's at `/v1/messages`; without one these
//! tests say by name that they were skipped.
//!
//! What a small model can be held to: the tools that ran, what they left on disk, how the loop
//! ended, what was counted. Never its wording.

use std::{sync::Mutex, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use loopwright_client::{Client, ClientOptions, WatchEvent};
use loopwright_proto::v1::{
    Agent, CancelLoopRequest, EndReason, Entry, LoopEnded, StartLoopRequest, ToolSelection, Usage,
    event::Kind, start_loop_request::Input,
};
use loopwright_tests::kit::{self, Sidecar};

/// The endpoint answers two requests at a time; the tests ask one after the other.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

const SYSTEM: &str = "Do the steps of the request with the tools, one at a time.";
const TASK: &str = "Read the file numbers.txt, then use the calculator to evaluate 17 * 23, then \
                    write the content 391 to the file total.txt.";

fn endpoint(test: &str) -> Option<String> {
    let url = std::env::var("LOOPWRIGHT_TEST_MODEL_URL")
        .ok()
        .filter(|url| !url.is_empty());
    if url.is_none() {
        assert!(
            std::env::var_os("LOOPWRIGHT_TEST_MODEL_REQUIRED").is_none(),
            "{test}: LOOPWRIGHT_TEST_MODEL_URL names no model, and one is required"
        );
        kit::skipped(test, "LOOPWRIGHT_TEST_MODEL_URL names no model");
    }
    url.map(|url| url.trim_end_matches('/').to_owned())
}

struct Bench {
    _server: kit::Server,
    _sidecars: [Sidecar; 2],
    client: Client,
    files: tempfile::TempDir,
}

async fn serve(provider: &str, base_url: &str) -> Result<Bench> {
    let server = kit::Options::default()
        .set("models.real.provider", provider)
        .set("models.real.id", "local")
        .set("models.real.base_url", base_url)
        .start()?;
    let files = tempfile::tempdir()?;
    std::fs::write(files.path().join("numbers.txt"), "17 and 23\n")?;
    let root = files.path().display().to_string();
    let sidecars = [
        Sidecar::start(&server, &["files", "--root", &root])?,
        Sidecar::start(&server, &["calc"])?,
    ];
    let client = Client::connect(ClientOptions::at(&server.url))?;
    kit::wait_for_tools(&client, &["files__read", "files__write", "calc__evaluate"]).await?;
    Ok(Bench {
        _server: server,
        _sidecars: sidecars,
        client,
        files,
    })
}

fn request(message: &str, tools: &[&str]) -> StartLoopRequest {
    StartLoopRequest {
        agent: Some(Agent {
            model: "real".to_owned(),
            system_prompt: SYSTEM.to_owned(),
            temperature: Some(0.0),
            tools: Some(ToolSelection {
                tools: tools.iter().map(|&t| t.to_owned()).collect(),
            }),
            ..Agent::default()
        }),
        input: Some(Input::Text(message.to_owned())),
        ..StartLoopRequest::default()
    }
}

/// Watches a session to the end of its loop.
async fn watch(client: &Client, session: &str) -> Result<(Vec<Entry>, LoopEnded, usize)> {
    let (mut entries, mut deltas) = (Vec::new(), 0);
    let mut watch = client.watch(session, 0);
    while let Some(event) = watch.next().await {
        match event? {
            WatchEvent::Entry(entry) => {
                let end = entry.events.iter().find_map(|event| match &event.kind {
                    Some(Kind::LoopEnded(ended)) => Some(ended.clone()),
                    _ => None,
                });
                entries.push(entry);
                if let Some(end) = end {
                    return Ok((entries, end, deltas));
                }
            }
            WatchEvent::Delta(_) => deltas += 1,
            _ => {}
        }
    }
    bail!("the watch ended before the loop did")
}

async fn completes_with_both_sidecars(provider: &str, base_url: &str) -> Result<()> {
    let bench = serve(provider, base_url).await?;
    let tools = ["files__read", "files__write", "calc__evaluate"];
    let started = bench.client.start_loop(request(TASK, &tools)).await?;
    let (entries, end, deltas) = watch(&bench.client, &started.session_id).await?;
    ensure!(end.reason() == EndReason::Completed, "ended as {end:?}");
    ensure!(deltas > 0, "nothing was streamed");
    let events = || {
        entries
            .iter()
            .flat_map(|entry| &entry.events)
            .filter_map(|e| e.kind.as_ref())
    };
    let asked: Vec<&str> = events()
        .filter_map(|kind| match kind {
            Kind::ToolCallRequested(call) => Some(call.tool.as_str()),
            _ => None,
        })
        .collect();
    for tool in tools {
        ensure!(asked.contains(&tool), "{tool} is not among {asked:?}");
    }
    let total = std::fs::read_to_string(bench.files.path().join("total.txt"))
        .context("the tool left its file")?;
    ensure!(total.contains("391"), "total.txt says {total:?}");
    let usages: Vec<Usage> = events()
        .filter_map(|kind| match kind {
            Kind::ModelCallCompleted(call) => call.usage,
            _ => None,
        })
        .collect();
    let generated = |usage: &Usage| usage.output_tokens > 0;
    ensure!(
        usages.len() >= 3 && usages.iter().all(generated),
        "usage: {usages:?}"
    );
    let cached: Vec<u64> = usages.iter().map(|usage| usage.cache_read_tokens).collect();
    // The first reply may find a prefix of an earlier test; from then on each step reads more.
    ensure!(
        cached[1..].windows(2).all(|pair| pair[0] < pair[1]),
        "cached: {cached:?}"
    );
    ensure!(cached[1] > 0, "cached: {cached:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::await_holding_lock, reason = "one test at a time is the point")]
async fn openai_completes_a_loop_with_both_sidecars() -> Result<()> {
    let Some(url) = endpoint("openai_completes_a_loop_with_both_sidecars") else {
        return Ok(());
    };
    let _turn = ONE_AT_A_TIME
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    completes_with_both_sidecars("openai", &format!("{url}/v1")).await
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::await_holding_lock, reason = "one test at a time is the point")]
async fn anthropic_completes_a_loop_with_both_sidecars() -> Result<()> {
    let Some(url) = endpoint("anthropic_completes_a_loop_with_both_sidecars") else {
        return Ok(());
    };
    let _turn = ONE_AT_A_TIME
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    completes_with_both_sidecars("anthropic", &url).await
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::await_holding_lock, reason = "one test at a time is the point")]
async fn cancel_frees_the_slot() -> Result<()> {
    let Some(url) = endpoint("cancel_frees_the_slot") else {
        return Ok(());
    };
    let _turn = ONE_AT_A_TIME
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let bench = serve("openai", &format!("{url}/v1")).await?;
    let message = "Write out the numbers from 1 to 400 in words, one on each line.";
    let started = bench.client.start_loop(request(message, &[])).await?;
    let mut events = bench.client.watch(&started.session_id, 0);
    loop {
        let event = events.next().await.context("the watch goes on")??;
        if matches!(event, WatchEvent::Delta(_)) {
            break;
        }
    }
    let cancel = CancelLoopRequest {
        session_id: started.session_id.clone(),
        ..Default::default()
    };
    bench.client.cancel_loop(cancel).await?;
    let (_, end, _) = watch(&bench.client, &started.session_id).await?;
    ensure!(end.reason() == EndReason::Cancelled, "ended as {end:?}");
    let http = kit::http()?;
    // Left alone, the reply would take some twenty seconds more.
    let freed = tokio::time::timeout(Duration::from_secs(5), async {
        loop {
            let meters = http
                .get(format!("{url}/metrics"))
                .send()
                .await?
                .text()
                .await?;
            let busy = |line: &&str| line.starts_with("llamacpp:requests_processing");
            let line = meters
                .lines()
                .find(busy)
                .context("the endpoint tells its busy slots")?;
            if line.trim_end().ends_with(" 0") {
                return anyhow::Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    freed.await.context("the slot stayed busy")?
}
