//! The time that a loop and its session may run: nothing starts when it is up, no model call
//! outlives it, a pause stops it; and shared budgets are charged with what came after the last call.

use super::kit::{BEGIN, Session, by, kinds, pause, resume, update};
use crate::{
    Event, What,
    agent::{Agent, BudgetChange, BudgetLimits, Limits, LimitsChange, Move},
    budget::{Dimension, LOOP_BUDGET, SESSION_BUDGET},
    effect::{EffectKey, wanted},
    ids::{CallId, LoopId, Timestamp},
    input::{AdoptOrigin, TimerWhy},
    ledger::OnExhausted,
    outcome::{AbandonReason, EndReason, WaitsFor},
    rejection::Rejection,
    state::{Settlement, ToolPhase},
};

const UP: TimerWhy = TimerWhy::WallTime(LoopId(1));

fn time(wall_ms: u64) -> BudgetLimits {
    BudgetLimits {
        wall_ms: Some(wall_ms),
        ..BudgetLimits::default()
    }
}

fn ends(wall_ms: u64) -> Limits {
    Limits {
        budget: time(wall_ms),
        ..Limits::default()
    }
}

fn pauses(wall_ms: u64) -> Limits {
    Limits {
        on_exhausted: OnExhausted::Pause,
        ..ends(wall_ms)
    }
}

fn moved(to: Move<u64>) -> What {
    update(LimitsChange {
        budget: BudgetChange::default().with(Dimension::WallTimeMs, to),
        ..LimitsChange::default()
    })
}

/// What of whose time a loop ended for.
fn spent(s: &Session) -> (String, u64, u64) {
    let EndReason::BudgetExceeded {
        budget,
        dimension: Dimension::WallTimeMs,
        limit,
        used,
        ..
    } = s.reason()
    else {
        panic!("{:?}", s.reason());
    };
    (budget, limit, used)
}

fn waits_for_time(s: &Session) -> bool {
    let active = s.state.active.as_ref().expect("a loop runs");
    matches!(&active.paused, Some(WaitsFor::Limit { short, .. })
        if short.dimension == Dimension::WallTimeMs)
}

fn timers(s: &Session) -> Vec<(Timestamp, TimerWhy)> {
    let timer = |key| match key {
        EffectKey::Timer { at, why } => Some((at, why)),
        EffectKey::Model { .. }
        | EffectKey::Tool { .. }
        | EffectKey::Lookup { .. }
        | EffectKey::Reserve { .. }
        | EffectKey::Settle { .. } => None,
    };
    wanted(&s.state).into_iter().filter_map(timer).collect()
}

#[test]
fn a_model_call_that_runs_when_time_is_up_is_given_up_and_counts_whole() {
    let mut s = Session::started(ends(5_000));
    assert_eq!(timers(&s), [(Timestamp(BEGIN + 5_000), UP)]);
    s.wait(4_999);
    assert_eq!(s.fire(UP), [], "it is early");
    s.wait(1);
    let events = s.fire(UP);
    assert_eq!(
        kinds(&events),
        ["ModelCallAbandoned", "BudgetSettled", "LoopEnded"]
    );
    assert!(matches!(&events[0], Event::ModelCallAbandoned(e)
        if e.reason == AbandonReason::Deadline));
    assert!(matches!(&events[1], Event::BudgetSettled(e) if e.estimated));
    assert_eq!(spent(&s), (LOOP_BUDGET.to_owned(), 5_000, 5_000));
}

#[test]
fn when_time_is_up_no_tool_is_dispatched_and_no_call_is_made() {
    let mut s = Session::started(ends(5_000));
    s.wait(5_000);
    assert_eq!(
        kinds(&s.ask(&["read", "gone"])),
        [
            "ModelCallCompleted",
            "BudgetSettled",
            "ToolCallRequested",
            "ToolCallRequested",
            "ToolCallRejected",
            "ToolCallCancelled",
            "LoopEnded"
        ]
    );
    let mut s = Session::started(ends(5_000));
    s.ask(&["read"]);
    s.wait(5_001);
    assert_eq!(
        kinds(&s.tool(2, 1, "text")),
        ["ToolCallCompleted", "LoopEnded"]
    );
    assert_eq!(spent(&s), (LOOP_BUDGET.to_owned(), 5_000, 5_001));
    let mut s = Session::started(ends(5_000));
    s.wait(6_000);
    s.say("done");
    assert_eq!(s.reason(), EndReason::Completed, "what was said is kept");
}

