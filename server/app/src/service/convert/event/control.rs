//! Pauses and moved limits as events of the wire.

use loopwright_core::{event::Event, outcome::WaitsFor};
use loopwright_proto::v1::{self, event::Kind};

use super::super::{limits, words};

/// The form of such an event; `None` for any other.
pub(super) fn kind(event: &Event) -> Option<Kind> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the caller names the kinds")]
    Some(match event {
        Event::LimitsUpdated(e) => Kind::LimitsUpdated(v1::LimitsUpdated {
            loop_id: e.id.to_string(),
            limits: Some(limits::to_wire(&e.limits)),
            by: e.by.clone(),
            session_budget: limits::session_budget_to_wire(&e.limits),
        }),
        Event::LoopPaused(e) => Kind::LoopPaused(v1::LoopPaused {
            loop_id: e.id.to_string(),
            ..paused(&e.waits_for)
        }),
        Event::LoopResumed(e) => Kind::LoopResumed(v1::LoopResumed {
            loop_id: e.id.to_string(),
            by: e.by.clone(),
        }),
        _ => return None,
    })
}

fn paused(waits_for: &WaitsFor) -> v1::LoopPaused {
    match waits_for {
        WaitsFor::Client { by } => v1::LoopPaused {
            reason: v1::PauseReason::Requested.into(),
            by: by.clone(),
            ..v1::LoopPaused::default()
        },
        WaitsFor::Budget { budget, short } | WaitsFor::Limit { budget, short } => v1::LoopPaused {
            reason: v1::PauseReason::Budget.into(),
            budget: Some(v1::BudgetExceededDetail {
                budget: Some(words::budget_ref(budget)),
                dimension: words::dimension(short.dimension).into(),
                limit: short.limit,
                used: short.used,
                requested: short.requested,
            }),
            ..v1::LoopPaused::default()
        },
    }
}
