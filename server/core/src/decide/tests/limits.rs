//! Limits that move while a loop goes on, what it does at one, and what is told before it.

use super::kit::{Session, call, kinds, pause, resume, update, usage};
use crate::{
    Event,
    agent::{Agent, BudgetChange, BudgetLimits, Limits, LimitsChange, Move},
    budget::{Bound, Dimension, SESSION_BUDGET},
    effect::{EffectKey, wanted},
    ids::{CallId, LoopId, Timestamp},
    ledger::OnExhausted,
    message::Part,
    outcome::{DeadlineKind, EndReason, StopReason, WaitsFor},
    rejection::Rejection,
};

fn calls(limit: u64) -> BudgetLimits {
    BudgetLimits {
        model_calls: Some(limit),
        ..BudgetLimits::default()
    }
}

fn waiting(budget: BudgetLimits) -> Limits {
    Limits {
        budget,
        on_exhausted: OnExhausted::Pause,
        ..Limits::default()
    }
}

fn budget(budget: BudgetLimits) -> LimitsChange {
    LimitsChange {
        budget: budget.into(),
        ..LimitsChange::default()
    }
}

/// The budget and the dimension that a loop waits for.
fn waits_for(s: &Session) -> Option<(String, Dimension)> {
    match s.state.active.as_ref()?.paused.clone()? {
        WaitsFor::Limit { budget, short } => Some((budget, short.dimension)),
        WaitsFor::Client { .. } | WaitsFor::Budget { .. } => None,
    }
}

#[test]
fn a_running_loop_gets_more_steps_or_fewer() {
    let limits = Limits {
        max_steps: 1,
        ..Limits::default()
    };
    let mut s = Session::started(limits.clone());
    let steps = |max_steps| LimitsChange {
        max_steps: Some(max_steps),
        ..LimitsChange::default()
    };
    assert_eq!(kinds(&s.go(update(steps(2)))), ["LimitsUpdated"]);
    s.ask(&["read"]);
    assert_eq!(
        kinds(&s.tool(2, 1, "a")),
        ["ToolCallCompleted", "ModelCallStarted"]
    );
    s.go(update(steps(1)));
    s.ask(&["read"]);
    s.tool(4, 1, "b");
    assert_eq!(s.reason(), EndReason::MaxSteps { limit: 1 });
    assert_eq!(s.offer(update(steps(9))), Err(Rejection::NoLoopRunning));
}

#[test]
fn a_limit_below_what_is_used_ends_the_loop_at_its_next_step() {
    let mut s = Session::started(Limits::default());
    s.ask(&["read"]);
    let change = budget(BudgetLimits {
        total_tokens: Some(3),
        ..BudgetLimits::default()
    });
    assert_eq!(kinds(&s.go(update(change))), ["LimitsUpdated"]);
    assert_eq!(
        kinds(&s.tool(2, 1, "a")),
        ["ToolCallCompleted", "LoopEnded"]
    );
    let EndReason::BudgetExceeded { used, limit, .. } = s.reason() else {
        panic!("{:?}", s.reason());
    };
    assert_eq!((used, limit), (15, 3));
}

#[test]
fn a_deadline_moves_with_its_timer() {
    let mut s = Session::started(Limits::default());
    let begun = s.now;
    s.wait(20);
    let change = LimitsChange {
        deadline_ms: Move::To(50),
        ..LimitsChange::default()
    };
    s.go(update(change));
    let active = s.state.active.as_ref().expect("a loop runs");
    assert_eq!(active.deadline_at, Some(Timestamp(begun + 50)));
    s.fire_next();
    let kind = DeadlineKind::Loop;
    assert_eq!(s.reason(), EndReason::Deadline { kind });
}

