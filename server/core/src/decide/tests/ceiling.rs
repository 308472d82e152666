//! The ceiling of the window, at the sizes at which others were found wanting.

use super::kit::{Session, call, usage};
use crate::{
    What,
    agent::{Agent, Limits},
    context::ContextTerms,
    event::{ContextCompacted, Event},
    input::StartLoop,
    message::Part,
    outcome::{EndReason, StopReason},
};

/// The window as it is configured where nobody says otherwise, but for these.
fn limits(check_every: u32, min_recent_messages: u32) -> Limits {
    let context = ContextTerms {
        check_every,
        min_recent_messages,
        ..ContextTerms::default()
    };
    Limits {
        context: Some(context),
        ..Limits::default()
    }
}

fn compaction(events: &[Event]) -> Option<ContextCompacted> {
    events.iter().find_map(|event| {
        if let Event::ContextCompacted(e) = event {
            Some(e.clone())
        } else {
            None
        }
    })
}

/// A session without a window, in which the user and the model have said so many messages of so many
/// bytes each, in turns, and no provider has counted them.
fn told(messages: usize, bytes: usize) -> Session {
    let mut s = Session::new(Limits::default(), Agent::default());
    for number in 0..messages {
        let text = format!("{number} {}", "x".repeat(bytes));
        if number % 2 == 0 {
            s.start(&text);
        } else {
            s.reply_with(vec![Part::Text(text)], StopReason::EndTurn, None);
        }
    }
    if messages % 2 == 1 {
        s.reply_with(Vec::new(), StopReason::EndTurn, None);
    }
    assert_eq!(s.state.conversation.len(), messages);
    s
}

/// Goes on with these limits.
fn go_on(s: &mut Session, limits: Limits) -> Vec<Event> {
    let start = StartLoop {
        limits: Some(std::sync::Arc::new(limits)),
        ..super::kit::start("", "and now?")
    };
    s.go(What::StartLoop(start))
}

#[test]
fn thirty_nine_messages_of_292k_estimated_tokens_compact_at_once() {
    for min_recent in [0, 10, 39] {
        let mut s = told(39, 4 * 292_000 / 39);
        assert!(s.state.prompt_estimate() >= 292_000);
        let events = go_on(&mut s, limits(1_000, min_recent));
        let done = compaction(&events).expect("it is no step of a regular check");
        assert!(done.tokens_before >= 292_000, "{done:?}");
        assert!(s.state.prompt_estimate() <= 180_000 - 4_096, "{done:?}");
        assert!(s.state.model_request().is_some(), "the loop goes on");
    }
}

#[test]
fn a_prompt_over_the_ceiling_is_compacted_on_any_step() {
    for at in 1..=7 {
        let mut s = told(38, 4 * 100_000 / 38);
        go_on(&mut s, limits(1_000, 10));
        for _ in 1..at {
            s.ask(&["read"]);
            let call = s.state.next_call - 1;
            assert_eq!(compaction(&s.tool(call, 1, "small")), None, "before {at}");
        }
        // Each byte is a token of a quarter, as the last count says.
        let bytes = s.state.conversation.bytes() + s.state.fixed_bytes();
        s.reply_with(vec![call("read")], StopReason::ToolUse, usage(bytes / 4, 5));
        let call = s.state.next_call - 1;
        let events = s.tool(call, 1, &"y".repeat(4 * 192_000));
        let done = compaction(&events);
        assert!(done.is_some(), "step {at}");
        assert!(s.state.prompt_estimate() <= 180_000 - 4_096, "{done:?}");
        assert!(s.state.model_request().is_some(), "the loop goes on");
    }
}

#[test]
fn eleven_huge_messages_compact_though_ten_are_to_be_kept() {
    let mut s = told(11, 4 * 40_000);
    let events = go_on(&mut s, limits(5, 10));
    let done = compaction(&events).expect("440k tokens do not fit");
    assert!(s.state.prompt_estimate() <= 180_000 - 4_096, "{done:?}");
    assert!(s.state.model_request().is_some(), "the loop goes on");
}

#[test]
fn one_group_of_thirty_calls_compacts_and_stays_paired() {
    let mut s = Session::started(limits(5, 10));
    let calls = (0..30).map(|_| call("read")).collect();
    s.reply_with(calls, StopReason::ToolUse, None);
    let first = s.state.next_call - 30;
    let mut last = Vec::new();
    // Eight run at once; each that ends lets the next one start.
    for at in 0..30 {
        last = s.tool(first + at, 1, &"z".repeat(30_000));
    }
    let done = compaction(&last).expect("225k tokens in one group");
    assert!(!done.shortened.is_empty(), "{done:?}");
    assert_eq!(s.results().len(), 30, "no call is parted from its result");
    assert!(s.state.prompt_estimate() <= 180_000 - 4_096, "{done:?}");
    assert!(s.state.model_request().is_some(), "the loop goes on");
}

#[test]
fn min_recent_messages_of_0_works() {
    let mut s = told(30, 4 * 4_500);
    // The session has done 15 steps.
    let events = go_on(&mut s, limits(16, 0));
    assert_eq!(
        compaction(&events),
        None,
        "135k tokens fit, and it is no regular check"
    );
    s.reply_with(vec![call("read")], StopReason::ToolUse, None);
    let call = s.state.next_call - 1;
    let done = compaction(&s.tool(call, 1, "x")).expect("a regular check");
    assert!(done.target_met, "{done:?}");
    assert!(s.state.prompt_estimate() <= 90_000);
    assert!(!s.state.conversation.is_empty());
    assert!(
        s.talk()[0].contains("0 xxx"),
        "no task: {:.300}",
        s.talk()[0]
    );
    s.say("done");
    assert_eq!(s.reason(), EndReason::Completed);
}

#[test]
fn a_compaction_that_misses_its_goal_says_so() {
    let mut s = told(2, 4 * 15_000);
    let start = StartLoop {
        limits: Some(std::sync::Arc::new(limits(1, 3))),
        ..super::kit::start("", &"w".repeat(4 * 120_000))
    };
    s.go(What::StartLoop(start));
    s.reply_with(vec![call("read")], StopReason::ToolUse, None);
    let call = s.state.next_call - 1;
    let done = compaction(&s.tool(call, 1, "x")).expect("a regular check");
    assert_eq!(done.dropped, 2, "what is recent stays: {done:?}");
    assert!(!done.target_met, "{done:?}");
    assert!(done.tokens_after > 120_000, "{done:?}");
    assert_eq!(done.tokens_after, s.state.prompt_estimate());
}
