//! Plans and recaps, over conversations made up here.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::{
    message::{CallPart, Part, ToolOutput},
    state::{ToolResult, Turn},
};

fn user(text: &str) -> Arc<Turn> {
    Arc::new(Turn::User(Arc::new(vec![Part::Text(text.to_owned())])))
}

fn said(text: &str) -> Arc<Turn> {
    Arc::new(Turn::Assistant {
        parts: Arc::new(vec![Part::Text(text.to_owned())]),
        first_call: CallId(0),
    })
}

/// A reply that asks for so many tools, and their results of so many bytes.
fn calls(first: u32, count: u32, bytes: usize) -> [Arc<Turn>; 2] {
    let asked = (0..count).map(|at| {
        Part::ToolCall(CallPart {
            provider_id: String::new(),
            tool: "files__read".to_owned(),
            arguments: format!("{{\"path\":\"{at}.txt\"}}"),
        })
    });
    let results = (0..count).map(|at| ToolResult {
        call: CallId(first + at),
        output: Arc::new(ToolOutput {
            text: "x".repeat(bytes),
            ..ToolOutput::default()
        }),
    });
    [
        Arc::new(Turn::Assistant {
            parts: Arc::new(asked.collect()),
            first_call: CallId(first),
        }),
        Arc::new(Turn::Results(Arc::new(results.collect()))),
    ]
}

fn goal(target: u64, ceiling: u64, min_recent: usize) -> Goal {
    Goal {
        target,
        ceiling,
        min_recent,
        reads_output: false,
    }
}

#[test]
fn the_fewest_groups_go_that_meet_the_target() {
    let mut turns = vec![user("task")];
    (0..20).for_each(|at| turns.extend(calls(at * 2, 1, 1_000)));
    let plan = plan(&turns, None, goal(12_000, 30_000, 0)).unwrap();
    assert!(plan.bytes <= 12_000, "{plan:?}");
    assert!(
        plan.bytes > 9_500,
        "more was dropped than needed: {}",
        plan.bytes
    );
    assert!(
        matches!(&*turns[plan.dropped], Turn::Assistant { .. }),
        "a result lost its call"
    );
    assert_eq!(plan.recap.unwrap().items[0].kind, ItemKind::Task);
}

#[test]
fn recent_messages_stay_unless_the_ceiling_needs_them() {
    let turns: Vec<_> = (0..12)
        .map(|at| user(&format!("{at}").repeat(1_000)))
        .collect();
    let kept = plan(&turns, None, goal(1_500, 11_500, 8)).unwrap();
    assert_eq!(
        turns.len() - kept.dropped,
        8,
        "the target is not worth a recent message"
    );
    let cut = plan(&turns, None, goal(1_500, 4_500, 8)).unwrap();
    assert!(
        cut.bytes <= 4_500 && turns.len() - cut.dropped < 8,
        "the ceiling is: {cut:?}"
    );
    let none = plan(&turns, None, goal(0, 0, 0)).unwrap();
    assert_eq!(
        turns.len() - none.dropped,
        1,
        "the last one stays whatever is asked"
    );
    assert!(none.bytes > 0);
}

#[test]
fn one_group_of_thirty_calls_is_shortened_oldest_first() {
    let mut turns = vec![user("task")];
    turns.extend(calls(2, 30, 9_000));
    let plan = plan(&turns, None, goal(100_000, 200_000, 10)).unwrap();
    assert!(plan.bytes <= 200_000, "{}", plan.bytes);
    let calls: Vec<u32> = plan.shortened.iter().map(|one| one.call.0).collect();
    assert_eq!(calls, (2..2 + calls.len() as u32).collect::<Vec<_>>());
    assert!(calls.len() < 30, "the newest results are whole");
}

#[test]
fn a_result_of_few_characters_and_many_bytes_is_not_shortened_by_nothing() {
    let result = ToolResult {
        call: CallId(2),
        output: Arc::new(ToolOutput {
            text: "世".repeat(100),
            ..ToolOutput::default()
        }),
    };
    let [asked, _] = calls(2, 1, 1);
    let turns = [asked, Arc::new(Turn::Results(Arc::new(vec![result])))];
    assert_eq!(plan(&turns, None, goal(10, 10, 0)), None);
}

#[test]
fn what_cannot_be_made_smaller_is_left_alone() {
    assert_eq!(
        plan(&[user(&"x".repeat(9_000))], None, goal(10, 10, 0)),
        None
    );
    assert_eq!(plan(&[], None, goal(10, 10, 0)), None);
}

#[test]
fn a_fact_of_the_first_round_is_there_after_the_fifth() {
    let first = [
        user("find the bug"),
        user("the password of the vault is Q7-kite"),
        said("I see"),
    ];
    let mut recap = Recap::of(None, first.iter().map(AsRef::as_ref), 2_048);
    for round in 0..4 {
        let mut turns = Vec::new();
        for at in 0..60 {
            turns.extend(calls(at, 1, 400));
        }
        turns.push(said(&format!("round {round} is done")));
        recap = Recap::of(Some(&recap), turns.iter().map(AsRef::as_ref), 2_048);
    }
    let text = recap.text();
    assert_eq!(recap.round, 5);
    assert!(
        text.contains("find the bug") && text.contains("Q7-kite"),
        "{text}"
    );
    assert!(text.contains("round 3 is done"), "{text}");
    assert!(
        text.contains("files__read({\"path\":\"0.txt\"}) -> xxx"),
        "{text}"
    );
    assert!(
        recap.forgotten > 0 && text.len() < 4_096,
        "{} bytes",
        text.len()
    );
}

