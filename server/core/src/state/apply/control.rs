//! What pauses, moved limits and warnings make of the state.

use std::sync::Arc;

use crate::{
    budget::{LOOP_BUDGET, SESSION_BUDGET},
    event::{BudgetWarning, DriverAttached, Event, LimitsUpdated, LoopPaused, LoopResumed},
    state::{State, ToolPhase},
};

impl State {
    pub(super) fn apply_control(&mut self, event: &Event) {
        #[expect(clippy::wildcard_enum_match_arm, reason = "the caller names the kinds")]
        match event {
            Event::LimitsUpdated(e) => self.limits_updated(e),
            Event::LoopPaused(e) => self.paused(e),
            Event::LoopResumed(e) => self.resumed(e),
            Event::BudgetWarning(e) => self.warned_of(e),
            _ => {}
        }
    }

    /// Tools that ran under the driver before, of a loop that rests, are made again when it goes on:
    /// till then they are due. `decide` says which of them may not be.
    pub(super) fn attached(&mut self, e: &DriverAttached) {
        self.epoch = e.epoch;
        let Some(active) = self.active.as_mut().filter(|active| active.rests()) else {
            return;
        };
        for tool in &mut active.tools {
            if tool.phase == ToolPhase::Running {
                let until = tool.first_at.unwrap_or_default();
                tool.attempt = tool.attempt.saturating_add(1);
                tool.may_have_run = true;
                tool.phase = ToolPhase::Backoff { until };
            }
        }
    }

    fn paused(&mut self, e: &LoopPaused) {
        if let Some(active) = &mut self.active {
            active.paused = Some(e.waits_for.clone());
            active.stops(e.at);
        }
    }

    fn resumed(&mut self, e: &LoopResumed) {
        if let Some(active) = &mut self.active {
            active.paused = None;
            active.goes_on(e.at);
        }
    }

    fn limits_updated(&mut self, e: &LimitsUpdated) {
        let old = std::mem::replace(&mut self.limits, Arc::clone(&e.limits));
        let new = &self.limits;
        self.warned = self.warned.since(&old.session_budget, &new.session_budget);
        let is_over = self.tool_shortfall_after(0).is_some();
        let Some(active) = &mut self.active else {
            return;
        };
        active.warned = active.warned.since(&old.budget, &new.budget);
        if old.deadline_ms != new.deadline_ms {
            active.deadline_at = new.deadline_ms.map(|ms| active.started_at.plus(ms));
        }
        active.over_tool_budget &= is_over;
    }

    fn warned_of(&mut self, e: &BudgetWarning) {
        if e.budget == SESSION_BUDGET {
            self.warned = self.warned.with(e.dimension);
        } else if e.budget == LOOP_BUDGET
            && let Some(active) = &mut self.active
        {
            active.warned = active.warned.with(e.dimension);
        }
    }
}
