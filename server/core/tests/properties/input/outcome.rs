//! What models and tools answer, at random.

use std::sync::Arc;

use loopwright_core::{
    message::{CallPart, Part, Thinking, ToolOutput, ToolUsage},
    outcome::{ModelFailure, ModelFailureKind, ModelReply, StopReason, Verdict},
    usage::Usage,
};

use super::Roll;

impl Roll {
    pub(super) fn reply(&self) -> ModelReply {
        let stops = [
            StopReason::EndTurn,
            StopReason::ToolUse,
            StopReason::ToolUse,
            StopReason::MaxTokens,
            StopReason::StopSequence,
            StopReason::Refusal,
            StopReason::ContentFilter,
            StopReason::ContextFull,
            StopReason::Pause,
            StopReason::Other(self.text.clone()),
        ];
        let mut parts = vec![
            Part::Thinking(Thinking {
                text: self.text.clone(),
                signature: None,
            }),
            Part::Text(self.text.clone()),
        ];
        parts.truncate(usize::from(self.pick % 3));
        let calls = usize::from(self.shape % 4);
        let names = ["read", "dedup", "once", "blind", "gone"];
        parts.extend((0..calls).map(|at| {
            Part::ToolCall(CallPart {
                provider_id: String::new(),
                tool: names[(usize::from(self.pick) + at) % names.len()].to_owned(),
                arguments: self.text.clone(),
            })
        }));
        // Too few verdicts, or too many, must do no harm.
        let verdicts = vec![
            Verdict {
                // Few, so that some come again.
                args_hash: (self.pick % 2).to_string(),
                invalid: self.pick.is_multiple_of(5).then(|| self.text.clone()),
            };
            usize::from(self.pick % 5)
        ];
        ModelReply {
            parts: Arc::new(parts),
            stop: stops[usize::from(self.kind / 16) % stops.len()].clone(),
            usage: (!self.pick.is_multiple_of(4)).then(|| self.usage()),
            response_id: self.pick.is_multiple_of(2).then(|| self.text.clone()),
            body_crc: self.text.clone(),
            latency_ms: self.number,
            first_token_ms: None,
            cost_micro_usd: (self.pick % 2 == 1).then_some(self.number),
            verdicts,
        }
    }

    pub(super) fn model_failure(&self) -> ModelFailure {
        use ModelFailureKind as Kind;
        let kinds = [
            Kind::RateLimited,
            Kind::Cut,
            Kind::Auth,
            Kind::ContextTooLong,
            Kind::Server,
        ];
        ModelFailure {
            kind: kinds[usize::from(self.pick) % kinds.len()],
            message: self.text.clone(),
            retry_after_ms: self.pick.is_multiple_of(3).then_some(self.number),
            http_status: 0,
            usage: self.pick.is_multiple_of(2).then(|| self.usage()),
            cost_micro_usd: self.pick.is_multiple_of(4).then_some(self.number),
            body_crc: String::new(),
        }
    }

    pub(super) fn usage(&self) -> Usage {
        Usage {
            input: self.number,
            output: self.number / 2,
            cache_write: u64::from(self.pick),
            cache_read: self.number,
            cache_write_1h: u64::from(self.pick / 2),
        }
    }

    pub(super) fn output(&self) -> Arc<ToolOutput> {
        Arc::new(ToolOutput {
            latency_ms: 0,
            text: self.text.clone(),
            is_error: self.pick.is_multiple_of(2),
            structured: Some(self.text.clone()),
            structured_full: None,
            full_bytes: Some(self.number),
            full: None,
            usage: self.pick.is_multiple_of(2).then(|| ToolUsage {
                tokens: self.usage(),
                cost_micro_usd: Some(self.number),
            }),
        })
    }
}
