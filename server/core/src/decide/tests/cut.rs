//! Replies that an output cap cut: what was said is kept, what may be half is not run.

use super::kit::{Session, call, kinds, usage};
use crate::{
    agent::{Agent, BudgetLimits, Limits},
    budget::{Bound, Dimension},
    event::Event,
    message::Part,
    outcome::{EndReason, StopReason},
};

fn cut(s: &mut Session, text: &str) -> Vec<Event> {
    s.reply(vec![Part::Text(text.to_owned())], StopReason::MaxTokens)
}

#[test]
fn a_cut_text_is_kept_and_continued_by_a_nudge() {
    let mut s = Session::started(Limits::default());
    let events = cut(&mut s, "Once upon");
    assert_eq!(
        kinds(&events),
        ["ModelCallCompleted", "MessageAdded", "ModelCallStarted"]
    );
    s.say(" a time");
    let talk = s.talk();
    assert_eq!(talk[1], "model: Once upon");
    assert!(
        talk[2].starts_with("user: Your last reply was cut off"),
        "{talk:?}"
    );
    assert_eq!(talk[3], "model:  a time");
}

#[test]
fn calls_of_a_cut_reply_are_refused_and_told() {
    let mut s = Session::started(Limits::default());
    let events = s.reply(vec![call("read"), call("once")], StopReason::MaxTokens);
    assert_eq!(
        kinds(&events),
        [
            "ModelCallCompleted",
            "ToolCallRequested",
            "ToolCallRequested",
            "ToolCallRejected",
            "ToolCallRejected",
            "ModelCallStarted"
        ]
    );
    assert!(
        s.results()
            .iter()
            .all(|(_, text, is_error)| *is_error && text.contains("cut"))
    );
}

#[test]
fn recoveries_run_out_and_a_whole_reply_renews_them() {
    let limits = || Limits {
        max_output_retries: 1,
        ..Limits::default()
    };
    let mut s = Session::started(limits());
    cut(&mut s, "a");
    cut(&mut s, "b");
    let ran_out = EndReason::MaxOutput {
        retries: 1,
        max_output_tokens: 4_096,
    };
    assert_eq!(s.reason(), ran_out);
    let mut s = Session::started(limits());
    cut(&mut s, "a");
    s.ask(&["read"]);
    s.tool(3, 1, "text");
    cut(&mut s, "b");
    assert!(
        s.state.active.is_some(),
        "a cut after a whole reply is the first again"
    );
}

#[test]
fn a_nudge_goes_with_its_loop() {
    let mut s = Session::started(Limits {
        max_steps: 1,
        ..Limits::default()
    });
    cut(&mut s, "a");
    assert_eq!(s.reason(), EndReason::MaxSteps { limit: 1 });
    assert_eq!(s.state.pending, []);
}

#[test]
fn a_reply_cut_by_a_budget_ends_the_loop_with_the_text_kept() {
    for budget in [
        BudgetLimits {
            output_tokens: Some(100),
            ..BudgetLimits::default()
        },
        BudgetLimits {
            total_tokens: Some(2_000),
            ..BudgetLimits::default()
        },
    ] {
        let mut s = Session::started(Limits {
            budget,
            ..Limits::default()
        });
        let text = vec![Part::Text("so far".to_owned())];
        s.reply_with(text, StopReason::MaxTokens, usage(10, 70));
        assert!(
            matches!(s.reason(), EndReason::BudgetExceeded { .. }),
            "{:?}",
            s.reason()
        );
        assert_eq!(
            s.state.ended.back().map(|e| e.text.as_str()),
            Some("so far")
        );
    }
}

#[test]
fn a_reply_cut_by_a_named_budget_ends_the_loop_too() {
    let agent = Agent {
        budgets: vec!["team".to_owned()],
        ..Agent::default()
    };
    let mut s = Session::new(Limits::default(), agent);
    s.start("hello");
    let events = s.granted(50);
    let bound = events.iter().find_map(|event| {
        if let Event::ModelCallStarted(e) = event {
            Some((e.max_output_tokens, e.bound))
        } else {
            None
        }
    });
    assert_eq!(bound, Some((50, Bound::NamedBudget)));
    cut(&mut s, "so far");
    let EndReason::BudgetExceeded {
        budget, dimension, ..
    } = s.reason()
    else {
        panic!("{:?}", s.reason());
    };
    assert_eq!(
        (budget.as_str(), dimension),
        ("team", Dimension::TotalTokens)
    );
}
