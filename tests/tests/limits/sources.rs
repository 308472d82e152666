//! Where limits come from: a file, the environment, a flag, a request that may only narrow; and what
//! is no number.

use std::fs;

use anyhow::{Result, ensure};
use loopwright_proto::v1::{
    BudgetLimits, LoopLimits, StartLoopRequest, loop_ended::Detail, start_loop_request::Input,
};
use loopwright_tests::{
    kit::variable,
    scene::{Stage, ask, end_of, loopwright, refusal},
};
use tonic::Code;

const KEY: &str = "budget.max_output_tokens";
const TALKS: &str =
    "- {text: so, tool_calls: [{tool: none__such}], usage: {input: 1, output: 1000}, repeat: 99}\n";

fn narrowed(to: u64) -> StartLoopRequest {
    let mut request = ask("talks");
    if let Some(agent) = &mut request.agent {
        agent.limits = Some(LoopLimits {
            budget: Some(BudgetLimits {
                max_output_tokens: Some(to),
                ..BudgetLimits::default()
            }),
            ..LoopLimits::default()
        });
    }
    request
}

#[tokio::test]
async fn file_environment_and_flag_say_more_in_turn_and_a_request_only_narrows() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("l.toml");
    fs::write(&file, "[budget]\nmax_output_tokens = 9000\n")?;
    let config = file.display().to_string();
    let rows: [(Option<&str>, Option<&str>, u64); 3] = [
        (None, None, 9_000),
        (Some("5000"), None, 5_000),
        (Some("5000"), Some("3000"), 3_000),
    ];
    for (environment, flag, limit) in rows {
        let mut stage = Stage::new(&[("talks", TALKS)])?;
        stage.options.args = vec!["--config".to_owned(), config.clone()];
        if let Some(value) = environment {
            stage = stage.set(KEY, value);
        }
        if let Some(value) = flag {
            let set = ["--set".to_owned(), format!("{KEY}={value}")];
            stage.options.args.extend(set);
        }
        let scene = stage.start()?;
        for (request, limit) in [(ask("talks"), limit), (narrowed(2_000), 2_000)] {
            let entries = scene.run(request).await?;
            match &end_of(&entries)?.detail {
                Some(Detail::BudgetExceeded(detail)) => assert_eq!(detail.limit, limit),
                other => anyhow::bail!("{other:?}"),
            }
        }
        let refused = refusal(scene.client.start_loop(narrowed(limit + 1)).await)?;
        assert_eq!(refused.code, Code::InvalidArgument);
        let fields: Vec<&str> = refused.fields.iter().map(|f| f.field.as_str()).collect();
        assert_eq!(fields, ["agent.limits.budget.max_output_tokens"]);
        ensure!(refused.message.contains(KEY), "{}", refused.message);
    }
    Ok(())
}

#[test]
fn what_is_no_number_is_refused_and_the_key_is_named() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let numbers = ["max_total_tokens", "max_input_tokens", "max_output_tokens"];
    for (name, value) in numbers.iter().zip(["10k", "1e6", "-5"]) {
        let key = format!("budget.{name}");
        let file = dir.path().join(format!("{name}.toml"));
        fs::write(&file, format!("[budget]\n{name} = \"{value}\"\n"))?;
        let file = file.display().to_string();
        let set = format!("{key}={value}");
        let mut by_environment = loopwright(dir.path(), &["config", "check"])?;
        by_environment.env(variable(&key), value);
        let by_file = loopwright(dir.path(), &["config", "check", "--config", &file])?;
        let by_flag = loopwright(dir.path(), &["config", "check", "--set", &set])?;
        for mut command in [by_environment, by_file, by_flag] {
            let output = command.output()?;
            let said = String::from_utf8(output.stderr)?;
            ensure!(output.status.code() == Some(1), "{command:?}: {said}");
            let named = said.contains(&key) || said.contains(&variable(&key));
            ensure!(named && said.contains(value), "{command:?}: {said}");
        }
    }
    Ok(())
}

#[test]
fn more_than_four_billion_tokens_are_a_limit_like_any_other() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let set = "budget.max_total_tokens=5000000000";
    let output = loopwright(dir.path(), &["config", "show", "--set", set])?.output()?;
    let shown = String::from_utf8(output.stdout)?;
    let line = shown.lines().find(|line| line.contains("max_total_tokens"));
    ensure!(
        line.is_some_and(|line| line.contains("5000000000")),
        "{shown}"
    );
    Ok(())
}

#[tokio::test]
async fn a_message_over_its_limit_is_refused_and_the_field_is_named() -> Result<()> {
    let stage = Stage::new(&[("talks", TALKS)])?.set("limits.message_bytes", "1KiB");
    let scene = stage.start()?;
    let fits = StartLoopRequest {
        input: Some(Input::Text("x".repeat(1024))),
        ..narrowed(1_000)
    };
    scene.run(fits).await?;
    let request = StartLoopRequest {
        input: Some(Input::Text("x".repeat(1025))),
        ..ask("talks")
    };
    let refused = refusal(scene.client.start_loop(request).await)?;
    assert_eq!(refused.code, Code::InvalidArgument);
    let fields: Vec<&str> = refused.fields.iter().map(|f| f.field.as_str()).collect();
    assert_eq!(fields, ["message"]);
    for word in ["1025", "limits.message_bytes", "1024"] {
        ensure!(refused.message.contains(word), "{}", refused.message);
    }
    // Beyond what the transport takes, the limit is named too.
    let request = StartLoopRequest {
        input: Some(Input::Text("x".repeat(5 << 20))),
        ..ask("talks")
    };
    let refused = scene.client.start_loop(request).await;
    ensure!(refused.is_err(), "5 MiB were taken");
    Ok(())
}
