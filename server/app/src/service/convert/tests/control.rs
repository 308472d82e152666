//! Pauses, and limits that move: what is taken of a request, and how it is told.

use std::sync::Arc;

use loopwright_core::{
    Event,
    agent::{BudgetLimits, Limits, LimitsChange},
    budget::{Dimension, Shortfall},
    event,
    ids::LoopId,
    ledger::OnExhausted,
    outcome::WaitsFor,
};
use loopwright_proto::v1;

use crate::{
    config::Config,
    service::convert::{fields::Violations, moves::change},
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
    };
    let by = "ann".to_owned();
    let resumed = event::LoopResumed { id, by };
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
    let mut config = Config::default();
    config.limits.max_steps = Some(100);
    config.budget.max_total_tokens = Some(50_000);
    let mut all = Violations::default();
    let change = change(Some(&asked), session.as_ref(), &config, &mut all);
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
        budget: BudgetLimits {
            total_tokens: Some(50_000),
            ..BudgetLimits::default()
        },
        session_budget: BudgetLimits {
            tool_calls: Some(0),
            ..BudgetLimits::default()
        },
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
            "limits.budget.warn_at: -0.5 is not a share from 0.01 to 1; leave it out, and it stays",
        ]
    );
    let nothing = told(v1::LoopLimits::default(), Some(v1::BudgetLimits::default()));
    assert_eq!(
        nothing.1,
        ["limits: is empty, and so is session_budget; set the limits that are to move"]
    );
}
