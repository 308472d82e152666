//! A loop's summary in a few words.
//!
//! Boundary: LoopSummary only. Invariant: whatever a peer sends stays on one line.

use loopwright_proto::v1::{LoopState, LoopSummary};

use super::words::{label, one_line};

/// Characters of what a model said last.
const SAID: usize = 48;

/// Where a loop stands, or why it ended: `running`, `budget exceeded`.
#[must_use]
pub fn loop_words(one: &LoopSummary) -> String {
    match one.state() {
        LoopState::Ended => label(one.end_reason().as_str_name(), "END_REASON_"),
        state => label(state.as_str_name(), "LOOP_STATE_"),
    }
}

/// What a loop is at: its tool calls that are not done, else what the model said last.
#[must_use]
pub fn loop_doing(one: &LoopSummary) -> String {
    let Some(first) = one.pending_calls.first() else {
        return one_line(&one.last_text, SAID);
    };
    let state = label(first.state().as_str_name(), "PENDING_STATE_");
    let more = match one.pending_calls.len() {
        1 => String::new(),
        all => format!(", {} more", all - 1),
    };
    let (tool, call) = (one_line(&first.tool, SAID), one_line(&first.call, SAID));
    format!("{tool} {call} ({state}){more}")
}

#[cfg(test)]
mod tests {
    use loopwright_proto::v1::{EndReason, PendingCall, PendingState};

    use super::*;

    #[test]
    fn a_loop_is_told_by_what_it_waits_for_and_how_it_ended() {
        let call = |call: &str, state: PendingState| PendingCall {
            call: call.to_owned(),
            tool: "files__write".to_owned(),
            state: state.into(),
            expires_at: None,
        };
        let mut one = LoopSummary {
            state: LoopState::Waiting.into(),
            last_text: "Let me\nsee \u{1b}[2J".to_owned(),
            ..LoopSummary::default()
        };
        assert_eq!(loop_words(&one), "waiting");
        assert_eq!(loop_doing(&one), "Let me see [2J");
        one.pending_calls = vec![
            call("c2", PendingState::Approval),
            call("c3", PendingState::Queued),
        ];
        assert_eq!(loop_doing(&one), "files__write c2 (approval), 1 more");
        one.state = LoopState::Ended.into();
        one.end_reason = EndReason::BudgetExceeded.into();
        assert_eq!(loop_words(&one), "budget exceeded");
    }
}
