//! Failed model calls: backoff as data, the provider's floor, fallbacks, and the end.

use super::kit::{Session, completed, kinds, nothing, usage};
use crate::{
    agent::{Agent, Limits},
    effect::{EffectKey, wanted},
    event::Event,
    ids::{CallId, Timestamp},
    input::TimerWhy,
    message::Part,
    outcome::{EndReason, ModelFailureKind as Kind, StopReason},
};

fn with_fallbacks(fallbacks: &[&str]) -> Session {
    let agent = Agent {
        model: "first".to_owned(),
        fallbacks: fallbacks.iter().map(ToString::to_string).collect(),
        ..Agent::default()
    };
    let mut s = Session::new(Limits::default(), agent);
    s.start("hello");
    s
}

fn model(events: &[Event]) -> Option<(String, u32)> {
    events.iter().find_map(|event| {
        if let Event::ModelCallStarted(e) = event {
            Some((e.model.clone(), e.attempt))
        } else {
            None
        }
    })
}

fn due(s: &Session) -> Timestamp {
    s.state.wake_at().expect("a timer is wanted")
}

#[test]
fn a_failure_waits_longer_each_time_and_the_step_counts_once() {
    let mut s = Session::started(Limits::default());
    for (attempt, wait) in [(2, 1_000), (3, 2_000), (4, 4_000)] {
        assert_eq!(kinds(&s.fail(Kind::Overloaded)), ["ModelCallFailed"]);
        assert_eq!(due(&s), Timestamp(s.now + wait));
        let timer = EffectKey::Timer {
            at: due(&s),
            why: TimerWhy::RetryModel(CallId(1)),
        };
        assert_eq!(wanted(&s.state).into_iter().collect::<Vec<_>>(), [timer]);
        assert_eq!(kinds(&s.fire_next()), ["ModelCallStarted"]);
        assert_eq!(s.model(), (CallId(1), attempt));
    }
    s.say("at last");
    let totals = s.state.ended.back().expect("it ended").totals;
    assert_eq!((totals.steps, totals.model_calls), (1, 4));
}

#[test]
fn what_a_provider_asks_for_is_the_least() {
    let mut s = Session::started(Limits::default());
    s.fail_with(Kind::RateLimited, Some(7_000), None);
    assert_eq!(
        due(&s),
        Timestamp(s.now + 8_000),
        "the drawn second comes on top"
    );
}

#[test]
fn attempts_run_out() {
    let mut limits = Limits::default();
    limits.retry.max_attempts = 3;
    let mut s = Session::started(limits);
    for _ in 0..2 {
        s.fail(Kind::Stalled);
        s.fire_next();
    }
    assert_eq!(
        kinds(&s.fail(Kind::Stalled)),
        ["ModelCallFailed", "BudgetSettled", "LoopEnded"]
    );
    let message = "no luck".to_owned();
    let kind = Kind::Stalled;
    assert_eq!(s.reason(), EndReason::ModelFailed { kind, message });
}

#[test]
fn a_floor_past_the_deadline_of_retries_ends_the_loop() {
    let mut s = Session::started(Limits::default());
    s.fail_with(Kind::RateLimited, Some(3_600_000), None);
    assert!(matches!(s.reason(), EndReason::ModelFailed { .. }));
}

#[test]
fn what_will_not_get_better_is_not_tried_again() {
    for kind in [
        Kind::TooLarge,
        Kind::Quota,
        Kind::Auth,
        Kind::NoSuchModel,
        Kind::InvalidRequest,
    ] {
        let mut s = Session::started(Limits::default());
        let mut events = s.fail(kind);
        events.retain(|event| !matches!(event, Event::BudgetSettled(_)));
        assert_eq!(kinds(&events), ["ModelCallFailed", "LoopEnded"], "{kind:?}");
        assert_eq!(s.reason().label(), "model_failed");
    }
    let mut s = Session::started(Limits::default());
    s.fail(Kind::ContextTooLong);
    assert_eq!(s.reason().label(), "context_exhausted");
}

#[test]
fn fallbacks_are_called_in_order_at_once_and_each_has_its_own_failures() {
    let mut s = with_fallbacks(&["second", "third"]);
    s.fail(Kind::Overloaded);
    s.fire_next();
    let events = s.fail(Kind::Auth);
    assert_eq!(model(&events), Some(("second".to_owned(), 3)));
    s.fail(Kind::Overloaded);
    assert_eq!(
        due(&s),
        Timestamp(s.now + 1_000),
        "the first failure of this model"
    );
    s.fire_next();
    let events = s.fail(Kind::NoSuchModel);
    assert_eq!(model(&events), Some(("third".to_owned(), 5)));
    assert_eq!(
        kinds(&s.fail(Kind::Quota)),
        ["ModelCallFailed", "LoopEnded"]
    );
}

#[test]
fn a_loop_stays_with_its_fallback_and_the_next_one_begins_with_the_first() {
    let mut s = with_fallbacks(&["second"]);
    s.fail(Kind::Auth);
    s.ask(&["read"]);
    assert_eq!(model(&s.tool(2, 1, "text")), Some(("second".to_owned(), 1)));
    s.say("done");
    assert_eq!(
        s.state.counted, None,
        "a count of the fallback says nothing of the first"
    );
    assert_eq!(model(&s.start("again")), Some(("first".to_owned(), 1)));
}

#[test]
fn tokens_of_a_failure_count_without_a_budget_too() {
    let mut s = Session::started(Limits::default());
    s.fail_with(Kind::Cut, None, usage(100, 7));
    s.fire_next();
    s.say("hi");
    assert_eq!(s.state.totals.usage.total(), 107 + 15);
}

#[test]
fn outcomes_of_other_attempts_and_calls_decide_to_nothing() {
    let mut s = Session::started(Limits::default());
    let answer = |call, attempt| {
        let parts = vec![Part::Text("late".to_owned())];
        completed(CallId(call), attempt, parts, StopReason::EndTurn, None)
    };
    s.fail(Kind::Overloaded);
    assert_eq!(
        s.go(answer(1, 1)),
        nothing(),
        "its failure was taken already"
    );
    assert_eq!(
        s.go(answer(1, 2)),
        nothing(),
        "that attempt has not started"
    );
    s.fire_next();
    assert_eq!(s.go(answer(1, 1)), nothing());
    assert_eq!(s.go(answer(2, 2)), nothing());
    s.say("hi");
    assert_eq!(s.go(answer(1, 2)), nothing(), "no loop runs");
}
