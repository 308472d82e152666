//! What prompts came to, and what a compaction makes of that and of the conversation.

use std::sync::Arc;

use crate::{
    budget::MARGIN_PER_PROMPT,
    context::{CompactionTrigger, Ratio},
    event::ContextCompacted,
    message::Part,
    state::{Counted, ModelCall, ModelPhase, State, Turn},
    usage::Usage,
};

/// Tokens that a notice takes at most in a result that is told shorter, and the places where it parts
/// what is around it.
const NOTICE_BYTES: u64 = 160;

impl State {
    /// What the prompt of a call came to, where its provider says so: 0 is no count of any.
    pub(super) fn count_prompt(&mut self, usage: Option<Usage>, model: Option<ModelCall>) {
        if let (
            Some(usage),
            Some(ModelCall {
                phase:
                    ModelPhase::Running {
                        bytes,
                        margin,
                        tool_bytes,
                        tool_changes,
                        ..
                    },
                ..
            }),
        ) = (usage.filter(|usage| usage.prompt() > 0), model)
        {
            let fixed = self.agent.system_prompt.len() as u64 + MARGIN_PER_PROMPT;
            self.measured = Some(Ratio {
                tokens: usage.prompt(),
                bytes: bytes.saturating_add(tool_bytes).saturating_add(fixed),
            });
            self.counted = Some(Counted {
                tokens: usage.prompt(),
                bytes,
                margin,
                tool_changes,
            });
        }
    }

    pub(super) fn compacted(&mut self, e: &ContextCompacted) {
        let told = e.recap.as_ref().map(|recap| {
            let parts = Arc::new(vec![Part::Text(recap.text())]);
            (Turn::User(parts), self.seq)
        });
        let (added, wrapped) = told
            .as_ref()
            .map_or((0, 0), |(turn, _)| (turn.bytes(), turn.margin()));
        // Each result that is told shorter has a notice in it that was not counted.
        let added = added.saturating_add(NOTICE_BYTES * e.shortened.len() as u64);
        let (bytes, margin) = (self.conversation.bytes(), self.conversation.margin());
        let reads_output = self.tools.reads_output();
        self.conversation
            .compact(e.dropped as usize, told, &e.shortened, reads_output);
        if e.recap.is_some() {
            self.recap.clone_from(&e.recap);
        }
        self.useless = if e.target_met {
            0
        } else {
            self.useless.saturating_add(1)
        };
        if let Some(counted) = &mut self.counted {
            // What is left was part of what was counted, but for the recap and what came since.
            let since = bytes.saturating_sub(counted.bytes);
            let wrapped_since = margin.saturating_sub(counted.margin);
            let (bytes, margin) = (self.conversation.bytes(), self.conversation.margin());
            counted.bytes = bytes.saturating_sub(added).saturating_sub(since);
            counted.margin = margin.saturating_sub(wrapped).saturating_sub(wrapped_since);
        }
        if let Some(active) = &mut self.active {
            active.compacted_at = Some(self.totals.steps);
            // A recap's call is over with it, also one that was given up.
            active.model = active.model.take().filter(|model| model.recap.is_none());
            if let Some(model) = &mut active.model {
                model.overflowed |= e.trigger == CompactionTrigger::Provider;
            }
        }
    }
}