#[test]
fn nothing_is_held_back_of_time() {
    let limits = Limits {
        final_call_tokens: Some(1_000),
        ..ends(5_000)
    };
    let mut s = Session::started(limits);
    s.ask(&["read"]);
    s.wait(5_000);
    s.tool(2, 1, "text");
    assert_eq!(spent(&s).2, 5_000, "and no last call is made");
}

#[test]
fn no_time_at_all_starts_nothing() {
    let s = Session::started(ends(0));
    assert_eq!(spent(&s), (LOOP_BUDGET.to_owned(), 0, 0));
}

#[test]
fn a_loop_that_waits_for_time_makes_its_call_again_once_there_is_more() {
    let mut s = Session::started(pauses(5_000));
    s.wait(5_000);
    let events = s.fire(UP);
    assert_eq!(
        kinds(&events),
        ["ModelCallAbandoned", "BudgetSettled", "LoopPaused"]
    );
    assert_eq!(wanted(&s.state).len(), 0, "its time stands still");
    s.wait(60_000);
    assert!(matches!(
        s.offer(resume("")),
        Err(Rejection::StillShort { .. })
    ));
    assert_eq!(kinds(&s.go(moved(Move::To(5_000)))), ["LimitsUpdated"]);
    assert_eq!(kinds(&s.attach()), ["DriverAttached"]);
    let events = s.go(moved(Move::To(5_300)));
    assert_eq!(
        kinds(&events),
        [
            "LimitsUpdated",
            "LoopResumed",
            "BudgetReserved",
            "ModelCallStarted"
        ]
    );
    assert_eq!(s.model(), (CallId(1), 2));
    assert_eq!(timers(&s), [(Timestamp(s.now + 300), UP)]);
    s.wait(100);
    s.say("done");
    let ended = s.state.ended.back().expect("it ended");
    assert_eq!(ended.totals.wall_ms, 5_100, "without the pause");
}

#[test]
fn tools_of_a_loop_that_waits_for_time_are_left_to_end() {
    let limits = Limits {
        max_parallel_tool_calls: 1,
        ..pauses(5_000)
    };
    let mut s = Session::started(limits);
    s.ask(&["read", "once"]);
    s.wait(5_000);
    assert_eq!(kinds(&s.fire(UP)), ["LoopPaused"]);
    s.wait(700);
    assert_eq!(kinds(&s.tool(2, 1, "text")), ["ToolCallCompleted"]);
    assert_eq!(s.phase(3), ToolPhase::Waiting);
    assert_eq!(
        kinds(&s.go(moved(Move::Off))),
        ["LimitsUpdated", "LoopResumed", "ToolCallStarted"],
        "a limit that is removed holds nobody"
    );
    assert_eq!(timers(&s), []);
}

#[test]
fn a_client_that_pauses_the_loop_stops_its_time() {
    let mut s = Session::started(ends(5_000));
    s.ask(&["read"]);
    s.wait(1_000);
    s.go(pause(""));
    s.wait(50_000);
    s.tool(2, 1, "text");
    s.go(resume(""));
    assert_eq!(timers(&s), [(Timestamp(s.now + 4_000), UP)]);
    s.wait(4_000);
    s.fire(UP);
    assert_eq!(spent(&s), (LOOP_BUDGET.to_owned(), 5_000, 5_000));
    let ended = s.state.ended.back().expect("it ended");
    assert_eq!(ended.ended_at.since(ended.started_at), 55_000);
}

#[test]
fn a_sessions_time_is_that_of_all_its_loops() {
    let limits = Limits {
        session_budget: time(5_000),
        ..Limits::default()
    };
    let mut s = Session::started(limits);
    s.wait(3_000);
    s.say("hi");
    assert_eq!(s.state.totals.wall_ms, 3_000);
    s.wait(100_000);
    s.start("more");
    let up = TimerWhy::WallTime(LoopId(2));
    assert_eq!(timers(&s), [(Timestamp(s.now + 2_000), up)]);
    s.attach();
    assert_eq!(timers(&s), [(Timestamp(s.now + 2_000), up)]);
    s.wait(2_000);
    s.fire(up);
    assert_eq!(spent(&s), (SESSION_BUDGET.to_owned(), 5_000, 5_000));
    s.start("once more");
    assert_eq!(spent(&s), (SESSION_BUDGET.to_owned(), 5_000, 5_000));
}

