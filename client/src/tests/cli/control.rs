//! `pause`, `resume` and `limits`: one command each, and what is printed of it.

use clap::Parser as _;
use loopwright_proto::v1::{
    BudgetDimension, BudgetExceededDetail, BudgetLimits, BudgetRef, BudgetScope, LoopLimit,
    LoopLimits, LoopPaused, OnExhausted,
};
use loopwright_proto::well_known::Duration;

use super::{Fake, Program, desk, ran};
use crate::cli::Exit;
use crate::render::Answering;

#[tokio::test]
async fn a_loop_is_paused_and_goes_on() {
    let (fake, client) = Fake::serve(Vec::new()).await;
    let mut desk = desk();
    assert_eq!(
        ran(&client, &["pause", "s1"], &mut desk).await,
        Exit::Completed
    );
    assert_eq!(
        ran(&client, &["resume", "s1"], &mut desk).await,
        Exit::Completed
    );
    assert_eq!(
        desk.out.text(),
        "paused l1 (seq 7): what runs ends, nothing starts\nresumed l1 (seq 8)\n"
    );
    let commands = fake.state().commands.clone();
    let kinds: Vec<&str> = commands.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, ["pause", "resume"]);
}

#[tokio::test]
async fn limits_are_read_exactly_and_what_is_not_named_is_not_sent() {
    let (fake, client) = Fake::serve(Vec::new()).await;
    let mut desk = desk();
    let line = [
        "limits",
        "s1",
        "--max-steps",
        "100",
        "--max-cost",
        "0.25",
        "--max-tokens",
        "50k",
        "--deadline",
        "15m",
        "--on-exhausted",
        "pause",
        "--session-max-cost",
        "2",
    ];
    assert_eq!(ran(&client, &line, &mut desk).await, Exit::Completed);
    assert_eq!(desk.out.text(), "limits of l1 moved (seq 9)\n");
    let [moved] = &fake.state().moved[..] else {
        panic!("one request");
    };
    let budget = BudgetLimits {
        max_cost_micro_usd: Some(250_000),
        max_total_tokens: Some(50_000),
        on_exhausted: OnExhausted::Pause.into(),
        ..BudgetLimits::default()
    };
    let limits = LoopLimits {
        max_steps: Some(100),
        deadline: Some(Duration {
            seconds: 900,
            nanos: 0,
        }),
        budget: Some(budget),
        ..LoopLimits::default()
    };
    let session = BudgetLimits {
        max_cost_micro_usd: Some(2_000_000),
        ..BudgetLimits::default()
    };
    assert_eq!(
        (moved.limits, moved.session_budget),
        (Some(limits), Some(session))
    );
}

#[tokio::test]
async fn none_removes_a_limit_and_nothing_allowed_does_not() {
    let (fake, client) = Fake::serve(Vec::new()).await;
    let mut desk = desk();
    let line = [
        "limits",
        "s1",
        "--max-cost",
        "none",
        "--max-tool-calls",
        "0",
        "--deadline",
        "none",
        "--session-max-wall-time",
        "none",
    ];
    assert_eq!(ran(&client, &line, &mut desk).await, Exit::Completed);
    let [moved] = &fake.state().moved[..] else {
        panic!("one request");
    };
    let budget = BudgetLimits {
        max_tool_calls: Some(0),
        ..BudgetLimits::default()
    };
    let limits = LoopLimits {
        budget: Some(budget),
        ..LoopLimits::default()
    };
    assert_eq!((moved.limits, moved.session_budget), (Some(limits), None));
    assert_eq!(moved.clear, [i32::from(LoopLimit::Deadline)]);
    assert_eq!(
        moved.clear_budget,
        [i32::from(BudgetDimension::CostMicroUsd)]
    );
    assert_eq!(
        moved.clear_session_budget,
        [i32::from(BudgetDimension::WallTimeMs)]
    );
}

#[tokio::test]
async fn without_a_limit_nothing_is_sent() {
    let (fake, client) = Fake::serve(Vec::new()).await;
    let mut desk = desk();
    assert_eq!(
        ran(&client, &["limits", "s1"], &mut desk).await,
        Exit::Usage
    );
    assert!(
        desk.err.text().contains("--max-steps"),
        "{}",
        desk.err.text()
    );
    assert_eq!(fake.state().commands.len(), 0);
}

#[test]
fn whoever_is_told_that_a_loop_waits_is_told_a_command_that_there_is() {
    let answering = Answering::at("http://elsewhere:1");
    let mut told = vec![answering.goes_on("s1", &LoopPaused::default())];
    let scopes = [
        BudgetScope::Loop,
        BudgetScope::Session,
        BudgetScope::Named,
        BudgetScope::Namespace,
    ];
    let dimensions = (1..=7).filter_map(|number| BudgetDimension::try_from(number).ok());
    for dimension in dimensions {
        told.extend(scopes.map(|scope| {
            let budget = BudgetRef {
                scope: scope.into(),
                name: "team".to_owned(),
            };
            let detail = BudgetExceededDetail {
                budget: Some(budget),
                dimension: dimension.into(),
                ..BudgetExceededDetail::default()
            };
            let budget = Some(detail);
            answering.goes_on(
                "s1",
                &LoopPaused {
                    budget,
                    ..LoopPaused::default()
                },
            )
        }));
    }
    assert_eq!(told.len(), 29);
    for line in told {
        let line = line.expect("there is always one").replace("..", "1s");
        let (_, command) = line.split_once("loopwright ").expect("a command");
        let is_time = command.contains("wall-time");
        let command = if is_time {
            command.to_owned()
        } else {
            command.replace("1s", "1")
        };
        let words = std::iter::once("loopwright").chain(command.split_whitespace());
        Program::try_parse_from(words).unwrap_or_else(|error| panic!("{command}: {error}"));
    }
}
