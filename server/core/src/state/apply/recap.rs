//! What the call of a model that writes a recap makes of the state: it is charged like any call, and is
//! no part of the conversation.

use crate::{
    context::RecapAsk,
    event::{ModelCallCompleted, ModelCallStarted},
    state::{ModelCall, ModelPhase, State},
};

impl State {
    /// No message joins, and the step that waits for the recap has not begun.
    pub(super) fn recap_started(&mut self, e: &ModelCallStarted, ask: RecapAsk) {
        let Some(active) = &mut self.active else {
            return;
        };
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
                turns: 0,
                bytes: 0,
                tool_bytes: 0,
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
