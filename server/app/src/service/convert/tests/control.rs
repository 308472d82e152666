//! Pauses, and limits that move: what is taken of a request, and how it is told.

use std::sync::Arc;

use loopwright_core::{
    Event,
    agent::{BudgetChange, BudgetLimits, Limits, LimitsChange, Move},
    budget::{Dimension, Shortfall},
    event,
    ids::{LoopId, Timestamp},
    ledger::OnExhausted,
    outcome::WaitsFor,
};
use loopwright_proto::v1;

use crate::{
    config::{Config, units::Period},
    service::convert::{duration, fields::Violations, moves::change},
};

/// One of each kind.
pub(super) fn samples() -> [Event; 3] {
    let id = LoopId(1);
    let short = Shortfall {
        dimension: Dimension::TotalTokens,
        limit: 10,
        used: 8,
        requested: 4,
    };
    let budget = "session".to_owned();
    let paused = event::LoopPaused {
        id,
        waits_for: WaitsFor::Limit { budget, short },
        at: Timestamp(5),
    };
    let by = "ann".to_owned();
    let at = Timestamp(9);
    let resumed = event::LoopResumed { id, by, at };
    let updated = event::LimitsUpdated {
        id,
        limits: Arc::new(Limits {
            session_budget: BudgetLimits {
                total_tokens: Some(9),
                ..BudgetLimits::default()
            },
            ..Limits::default()
        }),
        by: "ann".to_owned(),
    };
    [paused.into(), resumed.into(), updated.into()]
}

fn told(asked: v1::LoopLimits, session: Option<v1::BudgetLimits>) -> (LimitsChange, Vec<String>) {
    asked_for(v1::UpdateLimitsRequest {
        limits: Some(asked),
        session_budget: session,
        ..Default::default()
    })
}

fn asked_for(request: v1::UpdateLimitsRequest) -> (LimitsChange, Vec<String>) {
    let mut config = Config::default();
    config.limits.max_steps = Some(100);
    config.budget.max_total_tokens = Some(50_000);
    let mut all = Violations::default();
    config.budget.max_wall_time = Some(Period::from_secs(60));
    let change = change(&request, &config, &mut all);
    let words = all.0.into_iter();
    let words = words.map(|one| format!("{}: {}", one.field, one.problem));
    (change, words.collect())
}

#[test]
fn what_is_set_moves_and_nothing_else() {
    let asked = v1::LoopLimits {
        max_steps: Some(100),
        budget: Some(v1::BudgetLimits {
            max_total_tokens: Some(50_000),
            on_exhausted: v1::OnExhausted::Pause.into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let session = v1::BudgetLimits {
        max_tool_calls: Some(0),
        ..Default::default()
    };
    let expected = LimitsChange {
        max_steps: Some(100),
        budget: BudgetChange::default().with(Dimension::TotalTokens, Move::To(50_000)),
        session_budget: BudgetChange::default().with(Dimension::ToolCalls, Move::To(0)),
        on_exhausted: Some(OnExhausted::Pause),
        ..LimitsChange::default()
    };
    assert_eq!(told(asked, Some(session)), (expected, Vec::new()));
}

#[test]
fn a_limit_moves_no_further_than_a_loop_may_start_with() {
    let asked = v1::LoopLimits {
        max_steps: Some(101),
        max_parallel_tool_calls: Some(0),
        budget: Some(v1::BudgetLimits {
            max_total_tokens: Some(50_001),
            warn_at: Some(-0.5),
            max_wall_time: Some(duration(60_001)),
            ..Default::default()
        }),
        ..Default::default()
    };
    assert_eq!(
        told(asked, None).1,
        [
            "limits.max_steps: 101 is above limits.max_steps = 100 of the server; ask for less, or \
             leave it out, and it stays",
            "limits.max_parallel_tool_calls: 0 is not between 1 and 1024; leave it out, and it \
             stays",
            "limits.budget.max_total_tokens: 50001 is wider than budget.max_total_tokens = 50000 of \
             the server; ask for less, or leave it out",
            "limits.budget.max_wall_time: 60001ms is wider than budget.max_wall_time = 1m of the server; \
             ask for less, or leave it out",
            "limits.budget.warn_at: -0.5 is not a share from 0.01 to 1; leave it out, and it stays",
        ]
    );
    let nothing = told(v1::LoopLimits::default(), Some(v1::BudgetLimits::default()));
    assert_eq!(
        nothing.1,
        [
            "limits: is empty, and so are session_budget and the clear fields; name the limits that are to \
          move, or to go"
        ]
    );
}

#[test]
fn what_is_removed_goes_as_far_as_the_server_lets_it() {
    let (change, wrong) = asked_for(v1::UpdateLimitsRequest {
        limits: Some(v1::LoopLimits {
            final_call_tokens: Some(0),
            no_progress_limit: Some(0),
            ..Default::default()
        }),
        clear: vec![
            v1::LoopLimit::Deadline.into(),
            v1::LoopLimit::MaxToolCallsPerName.into(),
        ],
        clear_budget: vec![
            v1::BudgetDimension::TotalTokens.into(),
            v1::BudgetDimension::CostMicroUsd.into(),
        ],
        clear_session_budget: vec![v1::BudgetDimension::WallTimeMs.into()],
        ..Default::default()
    });
    let expected = LimitsChange {
        deadline_ms: Move::Off,
        max_tool_calls_per_name: Move::Off,
        final_call_tokens: Move::Off,
        no_progress: Move::Off,
        budget: BudgetChange::default()
            .with(Dimension::TotalTokens, Move::To(50_000))
            .with(Dimension::CostMicroUsd, Move::Off),
        session_budget: BudgetChange::default().with(Dimension::WallTimeMs, Move::Off),
        ..LimitsChange::default()
    };
    assert_eq!((change, wrong), (expected, Vec::new()));
}

#[test]
fn a_limit_is_named_once() {
    let total = v1::BudgetDimension::TotalTokens.into();
    let (_, wrong) = asked_for(v1::UpdateLimitsRequest {
        limits: Some(v1::LoopLimits {
            deadline: Some(duration(9)),
            budget: Some(v1::BudgetLimits {
                max_total_tokens: Some(7),
                ..Default::default()
            }),
            ..Default::default()
        }),
        clear: vec![v1::LoopLimit::Deadline.into(), 0],
        clear_budget: vec![total],
        clear_session_budget: vec![total, total, 77],
        ..Default::default()
    });
    let both = "names a limit that this request sets or names already; name it once";
    assert_eq!(
        wrong,
        [
            format!("clear[0]: DEADLINE {both}"),
            "clear[1]: 0 names no limit; leave it out".to_owned(),
            format!("clear_budget[0]: TOTAL_TOKENS {both}"),
            format!("clear_session_budget[1]: TOTAL_TOKENS {both}"),
            "clear_session_budget[2]: 77 names no limit; leave it out".to_owned(),
        ]
    );
}
