//! What the call of a model that writes a recap makes of the state: it is charged like any call, and is
//! no part of the conversation.

use crate::{
    budget::Reservation,
    context::RecapAsk,
    event::{ModelCallCompleted, ModelCallStarted},
    state::{ModelCall, ModelPhase, State},
};

impl State {
    /// No message joins, and the step that waits for the recap has not begun.
    pub(super) fn recap_started(&mut self, e: &ModelCallStarted, ask: RecapAsk) {
        let unlimited = (self.active.as_ref()).is_some_and(|active| active.reserved.is_none());
        let at_most = unlimited.then(|| Reservation {
            input: self.recap_budget(ask).input,
            output: e.max_output_tokens,
        });
        let Some(active) = &mut self.active else {
            return;
        };
        active.at_most = at_most;
        for totals in [&mut active.totals, &mut self.totals] {
            totals.model_calls = totals.model_calls.saturating_add(1);
        }
        active.model = Some(ModelCall {
            call: e.call,
            attempt: e.attempt,
            failures: 0,
            first_at: Some(e.at),
            joining: 0,
            overflowed: false,
            recap: Some(ask),
            phase: ModelPhase::Running {
                max_output_tokens: e.max_output_tokens,
                bound: e.bound,
                bytes: 0,
                margin: 0,
                tool_bytes: 0,
                tool_changes: 0,
            },
        });
    }

    /// What it says reaches the conversation by the compaction alone.
    pub(super) fn recap_completed(&mut self, e: &ModelCallCompleted) {
        if let Some(active) = &mut self.active {
            active.model = None;
        }
        self.charge(e);
    }
}