#[test]
fn a_warning_comes_at_its_share_although_nothing_happens() {
    let limits = Limits {
        warn_permille: 800,
        ..ends(5_000)
    };
    let mut s = Session::started(limits);
    let near = TimerWhy::WallTimeNear(LoopId(1));
    assert_eq!(
        timers(&s),
        [
            (Timestamp(BEGIN + 4_000), near),
            (Timestamp(BEGIN + 5_000), UP)
        ]
    );
    s.wait(4_000);
    let events = s.fire(near);
    assert!(matches!(&events[..], [Event::BudgetWarning(e)]
        if (e.dimension, e.used, e.limit) == (Dimension::WallTimeMs, 4_000, 5_000)));
    assert_eq!(timers(&s), [(Timestamp(BEGIN + 5_000), UP)], "once");
    s.go(moved(Move::To(8_000)));
    assert_eq!(timers(&s)[0], (Timestamp(BEGIN + 6_400), near));
}

#[test]
fn what_ran_when_time_was_up_is_not_made_again_by_the_next_driver() {
    let mut s = Session::started(ends(5_000));
    s.ask(&["read"]);
    s.wait(9_000);
    assert_eq!(
        kinds(&s.attach()),
        ["DriverAttached", "ToolCallCancelled", "LoopEnded"]
    );
    let mut s = Session::started(pauses(5_000));
    s.ask(&["read"]);
    s.wait(9_000);
    assert_eq!(kinds(&s.attach()), ["LoopPaused", "DriverAttached"]);
    assert!(waits_for_time(&s));
    assert_eq!(wanted(&s.state).len(), 0);
    s.go(moved(Move::To(90_000)));
    assert_eq!(kinds(&s.fire_next()), ["ToolCallStarted"]);
    let mut s = Session::started(pauses(5_000));
    s.wait(9_000);
    assert_eq!(
        kinds(&s.attach()),
        [
            "ModelCallAbandoned",
            "BudgetSettled",
            "LoopPaused",
            "DriverAttached"
        ]
    );
    assert_eq!(wanted(&s.state).len(), 0);
}

#[test]
fn a_call_that_shared_budgets_let_through_too_late_is_not_made() {
    let agent = Agent {
        budgets: vec!["team".to_owned()],
        ..Agent::default()
    };
    let mut s = Session::new(pauses(5_000), agent);
    s.start("hello");
    s.wait(5_000);
    assert_eq!(
        kinds(&s.granted(100)),
        ["ModelCallAbandoned", "BudgetSettled", "LoopPaused"]
    );
    assert_eq!(
        kinds(&s.go(moved(Move::To(9_000)))).last(),
        Some(&"ModelCallReserving")
    );
}

#[test]
fn shared_budgets_are_charged_with_what_came_after_the_last_call() {
    let agent = Agent {
        budgets: vec!["team".to_owned()],
        ..Agent::default()
    };
    let mut s = Session::new(Limits::default(), agent.clone());
    s.start("hello");
    s.granted(100);
    s.wait(300);
    s.ask(&["read"]);
    s.wait(700);
    let events = s.cancel();
    assert_eq!(
        kinds(&events),
        ["ToolCallCancelled", "BudgetSettled", "LoopEnded"]
    );
    let key = (CallId(3), 0);
    let charged = &s.state.settling[&key];
    assert!(
        matches!(charged, Settlement::Time { agent: by, wall_ms: 700 } if **by == agent),
        "{charged:?}"
    );
    s.start("again");
    assert_eq!(s.model(), (CallId(4), 1), "its id is taken");
    s.granted(100);
    s.wait(50);
    assert_eq!(
        kinds(&s.say("done")),
        ["ModelCallCompleted", "BudgetSettled", "LoopEnded"],
        "all of it went with the call"
    );
}

#[test]
fn a_copy_has_not_run_since_it_was_copied() {
    let limits = Limits {
        session_budget: time(5_000),
        ..Limits::default()
    };
    let mut s = Session::started(limits);
    s.wait(2_000);
    s.ask(&["read"]);
    s.wait(1_000_000);
    let mut copy = s.copied(usize::try_from(s.state.seq).expect("few"));
    copy.now = s.now;
    copy.go(What::Adopt {
        by: by(""),
        session: "copy".to_owned(),
        namespace: "m".to_owned(),
        origin: AdoptOrigin::Import {
            from: "n/s".to_owned(),
            from_seq: 4,
        },
    });
    assert_eq!(copy.state.totals.wall_ms, 2_000, "as far as it is known");
    copy.attach();
    copy.start("go on");
    assert!(copy.state.active.is_some());
}
