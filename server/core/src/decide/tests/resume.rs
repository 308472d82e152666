//! A loop that is killed at any record boundary goes on from where it was, under the same ids.

use super::kit::{Session, call_with, kinds, usage};
use crate::{
    agent::{Agent, BudgetLimits, Limits},
    context::ContextTerms,
    message::Part,
    outcome::{EndReason, StopReason},
    state::{State, ToolPhase},
};

fn limits() -> Limits {
    let context = ContextTerms {
        max_tokens: 9_000,
        check_every: 2,
        min_recent_messages: 2,
        ..ContextTerms::default()
    };
    Limits {
        max_output_tokens: 500,
        max_parallel_tool_calls: 2,
        max_tool_calls_per_name: Some(50),
        context: Some(context),
        budget: BudgetLimits {
            total_tokens: Some(400_000),
            tool_calls: Some(40),
            ..BudgetLimits::default()
        },
        no_progress: Some(9),
        ..Limits::default()
    }
}

/// A loop of six steps, each with three tool calls, that compacts on its way.
fn lived() -> Session {
    let mut s = Session::new(limits(), Agent::default());
    s.start("remember the kite");
    for step in 0..6 {
        let bytes = s.state.conversation.bytes() + s.state.fixed_bytes();
        let asks = ["read", "idem", "dedup"].map(|tool| call_with(tool, &step.to_string()));
        s.reply_with(asks.to_vec(), StopReason::ToolUse, usage(bytes, 7));
        let first = s.state.next_call - 3;
        for at in 0..3 {
            s.tool(first + at, 1, &"r".repeat(700));
        }
    }
    s.say("done");
    assert!(s.state.recap.is_some(), "it compacts on its way");
    s
}

/// Books that a crash changes nothing of.
fn books(state: &State) -> (u32, u64, u32, usize, Option<u32>) {
    let active = state.active.as_ref().expect("a loop runs");
    (
        active.totals.steps,
        active.totals.tool_calls,
        active.progress.idle,
        active.per_name.len(),
        state.recap.as_ref().map(|recap| recap.round),
    )
}

/// Answers whatever runs until the loop ends.
fn finish(s: &mut Session) {
    for _ in 0..99 {
        let Some(active) = &s.state.active else {
            return;
        };
        let running = |t: &&crate::state::ToolCall| t.phase == ToolPhase::Running;
        let tool = active.tools.iter().find(running);
        match tool.map(|tool| (tool.call.0, tool.attempt)) {
            Some((call, attempt)) => drop(s.tool(call, attempt, "again")),
            None => drop(s.say("done")),
        }
    }
    panic!("it does not end");
}

#[test]
fn a_loop_killed_at_any_record_boundary_goes_on_with_its_books_under_its_ids() {
    let whole = lived();
    let mut resumed = 0;
    for seq in 1..whole.length() {
        let mut s = whole.killed_after(seq);
        let before = s.state.clone();
        let Some(active) = &before.active else {
            continue;
        };
        resumed += 1;
        let events = s.attach();
        assert_eq!(books(&s.state), books(&before), "seq {seq}: {events:?}");
        let now = s.state.active.as_ref().expect("it goes on");
        assert_eq!(now.id, active.id, "seq {seq}");
        assert_eq!(s.state.conversation, before.conversation, "seq {seq}");
        let (used, was) = (now.totals.usage.total(), active.totals.usage.total());
        let held = active.reserved.map_or(0, |r| r.input + r.output);
        let lost = kinds(&events).contains(&"ModelCallAbandoned");
        assert_eq!(used, was + if lost { held } else { 0 }, "seq {seq}");
        let (model, was) = (now.model.as_ref(), active.model.as_ref());
        assert_eq!(model.map(|m| m.call), was.map(|m| m.call), "seq {seq}");
        for (tool, was) in now.tools.iter().zip(&active.tools) {
            assert_eq!(tool.call, was.call, "seq {seq}");
            assert_eq!(tool.phase.has_ended(), was.phase.has_ended(), "seq {seq}");
        }
        finish(&mut s);
        assert_eq!(s.reason(), EndReason::Completed, "seq {seq}");
        assert_eq!(s.state.ended.back().map(|e| e.id), Some(active.id));
    }
    assert!(resumed > 20, "{resumed} boundaries");
}

#[test]
fn whatever_ends_a_loop_the_text_so_far_is_its_partial_result() {
    type End = fn(&mut Session);
    let ends: [(&str, End); 6] = [
        ("cancelled", |s| drop(s.cancel())),
        ("deadline", |s| drop(s.fire_next())),
        ("refused", |s| {
            s.reply(Vec::new(), StopReason::Refusal);
        }),
        ("error", |s| {
            s.reply(Vec::new(), StopReason::Other("odd".to_owned()));
        }),
        ("model_failed", |s| {
            s.fail(crate::outcome::ModelFailureKind::Auth);
        }),
        ("context_exhausted", |s| {
            s.reply(Vec::new(), StopReason::ContextFull);
        }),
    ];
    for (label, end) in ends {
        let mut s = Session::started(Limits {
            deadline_ms: Some(1_000),
            ..Limits::default()
        });
        let parts = vec![Part::Text("so far".to_owned()), call_with("read", "1")];
        s.reply(parts, StopReason::ToolUse);
        s.tool(2, 1, "x");
        end(&mut s);
        assert_eq!(s.reason().label(), label);
        let ended = s.state.ended.back().expect("it ended");
        assert_eq!(ended.text, "so far", "{label}");
    }
}
