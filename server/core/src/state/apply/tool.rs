//! What the events of tool calls make of the state.

use std::sync::Arc;

use crate::{
    agent::{EffectClass, UnknownPolicy},
    event::{
        ApprovalRequested, ApprovalResolved, Event, RejectReason, ToolCallFailed,
        ToolCallRequested, ToolCallStarted, ToolCallUnknown, UnknownResolution, UnknownResolved,
        effect_class,
    },
    ids::CallId,
    message::{Part, ToolOutput},
    outcome::ToolFailureKind,
    state::{LATE_KEPT, State, ToolCall, ToolPhase, ToolResult, Turn, UNKNOWN_KEPT},
};

impl State {
    pub(super) fn apply_tool(&mut self, event: &Event) {
        #[expect(clippy::wildcard_enum_match_arm, reason = "the caller names the kinds")]
        match event {
            Event::ToolCallRequested(e) => self.tool_requested(e),
            Event::ToolCallRejected(e) => {
                if e.reason == RejectReason::Budget
                    && let Some(active) = &mut self.active
                {
                    active.over_tool_budget = true;
                }
                self.tool_ended(e.call, Arc::new(ToolOutput::error(&*e.message)));
            }
            Event::ApprovalRequested(e) => self.approval_requested(e),
            Event::ApprovalResolved(e) => self.approval_resolved(e),
            Event::ToolCallStarted(e) => self.tool_started(e),
            Event::ToolCallCompleted(e) => {
                // Its own result came after all.
                self.known(e.call);
                self.tool_ended(e.call, Arc::clone(&e.output));
            }
            Event::ToolCallFailed(e) => self.tool_failed(e),
            Event::ToolCallInDoubt(e) => {
                if let Some(tool) = self.tool_mut(e.call) {
                    tool.attempt = e.attempt;
                    tool.phase = ToolPhase::InDoubt { failed: e.failed };
                }
            }
            Event::ToolCallUnknown(e) => self.tool_unknown(e),
            Event::UnknownResolved(e) => self.unknown_resolved(e),
            Event::ToolCallResultLate(e) => self.without_result.retain(|&(call, _)| call != e.call),
            Event::ToolCallCancelled(e) => {
                let text = "The call was cancelled before it gave a result.";
                self.ended_unheard(e.call, ToolOutput::error(text));
            }
            _ => {}
        }
    }

    fn tool_requested(&mut self, e: &ToolCallRequested) {
        if let Some(active) = &mut self.active {
            let reply = Arc::clone(&active.reply);
            if let Some(Part::ToolCall(part)) = reply.get(e.index as usize) {
                active.progress.asked(&part.tool, &e.args_hash);
            }
            active.tools.push(ToolCall {
                call: e.call,
                index: e.index,
                attempt: 0,
                failures: 0,
                first_at: None,
                effect: EffectClass::AtMostOnce,
                may_have_run: false,
                sidecar_instance: Arc::from(""),
                args_hash: Arc::from(&*e.args_hash),
                approved: false,
                phase: ToolPhase::Waiting,
            });
        }
    }

    fn tool_started(&mut self, e: &ToolCallStarted) {
        let Some(active) = &mut self.active else {
            return;
        };
        let reply = Arc::clone(&active.reply);
        let Some(tool) = active.tools.iter_mut().find(|tool| tool.call == e.call) else {
            return;
        };
        if tool.attempt == 0 {
            let name: Arc<str> = match reply.get(tool.index as usize) {
                Some(Part::ToolCall(part)) => Arc::from(part.tool.as_str()),
                Some(Part::Text(_) | Part::Thinking(_) | Part::Opaque(_) | Part::Blob(_))
                | None => Arc::from(""),
            };
            tool.effect = effect_class(&self.tools, &name);
            let count = Arc::make_mut(&mut active.per_name).entry(name).or_default();
            *count = count.saturating_add(1);
            for totals in [&mut active.totals, &mut self.totals] {
                totals.tool_calls = totals.tool_calls.saturating_add(1);
            }
        }
        tool.may_have_run = match tool.phase {
            // Started again while it ran: the driver of the attempt before is gone.
            ToolPhase::Running => true,
            // Its sidecar, or a person, says that it did not run.
            ToolPhase::InDoubt { .. } | ToolPhase::Asking => false,
            ToolPhase::Waiting
            | ToolPhase::Held { .. }
            | ToolPhase::Backoff { .. }
            | ToolPhase::Ended(_) => tool.may_have_run,
        };
        if !tool.may_have_run {
            tool.sidecar_instance = Arc::from(&*e.sidecar_instance);
        } else if *tool.sidecar_instance != *e.sidecar_instance {
            tool.sidecar_instance = Arc::from("");
        }
        tool.attempt = e.attempt;
        tool.first_at = tool.first_at.or(Some(e.at));
        tool.phase = ToolPhase::Running;
    }

    fn tool_failed(&mut self, e: &ToolCallFailed) {
        let Some(until) = e.retry_at else {
            return self.ended_unheard(e.call, ToolOutput::error(&*e.message));
        };
        if let Some(tool) = self.tool_mut(e.call) {
            if matches!(tool.phase, ToolPhase::InDoubt { .. }) {
                tool.may_have_run = false;
            }
            tool.failures = tool.failures.saturating_add(1);
            tool.attempt = e.attempt.saturating_add(1);
            tool.may_have_run |= e.kind == ToolFailureKind::Ambiguous;
            tool.phase = ToolPhase::Backoff { until };
        }
    }

