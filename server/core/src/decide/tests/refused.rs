//! A loop that shared budgets refuse makes its last call; what they have left and what they warn of.

use super::kit::{Session, call_with, kinds, nothing, usage};
use crate::{
    What,
    agent::{Agent, BudgetLimits, Limits},
    budget::{Beside, Dimension, HoldBack, Left},
    event::{BudgetWarning, Event, Nudge},
    ids::CallId,
    ledger::OnExhausted,
    message::Part,
    outcome::{EndReason, ModelFailureKind, StopReason},
    state::Settlement,
};

fn holding() -> Limits {
    Limits {
        max_output_tokens: 500,
        final_call_tokens: Some(2_500),
        ..Limits::default()
    }
}

/// A session whose loop asks for its first reservation.
fn named(limits: Limits) -> Session {
    let agent = Agent {
        budgets: vec!["team".to_owned()],
        ..Agent::default()
    };
    let mut s = Session::new(limits, agent);
    s.start("hello");
    s
}

fn short() -> EndReason {
    EndReason::BudgetExceeded {
        budget: "team".to_owned(),
        dimension: Dimension::TotalTokens,
        limit: 9_000,
        used: 6_000,
        requested: 3_500,
    }
}

fn refuse(s: &mut Session, reason: EndReason) -> Vec<Event> {
    let (call, attempt) = s.model();
    s.go(What::BudgetRefused {
        call,
        attempt,
        reason,
    })
}

/// One step, after which the next one is asked for.
fn step(s: &mut Session) {
    s.granted(500);
    let asks = vec![call_with("read", "1")];
    s.reply_with(asks, StopReason::ToolUse, usage(10, 5));
    let call = s.state.next_call - 1;
    s.tool(call, 1, "x");
}

#[test]
fn a_refused_step_becomes_one_last_call_for_which_nothing_is_kept() {
    let mut s = named(holding());
    step(&mut s);
    let keep = HoldBack {
        tokens: 2_500,
        max_output: 500,
        price: None,
    };
    let asked = s.state.budget_request().expect("it asks");
    assert_eq!(asked.keep, Some(keep), "of every call but the last");
    let (refused, _) = s.model();
    let events = refuse(&mut s, short());
    assert_eq!(
        kinds(&events),
        [
            "ModelCallAbandoned",
            "BudgetSettled",
            "MessageAdded",
            "ModelCallReserving"
        ]
    );
    assert!(
        matches!(&events[2], Event::MessageAdded(e) if e.nudge == Some(Nudge::Conclude(short())))
    );
    assert_eq!(
        s.state.settling[&(refused, 1)],
        Settlement::Released,
        "it was never made"
    );
    let last = s.state.budget_request().expect("it asks again");
    assert_eq!((last.keep, last.tool_calls), (None, 0));
    s.granted(300);
    let request = s.state.model_request().expect("it runs");
    assert!(request.concludes);
    assert_eq!(request.max_output_tokens, 300);
    s.reply(
        vec![Part::Text("so".to_owned()), call_with("read", "2")],
        StopReason::ToolUse,
    );
    assert_eq!(s.reason(), short());
    let ended = s.state.ended.back().expect("it ended");
    assert_eq!((ended.text.as_str(), ended.totals.tool_calls), ("so", 1));
}

#[test]
fn a_last_call_that_is_refused_ends_the_loop_for_the_first_reason() {
    let mut s = named(holding());
    step(&mut s);
    refuse(&mut s, short());
    let events = refuse(
        &mut s,
        EndReason::BudgetExceeded {
            budget: "org".to_owned(),
            dimension: Dimension::ModelCalls,
            limit: 1,
            used: 1,
            requested: 1,
        },
    );
    assert_eq!(events.last().map(Event::kind), Some("LoopEnded"));
    assert_eq!(s.reason(), short());
}

#[test]
fn a_refusal_ends_a_loop_that_has_no_last_call_to_make() {
    let none = Limits {
        final_call_tokens: None,
        ..holding()
    };
    let mut s = named(none);
    assert_eq!(s.state.budget_request().and_then(|ask| ask.keep), None);
    refuse(&mut s, short());
    assert_eq!(s.reason(), short());
    let mut s = named(Limits {
        max_steps: 1,
        ..holding()
    });
    s.granted(500);
    s.reply_with(
        vec![call_with("read", "1")],
        StopReason::ToolUse,
        usage(10, 5),
    );
    s.tool(2, 1, "x");
    assert_eq!(s.reason(), EndReason::MaxSteps { limit: 1 });
    let mut s = named(holding());
    let gone = EndReason::Error {
        message: "there is no budget `team`".to_owned(),
    };
    refuse(&mut s, gone.clone());
    assert_eq!(s.reason(), gone, "no word of its size");
}

#[test]
fn a_loop_that_waits_at_its_own_limits_keeps_shared_budgets_a_last_call() {
    let s = named(Limits {
        on_exhausted: OnExhausted::Pause,
        ..holding()
    });
    let asked = s.state.budget_request().expect("it asks");
    assert!(asked.keep.is_some(), "each budget says itself what follows");
}

#[test]
fn a_last_call_survives_a_crash_and_is_asked_for_once() {
    let mut s = named(holding());
    step(&mut s);
    refuse(&mut s, short());
    let (call, _) = s.model();
    s.attach();
    assert_eq!(
        s.model(),
        (call, 1),
        "the same question, under the same name"
    );
    s.granted(100);
    s.attach();
    assert_eq!(s.model(), (call, 2));
    s.granted(100);
    assert!(s.state.model_request().is_some_and(|r| r.concludes));
    s.say("so");
    assert_eq!(s.reason(), short());
}

