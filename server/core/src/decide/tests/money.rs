//! Money: each attempt is charged by the price of the model that made it, and never above what was set
//! aside without a word.

use std::{collections::BTreeMap, sync::Arc};

use super::kit::{Session, completed, send, usage};
use crate::{
    What,
    agent::{Agent, BudgetLimits, Limits},
    budget::Price,
    event::{BudgetOverrun, Event},
    input::Mode,
    message::Part,
    outcome::{ModelFailureKind, StopReason},
    replay::redecide,
};

/// Micro-USD for a million tokens, read and written.
const DEAR: Price = Price {
    input: 100_000_000,
    output: 500_000_000,
    long: None,
};
const CHEAP: Price = Price {
    input: 1_000_000,
    output: 5_000_000,
    long: None,
};

fn priced(prices: &[(&str, Price)]) -> Limits {
    let price = |(model, price): &(&str, Price)| ((*model).to_owned(), *price);
    Limits {
        max_output_tokens: 100,
        prices: prices.iter().map(price).collect::<BTreeMap<_, _>>(),
        budget: BudgetLimits {
            cost_micro_usd: Some(10_000_000),
            ..BudgetLimits::default()
        },
        ..Limits::default()
    }
}

fn session(prices: &[(&str, Price)], fallbacks: &[&str]) -> Session {
    let agent = Agent {
        model: "dear".to_owned(),
        fallbacks: fallbacks.iter().map(ToString::to_string).collect(),
        ..Agent::default()
    };
    let mut s = Session::new(priced(prices), agent);
    s.start("hello");
    s
}

fn reserved(s: &Session) -> u64 {
    let reserved = s.state.active.as_ref().and_then(|active| active.reserved);
    let reserved = reserved.expect("it is reserved");
    DEAR.cost(reserved.input, reserved.output)
}

fn spent(s: &Session) -> u64 {
    s.state.totals.cost_micro_usd
}

fn overrun(events: &[Event]) -> Option<&BudgetOverrun> {
    events.iter().find_map(|event| {
        if let Event::BudgetOverrun(e) = event {
            return Some(e);
        }
        None
    })
}

#[test]
fn an_attempt_that_a_fallback_follows_is_charged_at_its_own_price() {
    let prices = [("dear", DEAR), ("cheap", CHEAP)];
    let mut s = session(&prices, &["cheap"]);
    let whole = reserved(&s);
    while s.state.active.as_ref().is_some_and(|a| a.model_index == 0) {
        let before = spent(&s);
        s.fail(ModelFailureKind::Stalled);
        assert_eq!(spent(&s) - before, whole, "of the dear model, whole");
        if s.state.active.as_ref().is_some_and(|a| a.model_index == 0) {
            s.fire_next();
        }
    }
    let before = spent(&s);
    s.cancel();
    assert!(spent(&s) - before < whole / 50, "and then of the cheap one");
}

#[test]
fn a_price_that_has_risen_is_told_as_an_overrun_of_money() {
    let mut s = session(&[("dear", CHEAP)], &[]);
    let (call, attempt) = s.model();
    let parts = vec![Part::Text("done".to_owned())];
    let What::ModelCompleted { mut reply, .. } =
        completed(call, attempt, parts, StopReason::EndTurn, usage(5, 2))
    else {
        panic!("it is a reply");
    };
    reply.cost_micro_usd = Some(90_000);
    let events = s.go(What::ModelCompleted {
        call,
        attempt,
        reply,
    });
    let over = overrun(&events).expect("more than was set aside");
    assert_eq!(over.cost_micro_usd, 90_000);
    assert!(over.reserved_micro_usd < 2_000 && over.reserved_micro_usd > 0);
    assert_eq!(spent(&s), 90_000);

    let mut s = session(&[("dear", CHEAP)], &[]);
    let events = s.say("within what was set aside");
    assert_eq!(overrun(&events), None);
}

#[test]
fn a_message_that_starts_a_loop_brings_what_holds_by_now() {
    let mut s = session(&[("dear", CHEAP)], &[]);
    s.say("done");
    let limits = Arc::new(priced(&[("dear", DEAR)]));
    let agent = Arc::new(Agent {
        budgets: vec!["namespace".to_owned()],
        ..(*s.state.agent).clone()
    });
    let mut message = send("m1", Mode::Queue, "go on");
    message.agent = Some(Arc::clone(&agent));
    message.limits = Some(Arc::clone(&limits));
    let before = s.state.clone();
    s.go(What::SendMessage(message.clone()));
    assert_eq!((&s.state.agent, &s.state.limits), (&agent, &limits));
    let last = s.length() - 1;
    let (at, entry) = (crate::ids::Timestamp(s.now), s.entry(last));
    assert_eq!(redecide(&before, at, &entry), Ok(()));

    // A loop that runs keeps what it was started with.
    let mut s = session(&[("dear", CHEAP)], &[]);
    s.go(What::SendMessage(message));
    assert!(s.state.agent.budgets.is_empty());
    s.say("done, and then the queued one");
    assert!(s.state.agent.budgets.is_empty());
    assert_eq!(s.state.limits.prices.get("dear"), Some(&CHEAP));
}
