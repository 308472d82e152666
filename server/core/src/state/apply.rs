//! The fold: what each event makes of the state. No event is refused, and none needs a clock.

use std::sync::Arc;

use super::{
    ENDED_KEPT, EndedLoop, Head, LoopRun, ModelCall, ModelPhase, Pending, Progress, Settlement,
    State, Turn,
};
use crate::{
    budget::{self, Beside, Reservation, Warned},
    event::{
        BudgetSettled, Event, LoopEnded, LoopStarted, MessageAdded, ModelCallCompleted,
        ModelCallFailed, ModelCallReserving, ModelCallStarted, Origin, SessionCreated,
        SessionForked, SessionImported,
    },
    ids::CallId,
    message::Part,
    outcome::{AbandonReason, StopReason},
};

mod context;
mod control;
mod recap;
mod tool;

impl State {
    /// Applies one event. It cannot fail on a log that `decide` wrote; an event that speaks of what
    /// the state does not have changes nothing.
    pub fn apply(&mut self, event: &Event) {
        match event {
            Event::SessionCreated(e) => self.created(e),
            Event::SessionForked(e) => self.forked(e),
            Event::SessionImported(e) => self.imported(e),
            Event::DriverAttached(e) => self.attached(e),
            Event::ToolsChanged(e) => {
                self.tools = Arc::clone(&e.tools);
                self.tool_changes = self.tool_changes.saturating_add(1);
            }
            Event::MessageAdded(e) => self.message_added(e),
            Event::LoopStarted(e) => self.loop_started(e),
            Event::ModelCallReserving(e) => self.reserving(e),
            Event::BudgetReserved(e) => {
                if let Some(active) = &mut self.active {
                    active.reserved = Some(e.reserved);
                    active.tools_granted = e.tool_calls;
                    active.shared_left = Arc::clone(&e.left);
                }
            }
            Event::ContextCompacted(e) => self.compacted(e),
            Event::ModelCallStarted(e) => self.model_started(e),
            Event::ModelCallCompleted(e) => self.model_completed(e),
            Event::ModelCallFailed(e) => self.model_failed(e),
            Event::ModelCallAbandoned(e) => {
                if let Some(model) = self.model_mut(e.call) {
                    model.phase = ModelPhase::Abandoned;
                }
                if let Some(active) = &mut self.active
                    && e.reason == AbandonReason::Interrupted
                {
                    // The next call is another one, whenever it comes.
                    active.model = None;
                }
            }
            Event::BudgetSettled(e) => self.settled(e),
            Event::SettlementAcknowledged(e) => {
                self.settling.remove(&(e.call, e.attempt));
            }
            Event::ToolCallRequested(_)
            | Event::ToolCallRejected(_)
            | Event::ApprovalRequested(_)
            | Event::ApprovalResolved(_)
            | Event::ToolCallStarted(_)
            | Event::ToolCallCompleted(_)
            | Event::ToolCallFailed(_)
            | Event::ToolCallInDoubt(_)
            | Event::ToolCallUnknown(_)
            | Event::UnknownResolved(_)
            | Event::ToolCallResultLate(_)
            | Event::ToolCallCancelled(_) => self.apply_tool(event),
            Event::LimitsUpdated(_)
            | Event::LoopPaused(_)
            | Event::LoopResumed(_)
            | Event::BudgetWarning(_) => self.apply_control(event),
            Event::LoopEnded(e) => self.loop_ended(e),
            Event::DriverDetached(_)
            | Event::LogRecovered(_)
            | Event::BudgetOverrun(_)
            | Event::Unknown(_) => {}
        }
    }

    fn created(&mut self, e: &SessionCreated) {
        self.session = Some(Arc::new(Head {
            session: e.session.clone(),
            namespace: e.namespace.clone(),
            created_at: e.at,
            born_at: e.at,
            labels: e.labels.clone(),
        }));
        self.agent = Arc::clone(&e.agent);
        self.limits = Arc::clone(&e.limits);
        self.next_call = 1;
        self.next_loop = 1;
    }

