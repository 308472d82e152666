//! A conversation outgrows its window: when it is compacted, to what, and what happens where it cannot be.

use super::kit::{Session, kinds, usage};
use crate::{
    Event,
    agent::Limits,
    context::{CompactionTrigger, ContextTerms},
    event::ContextCompacted,
    message::Part,
    outcome::{ModelFailureKind, StopReason},
};

/// A window of 20,000 tokens, 1,000 of them for a reply; at a token for each byte.
fn limits(check_every: u32, min_recent_messages: u32) -> Limits {
    let context = ContextTerms {
        max_tokens: 20_000,
        check_every,
        min_recent_messages,
        ..ContextTerms::default()
    };
    Limits {
        max_output_tokens: 1_000,
        context: Some(context),
        ..Limits::default()
    }
}

/// The model asks for a tool, after a prompt of a token for each of its bytes.
fn ask(s: &mut Session) -> Vec<Event> {
    let bytes = s.state.conversation.bytes() + s.state.fixed_bytes();
    let parts = vec![super::kit::call("read")];
    s.reply_with(parts, StopReason::ToolUse, usage(bytes, 5))
}

/// One step: the model asks for a tool, which gives back so many bytes.
fn step(s: &mut Session, bytes: usize) -> Vec<Event> {
    ask(s);
    let call = s.state.next_call - 1;
    s.tool(call, 1, &"x".repeat(bytes))
}

fn compaction(events: &[Event]) -> Option<&ContextCompacted> {
    events.iter().find_map(|event| {
        if let Event::ContextCompacted(e) = event {
            return Some(e);
        }
        None
    })
}

#[test]
fn above_the_threshold_it_is_compacted_at_the_regular_check_alone() {
    let mut s = Session::started(limits(4, 2));
    for number in 1..=3 {
        let events = step(&mut s, 3_000);
        assert_eq!(
            compaction(&events),
            None,
            "step {number} is none of a check"
        );
    }
    let events = step(&mut s, 3_000);
    let done = compaction(&events).expect("step 4 is");
    assert_eq!(
        kinds(&events),
        ["ToolCallCompleted", "ContextCompacted", "ModelCallStarted"]
    );
    assert_eq!(done.trigger, CompactionTrigger::Threshold);
    assert!(
        done.tokens_before > 12_000 && done.target_met && done.tokens_after <= 10_000,
        "{done:?}"
    );
    assert_eq!((done.from_seq, done.dropped > 0), (3, true));
    assert!(
        s.talk()[0].contains("hello"),
        "the task is in the recap: {:?}",
        s.talk()
    );
    assert!(s.state.prompt_estimate() <= 10_000);
}

#[test]
fn at_the_ceiling_it_is_compacted_on_any_step() {
    let mut s = Session::started(limits(1_000, 2));
    assert_eq!(compaction(&step(&mut s, 9_000)), None);
    let events = step(&mut s, 11_000);
    let done = compaction(&events).expect("it would not fit");
    assert_eq!(done.trigger, CompactionTrigger::Ceiling);
    assert!(s.state.prompt_estimate() <= 19_000, "{done:?}");
}

#[test]
fn a_message_that_waits_is_counted() {
    let mut s = Session::started(limits(1_000, 0));
    step(&mut s, 6_000);
    let bytes = s.state.conversation.bytes() + s.state.fixed_bytes();
    let ok = vec![Part::Text("ok".to_owned())];
    s.reply_with(ok, StopReason::EndTurn, usage(bytes, 5));
    let events = s.start(&"y".repeat(14_000));
    assert!(compaction(&events).is_some(), "{:?}", kinds(&events));
}

#[test]
fn what_cannot_fit_ends_the_loop_with_its_own_reason() {
    let mut s = Session::new(limits(5, 0), crate::agent::Agent::default());
    s.start(&"y".repeat(90_000));
    assert_eq!(s.reason().label(), "context_exhausted");
    assert_eq!(
        s.state.ended.back().map(|ended| ended.totals.model_calls),
        Some(0)
    );
}

#[test]
fn the_provider_counts_otherwise_and_is_believed_once_a_call() {
    let mut s = Session::started(limits(1_000, 2));
    for _ in 0..3 {
        step(&mut s, 3_000);
    }
    let before = s.state.prompt_estimate();
    let events = s.fail(ModelFailureKind::ContextTooLong);
    assert_eq!(
        kinds(&events),
        ["ModelCallFailed", "ContextCompacted", "ModelCallStarted"]
    );
    let done = compaction(&events).expect("it was");
    assert_eq!(done.trigger, CompactionTrigger::Provider);
    assert!(done.tokens_after <= before / 2, "{done:?}");
    let events = s.fail(ModelFailureKind::ContextTooLong);
    assert_eq!(kinds(&events), ["ModelCallFailed", "LoopEnded"]);
    assert_eq!(s.reason().label(), "context_exhausted");
}

#[test]
fn what_misses_its_target_says_so_and_is_not_tried_without_end() {
    let mut s = Session::started(limits(1, 100));
    for _ in 0..3 {
        step(&mut s, 4_000);
    }
    let mut tried = Vec::new();
    for _ in 0..12 {
        let events = step(&mut s, 200);
        tried.extend(compaction(&events).map(|done| (done.trigger, done.target_met)));
    }
    let regular = tried
        .iter()
        .filter(|(t, _)| *t == CompactionTrigger::Threshold)
        .count();
    assert!(regular <= 3, "{tried:?}");
}

