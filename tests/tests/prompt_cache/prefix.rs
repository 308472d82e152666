//! A recorded loop of thirty steps: the prefix of each request is the one before's, and is read from the
//! cache.

use anyhow::{Context as _, Result, ensure};
use loopwright_client::render::read_tokens;
use loopwright_tests::{
    kit,
    mock_model::Reply,
    scene::{self, loopwright},
};
use serde_json::Value;

use super::stage::{MARK, Stage, used};

const STEPS: usize = 30;

/// Thinks, says something, and asks for one tool, for two, or for so many that a breakpoint alone would
/// not find the prefix of the call before.
fn step(at: usize) -> Reply {
    let calls = match at {
        12 => 25,
        at if at % 3 == 1 => 2,
        _ => 1,
    };
    // Never the same call twice: a loop that gets nowhere is ended.
    let arguments: Vec<String> = (0..calls)
        .map(|call| format!("{{\"at\":\"{at}.{call}\"}}"))
        .collect();
    let mut reply = Reply::calls(arguments.iter().map(|one| ("probe__note", one.as_str())));
    if at.is_multiple_of(4) {
        reply.thinking = Some((format!("step {at}, then"), "signed".to_owned()));
        reply.text = format!("Step {at}. {}", "I look further. ".repeat(20));
    }
    reply
}

/// Runs the loop by `loopwright run`: its session, and the line at its end.
async fn thirty_steps(stage: &Stage) -> Result<(String, String)> {
    for at in 0..STEPS - 1 {
        stage.mock.push(step(at));
    }
    stage.mock.push(Reply::text("done"));
    let dir = tempfile::tempdir()?;
    let system = "You keep notes, and you are brief about it. ".repeat(80);
    let args = [
        "run",
        "take notes",
        "--session",
        "long",
        "--system",
        &system,
        "--server",
        &stage.server.url,
    ];
    let mut command = loopwright(dir.path(), &args)?;
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(0), "{err}");
    let last = err.lines().last().context("a summary")?.to_owned();
    Ok(("long".to_owned(), last))
}

/// The bytes of a body up to its last breakpoint, and all of them, without what marks breakpoints.
fn plain(body: &str) -> Result<(String, String)> {
    let (marked, rest) = body.rsplit_once(MARK).context("no breakpoint")?;
    let prefix = marked.replace(MARK, "");
    let all = format!("{prefix}{rest}");
    ensure!(!all.contains("cache_control"), "{all}");
    Ok((prefix, all))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_request_begins_with_the_one_before_up_to_its_breakpoint_and_reads_it() -> Result<()> {
    let stage = Stage::new(&[
        ("models.m.price.input", "2"),
        ("models.m.price.output", "10"),
        ("models.m.price.cache_write", "2.5"),
        ("models.m.price.cache_read", "0.1"),
    ])
    .await?;
    let (session, summary) = thirty_steps(&stage).await?;
    let bodies = stage.bodies();
    assert_eq!(bodies.len(), STEPS);
    let mut before = String::new();
    for (at, body) in bodies.iter().enumerate() {
        let marks = body.matches(MARK).count();
        assert_eq!(
            marks,
            if at == 0 { 3 } else { 4 },
            "breakpoints of step {at}"
        );
        let (prefix, all) = plain(body)?;
        ensure!(all.starts_with(&before), "step {at} changes the prefix");
        ensure!(prefix.len() > before.len(), "step {at} keeps nothing more");
        before = prefix;
    }

    let entries = scene::log(&stage.client, &session).await?;
    let calls = used(&entries);
    assert_eq!(calls.len(), STEPS);
    assert_eq!(calls[0].0.cache_read_tokens, 0);
    for (at, pair) in calls.windows(2).enumerate() {
        let (earlier, later) = (&pair[0].0, &pair[1].0);
        let kept = earlier.cache_read_tokens + earlier.cache_write_tokens;
        // The mock counts a token for four bytes, and rounds each class by itself.
        ensure!(
            later.cache_read_tokens.abs_diff(kept) <= 1,
            "call {} keeps {kept}, and the next reads {later:?}",
            at + 1
        );
        ensure!(later.cache_read_tokens > earlier.cache_read_tokens);
    }
    for (usage, cost) in &calls {
        // Tenths of a micro-USD, rounded up.
        let tenths = 20 * usage.input_tokens
            + 100 * usage.output_tokens
            + 25 * usage.cache_write_tokens
            + usage.cache_read_tokens;
        assert_eq!(*cost, Some(tenths.div_ceil(10)), "{usage:?}");
    }

    let read: u64 = calls.iter().map(|(usage, _)| read_tokens(usage)).sum();
    let cached: u64 = calls.iter().map(|(usage, _)| usage.cache_read_tokens).sum();
    let share = cached * 100 / read;
    ensure!(share > 80, "{share} % of {read} tokens");
    ensure!(
        summary.contains(&format!("({share} % cached)")) && summary.contains(" · $0."),
        "{share} %: {summary}"
    );
    is_told(&stage, &session, cached as f64 / read as f64).await
}

/// The share in the log and among the meters.
async fn is_told(stage: &Stage, session: &str, share: f64) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let args = ["log", "show", session, "--server", &stage.server.url];
    let mut command = loopwright(dir.path(), &args)?;
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    let shown = String::from_utf8(output.stdout)?;
    let lines = shown
        .lines()
        .filter(|line| line.contains("ModelCallCompleted"));
    let told = lines.filter(|line| line.contains(" % cached), ")).count();
    assert_eq!(told, STEPS, "{shown}");
    let url = format!("{}/metrics", stage.server.url);
    let page = kit::http()?.get(url).send().await?.text().await?;
    let line = "loopwright_model_cache_hit_share{model=\"m\",provider=\"anthropic\"} ";
    let metered = page.lines().find_map(|one| one.strip_prefix(line));
    let metered: f64 = metered.with_context(|| page.clone())?.parse()?;
    ensure!((metered - share).abs() < 1e-9, "{metered}, not {share}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_cache_turned_off_no_request_speaks_of_it() -> Result<()> {
    let stage = Stage::new(&[("prompt_cache.enabled", "false")]).await?;
    let (_, summary) = thirty_steps(&stage).await?;
    for body in stage.bodies() {
        ensure!(!body.contains("cache_control"), "{body}");
    }
    ensure!(summary.contains("(0 % cached)"), "{summary}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefix_may_be_kept_for_an_hour() -> Result<()> {
    let stage = Stage::new(&[("prompt_cache.ttl", "1h")]).await?;
    let (session, _) = thirty_steps(&stage).await?;
    let bodies = stage.bodies();
    let body: Value = serde_json::from_str(&bodies[STEPS - 1])?;
    let want = serde_json::json!({"type": "ephemeral", "ttl": "1h"});
    assert_eq!(body["system"][0]["cache_control"], want);
    let marks = bodies[STEPS - 1].matches("\"cache_control\"").count();
    let hours = bodies[STEPS - 1].matches("\"ttl\":\"1h\"").count();
    assert_eq!((marks, hours), (4, 4));
    let entries = scene::log(&stage.client, &session).await?;
    for (usage, _) in used(&entries) {
        assert_eq!(usage.cache_write_1h_tokens, usage.cache_write_tokens);
        ensure!(usage.cache_write_tokens > 0, "{usage:?}");
    }
    Ok(())
}