    fn forked(&mut self, e: &SessionForked) {
        self.session = Some(Arc::new(Head {
            session: e.session.clone(),
            namespace: e.namespace.clone(),
            created_at: e.at,
            born_at: e.at,
            labels: e.labels.clone(),
        }));
        self.pending.clear();
        self.queue.clear();
        self.adopted();
    }

    fn imported(&mut self, e: &SessionImported) {
        let before = self.session.as_deref();
        self.session = Some(Arc::new(Head {
            session: e.session.clone(),
            namespace: e.namespace.clone(),
            created_at: before.map_or(e.at, |head| head.created_at),
            born_at: e.at,
            labels: before.map(|head| head.labels.clone()).unwrap_or_default(),
        }));
        self.adopted();
    }

    /// What a copy does not share with its original: requests, debts, results that may still come.
    fn adopted(&mut self) {
        self.answers = Arc::default();
        self.settling.clear();
        self.without_result.clear();
        if let Some(active) = &mut self.active {
            active.copied_ms = Some(active.known_ms());
        }
    }

    fn message_added(&mut self, e: &MessageAdded) {
        let parts = Arc::clone(&e.parts);
        match e.origin {
            Origin::Queue => self.queue.push_back(parts),
            Origin::User | Origin::Steer => self.pending.push(Pending {
                nudge: false,
                parts,
            }),
            Origin::Nudge => self.pending.push(Pending { nudge: true, parts }),
        }
        if let (Some(active), Some(nudge)) = (&mut self.active, &e.nudge) {
            active.nudged(nudge);
        }
    }

    fn loop_started(&mut self, e: &LoopStarted) {
        if let Some(agent) = &e.agent {
            // Another model counts otherwise, and another system prompt is another prompt.
            self.counted = None;
            self.agent = Arc::clone(agent);
        }
        if let Some(limits) = &e.limits {
            self.limits = Arc::clone(limits);
        }
        if self.pending.is_empty()
            && let Some(parts) = self.queue.pop_front()
        {
            self.pending.push(Pending {
                nudge: false,
                parts,
            });
        }
        self.next_loop = e.id.0.saturating_add(1);
        self.active = Some(LoopRun {
            id: e.id,
            started_at: e.at,
            deadline_at: self.limits.deadline_ms.map(|ms| e.at.plus(ms)),
            traceparent: e.traceparent.as_deref().map(Arc::from),
            totals: crate::usage::Totals::default(),
            model: None,
            reserved: None,
            reply: Arc::default(),
            said: Arc::default(),
            tools: Vec::new(),
            asked: 0,
            per_name: Arc::default(),
            cuts: 0,
            cut_at: None,
            model_index: 0,
            paused: None,
            paused_at: None,
            paused_ms: 0,
            copied_ms: None,
            over_tool_budget: false,
            asked_at: None,
            progress: Progress::default(),
            wrapped_up: false,
            landing: None,
            tools_granted: None,
            shared_left: Arc::default(),
            wall_charged_ms: 0,
            warned: Warned::default(),
            compacted_at: None,
            fills: 0,
            at_most: None,
        });
    }

    fn reserving(&mut self, e: &ModelCallReserving) {
        self.next_call = self.next_call.max(e.call.0.saturating_add(1));
        let joining = self.pending.len();
        let Some(active) = &mut self.active else {
            return;
        };
        let model = active.model.take().filter(|model| model.call == e.call);
        let model = model.unwrap_or(ModelCall {
            call: e.call,
            attempt: e.attempt,
            failures: 0,
            first_at: None,
            joining,
            overflowed: false,
            recap: e.recap,
            phase: ModelPhase::Reserving,
        });
        active.model = Some(ModelCall {
            attempt: e.attempt,
            phase: ModelPhase::Reserving,
            ..model
        });
    }