fn spend(s: &mut Session) -> Vec<Event> {
    let (call, attempt) = s.model();
    s.go(What::BudgetSpent { call, attempt })
}

#[test]
fn a_reservation_that_the_log_has_lost_counts_whole_and_another_call_is_made() {
    let mut s = named(Limits::default());
    let again = ["ModelCallAbandoned", "BudgetSettled", "ModelCallReserving"];
    assert_eq!(kinds(&spend(&mut s)), again);
    assert_eq!(
        s.state.settling[&(CallId(1), 1)],
        Settlement::Whole(Beside::default())
    );
    assert_eq!(s.model(), (CallId(2), 1), "its messages join this one");
    s.granted(100);
    assert_eq!(s.talk(), ["user: hello"]);
    assert_eq!(s.state.totals.usage.total(), 0, "the session knows of none");
    s.fail(ModelFailureKind::Overloaded);
    s.fire_next();
    assert_eq!(kinds(&spend(&mut s)), again);
    assert_eq!(
        s.model(),
        (CallId(2), 3),
        "of a call that was made, an attempt"
    );
    s.granted(100);
    let (call, attempt) = (CallId(1), 1);
    assert_eq!(s.go(What::BudgetSpent { call, attempt }), nothing());
    s.say("hi");
    assert_eq!(s.reason(), EndReason::Completed);
}

fn left(dimension: Dimension, left: u64, limit: u64) -> Left {
    Left {
        dimension,
        left,
        limit,
    }
}

fn granted_left(s: &mut Session, left: &[Left]) -> Vec<Event> {
    let (call, attempt) = s.model();
    s.go(What::BudgetGranted {
        call,
        attempt,
        max_output_tokens: 500,
        tool_calls: None,
        left: left.into(),
    })
}

#[test]
fn the_model_is_told_of_the_tightest_budget_and_the_same_after_a_replay() {
    let own = BudgetLimits {
        total_tokens: Some(6_000),
        tool_calls: Some(3),
        ..BudgetLimits::default()
    };
    let mut s = named(Limits {
        tell_budget: true,
        budget: own,
        ..Limits::default()
    });
    assert!(s.state.budget_request().is_some_and(|ask| ask.tells));
    let said = [
        left(Dimension::TotalTokens, 4_000, 90_000),
        left(Dimension::ModelCalls, 7, 9),
        left(Dimension::ToolCalls, 50, 60),
        left(Dimension::WallTimeMs, 5, 60),
    ];
    granted_left(&mut s, &said);
    let note = s.state.model_request().expect("it runs").note;
    assert_eq!(
        note.as_deref(),
        Some("[Left of your budget: 4000 of 90000 tokens, 7 of 9 model calls, 3 of 3 tool calls.]")
    );
    let seq = s.length();
    assert_eq!(
        s.killed_after(seq)
            .state
            .model_request()
            .and_then(|r| r.note),
        note
    );
    s.say("hi");
    assert_eq!(s.state.active, None);

    let mut s = named(Limits::default());
    assert!(s.state.budget_request().is_some_and(|ask| !ask.tells));
    let events = granted_left(&mut s, &said);
    assert!(
        matches!(&events[0], Event::BudgetReserved(e) if e.left.is_empty()),
        "nobody is told: {events:?}"
    );
    assert_eq!(s.state.model_request().expect("it runs").note, None);
}

#[test]
fn the_sessions_own_budget_is_told_of_where_less_of_it_is_left() {
    let limits = |total| BudgetLimits {
        total_tokens: Some(total),
        ..BudgetLimits::default()
    };
    let mut s = Session::started(Limits {
        tell_budget: true,
        budget: limits(5_000),
        session_budget: limits(6_000),
        ..Limits::default()
    });
    s.reply_with(
        vec![Part::Text("hi".to_owned())],
        StopReason::EndTurn,
        usage(1_495, 5),
    );
    s.start("again");
    let note = s.state.model_request().expect("it runs").note;
    assert_eq!(
        note.as_deref(),
        Some("[Left of your budget: 4500 of 6000 tokens.]")
    );
}

#[test]
fn a_shared_budget_without_limits_is_not_told_of() {
    let mut s = named(Limits {
        tell_budget: true,
        ..Limits::default()
    });
    granted_left(&mut s, &[]);
    assert_eq!(s.state.model_request().expect("it runs").note, None);
}

#[test]
fn warnings_of_shared_budgets_stand_once_beside_the_settlements_that_brought_them() {
    let mut s = named(Limits::default());
    s.granted(500);
    s.say("hi");
    let warning = BudgetWarning {
        budget: "team".to_owned(),
        dimension: Dimension::TotalTokens,
        limit: 10,
        used: 9,
    };
    let taken = || What::BudgetSettled {
        call: CallId(1),
        attempt: 1,
        more: Vec::new(),
        warnings: vec![warning.clone()],
    };
    let before = s.state.warned;
    let events = s.go(taken());
    assert_eq!(kinds(&events), ["SettlementAcknowledged", "BudgetWarning"]);
    assert_eq!(events[1], warning.clone().into());
    assert_eq!(s.state.warned, before, "of its own budgets nothing is said");
    assert_eq!(s.go(taken()), nothing(), "said already");
}