#[test]
fn a_limit_that_is_removed_limits_nothing_any_more() {
    let limits = Limits {
        deadline_ms: Some(50),
        max_tool_calls_per_name: Some(1),
        session_budget: calls(9),
        ..waiting(calls(1))
    };
    let mut s = Session::started(limits);
    s.ask(&["read"]);
    s.tool(2, 1, "a");
    assert!(waits_for(&s).is_some());
    let change = LimitsChange {
        deadline_ms: Move::Off,
        max_tool_calls_per_name: Move::Off,
        budget: BudgetChange::default().with(Dimension::ModelCalls, Move::Off),
        ..LimitsChange::default()
    };
    assert_eq!(
        kinds(&s.go(update(change)))[..2],
        ["LimitsUpdated", "LoopResumed"]
    );
    assert_eq!(s.state.wake_at(), None, "no deadline is left");
    assert_eq!(kinds(&s.ask(&["read"])).last(), Some(&"ToolCallStarted"));
    assert_eq!(s.state.limits.session_budget, calls(9));
}

/// What was set aside before its limit went is still settled, once.
#[test]
fn the_last_limit_goes_while_a_call_runs() {
    let mut s = Session::started(waiting(calls(5)));
    s.go(update(LimitsChange {
        budget: BudgetChange::default().with(Dimension::ModelCalls, Move::Off),
        ..LimitsChange::default()
    }));
    assert_eq!(
        kinds(&s.say("done")),
        ["ModelCallCompleted", "BudgetSettled", "LoopEnded"]
    );
    let totals = s.state.ended.back().expect("it ended").totals;
    assert_eq!(totals.usage.total(), 15, "counted once");
}

#[test]
fn more_slots_are_filled_at_once() {
    let limits = Limits {
        max_parallel_tool_calls: 1,
        ..Limits::default()
    };
    let mut s = Session::started(limits);
    s.ask(&["read", "read", "read"]);
    let change = LimitsChange {
        max_parallel_tool_calls: Some(3),
        ..LimitsChange::default()
    };
    assert_eq!(
        kinds(&s.go(update(change))),
        ["LimitsUpdated", "ToolCallStarted", "ToolCallStarted"]
    );
}

#[test]
fn calls_that_were_let_through_are_refused_where_the_limit_has_moved_below_them() {
    let limits = Limits {
        max_parallel_tool_calls: 1,
        ..Limits::default()
    };
    let mut s = Session::started(limits);
    s.ask(&["read", "read", "read"]);
    let change = budget(BudgetLimits {
        tool_calls: Some(1),
        ..BudgetLimits::default()
    });
    s.go(update(change));
    assert_eq!(
        kinds(&s.tool(2, 1, "a")),
        [
            "ToolCallCompleted",
            "ToolCallRejected",
            "ToolCallRejected",
            "LoopEnded"
        ]
    );
}

#[test]
fn at_its_limit_a_loop_waits_and_goes_on_when_it_is_raised() {
    let mut s = Session::started(waiting(calls(1)));
    s.ask(&["read"]);
    assert_eq!(
        kinds(&s.tool(2, 1, "a")),
        ["ToolCallCompleted", "LoopPaused"]
    );
    let reason = Some(("loop".to_owned(), Dimension::ModelCalls));
    assert_eq!(waits_for(&s), reason);
    assert_eq!(wanted(&s.state).len(), 0);
    assert!(matches!(
        s.offer(resume("")),
        Err(Rejection::StillShort { .. })
    ));
    assert_eq!(
        kinds(&s.go(update(budget(calls(1))))),
        ["LimitsUpdated"],
        "what does not cover it does not move it"
    );
    assert_eq!(waits_for(&s), reason);
    assert_eq!(kinds(&s.attach()), ["DriverAttached"]);
    assert_eq!(
        kinds(&s.go(update(budget(calls(2))))),
        [
            "LimitsUpdated",
            "LoopResumed",
            "BudgetReserved",
            "ModelCallStarted"
        ]
    );
    s.say("done");
    assert_eq!(s.reason(), EndReason::Completed);
}