#[test]
fn a_long_loop_compacts_as_often_as_arithmetic_says_and_keeps_what_it_was_told() {
    let mut limits = limits(5, 10);
    limits.max_steps = 1_000;
    let mut s = Session::new(limits, crate::agent::Agent::default());
    s.start("the vault opens with Q7-kite");
    let mut compactions = 0;
    for _ in 0..300 {
        let events = step(&mut s, 1_000);
        compactions += usize::from(compaction(&events).is_some());
        assert!(s.state.prompt_estimate() <= 19_000, "over the ceiling");
    }
    // Five steps are about 5,100 tokens: from a target of 10,000 each regular check finds it above the
    // threshold of 12,000, but for those before it was ever reached.
    assert!((56..=60).contains(&compactions), "{compactions}");
    assert!(s.talk()[0].contains("Q7-kite"), "{:?}", s.talk()[0]);
    let recap = s.state.recap.as_ref().map(|recap| recap.round);
    assert_eq!(recap, u32::try_from(compactions).ok());
}

#[test]
fn a_session_without_terms_is_never_compacted() {
    let mut s = Session::started(Limits::default());
    for _ in 0..9 {
        assert_eq!(compaction(&step(&mut s, 50_000)), None);
    }
}

#[test]
fn a_prompt_that_is_too_long_is_made_smaller_whatever_attempts_are_left() {
    for attempts in [1, 2] {
        let mut limits = limits(1_000, 2);
        limits.retry.max_attempts = attempts;
        let mut s = Session::started(limits);
        (0..3).for_each(|_| drop(step(&mut s, 3_000)));
        for _ in 1..attempts {
            s.fail(ModelFailureKind::Overloaded);
            s.fire_next();
        }
        let events = s.fail(ModelFailureKind::ContextTooLong);
        assert_eq!(
            kinds(&events),
            ["ModelCallFailed", "ContextCompacted", "ModelCallStarted"],
            "{attempts}"
        );
        let events = s.fail(ModelFailureKind::ContextTooLong);
        assert_eq!(kinds(&events), ["ModelCallFailed", "LoopEnded"]);
    }
}

#[test]
fn a_prompt_that_is_too_long_is_not_sent_again_once_the_loops_time_is_up() {
    let mut limits = limits(1_000, 2);
    limits.deadline_ms = Some(1_000);
    let mut s = Session::started(limits);
    (0..3).for_each(|_| drop(step(&mut s, 3_000)));
    s.wait(1_000);
    s.fail(ModelFailureKind::ContextTooLong);
    assert_eq!(s.reason().label(), "deadline");
}

/// The window cuts the reply, which has these parts.
fn fill(s: &mut Session, parts: Vec<Part>) -> Vec<Event> {
    s.reply_with(parts, StopReason::ContextFull, usage(19_500, 500))
}

#[test]
fn a_reply_that_the_window_cuts_is_kept_and_continued_once_in_a_row() {
    let half = || vec![Part::Text("the first half".to_owned())];
    let mut s = Session::started(limits(1_000, 2));
    (0..3).for_each(|_| drop(step(&mut s, 3_000)));
    let events = fill(&mut s, half());
    assert_eq!(
        kinds(&events),
        [
            "ModelCallCompleted",
            "ContextCompacted",
            "MessageAdded",
            "ModelCallStarted"
        ]
    );
    let done = compaction(&events).expect("it was");
    assert_eq!(done.trigger, CompactionTrigger::Provider);
    let talk = s.talk();
    assert!(talk[talk.len() - 2].ends_with("the first half"), "{talk:?}");
    // Another step goes well, so that it may happen again.
    step(&mut s, 3_000);
    step(&mut s, 3_000);
    assert_eq!(
        kinds(&fill(&mut s, half())).last(),
        Some(&"ModelCallStarted")
    );
    fill(&mut s, half());
    assert_eq!(s.reason().label(), "context_exhausted");
    let ended = s.state.ended.back().expect("it did");
    assert_eq!(ended.text, "the first half");
}

#[test]
fn no_call_of_a_reply_that_the_window_cuts_is_made() {
    let mut s = Session::started(limits(1_000, 2));
    (0..3).for_each(|_| drop(step(&mut s, 3_000)));
    let events = fill(&mut s, vec![super::kit::call("read")]);
    assert_eq!(
        kinds(&events),
        [
            "ModelCallCompleted",
            "ToolCallRequested",
            "ToolCallRejected",
            "ContextCompacted",
            "ModelCallStarted"
        ],
        "its error result says it, no nudge does"
    );
}

#[test]
fn what_the_window_cuts_and_nothing_can_make_smaller_ends_the_loop() {
    let mut s = Session::started(limits(1_000, 2));
    fill(&mut s, Vec::new());
    assert_eq!(s.reason().label(), "context_exhausted");
}

#[test]
fn loops_of_one_step_each_have_their_regular_check_too() {
    let mut s = Session::new(limits(3, 2), crate::agent::Agent::default());
    let mut compacted = Vec::new();
    for number in 1..=7 {
        let events = s.start(&"y".repeat(2_900));
        compacted.extend(compaction(&events).map(|done| (number, done.trigger)));
        let bytes = s.state.conversation.bytes() + s.state.fixed_bytes();
        let ok = vec![Part::Text("ok".to_owned())];
        s.reply_with(ok, StopReason::EndTurn, usage(bytes, 5));
    }
    // Before the fourth step of the session, and before the seventh.
    let threshold = CompactionTrigger::Threshold;
    assert_eq!(compacted, [(4, threshold), (7, threshold)]);
}
