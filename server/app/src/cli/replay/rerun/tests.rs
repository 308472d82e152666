#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;

use loopwright_core::ids::LoopId;
use serde_json::json;

use super::{
    machine::Stopped,
    trail::{Asked, Did},
    *,
};
use crate::{cli::replay::tests, config::Config};

/// A recorded session of the core's tests, run again with a script.
async fn again(recorded: &str, script: &str) -> (Recording, Vec<String>, Option<Stopped>, String) {
    let mut recording = Recording::default();
    for line in tests::all(&tests::recorded(recorded)).await {
        recording.take(&line).unwrap();
    }
    let options = ModelsOptions {
        scripts: [("other".to_owned(), script.to_owned())].into(),
        ..ModelsOptions::default()
    };
    let models = Models::new(&Config::default(), &BTreeMap::new(), options).unwrap();
    let facts = models.check("other").unwrap();
    let mut machine = Machine::new(&models, &facts, &recording).unwrap();
    let mut steps = Vec::new();
    while let Some(step) = machine.go_on().await.unwrap() {
        steps.push(step);
    }
    let report = Report::new("it", &facts, &recording.trail, &machine);
    let (lines, json) = (report.lines().join("\n"), report.json());
    assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok());
    let stopped = machine.stopped().cloned();
    drop(machine);
    (recording, steps, stopped, lines)
}

#[tokio::test]
async fn a_recording_gives_what_was_said_and_what_tools_answered() {
    let mut recording = Recording::default();
    for line in tests::all(&tests::recorded("parallel_tools")).await {
        recording.take(&line).unwrap();
    }
    assert_eq!(recording.trail.steps.len(), 3);
    assert_eq!(recording.trail.ends.len(), 1);
    let asked = recording.trail.steps[0].asked.clone();
    assert!(!asked.is_empty());
    let mut answers = recording.answers();
    for one in &asked {
        assert!(answers.next(one).is_some(), "{one:?}");
    }
    let unheard_of = Asked {
        tool: "files__read".to_owned(),
        arguments: json!({"path": "nobody asked"}),
    };
    assert!(answers.next(&unheard_of).is_none());
}

#[tokio::test]
async fn every_recorded_session_is_run_again_to_an_end() {
    // Answers at once: whatever was recorded, nothing is asked of a tool.
    let script = "at_end: repeat\nturns:\n- text: I know already\n";
    for recorded in [
        "simple",
        "parallel_tools",
        "crash_in_doubt",
        "crash_in_model_call",
        "cancel",
        "budget_exceeded",
        "named_budget",
        "steer_queue_interrupt",
        "held_and_allowed",
        "unknown_and_asked",
    ] {
        let (recording, steps, _, lines) = again(recorded, script).await;
        assert!(!steps.is_empty(), "{recorded}");
        assert!(lines.contains("in all"), "{recorded}: {lines}");
        assert!(recording.trail.spent.model_calls > 0, "{recorded}");
    }
}

#[tokio::test]
async fn a_call_that_was_not_recorded_is_where_it_ends() {
    let script = "turns:\n- tool_calls:\n  - tool: files__read\n    arguments: {path: /etc/other}\n- text: done\n";
    let (_, steps, stopped, lines) = again("parallel_tools", script).await;
    assert_eq!(steps, ["l1 step 1: 1 tool calls asked for"]);
    match stopped {
        Some(Stopped::NotRecorded { asked, .. }) => assert_eq!(asked.tool, "files__read"),
        other => panic!("{other:?}: {lines}"),
    }
    assert!(lines.contains("they part at l1 step 1"), "{lines}");
    assert!(lines.contains("was not recorded"), "{lines}");
}

#[test]
fn runs_are_compared_by_what_they_ask_for_and_how_they_end() {
    let step = |number, tools: &[&str]| trail::Step {
        of: LoopId(1),
        number,
        asked: tools
            .iter()
            .map(|tool| Asked {
                tool: (*tool).to_owned(),
                arguments: json!({"a": 1}),
            })
            .collect(),
        spent: Default::default(),
    };
    let run = |steps: Vec<trail::Step>, reason: &'static str| trail::Trail {
        steps,
        ends: vec![trail::End {
            of: LoopId(1),
            reason,
            words: reason.to_owned(),
            text: String::new(),
        }],
        ..Default::default()
    };
    let recorded = run(vec![step(1, &["x"]), step(2, &[])], "completed");
    let same = run(vec![step(1, &["x"]), step(2, &[])], "completed");
    assert_eq!(recorded.parting(&same), None);

    let shorter = run(vec![step(1, &[])], "completed");
    let parting = recorded.parting(&shorter).unwrap();
    assert_eq!((parting.step, parting.now), (1, Did::Answered));
    let longer = run(vec![step(1, &["x"]), step(2, &["x"])], "max_steps");
    let parting = recorded.parting(&longer).unwrap();
    assert_eq!((parting.step, parting.recorded), (2, Did::Answered));
    let cut = run(vec![step(1, &["x"])], "model_failed");
    let parting = recorded.parting(&cut).unwrap();
    assert_eq!(parting.now, Did::Ended("model_failed".to_owned()));
    let other_end = run(vec![step(1, &["x"]), step(2, &[])], "refused");
    let parting = recorded.parting(&other_end).unwrap();
    assert_eq!(parting.recorded, Did::Ended("completed".to_owned()));

    let written = |arguments: &str| {
        Asked::of(&loopwright_core::message::CallPart {
            provider_id: String::new(),
            tool: "t".to_owned(),
            arguments: arguments.to_owned(),
        })
    };
    assert_eq!(
        written(r#"{"a":1,"b":2}"#),
        written(r#"{ "b": 2, "a": 1 }"#)
    );
    assert_eq!(written(""), written("{}"));
    assert_ne!(written("not json"), written("{}"));
}