    /// Gives a call its one result; the last result of a step joins all of them to the conversation.
    fn tool_ended(&mut self, call: CallId, output: Arc<ToolOutput>) {
        let Some(active) = &mut self.active else {
            return;
        };
        if let Some(tool) = active.tools.iter_mut().find(|tool| tool.call == call) {
            active.progress.result(&output);
            tool.phase = ToolPhase::Ended(output);
        }
        if active.tools.len() < active.asked || !active.tools.iter().all(|t| t.phase.has_ended()) {
            return;
        }
        let result = |tool: ToolCall| match tool.phase {
            ToolPhase::Ended(output) => Some(ToolResult {
                call: tool.call,
                output,
            }),
            ToolPhase::Waiting
            | ToolPhase::Held { .. }
            | ToolPhase::Running
            | ToolPhase::Backoff { .. }
            | ToolPhase::InDoubt { .. }
            | ToolPhase::Asking => None,
        };
        let results = std::mem::take(&mut active.tools)
            .into_iter()
            .filter_map(result)
            .collect();
        active.asked = 0;
        self.conversation
            .push(Turn::Results(Arc::new(results)), self.seq);
    }

    fn approval_requested(&mut self, e: &ApprovalRequested) {
        if let Some(tool) = self.tool_mut(e.call) {
            tool.phase = ToolPhase::Held {
                reason: e.reason,
                until: e.expires_at,
                allow_on_expiry: e.allow_on_expiry,
            };
        }
        if let Some(active) = &mut self.active {
            active.asked_at = Some(e.at);
        }
    }

    /// A call that is not allowed is ended by what follows in the same entry.
    fn approval_resolved(&mut self, e: &ApprovalResolved) {
        if let Some(tool) = self.tool_mut(e.call).filter(|_| e.allowed) {
            tool.approved = true;
            tool.phase = ToolPhase::Waiting;
        }
        if let Some(active) = &mut self.active {
            active.asked_at = Some(e.at);
        }
    }

    fn tool_unknown(&mut self, e: &ToolCallUnknown) {
        self.not_known(e.call);
        if e.policy != UnknownPolicy::Ask {
            return self.ended_unheard(e.call, ToolOutput::error(&*e.message));
        }
        if let Some(tool) = self.tool_mut(e.call) {
            tool.phase = ToolPhase::Asking;
        }
        if let Some(active) = &mut self.active {
            active.asked_at = e.asked_at;
        }
    }

    fn unknown_resolved(&mut self, e: &UnknownResolved) {
        if let Some(active) = &mut self.active {
            active.asked_at = Some(e.at);
        }
        let because = if e.reason.is_empty() {
            String::new()
        } else {
            format!(" They say: {}", e.reason)
        };
        let output = match e.resolution {
            UnknownResolution::RunAgain => {
                self.known(e.call);
                if let Some(tool) = self.tool_mut(e.call) {
                    tool.approved = true;
                    tool.may_have_run = false;
                    tool.phase = ToolPhase::Waiting;
                }
                return;
            }
            UnknownResolution::Happened => {
                self.known(e.call);
                let told = || ToolOutput {
                    text: format!("A person says that this call ran; no result is known.{because}"),
                    ..ToolOutput::default()
                };
                e.output.as_deref().cloned().unwrap_or_else(told)
            }
            UnknownResolution::DidNotHappen => {
                self.known(e.call);
                ToolOutput::error(format!(
                    "A person says that this call did not run.{because}"
                ))
            }
            UnknownResolution::TellModel => ToolOutput::error(format!(
                "It is not known whether this call ran, and a person who was asked does not know \
                 either. Do not assume either outcome.{because}"
            )),
            UnknownResolution::Cancelled => {
                ToolOutput::error("It is not known whether this call ran.")
            }
        };
        self.ended_unheard(e.call, output);
    }

    /// Ends a call whose own result, if it was dispatched, never came.
    fn ended_unheard(&mut self, call: CallId, output: ToolOutput) {
        let tool = self.tool_mut(call);
        // In `Backoff` the attempt that is named has not been made.
        let made = tool.map_or(0, |tool| match tool.phase {
            ToolPhase::Backoff { .. } => tool.attempt.saturating_sub(1),
            ToolPhase::Ended(_) => 0,
            ToolPhase::Waiting
            | ToolPhase::Held { .. }
            | ToolPhase::Running
            | ToolPhase::InDoubt { .. }
            | ToolPhase::Asking => tool.attempt,
        });
        if made > 0 {
            self.without_result.push_back((call, made));
            if self.without_result.len() > LATE_KEPT {
                self.without_result.pop_front();
            }
        }
        self.tool_ended(call, Arc::new(output));
    }

    /// Remembers that nobody knows whether a call ran. Once as many are kept as may be, none is
    /// added or forgotten: every call that might repeat one is held from then on.
    fn not_known(&mut self, call: CallId) {
        let Some(active) = &self.active else { return };
        let Some(tool) = active.tool(call) else {
            return;
        };
        if self.unknown.len() < UNKNOWN_KEPT {
            let signature = (
                Arc::from(active.tool_name(tool)),
                Arc::clone(&tool.args_hash),
            );
            Arc::make_mut(&mut self.unknown).insert(call, signature);
        }
    }

    fn known(&mut self, call: CallId) {
        if self.unknown.contains_key(&call) && self.unknown.len() < UNKNOWN_KEPT {
            Arc::make_mut(&mut self.unknown).remove(&call);
        }
    }

    fn tool_mut(&mut self, call: CallId) -> Option<&mut ToolCall> {
        self.active
            .as_mut()?
            .tools
            .iter_mut()
            .find(|tool| tool.call == call)
    }
}