    fn model_started(&mut self, e: &ModelCallStarted) {
        self.next_call = self.next_call.max(e.call.0.saturating_add(1));
        if let Some(ask) = e.recap {
            return self.recap_started(e, ask);
        }
        let Some(active) = &mut self.active else {
            return;
        };
        let before = active.model.take().filter(|model| model.call == e.call);
        if e.attempt == 1 {
            let joining = before
                .as_ref()
                .map_or(self.pending.len(), |model| model.joining);
            for message in self.pending.drain(..joining.min(self.pending.len())) {
                if !message.nudge {
                    active.progress.told_new();
                }
                self.conversation.push(Turn::User(message.parts), self.seq);
            }
            active.totals.steps = active.totals.steps.saturating_add(1);
            self.totals.steps = self.totals.steps.saturating_add(1);
        }
        for totals in [&mut active.totals, &mut self.totals] {
            totals.model_calls = totals.model_calls.saturating_add(1);
        }
        active.model = Some(ModelCall {
            call: e.call,
            attempt: e.attempt,
            failures: before.as_ref().map_or(0, |model| model.failures),
            overflowed: before.as_ref().is_some_and(|model| model.overflowed),
            first_at: before.and_then(|model| model.first_at).or(Some(e.at)),
            joining: 0,
            recap: None,
            phase: ModelPhase::Running {
                max_output_tokens: e.max_output_tokens,
                bound: e.bound,
                bytes: self.conversation.bytes(),
                margin: self.conversation.margin(),
                tool_bytes: self.tools.content_bytes(),
                tool_changes: self.tool_changes,
            },
        });
        let at_most = Reservation {
            input: self.prompt_bound(),
            output: e.max_output_tokens,
        };
        if let Some(active) = &mut self.active {
            active.at_most = active.reserved.is_none().then_some(at_most);
        }
    }

    fn model_completed(&mut self, e: &ModelCallCompleted) {
        if e.recap {
            return self.recap_completed(e);
        }
        let first_call = CallId(self.next_call);
        let asked = e
            .parts
            .iter()
            .filter(|part| matches!(part, Part::ToolCall(_)))
            .count();
        self.next_call = self
            .next_call
            .saturating_add(u32::try_from(asked).unwrap_or(u32::MAX));
        let model = self.active.as_mut().and_then(|active| active.model.take());
        let cut_at = model.as_ref().and_then(cap_of_shared);
        self.count_prompt(e.usage, model);
        let Some(active) = &mut self.active else {
            return;
        };
        active.reply = Arc::clone(&e.parts);
        active.asked = asked;
        active.over_tool_budget = false;
        active.progress.replied(&e.parts);
        active.cuts = if e.stop == StopReason::MaxTokens {
            active.cuts + 1
        } else {
            0
        };
        active.cut_at = cut_at.filter(|_| e.stop == StopReason::MaxTokens);
        active.fills = if e.stop == StopReason::ContextFull {
            active.fills + 1
        } else {
            0
        };
        if e.parts
            .iter()
            .any(|part| matches!(part, Part::Text(text) if !text.is_empty()))
        {
            active.said = Arc::clone(&e.parts);
        }
        if !e.parts.is_empty() {
            let parts = Arc::clone(&e.parts);
            let turn = Turn::Assistant { parts, first_call };
            self.conversation.push(turn, self.seq);
        }
        self.charge(e);
    }

    /// Counts what a provider reported of a reply for which nothing was reserved: else its settlement
    /// says it.
    fn charge(&mut self, e: &ModelCallCompleted) {
        let Some(active) = self.active.as_mut().filter(|a| a.reserved.is_none()) else {
            return;
        };
        for totals in [&mut active.totals, &mut self.totals] {
            let cost = e.cost_micro_usd.filter(|_| e.usage.is_some()).unwrap_or(0);
            totals.cost_micro_usd = totals.cost_micro_usd.saturating_add(cost);
            totals.usage = totals.usage.plus(&e.usage.unwrap_or_default());
        }
    }

