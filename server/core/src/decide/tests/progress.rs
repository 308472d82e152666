//! A loop that gets nowhere is told so, and ended; one that has few steps left is told that.

use super::kit::{Session, call_with, kinds};
use crate::{
    agent::Limits,
    event::{Event, Nudge},
    input::Mode,
    message::{Part, text_of},
    outcome::{EndReason, StopReason},
};

fn limits(no_progress: u32) -> Limits {
    Limits {
        no_progress: Some(no_progress),
        ..Limits::default()
    }
}

/// One step: the same tool with these arguments gives this result.
fn step(s: &mut Session, arguments: &str, result: &str) -> Vec<Event> {
    s.reply(vec![call_with("read", arguments)], StopReason::ToolUse);
    let call = s.state.next_call - 1;
    s.tool(call, 1, result)
}

fn nudges(events: &[Event]) -> Vec<(Nudge, String)> {
    let of = |event: &Event| {
        if let Event::MessageAdded(e) = event {
            Some((e.nudge.clone()?, text_of(&e.parts)))
        } else {
            None
        }
    };
    events.iter().filter_map(of).collect()
}

#[test]
fn the_same_call_with_the_same_result_ends_the_loop_after_a_nudge_four_steps_before() {
    let mut s = Session::started(limits(6));
    step(&mut s, "{}", "x");
    assert_eq!(nudges(&step(&mut s, "{}", "x")), [], "one idle step");
    let told = nudges(&step(&mut s, "{}", "x"));
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].0, Nudge::NoProgress);
    assert!(
        told[0].1.contains("last 2 steps") && told[0].1.contains("4 more like that"),
        "{told:?}"
    );
    assert!(
        s.talk()
            .last()
            .is_some_and(|last| last.contains("Nothing new")),
        "it stands at the tail of the prompt: {:?}",
        s.talk()
    );
    for _ in 0..3 {
        assert_eq!(nudges(&step(&mut s, "{}", "x")), [], "it is told once");
    }
    let events = step(&mut s, "{}", "x");
    assert_eq!(kinds(&events), ["ToolCallCompleted", "LoopEnded"]);
    assert_eq!(s.reason(), EndReason::NoProgress { steps: 6 });
}

#[test]
fn new_arguments_or_a_new_result_is_progress() {
    let mut s = Session::started(limits(2));
    for round in 0..10 {
        step(&mut s, &format!("{{\"a\":{round}}}"), "x");
        step(&mut s, "{}", &format!("{round}"));
        step(&mut s, "{}", &format!("{round}"));
    }
    assert!(s.state.active.is_some());
    step(&mut s, "{}", "9");
    assert_eq!(s.reason(), EndReason::NoProgress { steps: 2 });
}

#[test]
fn who_speaks_to_the_model_gives_it_time() {
    let mut s = Session::started(limits(2));
    step(&mut s, "{}", "x");
    step(&mut s, "{}", "x");
    s.reply(vec![call_with("read", "{}")], StopReason::ToolUse);
    s.send(Mode::Steer, "look elsewhere");
    let call = s.state.next_call - 1;
    let events = s.tool(call, 1, "x");
    assert_eq!(events.last().map(Event::kind), Some("ModelCallStarted"));
    step(&mut s, "{}", "x");
    step(&mut s, "{}", "x");
    assert_eq!(s.reason(), EndReason::NoProgress { steps: 2 });
}

#[test]
fn after_something_new_the_model_is_told_again() {
    let mut s = Session::started(limits(5));
    step(&mut s, "{}", "x");
    assert_eq!(nudges(&step(&mut s, "{}", "x")).len(), 1);
    assert_eq!(nudges(&step(&mut s, "{}", "y")), []);
    assert_eq!(nudges(&step(&mut s, "{}", "y")).len(), 1);
}

#[test]
fn a_pause_that_brings_nothing_new_does_not_spin() {
    let mut s = Session::started(limits(3));
    let text = || vec![Part::Text("thinking".to_owned())];
    s.reply(text(), StopReason::Pause);
    s.reply(text(), StopReason::Pause);
    s.reply(text(), StopReason::Pause);
    s.reply(Vec::new(), StopReason::Pause);
    assert_eq!(s.reason(), EndReason::NoProgress { steps: 3 });
    let ended = s.state.ended.back().expect("it ended");
    assert_eq!(ended.text, "thinking", "what it said last is kept");
}

#[test]
fn one_nudge_says_that_few_steps_are_left() {
    let mut s = Session::started(Limits {
        max_steps: 4,
        wrapup_steps: 2,
        ..Limits::default()
    });
    assert_eq!(nudges(&step(&mut s, "1", "x")), []);
    let told = nudges(&step(&mut s, "2", "x"));
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].0, Nudge::Wrapup);
    assert!(told[0].1.contains("2 steps are left"), "{told:?}");
    assert_eq!(nudges(&step(&mut s, "3", "x")), [], "it is told once");
    step(&mut s, "4", "x");
    assert_eq!(s.reason(), EndReason::MaxSteps { limit: 4 });
}

#[test]
fn a_loop_of_few_steps_is_told_after_its_first_and_one_without_wrapup_never() {
    for (wrapup_steps, expected) in [(5, 1), (0, 0)] {
        let mut s = Session::new(
            Limits {
                max_steps: 3,
                wrapup_steps,
                ..Limits::default()
            },
            crate::agent::Agent::default(),
        );
        assert_eq!(nudges(&s.start("hello")), []);
        let told = nudges(&step(&mut s, "1", "x"));
        assert_eq!(told.len(), expected);
        assert_eq!(nudges(&step(&mut s, "2", "x")), []);
    }
}

#[test]
fn the_next_loop_begins_its_own_count() {
    let mut s = Session::started(limits(2));
    for _ in 0..3 {
        step(&mut s, "{}", "x");
    }
    assert_eq!(s.reason(), EndReason::NoProgress { steps: 2 });
    s.start("again");
    step(&mut s, "{}", "x");
    assert!(s.state.active.is_some(), "to this loop it is new");
}

#[test]
fn what_a_loop_said_itself_is_in_no_recap() {
    let mut s = Session::started(Limits {
        max_steps: 9,
        wrapup_steps: 8,
        no_progress: Some(7),
        ..Limits::default()
    });
    let cut = vec![Part::Text("half".to_owned())];
    s.reply(cut, StopReason::MaxTokens);
    for _ in 0..5 {
        step(&mut s, "{}", "x");
    }
    let told = s.talk();
    let nudges = told.iter().filter(|line| {
        line.strip_prefix("user: ")
            .is_some_and(crate::decide::is_nudge)
    });
    assert_eq!(nudges.count(), 3, "cut, few steps, nothing new: {told:?}");
    let turns = s.state.conversation.turns();
    let recap = crate::context::Recap::of(None, turns.iter().map(AsRef::as_ref), 9_000);
    let text = recap.text();
    assert!(text.contains("hello") && text.contains("read"), "{text}");
    assert!(!text.contains("Later requests"), "{text}");
}