#[test]
fn what_the_model_marks_is_kept_once_and_beyond_what_it_merely_said() {
    let mut recap: Option<Recap> = None;
    for round in 0..6 {
        let mut turns = vec![user("task"), said("Hm.\n  Note: the vault is Q7-kite.")];
        for at in 0..40 {
            turns.push(said(&format!(
                "in round {round} I said {at} {}",
                "x".repeat(200)
            )));
        }
        recap = Some(Recap::of(
            recap.as_ref(),
            turns.iter().map(AsRef::as_ref),
            2_048,
        ));
    }
    let text = recap.map(|recap| recap.text()).unwrap();
    assert_eq!(
        text.matches("- Note: the vault is Q7-kite.").count(),
        1,
        "{text}"
    );
    assert!(
        text.contains("in round 5 I said 39"),
        "the newest stay: {text}"
    );
}

#[test]
fn errors_and_what_is_open_outweigh_calls() {
    let mut turns = vec![
        user("task"),
        said("Plan:\n- [ ] write the test\n- [ ] read it\nNext: ask Ann"),
        said("- [x] read it\n- [ ] write the test"),
    ];
    (0..50).for_each(|at| turns.extend(calls(at, 1, 300)));
    let recap = Recap::of(None, turns.iter().map(AsRef::as_ref), 1_024);
    let text = recap.text();
    assert!(
        text.contains("write the test") && text.contains("Next: ask Ann"),
        "{text}"
    );
    let open = text.split("Open:").nth(1).unwrap();
    assert_eq!(
        open.matches("write the test").count(),
        1,
        "said twice, open once: {text}"
    );
    assert!(!open.contains("read it"), "it is done: {text}");
}

#[test]
fn shortened_text_keeps_head_and_tail_and_never_its_limit() {
    let text: String = (0..2_000)
        .map(|at| if at % 7 == 0 { 'ä' } else { 'b' })
        .collect();
    for chars in [100, 500, 1_999] {
        let short = shorten(&text, chars, None);
        assert!(short.chars().count() <= chars as usize, "{chars}");
        assert!(
            short.starts_with("äb") && short.contains("2000 characters"),
            "{short}"
        );
    }
    assert_eq!(shorten(&text, 2_000, None), text);
    let named = shorten(&text, 100, Some(CallId(12)));
    assert!(named.chars().count() <= 100 && named.contains("loopwright__read_output, handle c12"));
    assert!(
        shorten("abc", 0, None).len() > 3,
        "a notice is longer than nothing"
    );
}

#[test]
fn estimates_scale_with_what_was_counted() {
    let ratio = Ratio {
        tokens: 250,
        bytes: 1_000,
    };
    assert_eq!((ratio.tokens_of(2_000), ratio.bytes_of(500)), (500, 2_000));
    let none = Ratio {
        tokens: 0,
        bytes: 0,
    };
    assert_eq!((none.tokens_of(9), none.bytes_of(9)), (0, 0));
}

prop_compose! {
    fn conversation()(shape in prop::collection::vec((0u8..3, 1usize..900, 1u32..5), 1..40)) -> Vec<Arc<Turn>> {
        let mut turns = Vec::new();
        let mut next = 1;
        for (kind, bytes, count) in shape {
            match kind {
                0 => turns.push(user(&"u".repeat(bytes))),
                1 => turns.push(said(&"a".repeat(bytes))),
                _ => {
                    turns.extend(calls(next, count, bytes));
                    next += count + 1;
                }
            }
        }
        turns
    }
}

proptest! {
    /// Whatever the conversation, a plan parts no call from its results, keeps the last group, and
    /// says truly how many bytes are left.
    #[test]
    fn a_plan_is_sound(turns in conversation(), target in 0u64..20_000, over in 0u64..9_000, recent in 0usize..12) {
        let goal = goal(target, target + over, recent);
        if let Some(plan) = plan(&turns, None, goal) {
            prop_assert!(plan.dropped < turns.len());
            prop_assert!(!matches!(&*turns[plan.dropped], Turn::Results(_)));
            let mut state = crate::State::default();
            state.conversation = crate::state::Conversation::of(&turns);
            let event = crate::event::ContextCompacted {
                trigger: CompactionTrigger::Ceiling,
                dropped: u32::try_from(plan.dropped).unwrap(),
                from_seq: 0,
                through_seq: 0,
                tokens_before: 0,
                tokens_after: 0,
                target_met: true,
                recap: plan.recap.clone().map(Arc::new),
                shortened: plan.shortened.clone(),
                by_model: false,
                fallback: None,
            };
            state.apply(&event.into());
            prop_assert_eq!(state.conversation.bytes(), plan.bytes);
        }
    }
}
