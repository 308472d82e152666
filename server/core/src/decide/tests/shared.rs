//! Tool calls, time and reservations of a loop that is charged to shared budgets.

use super::kit::{Session, kinds};
use crate::{
    agent::{Agent, Limits},
    budget::{Beside, Dimension},
    effect::EffectKey,
    ids::{Attempt, CallId},
    ledger::{HoldId, claims},
    outcome::{EndReason, ModelFailureKind},
    state::Settlement,
    wanted,
};

/// A session whose loop asks for its first reservation.
fn named() -> Session {
    let agent = Agent {
        budgets: vec!["team".to_owned()],
        ..Agent::default()
    };
    let mut s = Session::new(Limits::default(), agent);
    s.start("hello");
    s
}

/// What the ledger is told of an attempt of a call, beside its tokens.
fn beside(s: &Session, call: u32, attempt: Attempt) -> Beside {
    match s.state.settling[&(CallId(call), attempt)] {
        Settlement::Used(amount) => Beside {
            tool_calls: amount.tool_calls,
            wall_ms: amount.wall_ms,
        },
        Settlement::Whole(beside) => beside,
        Settlement::Released | Settlement::Time { .. } => panic!("nothing was made"),
    }
}

fn hold(s: &Session, call: u32, attempt: Attempt) -> HoldId {
    let head = s.state.session.as_ref().expect("it was created");
    HoldId::of_call(&head.session, head.born_at, CallId(call), attempt)
}

fn dispatched(s: &Session) -> usize {
    let is_tool = |key: &EffectKey| matches!(key, EffectKey::Tool { .. });
    wanted(&s.state).iter().filter(|key| is_tool(key)).count()
}

#[test]
fn a_reply_is_let_through_what_was_granted_and_charged_what_was_let_through() {
    let mut s = named();
    s.granted_with(100, Some(2));
    let events = s.ask(&["read", "gone", "read", "idem"]);
    assert_eq!(
        kinds(&events)[..2],
        ["ModelCallCompleted", "BudgetSettled"],
        "settled before anything runs"
    );
    assert_eq!(dispatched(&s), 2);
    assert_eq!(beside(&s, 1, 1).tool_calls, 2);
    s.tool(2, 1, "one");
    s.tool(4, 1, "two");
    let told = &s.results()[3];
    assert!(told.1.contains("let 2 of this reply through"), "{told:?}");
    assert!(
        s.state.active.is_some(),
        "the next step may get more of what is left"
    );
}

#[test]
fn a_loop_ends_whose_reply_asks_for_tools_of_which_none_was_left() {
    let mut s = named();
    s.granted_with(100, Some(0));
    s.ask(&["read"]);
    let EndReason::BudgetExceeded {
        budget, dimension, ..
    } = s.reason()
    else {
        panic!("{:?}", s.reason());
    };
    assert_eq!((&*budget, dimension), ("team", Dimension::ToolCalls));
    let mut s = named();
    s.granted_with(100, Some(0));
    s.say("done");
    assert_eq!(s.reason(), EndReason::Completed, "it asked for none");
}

#[test]
fn the_time_of_a_loop_is_charged_once_with_the_call_that_ends_next() {
    let mut s = named();
    s.wait(1_000);
    s.granted(100);
    s.wait(500);
    s.fail(ModelFailureKind::Overloaded);
    assert_eq!(beside(&s, 1, 1).wall_ms, 1_500);
    s.fire_next();
    let waited = s.now;
    s.granted(100);
    s.wait(20);
    s.ask(&["read"]);
    let charged = beside(&s, 1, 2).wall_ms;
    assert_eq!(
        charged,
        s.now - waited + (waited - super::kit::BEGIN - 1_500)
    );
    s.wait(7);
    s.tool(2, 1, "one");
    s.granted(100);
    s.say("done");
    let last = beside(&s, 3, 1).wall_ms;
    assert_eq!(
        1_500 + charged + last,
        s.now - super::kit::BEGIN,
        "all of it"
    );
}

#[test]
fn a_driver_that_was_lost_settles_the_tokens_whole_and_no_tool_call() {
    let mut s = named();
    s.granted_with(100, Some(5));
    s.wait(300);
    s.attach();
    let whole = Settlement::Whole(Beside {
        tool_calls: 0,
        wall_ms: 300,
    });
    assert_eq!(s.state.settling[&(CallId(1), 1)], whole);
}

#[test]
fn settlements_that_were_taken_are_said_together() {
    let mut s = named();
    for _ in 0..3 {
        s.granted(100);
        s.ask(&["read"]);
        let call = s.state.next_call - 1;
        s.tool(call, 1, "text");
    }
    let taken: Vec<_> = s.state.settling.keys().copied().collect();
    assert_eq!(taken.len(), 3);
    let (call, attempt) = taken[2];
    let more = vec![taken[0], taken[0], (CallId(77), 1)];
    let events = s.go(crate::What::BudgetSettled {
        call,
        attempt,
        more,
        warnings: Vec::new(),
    });
    assert_eq!(
        kinds(&events),
        ["SettlementAcknowledged", "SettlementAcknowledged"],
        "each once, and no other"
    );
    let left: Vec<_> = s.state.settling.keys().copied().collect();
    assert_eq!(left, taken[1..2]);
}

#[test]
fn a_session_claims_what_it_will_settle_and_nothing_else() {
    let mut s = named();
    let claimed = |s: &Session| claims(&s.state).into_iter().collect::<Vec<_>>();
    assert_eq!(claimed(&s), [hold(&s, 1, 1)], "it may have been granted");
    s.granted(100);
    assert_eq!(claimed(&s), [hold(&s, 1, 1)]);
    s.fail(ModelFailureKind::Overloaded);
    assert_eq!(claimed(&s), [hold(&s, 1, 1)], "until it is taken");
    s.fire_next();
    assert_eq!(claimed(&s), [hold(&s, 1, 1), hold(&s, 1, 2)]);
    let (call, attempt) = (CallId(1), 1);
    s.go(crate::What::BudgetSettled {
        call,
        attempt,
        more: Vec::new(),
        warnings: Vec::new(),
    });
    assert_eq!(claimed(&s), [hold(&s, 1, 2)]);
    let seq = usize::try_from(s.state.seq).expect("it is short");
    assert_eq!(claimed(&s.copied(seq)), [], "a copy has none of its own");
}