#[test]
fn a_client_that_paused_it_lets_it_go_on_and_no_limit_does() {
    let mut s = Session::started(waiting(calls(1)));
    s.ask(&["read"]);
    s.tool(2, 1, "a");
    assert_eq!(kinds(&s.go(pause(""))), ["LoopPaused"]);
    assert_eq!(kinds(&s.go(update(budget(calls(2))))), ["LimitsUpdated"]);
    assert_eq!(
        kinds(&s.go(resume(""))),
        ["LoopResumed", "BudgetReserved", "ModelCallStarted"]
    );
    s.ask(&["read"]);
    s.go(pause(""));
    s.tool(4, 1, "b");
    assert_eq!(
        kinds(&s.go(resume(""))),
        ["LoopResumed", "LoopPaused"],
        "now it waits for its limit"
    );
}

#[test]
fn refused_tool_calls_are_made_when_there_is_room() {
    let tools = BudgetLimits {
        tool_calls: Some(1),
        ..BudgetLimits::default()
    };
    let mut s = Session::started(waiting(tools));
    s.ask(&["read", "read"]);
    assert_eq!(
        kinds(&s.tool(2, 1, "a")),
        ["ToolCallCompleted", "LoopPaused"]
    );
    assert_eq!(
        waits_for(&s),
        Some(("loop".to_owned(), Dimension::ToolCalls))
    );
    let change = budget(BudgetLimits {
        tool_calls: Some(2),
        ..BudgetLimits::default()
    });
    let events = s.go(update(change));
    assert_eq!(
        kinds(&events)[..2],
        ["LimitsUpdated", "LoopResumed"],
        "the model is told what was refused, and may ask again"
    );
    assert_eq!(kinds(&s.ask(&["read"])).last(), Some(&"ToolCallStarted"));
}

#[test]
fn a_reply_cut_by_the_budget_is_continued_when_it_is_raised() {
    let tokens = |total| BudgetLimits {
        total_tokens: Some(total),
        ..BudgetLimits::default()
    };
    let mut s = Session::started(waiting(tokens(1_600)));
    let half = vec![Part::Text("half".to_owned())];
    let events = s.reply_with(half, StopReason::MaxTokens, usage(600, 500));
    assert_eq!(
        kinds(&events),
        [
            "ModelCallCompleted",
            "BudgetSettled",
            "MessageAdded",
            "LoopPaused"
        ]
    );
    let events = s.go(update(budget(tokens(50_000))));
    assert_eq!(kinds(&events).last(), Some(&"ModelCallStarted"));
    assert_eq!(s.talk()[1], "model: half");
}

#[test]
fn a_warning_comes_once_for_a_limit_and_again_for_another() {
    let limits = Limits {
        budget: BudgetLimits {
            tool_calls: Some(5),
            ..calls(2)
        },
        warn_permille: 500,
        ..Limits::default()
    };
    let warned = |events: &[Event]| -> Vec<(Dimension, u64, u64)> {
        let of = |event: &Event| {
            if let Event::BudgetWarning(e) = event {
                Some((e.dimension, e.used, e.limit))
            } else {
                None
            }
        };
        events.iter().filter_map(of).collect()
    };
    let mut s = Session::started(limits);
    let events = s.ask(&["read", "read"]);
    assert_eq!(warned(&events), [(Dimension::ModelCalls, 1, 2)]);
    s.tool(2, 1, "a");
    s.tool(3, 1, "b");
    let events = s.ask(&["read"]);
    assert_eq!(warned(&events), [(Dimension::ToolCalls, 3, 5)]);
    assert_eq!(warned(&s.go(update(budget(calls(8))))), []);
    s.tool(5, 1, "c");
    let events = s.ask(&["read"]);
    assert_eq!(warned(&events), [], "3 of 8");
    s.tool(7, 1, "d");
    let events = s.ask(&["read"]);
    assert_eq!(warned(&events), [(Dimension::ModelCalls, 4, 8)]);
}

