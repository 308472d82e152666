//! Replies that an output cap cut: what was said is kept, what may be half is not run.

use super::{
    super::landing::CONTINUE,
    kit::{Session, call, kinds, usage},
};
use crate::{
    What,
    agent::{Agent, BudgetLimits, Limits},
    budget::{Bound, Dimension, Shortfall},
    event::Event,
    message::Part,
    outcome::{EndReason, StopReason, WaitsFor},
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

/// A loop whose reply a named budget's last 50 tokens cut.
fn cut_by_a_named_budget() -> Session {
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
    s
}

#[test]
fn a_reply_cut_by_a_named_budget_goes_on_only_with_more_than_it_had() {
    let mut s = cut_by_a_named_budget();
    let ask = s.state.budget_request().expect("the ledger is asked");
    assert_eq!(ask.min_output, 51.max(s.state.limits.min_output_tokens));
    s.granted(80);
    assert_eq!(s.talk().last(), Some(&format!("user: {CONTINUE}")));
    cut(&mut s, "and a little more");
    assert_eq!(s.state.budget_request().map(|ask| ask.min_output), Some(81));
    s.granted(200);
    s.say("done");
    assert_eq!(s.reason(), EndReason::Completed);
}

#[test]
fn a_reply_cut_by_a_named_budget_ends_the_loop_with_that_budgets_numbers_or_waits_for_it() {
    let short = Shortfall {
        dimension: Dimension::TotalTokens,
        limit: 1_000,
        used: 990,
        requested: 600,
    };
    let mut s = cut_by_a_named_budget();
    let (call, attempt) = s.model();
    let reason = short.of("team");
    s.go(What::BudgetRefused {
        call,
        attempt,
        reason: reason.clone(),
    });
    assert_eq!(s.reason(), reason);
    let ended = s.state.ended.back().map(|ended| ended.text.as_str());
    assert_eq!(ended, Some("so far"), "what it said is kept");

    let mut s = cut_by_a_named_budget();
    let (call, attempt) = s.model();
    let waits_for = WaitsFor::Budget {
        budget: "team".to_owned(),
        short,
    };
    let events = s.go(What::BudgetWaits {
        call,
        attempt,
        waits_for,
    });
    assert_eq!(kinds(&events), ["LoopPaused"]);
}