    fn model_failed(&mut self, e: &ModelCallFailed) {
        let Some(active) = &mut self.active else {
            return;
        };
        if let Some(usage) = e.usage.filter(|_| active.reserved.is_none()) {
            let cost = e.cost_micro_usd.unwrap_or(0);
            for totals in [&mut active.totals, &mut self.totals] {
                totals.usage = totals.usage.plus(&usage);
                totals.cost_micro_usd = totals.cost_micro_usd.saturating_add(cost);
            }
        }
        let Some(mut model) = active.model.take().filter(|model| model.call == e.call) else {
            return;
        };
        let Some(until) = e.retry_at else { return };
        model.attempt = e.attempt.saturating_add(1);
        model.failures = model.failures.saturating_add(1);
        model.phase = ModelPhase::Backoff { until };
        if let Some(index) = e.fallback {
            active.model_index = index;
            model.failures = 0;
            self.counted = None;
        }
        active.model = Some(model);
    }

    fn settled(&mut self, e: &BudgetSettled) {
        self.next_call = self.next_call.max(e.call.0.saturating_add(1));
        let Some(active) = &mut self.active else {
            return;
        };
        let was_made = active.reserved.take().is_some();
        active.at_most = None;
        active.tools_granted = None;
        active.shared_left = Arc::default();
        active.wall_charged_ms = active.wall_charged_ms.saturating_add(e.wall_ms);
        let beside = Beside {
            tool_calls: e.tool_calls,
            wall_ms: e.wall_ms,
        };
        if !self.agent.budgets.is_empty() {
            let settlement = match was_made {
                // Also of an attempt that the log knows nothing of any more.
                _ if e.estimated => Settlement::Whole(beside),
                true => {
                    let used = budget::used(&e.usage, e.cost_micro_usd);
                    Settlement::Used(used.with(beside))
                }
                false if e.wall_ms > 0 => Settlement::Time {
                    agent: Arc::clone(&self.agent),
                    wall_ms: e.wall_ms,
                },
                false => Settlement::Released,
            };
            self.settling.insert((e.call, e.attempt), settlement);
        }
        for totals in [&mut active.totals, &mut self.totals] {
            totals.usage = totals.usage.plus(&e.usage);
            totals.cost_micro_usd = totals.cost_micro_usd.saturating_add(e.cost_micro_usd);
            if e.estimated {
                totals.estimated = totals.estimated.saturating_add(e.usage.total());
            }
        }
    }

    fn loop_ended(&mut self, e: &LoopEnded) {
        let Some(active) = self.active.take() else {
            return;
        };
        if active.model_index != 0 {
            // The next loop calls the agent's own model again, which counts otherwise.
            self.counted = None;
        }
        let most = active.copied_ms.unwrap_or(u64::MAX);
        let ran = e.totals.wall_ms.min(most);
        self.totals.wall_ms = self.totals.wall_ms.saturating_add(ran);
        self.pending.retain(|message| !message.nudge);
        let ended = Arc::make_mut(&mut self.ended);
        ended.push_back(EndedLoop {
            id: e.id,
            started_at: active.started_at,
            ended_at: e.at,
            reason: e.reason.clone(),
            text: e.text.clone(),
            totals: e.totals,
        });
        if ended.len() > ENDED_KEPT {
            ended.pop_front();
        }
    }

    fn model_mut(&mut self, call: CallId) -> Option<&mut ModelCall> {
        self.active
            .as_mut()?
            .model
            .as_mut()
            .filter(|model| model.call == call)
    }
}

/// The output cap of a call that runs, where a shared budget set it.
fn cap_of_shared(model: &ModelCall) -> Option<u64> {
    match model.phase {
        ModelPhase::Running {
            max_output_tokens,
            bound: budget::Bound::NamedBudget,
            ..
        } => Some(max_output_tokens),
        ModelPhase::Running { .. }
        | ModelPhase::Reserving
        | ModelPhase::Backoff { .. }
        | ModelPhase::Abandoned => None,
    }
}