#[test]
fn a_session_has_a_budget_over_all_of_its_loops() {
    let limits = Limits {
        session_budget: calls(3),
        warn_permille: 600,
        ..Limits::default()
    };
    let mut s = Session::new(limits, Agent::default());
    for _ in 0..2 {
        s.start("hello");
        s.say("hi");
    }
    let warned = s.state.warned.has(Dimension::ModelCalls);
    assert!(warned, "two of three");
    s.start("hello");
    s.ask(&["read"]);
    s.attach();
    s.tool(4, 2, "a");
    let EndReason::BudgetExceeded { budget, used, .. } = s.reason() else {
        panic!("{:?}", s.reason());
    };
    assert_eq!((budget.as_str(), used), (SESSION_BUDGET, 3));
    s.start("once more");
    assert!(matches!(s.reason(), EndReason::BudgetExceeded { .. }));
}

#[test]
fn a_sessions_budget_bounds_a_reply_and_counts_tools() {
    let limits = Limits {
        session_budget: BudgetLimits {
            output_tokens: Some(100),
            tool_calls: Some(1),
            ..BudgetLimits::default()
        },
        ..Limits::default()
    };
    let mut s = Session::new(limits, Agent::default());
    let events = s.start("hello");
    let started = events.iter().find_map(|event| {
        if let Event::ModelCallStarted(e) = event {
            Some((e.max_output_tokens, e.bound))
        } else {
            None
        }
    });
    let bound = Bound::SessionBudget(Dimension::OutputTokens);
    assert_eq!(started, Some((100, bound)));
    s.reply(vec![call("read"), call("read")], StopReason::ToolUse);
    s.tool(2, 1, "a");
    let EndReason::BudgetExceeded {
        budget, dimension, ..
    } = s.reason()
    else {
        panic!("{:?}", s.reason());
    };
    assert_eq!(
        (budget.as_str(), dimension),
        (SESSION_BUDGET, Dimension::ToolCalls)
    );
}

/// A call that was begun while nothing was limited is charged whole when nobody hears its end.
#[test]
fn the_first_limit_binds_the_call_that_runs() {
    let mut s = Session::started(Limits::default());
    let events = s.go(update(budget(BudgetLimits {
        total_tokens: Some(100_000),
        ..BudgetLimits::default()
    })));
    assert_eq!(kinds(&events), ["LimitsUpdated", "BudgetReserved"]);
    assert_eq!(
        kinds(&s.attach())[..3],
        ["DriverAttached", "ModelCallAbandoned", "BudgetSettled"]
    );
    let active = s.state.active.as_ref().expect("a loop runs");
    assert!(active.totals.usage.output >= 4_096, "{:?}", active.totals);
}

/// What was asked for under other limits is not asked for any more.
#[test]
fn a_limit_that_falls_while_named_budgets_are_asked_ends_the_asking() {
    let agent = Agent {
        budgets: vec!["team".to_owned()],
        ..Agent::default()
    };
    for (on_exhausted, last) in [
        (OnExhausted::End, "LoopEnded"),
        (OnExhausted::Pause, "LoopPaused"),
    ] {
        let limits = Limits {
            on_exhausted,
            ..Limits::default()
        };
        let mut s = Session::new(limits, agent.clone());
        s.start("hello");
        let events = s.go(update(budget(calls(0))));
        assert_eq!(
            kinds(&events),
            ["LimitsUpdated", "ModelCallAbandoned", "BudgetSettled", last]
        );
    }
    let mut s = Session::new(Limits::default(), agent);
    s.start("hello");
    assert_eq!(
        kinds(&s.go(update(budget(calls(9))))),
        [
            "LimitsUpdated",
            "ModelCallAbandoned",
            "BudgetSettled",
            "ModelCallReserving"
        ]
    );
    let reserve = EffectKey::Reserve {
        call: CallId(2),
        attempt: 1,
    };
    assert!(wanted(&s.state).contains(&reserve));
    assert_eq!(s.state.current_loop(), LoopId(1));
}
