//! A loop that outgrows its model's window, from outside: what the model is sent, and what the log says.

#[path = "compaction/read_output.rs"]
mod read_output;
#[path = "compaction/recap.rs"]
mod recap;

use anyhow::{Context as _, Result, ensure};
use loopwright_client::Client;
use loopwright_proto::v1::{
    Agent, CompactionKind, CompactionTrigger, ContextCompacted, ContextOptions, EndReason,
    LoopLimits, StartLoopRequest, event::Kind, start_loop_request::Input,
};
use loopwright_tests::scene::{self, Stage, end_of, kinds};

const STEPS: u32 = 300;
const WINDOW: u64 = 20_000;

/// Tokens of content that a step of the script adds, one for four bytes: the text, the call's name, its
/// arguments and its id, and the result with its own.
const STEP_TOKENS: u64 = (24 * 28 + 10 + 21 + 9 + 36 + 16) / 4;

/// Asks for a tool that is not there, with much to say, without end; in the third step it says something
/// worth keeping. Tokens are counted by the script: one for four bytes of the prompt.
fn script() -> String {
    let words = "The work goes on as it did. ".repeat(24);
    let turn = |text: &str, times: u32| {
        format!(
            "- text: \"{text}\"\n  repeat: {times}\n  tool_calls:\n  - tool: none__such\n    \
             arguments: {{ place: somewhere }}\n"
        )
    };
    let fact = "I found it.\\nNote: the vault opens with Q7-kite.\\nOn with it.";
    let turns = [turn(&words, 2), turn(fact, 1), turn(&words, 10_000)];
    format!("turns:\n{}", turns.concat())
}

/// How many compactions `steps` steps may take: from where the first leaves the window at the most and at
/// the least full, to the next check that finds it above the threshold.
fn expected(steps: u32) -> std::ops::RangeInclusive<usize> {
    const CHECK: u64 = 5;
    let (threshold, target) = (WINDOW * 6 / 10, WINDOW / 2);
    // It goes by whole groups, and a recap need not fill its room of an eighth of the target.
    let least_full = target - STEP_TOKENS - target / 8;
    let until = |from: u64| ((threshold - from).div_ceil(STEP_TOKENS)).div_ceil(CHECK) * CHECK;
    let after_first = u64::from(steps) - until(0);
    let count = |interval: u64| usize::try_from(1 + after_first / interval).unwrap_or(usize::MAX);
    count(until(least_full))..=count(until(target))
}

fn start(context: ContextOptions) -> StartLoopRequest {
    let limits = LoopLimits {
        max_steps: Some(STEPS),
        max_output_tokens: Some(1_000),
        ..LoopLimits::default()
    };
    StartLoopRequest {
        agent: Some(Agent {
            limits: Some(limits),
            context: Some(context),
            ..Agent::default()
        }),
        input: Some(Input::Text("Look for the key, then work.".to_owned())),
        ..StartLoopRequest::default()
    }
}

fn window() -> ContextOptions {
    ContextOptions {
        max_tokens: Some(WINDOW),
        ..ContextOptions::default()
    }
}

async fn compactions(client: &Client, session: &str) -> Result<Vec<ContextCompacted>> {
    let entries = scene::log(client, session).await?;
    let compacted = kinds(&entries).filter_map(|kind| match kind {
        Kind::ContextCompacted(compacted) => Some(compacted.clone()),
        _ => None,
    });
    Ok(compacted.collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn three_hundred_steps_fit_a_small_window_and_a_fact_of_the_first_lasts() -> Result<()> {
    let mut scene = Stage::new(&[("m", &script())])?.start()?;
    let started = scene.client.start_loop(start(window())).await?;
    // In the middle of it the server is killed: what goes on is what was compacted.
    scene::until(&scene.client, &started.session_id, |entry| {
        scene::has(entry, |kind| matches!(kind, Kind::ContextCompacted(_)))
    })
    .await?;
    scene.server.kill()?;
    scene.server.restart()?;
    let entries = scene::to_end(&scene.client, &started.session_id, &started.loop_id).await?;
    let end = end_of(&entries)?;
    assert_eq!(end.reason(), EndReason::MaxSteps);
    let done = compactions(&scene.client, &started.session_id).await?;
    let last = done.last().context("it was never compacted")?;
    ensure!(last.recap.contains("Q7-kite"), "{}", last.recap);
    assert_eq!(
        (last.kind(), last.trigger()),
        (CompactionKind::TurnsDropped, CompactionTrigger::Threshold)
    );
    let expected = expected(STEPS);
    ensure!(
        expected.contains(&done.len()),
        "{} compactions, expected {expected:?}",
        done.len()
    );
    for one in &done {
        ensure!(one.target_met && one.tokens_after <= WINDOW / 2, "{one:?}");
        ensure!(
            one.from_seq > 0 && one.through_seq >= one.from_seq,
            "{one:?}"
        );
    }
    for kind in kinds(&entries) {
        if let Kind::ModelCallCompleted(call) = kind {
            let read = call.usage.map_or(0, |usage| usage.input_tokens);
            ensure!(read <= WINDOW, "a prompt of {read} tokens");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_message_that_fits_no_window_ends_the_loop_before_any_call() -> Result<()> {
    let scene = Stage::new(&[("m", &script())])?.start()?;
    let mut request = start(window());
    request.input = Some(Input::Text("x".repeat(200_000)));
    let entries = scene.run(request).await?;
    let end = end_of(&entries)?;
    assert_eq!(end.reason(), EndReason::ContextExhausted);
    assert_eq!(
        end.totals.as_ref().map(|totals| totals.model_calls),
        Some(0)
    );
    Ok(())
}
