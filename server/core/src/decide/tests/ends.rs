//! Every reason for which a loop ends can be reached, and is the one that is logged.

use super::kit::{Session, kinds};
use crate::{
    agent::{BudgetLimits, Limits},
    event::Event,
    message::Part,
    outcome::{EndReason, ModelFailureKind, StopReason, ToolFailureKind},
};

/// The label after `reason`; `None` after the last. A reason that is added must be added here.
fn next(reason: &EndReason) -> Option<&'static str> {
    match reason {
        EndReason::Completed => Some("max_steps"),
        EndReason::MaxSteps { .. } => Some("max_output"),
        EndReason::MaxOutput { .. } => Some("budget_exceeded"),
        EndReason::BudgetExceeded { .. } => Some("deadline"),
        EndReason::Deadline { .. } => Some("no_progress"),
        EndReason::NoProgress { .. } => Some("refused"),
        EndReason::Refused => Some("context_exhausted"),
        EndReason::ContextExhausted { .. } => Some("cancelled"),
        EndReason::Cancelled { .. } => Some("model_failed"),
        EndReason::ModelFailed { .. } => Some("unknown_outcome"),
        EndReason::UnknownOutcome { .. } => Some("error"),
        EndReason::Error { .. } => None,
    }
}

/// A session driven to the end of that label, and the events of its last entry.
fn drive_to(label: &str) -> (Session, Vec<Event>) {
    let limits = Limits {
        max_steps: 1,
        max_output_retries: 0,
        deadline_ms: Some(10),
        on_unknown: Some(crate::agent::UnknownPolicy::End),
        ..Limits::default()
    };
    let mut s = Session::started(limits.clone());
    let text = |stop| (vec![Part::Text("so far".to_owned())], stop);
    let events = match label {
        "completed" => s.say("hi"),
        "max_steps" => s.reply(Vec::new(), StopReason::Pause),
        "max_output" => {
            let (parts, stop) = text(StopReason::MaxTokens);
            s.reply(parts, stop)
        }
        "budget_exceeded" => {
            let budget = BudgetLimits {
                input_tokens: Some(0),
                ..BudgetLimits::default()
            };
            s = Session::new(Limits { budget, ..limits }, crate::agent::Agent::default());
            s.start("hello")
        }
        "deadline" => s.fire_next(),
        "no_progress" => {
            let more = Limits {
                max_steps: 9,
                no_progress: Some(1),
                ..limits
            };
            s = Session::started(more);
            s.reply(Vec::new(), StopReason::Pause)
        }
        "refused" => {
            let (parts, stop) = text(StopReason::Refusal);
            s.reply(parts, stop)
        }
        "context_exhausted" => s.fail(ModelFailureKind::ContextTooLong),
        "cancelled" => s.cancel(),
        "model_failed" => s.fail(ModelFailureKind::Auth),
        "unknown_outcome" => {
            s.ask(&["blind"]);
            s.tool_fails(2, 1, ToolFailureKind::Ambiguous, false)
        }
        "error" => s.reply(Vec::new(), StopReason::Other("odd".to_owned())),
        other => panic!("no way to `{other}` is written down here"),
    };
    (s, events)
}

#[test]
fn every_reason_can_be_reached_and_is_logged_once() {
    let mut label = Some("completed");
    let mut seen = Vec::new();
    while let Some(wanted) = label {
        let (s, events) = drive_to(wanted);
        assert_eq!(s.reason().label(), wanted);
        let ends = kinds(&events).iter().filter(|k| **k == "LoopEnded").count();
        assert_eq!((ends, s.state.ended.len()), (1, 1), "{wanted}");
        assert!(!s.reason().describe().is_empty());
        seen.push(wanted);
        label = next(&s.reason());
    }
    assert_eq!(seen.len(), 12);
}

#[test]
fn a_session_remembers_its_last_loops_only() {
    let mut s = Session::started(Limits::default());
    s.say("hi");
    for _ in 0..crate::state::ENDED_KEPT + 3 {
        s.start("again");
        s.say("hi");
    }
    assert_eq!(s.state.ended.len(), crate::state::ENDED_KEPT);
    assert_eq!(
        s.state.current_loop().0 as usize,
        crate::state::ENDED_KEPT + 4
    );
}
