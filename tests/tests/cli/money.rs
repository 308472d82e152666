//! Money on the command line: a limit that holds and says so, what a run and all sessions cost, and the
//! prices that are known.

use anyhow::{Context as _, Result, ensure};
use loopwright_tests::{
    kit::Options,
    scene::{Scene, Stage, loopwright},
};

const AGAIN: &str = "{at_end: repeat, turns: [{text: so, tool_calls: [{tool: none__such}], \
                     usage: {input: 1000, cache_read: 1000, output: 100}}]}";
const LONG: &str = "[{text: done, usage: {input: 2000, output: 10}}]";

/// `m` costs 3 and 15 US dollars for a million, and 0.30 from the cache: 4,800 micro-USD a step.
fn scene() -> Result<Scene> {
    Stage::new(&[("m", AGAIN), ("long", LONG), ("unpriced", LONG)])?
        .set("models.m.price.input", "3")
        .set("models.m.price.output", "15")
        .set("models.m.price.cache_read", "0.3")
        .set("models.long.price.input", "3")
        .set("models.long.price.output", "15")
        .set("models.long.price.long_context.above", "1000")
        .set("models.long.price.long_context.input", "6")
        .set("models.long.price.long_context.output", "30")
        .start()
}

/// What `loopwright` says and how it ends: the code, standard output, standard error.
fn run(url: &str, args: &[&str]) -> Result<(i32, String, String)> {
    let dir = tempfile::tempdir()?;
    let output = loopwright(dir.path(), args)?
        .args(["--server", url])
        .output()?;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).context("output is no text");
    let code = output.status.code().context("ended by a signal")?;
    Ok((code, text(output.stdout)?, text(output.stderr)?))
}

/// The micro-USD behind the first `$` of a line.
fn cost(line: &str) -> Result<u64> {
    let (_, rest) = line.split_once('$').with_context(|| line.to_owned())?;
    let digits: String = rest
        .chars()
        .take_while(|c| c.is_ascii_digit() || *c == '.')
        .collect();
    let dollars: f64 = digits.parse()?;
    Ok((dollars * 1e6).round() as u64)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_in_dollars_holds_and_says_what_to_do() -> Result<()> {
    let scene = scene()?;
    let args = [
        "run",
        "work",
        "--model",
        "m",
        "--max-cost",
        "0.05",
        "--session",
        "a",
    ];
    let (code, out, err) = run(&scene.server.url, &args)?;
    assert_eq!(code, 3, "{err}");
    ensure!(out.contains("so"), "what it said is kept: {out}");
    let mut lines = err.lines().rev();
    let way_on = lines.next().context("the way on")?;
    let end = lines.next().context("the end")?;
    for words in [
        "the loop's budget is exhausted: $0.",
        " of $0.0500 used, the next call needs at least $0.",
        " % cached)",
    ] {
        ensure!(end.contains(words), "no {words:?} in {end}");
    }
    ensure!(
        way_on.contains("loopwright run --session a") && way_on.contains(&scene.server.url),
        "{way_on}"
    );
    let paid = cost(end.rsplit(" · ").next().unwrap_or_default())?;
    ensure!((1..=50_000).contains(&paid), "{paid} micro-USD of 50,000");
    assert_eq!(paid % 4_800, 0, "each step at its own rates: {end}");

    let (code, _, err) = run(&scene.server.url, &["run", "hi", "--max-cost", "25 cents"])?;
    assert_eq!(code, 2);
    ensure!(err.contains("--max-cost") && err.contains("0.25"), "{err}");

    // What all of it cost.
    let args = [
        "run",
        "work",
        "--model",
        "m",
        "--max-steps",
        "2",
        "--session",
        "b",
    ];
    assert_eq!(run(&scene.server.url, &args)?.0, 4);
    let (_, listed, sum) = run(&scene.server.url, &["sessions", "list"])?;
    ensure!(
        listed
            .lines()
            .next()
            .is_some_and(|head| head.contains("COST")),
        "{listed}"
    );
    let row = listed.lines().find(|line| line.starts_with("b "));
    assert_eq!(cost(row.context("a row")?)?, 2 * 4_800, "{listed}");
    ensure!(sum.starts_with("2 sessions · "), "{sum}");
    assert_eq!(cost(&sum)?, paid + 2 * 4_800, "{sum}");
    let (_, shown, _) = run(&scene.server.url, &["sessions", "show", "b"])?;
    ensure!(
        shown.contains("$0.0096") && shown.contains("(50 % cached)"),
        "{shown}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_may_be_limited_by_the_thousand() -> Result<()> {
    let scene = scene()?;
    let args = ["run", "work", "--model", "m", "--max-tokens", "9.5k"];
    let (code, _, err) = run(&scene.server.url, &args)?;
    assert_eq!(code, 3, "{err}");
    ensure!(err.contains("of 9,500 total tokens used"), "{err}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_prompt_is_charged_at_its_own_rates() -> Result<()> {
    let scene = scene()?;
    let (code, _, err) = run(&scene.server.url, &["run", "work", "--model", "long"])?;
    assert_eq!(code, 0, "{err}");
    let end = err.lines().last().context("a summary")?;
    assert_eq!(cost(end)?, 2_000 * 6 + 10 * 30, "{end}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_without_a_price_is_no_free_ride() -> Result<()> {
    let scene = scene()?;
    let args = ["run", "work", "--model", "unpriced", "--max-cost", "1"];
    let (code, out, err) = run(&scene.server.url, &args)?;
    assert_eq!((code, out.as_str()), (1, ""), "{err}");
    for words in [
        "\"unpriced\"",
        "models.<alias>.price",
        "limit tokens",
        "config prices",
    ] {
        ensure!(err.contains(words), "no {words} in {err}");
    }
    Ok(())
}

/// With nothing to spend no call is made, so that the models need not be there.
#[tokio::test(flavor = "multi_thread")]
async fn the_built_in_table_prices_models_by_their_name() -> Result<()> {
    let mut options = Options::default();
    for key in ["ANTHROPIC_API_KEY", "OPENAI_API_KEY"] {
        options.env.insert(key.to_owned(), "sk-none".to_owned());
    }
    let server = options.start()?;
    for (model, code, words) in [
        ("anthropic/claude-sonnet-5-5", 3, "of $0.0000 used"),
        ("openai/gpt-5.5-2026-04-23", 3, "of $0.0000 used"),
        (
            "anthropic/claude-unheard-of",
            1,
            "\"anthropic/claude-unheard-of\" has no price",
        ),
    ] {
        let args = ["run", "hi", "--model", model, "--max-cost", "0"];
        let (ended, _, err) = run(&server.url, &args)?;
        ensure!(
            ended == code && err.contains(words),
            "{model}: {ended}, {err}"
        );
    }
    let dir = tempfile::tempdir()?;
    let output = loopwright(dir.path(), &["config", "prices"])?.output()?;
    let list = String::from_utf8(output.stdout)?;
    ensure!(
        list.contains("2026-") && list.contains("`anthropic/claude-sonnet-5-5` | 2.00 |"),
        "{list}"
    );
    Ok(())
}
