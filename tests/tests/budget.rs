//! A loop's budget, from the configuration, the environment and the request, as clients see it.

use std::process::{Command, Output};

use anyhow::{Context as _, Result};
use loopwright_client::{Client, ClientOptions, Error};
use loopwright_proto::v1::{
    Agent, BudgetDimension, BudgetExceededDetail, BudgetLimits, LoopLimits, StartLoopRequest,
    event::Kind, loop_ended::Detail, start_loop_request::Input,
};
use loopwright_tests::kit::{self, Build, Server};
use tonic::Code;

/// Each step takes 1,000 tokens and asks for another.
const SCRIPT: &str = "at_end: repeat
turns:
- text: more
  usage: { input: 900, output: 100 }
  tool_calls:
  - tool: none__such
    arguments: {}
";

fn serve(budget: &[(&str, &str)], file: &str) -> Result<(Server, tempfile::TempDir)> {
    let dir = tempfile::tempdir()?;
    let script = dir.path().join("script.yaml");
    std::fs::write(&script, SCRIPT)?;
    let config = dir.path().join("loopwright.toml");
    std::fs::write(&config, file)?;
    let mut options = kit::Options::default()
        .set("loop.model", "m")
        .set("loop.no_progress_limit", "0")
        .set("models.m.provider", "scripted")
        .set("models.m.script", script.display().to_string());
    for (key, value) in budget {
        options = options.set(key, *value);
    }
    options.args = ["--config".to_owned(), config.display().to_string()].into();
    Ok((options.start()?, dir))
}

fn start(total: Option<u64>) -> StartLoopRequest {
    let budget = BudgetLimits {
        max_total_tokens: total,
        ..BudgetLimits::default()
    };
    let limits = LoopLimits {
        budget: Some(budget),
        ..LoopLimits::default()
    };
    StartLoopRequest {
        agent: Some(Agent {
            limits: Some(limits),
            ..Agent::default()
        }),
        input: Some(Input::Text("go".to_owned())),
        ..StartLoopRequest::default()
    }
}

/// How a loop ends that is started with this limit of its own.
async fn exceeded(server: &Server, total: Option<u64>) -> Result<BudgetExceededDetail> {
    let client = Client::connect(ClientOptions::at(&server.url))?;
    let started = client.start_loop(start(total)).await?;
    let mut watch = client.watch(&started.session_id, 0);
    loop {
        let event = watch.next().await.context("the watch goes on")??;
        let loopwright_client::WatchEvent::Entry(entry) = event else {
            continue;
        };
        for event in entry.events {
            if let Some(Kind::LoopEnded(ended)) = event.kind {
                let Some(Detail::BudgetExceeded(detail)) = ended.detail else {
                    anyhow::bail!("ended as {ended:?}")
                };
                return Ok(detail);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_holds_wherever_it_is_set_and_a_request_only_narrows_it() -> Result<()> {
    let file = "[budget]\nmax_total_tokens = 20000\n";
    for (environment, request, limit) in [
        (None, None, 20_000),
        (Some("8000"), None, 8_000),
        (None, Some(6_000), 6_000),
    ] {
        let environment: Vec<_> = environment
            .map(|value| ("budget.max_total_tokens", value))
            .into_iter()
            .collect();
        let (server, _dir) = serve(&environment, file)?;
        let detail = exceeded(&server, request).await?;
        assert_eq!(detail.dimension(), BudgetDimension::TotalTokens);
        assert_eq!(detail.limit, limit, "{detail:?}");
        assert!(detail.used <= limit, "overspent: {detail:?}");
        assert!(detail.used + detail.requested > limit, "{detail:?}");
        assert_eq!(detail.used % 1_000, 0, "settled as used: {detail:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_cannot_widen_the_budget_and_nothing_is_allowed_at_0() -> Result<()> {
    let (server, _dir) = serve(&[], "[budget]\nmax_total_tokens = 5000\n")?;
    let client = Client::connect(ClientOptions::at(&server.url))?;
    match client.start_loop(start(Some(5_001))).await {
        Err(Error::Rejected(rejection)) => assert_eq!(rejection.code, Code::InvalidArgument),
        other => panic!("{other:?}"),
    }
    let nothing = exceeded(&server, Some(0)).await?;
    assert_eq!((nothing.limit, nothing.used), (0, 0));
    Ok(())
}

/// `loopwright run` against the server.
fn run(server: &Server, args: &[&str]) -> Result<Output> {
    let mut command = Command::new(kit::binary(Build::Debug)?);
    kit::without_loopwright(&mut command);
    command
        .args(["run", "go", "--server", &server.url])
        .args(args);
    Ok(command.output()?)
}

#[tokio::test(flavor = "multi_thread")]
async fn run_says_by_its_exit_code_how_the_loop_ended() -> Result<()> {
    let (server, _dir) = serve(&[], "")?;
    for (args, code) in [
        (["--max-tokens", "5000"], 3),
        (["--max-steps", "2"], 4),
        (["--model", "no_such_alias"], 1),
        (["--max-tokens", "1e4"], 2),
    ] {
        let output = run(&server, &args)?;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
    }
    Ok(())
}
