//! What a call takes at most, and what becomes of a call that nobody counted.

use super::kit::{Session, call, call_with, kinds, specs, usage};
use crate::{
    Event,
    agent::{Agent, BudgetLimits, Limits},
    budget::Price,
    event::BudgetSettled,
    message::{Part, ToolOutput},
    outcome::{ModelFailureKind, StopReason},
};

fn priced() -> Limits {
    let price = Price {
        input: 1_000_000,
        output: 1_000_000,
        long: None,
    };
    Limits {
        max_output_tokens: 700,
        prices: [(String::new(), price)].into(),
        ..Limits::default()
    }
}

fn settled(events: &[Event]) -> Option<&BudgetSettled> {
    events.iter().find_map(|event| {
        if let Event::BudgetSettled(e) = event {
            Some(e)
        } else {
            None
        }
    })
}

fn text() -> Vec<Part> {
    vec![Part::Text("hi".to_owned())]
}

#[test]
fn a_prompt_that_is_counted_as_nothing_is_not_counted() {
    let mut s = Session::started(Limits::default());
    s.reply_with(vec![call("read")], StopReason::ToolUse, usage(0, 5));
    assert_eq!((s.state.counted, s.state.measured), (None, None));
    s.tool(2, 1, &"x".repeat(9_000));
    assert!(s.state.prompt_bound() > 9_000 && s.state.prompt_estimate() > 2_000);
    // What was counted before stands.
    s.reply_with(vec![call("read")], StopReason::ToolUse, usage(3_000, 5));
    s.tool(4, 1, "x");
    let before = s.state.counted;
    s.reply_with(vec![call("read")], StopReason::ToolUse, usage(0, 5));
    assert_eq!(s.state.counted, before);
}

#[test]
fn without_a_limit_what_nobody_counted_is_estimated_too() {
    type End = fn(&mut Session) -> Vec<Event>;
    let ends: [(&str, End); 5] = [
        ("reply", |s| s.reply_with(text(), StopReason::EndTurn, None)),
        ("cut", |s| s.fail(ModelFailureKind::Cut)),
        ("stall", |s| s.fail(ModelFailureKind::Stalled)),
        ("crash", Session::attach),
        ("cancel", Session::cancel),
    ];
    for (name, end) in ends {
        let mut s = Session::started(priced());
        let bound = s.state.prompt_bound();
        let events = end(&mut s);
        let done = settled(&events).unwrap_or_else(|| panic!("{name}: {:?}", kinds(&events)));
        assert!(done.estimated, "{name}");
        let total = bound + 700;
        assert_eq!(
            (done.usage.input, done.usage.output, done.cost_micro_usd),
            (bound, 700, total),
            "{name}"
        );
        let totals = s.state.totals;
        assert_eq!(
            (
                totals.usage.total(),
                totals.estimated,
                totals.cost_micro_usd
            ),
            (total, total, total),
            "{name}"
        );
    }
}

#[test]
fn without_a_limit_what_was_counted_is_not_settled_again() {
    let mut s = Session::started(priced());
    let events = s.reply_with(text(), StopReason::EndTurn, usage(40, 2));
    assert_eq!(settled(&events), None);
    let totals = s.state.totals;
    assert_eq!((totals.usage.total(), totals.estimated), (42, 0));
    s.start("again");
    let events = s.fail(ModelFailureKind::RateLimited);
    assert_eq!(settled(&events), None, "it was refused");
    s.fire_next();
    let events = s.fail_with(ModelFailureKind::Cut, None, usage(50, 1));
    assert_eq!(settled(&events), None);
    assert_eq!(s.state.totals.usage.total(), 93);
}

#[test]
fn a_session_budget_that_comes_later_knows_what_nobody_counted() {
    let mut s = Session::started(priced());
    s.reply_with(text(), StopReason::EndTurn, None);
    let spent = s.state.totals.usage.total();
    let limits = Limits {
        session_budget: BudgetLimits {
            total_tokens: Some(spent + 100),
            ..BudgetLimits::default()
        },
        ..priced()
    };
    let start = crate::input::StartLoop {
        limits: Some(std::sync::Arc::new(limits)),
        ..super::kit::start("", "again")
    };
    s.go(crate::What::StartLoop(start));
    assert_eq!(s.reason().label(), "budget_exceeded");
}

#[test]
fn the_bound_has_in_it_what_the_agent_has_a_provider_sent() {
    let bound = |agent: Agent| {
        let mut s = Session::new(Limits::default(), agent);
        s.start("hello");
        s.state.prompt_bound()
    };
    let plain = bound(Agent::default());
    let long = Some("x".repeat(60_000));
    let agents = [
        Agent {
            provider_options: long.clone(),
            ..Agent::default()
        },
        Agent {
            output_schema: long,
            ..Agent::default()
        },
    ];
    for agent in agents {
        assert!(bound(agent) >= plain + 60_000);
    }
}

#[test]
fn the_bound_has_in_it_what_arguments_that_are_no_json_become() {
    let mut s = Session::started(Limits::default());
    s.reply(
        vec![call_with("read", &"\u{1}".repeat(5_000))],
        StopReason::ToolUse,
    );
    let bound = s.state.conversation.bytes();
    assert!(bound >= 30_000, "each is sent as six characters: {bound}");
}

#[test]
fn each_result_of_a_step_has_a_margin_of_its_own() {
    let margin = |calls: usize| {
        let mut s = Session::started(Limits::default());
        s.ask(&vec!["read"; calls]);
        for call in 0..calls {
            s.tool(2 + u32::try_from(call).expect("few"), 1, "");
        }
        s.state.conversation.margin()
    };
    let one_more = margin(3) - margin(2);
    assert!(one_more >= 2 * 40, "a call and its result: {one_more}");
    assert_eq!(margin(4) - margin(3), one_more);
}

#[test]
fn a_result_without_text_counts_as_what_is_told_instead() {
    let told = |text: &str| {
        let output = std::sync::Arc::new(ToolOutput {
            text: text.to_owned(),
            ..ToolOutput::default()
        });
        let call = crate::ids::CallId(1);
        let result = crate::state::ToolResult { call, output };
        crate::state::Turn::Results(std::sync::Arc::new(vec![result])).bytes()
    };
    assert_eq!(told(""), told("(no output)"));
    assert_eq!(told(" \n"), told("(no output)"));
}

#[test]
fn other_tools_of_as_many_bytes_are_another_prompt() {
    let mut s = Session::started(Limits::default());
    s.ask(&["read"]);
    let before = s.state.prompt_bound();
    let mut others = specs();
    others[0].description = "d".repeat(5_000);
    s.change_tools(others.clone());
    s.tool(2, 1, "");
    s.ask(&["read"]);
    let counted = s.state.prompt_bound();
    assert!(counted < 5_000 && before < 5_000);
    others[0].description = "e".repeat(5_000);
    s.change_tools(others);
    assert!(s.state.prompt_bound() > counted + 5_000);
}
