//! The machine under test: the core, or the core with one fault wrapped around it.
//!
//! The core's code has no hook for this. A fault edits what goes into `decide` or comes out of it,
//! what `apply` is shown, or what `wanted` says; the oracles judge the result only.

use std::{collections::BTreeSet, sync::Arc};

use loopwright_core::{
    EffectKey, Entry, Event, Input, Rejection, State, What,
    agent::EffectClass,
    context::Recap,
    event::{self, Origin},
    ids::{LoopId, Seq, Timestamp},
    input::{Mode, TimerWhy},
    message::{Part, ToolOutput},
    outcome::{EndReason, LookupAnswer, StopReason},
    state::{ModelPhase, Pending, ToolPhase},
    usage::Usage,
};

use super::mutant::Mutant;

mod control;
mod landing;
mod people;
mod time;

/// The core, with at most one fault.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Machine(pub(crate) Option<Mutant>);

impl Machine {
    pub(crate) fn is(self, mutant: Mutant) -> bool {
        self.0 == Some(mutant)
    }

    pub(crate) fn decide(self, state: &State, input: Input) -> Result<Vec<Event>, Rejection> {
        let Some(mutant) = self.0 else {
            return loopwright_core::decide(state, input);
        };
        let (mut seen, mut told) = (state.clone(), input.clone());
        tamper_terms(mutant, &mut seen, &input.what);
        people::tamper_terms(mutant, &mut seen, &input.what);
        landing::tamper_terms(mutant, &mut seen, &input.what);
        control::tamper_terms(mutant, &mut seen, &input.what);
        time::tamper_terms(mutant, &mut seen);
        tamper_input(mutant, &seen, &mut told.what);
        people::tamper_input(mutant, &mut told.what);
        time::tamper_input(mutant, &mut told.what);
        let mut events = loopwright_core::decide(&seen, told)?;
        tamper_events(mutant, state, &input, &mut events);
        people::tamper_events(mutant, &mut events);
        control::tamper_events(mutant, &mut events);
        time::tamper_events(mutant, &mut events);
        Ok(events)
    }

    pub(crate) fn apply(self, state: &mut State, seq: Seq, entry: &Entry) {
        match self.0 {
            Some(Mutant::UnknownToldAsSuccess) => {
                let mut shown = entry.clone();
                shown.events.iter_mut().for_each(pretend_success);
                state.apply_entry(seq, &shown);
            }
            Some(Mutant::ResultsJoinedEarly) => {
                let ends = |e: &Event| matches!(e, Event::ToolCallCompleted(_));
                if entry.events.iter().any(ends) {
                    end_all_tools(state);
                }
                state.apply_entry(seq, entry);
            }
            Some(mutant) if people::shows_otherwise(mutant) => {
                let before = state.clone();
                let mut shown = entry.clone();
                people::tamper_shown(mutant, &before, &mut shown.events);
                state.apply_entry(seq, &shown);
                people::tamper_fold(mutant, &before, state, entry);
            }
            Some(mutant) if time::shows_otherwise(mutant) => {
                let mut shown = entry.clone();
                time::tamper_shown(mutant, state, &mut shown.events);
                state.apply_entry(seq, &shown);
            }
            Some(mutant) if control::shows_otherwise(mutant) => {
                let before = state.clone();
                let mut shown = entry.clone();
                control::tamper_shown(mutant, &before, &mut shown.events);
                state.apply_entry(seq, &shown);
            }
            Some(mutant) => {
                state.apply_entry(seq, entry);
                entry
                    .events
                    .iter()
                    .for_each(|e| tamper_fold(mutant, state, e));
            }
            None => state.apply_entry(seq, entry),
        }
    }

    pub(crate) fn wanted(self, state: &State) -> BTreeSet<EffectKey> {
        let mut keys = if self.is(Mutant::CopyIsDriven) {
            let mut driven = state.clone();
            driven.copied = false;
            loopwright_core::wanted(&driven)
        } else if self.is(Mutant::RetriesWhileItRests) {
            loopwright_core::wanted(&control::unpaused(state))
        } else {
            loopwright_core::wanted(state)
        };
        keys.retain(|key| match key {
            EffectKey::Settle { .. } => !self.is(Mutant::SettlementForgotten),
            EffectKey::Timer {
                why: TimerWhy::Deadline(_),
                ..
            } => !self.is(Mutant::DeadlineForgotten),
            EffectKey::Timer {
                why: TimerWhy::WallTime(_),
                ..
            } => !self.is(Mutant::WallTimeForgotten),
            EffectKey::Timer {
                why: TimerWhy::Approval(_),
                ..
            } => !self.is(Mutant::ApprovalNeverExpires),
            EffectKey::Timer {
                why: TimerWhy::Idle(_),
                ..
            } => !self.is(Mutant::IdleForgotten),
            EffectKey::Model { .. }
            | EffectKey::Tool { .. }
            | EffectKey::Lookup { .. }
            | EffectKey::Reserve { .. }
            | EffectKey::Timer { .. } => true,
        });
        keys
    }
}

/// The limits and promises that the faulty machine believes in.
fn tamper_terms(mutant: Mutant, state: &mut State, what: &What) {
    let limits = Arc::make_mut(&mut state.limits);
    let attaches = matches!(what, What::Attach { .. });
    let fails = matches!(what, What::ToolFailed { .. } | What::TimerFired(_));
    if mutant == Mutant::ParallelCapIgnored {
        limits.max_parallel_tool_calls = 1_000;
    } else if mutant == Mutant::PerNameCapIgnored {
        limits.max_tool_calls_per_name = None;
    } else if mutant == Mutant::SharedToolCapIgnored {
        if let Some(active) = &mut state.active {
            active.tools_granted = None;
        }
    } else if mutant == Mutant::MaxStepsIgnored {
        limits.max_steps = u32::MAX;
    } else if mutant == Mutant::RetryIgnoresMaxAttempts {
        limits.retry.max_attempts = u32::MAX;
    } else if mutant == Mutant::RetentionIgnored {
        promise(state, |class| match class {
            EffectClass::Deduplicated { .. } => EffectClass::Idempotent,
            EffectClass::ReadOnly | EffectClass::Idempotent | EffectClass::AtMostOnce => class,
        });
    } else if (mutant == Mutant::UnsafeRetriedAfterCrash && attaches)
        || (mutant == Mutant::UnsafeRetriedAfterFailure && fails)
    {
        promise(state, |_| EffectClass::Idempotent);
    } else if mutant == Mutant::TimerFiresEarly && matches!(what, What::TimerFired(_)) {
        every_timer_is_due(state);
    }
}

fn promise(state: &mut State, class: impl Fn(EffectClass) -> EffectClass) {
    let Some(active) = &mut state.active else {
        return;
    };
    for tool in &mut active.tools {
        tool.effect = class(tool.effect);
    }
}

fn every_timer_is_due(state: &mut State) {
    let Some(active) = &mut state.active else {
        return;
    };
    let until = Timestamp(0);
    active.deadline_at = active.deadline_at.map(|_| until);
    if let Some(model) = &mut active.model
        && matches!(model.phase, ModelPhase::Backoff { .. })
    {
        model.phase = ModelPhase::Backoff { until };
    }
    for tool in &mut active.tools {
        match &mut tool.phase {
            ToolPhase::Backoff { until: due }
            | ToolPhase::Held {
                until: Some(due), ..
            } => *due = until,
            ToolPhase::Held { until: None, .. }
            | ToolPhase::Waiting
            | ToolPhase::Running
            | ToolPhase::InDoubt { .. }
            | ToolPhase::Asking
            | ToolPhase::Ended(_) => {}
        }
    }
}

fn tamper_input(mutant: Mutant, state: &State, what: &mut What) {
    match (mutant, what) {
        (Mutant::SharedWarningDropped, What::BudgetSettled { warnings, .. }) => warnings.clear(),
        (Mutant::SharedLeftNotTold, What::BudgetGranted { left, .. }) => *left = Arc::default(),
        (Mutant::StaleAttemptAccepted, what) => take_for_current(state, what),
        (Mutant::DuplicateRequestExecutedTwice, What::SendMessage(message)) => {
            message.by.request_id.clear();
        }
        (Mutant::DuplicateRequestExecutedTwice, What::StartLoop(start)) => {
            start.by.request_id.clear();
        }
        (
            Mutant::DuplicateRequestExecutedTwice,
            What::ResolveApproval { by, .. } | What::ResolveUnknown { by, .. },
        ) => by.request_id.clear(),
        (Mutant::InDoubtTreatedAsCompleted, What::LookedUp { answer, .. }) => {
            *answer = LookupAnswer::Completed(Arc::default());
        }
        (Mutant::AttachKeepsTheEpoch, What::Attach { epoch, .. }) => *epoch = state.epoch + 1,
        (Mutant::RetryAfterIgnored, What::ModelFailed { failure, .. }) => {
            failure.retry_after_ms = None;
        }
        (Mutant::InterruptKeepsTheCall, What::SendMessage(message))
            if message.mode == Mode::Interrupt =>
        {
            message.mode = Mode::Steer;
        }
        (Mutant::ToolOfCutReplyDispatched, What::ModelCompleted { reply, .. }) => {
            let asks = |part: &Part| matches!(part, Part::ToolCall(_));
            if reply.stop == StopReason::MaxTokens && reply.parts.iter().any(asks) {
                reply.stop = StopReason::ToolUse;
            }
        }
        (Mutant::InvalidArgumentsDispatched, What::ModelCompleted { reply, .. }) => {
            reply.verdicts.iter_mut().for_each(|v| v.invalid = None);
        }
        _ => {}
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "only outcomes that name an attempt can be stale"
)]
fn take_for_current(state: &State, what: &mut What) {
    let Some(active) = &state.active else {
        return;
    };
    match what {
        What::ModelCompleted { call, attempt, .. } | What::ModelFailed { call, attempt, .. } => {
            if let Some(model) = active.model.as_ref().filter(|model| model.call == *call) {
                *attempt = model.attempt;
            }
        }
        What::ToolCompleted { call, attempt, .. } | What::ToolFailed { call, attempt, .. } => {
            if let Some(tool) = active.tool(*call) {
                *attempt = tool.attempt;
            }
        }
        _ => {}
    }
}

fn tamper_events(mutant: Mutant, state: &State, input: &Input, events: &mut Vec<Event>) {
    let abandons = |e: &Event| matches!(e, Event::ModelCallAbandoned(_));
    let settles = |e: &Event| matches!(e, Event::BudgetSettled(_));
    let completes = matches!(input.what, What::ModelCompleted { .. });
    if (mutant == Mutant::LostSettlement && completes)
        || (mutant == Mutant::ReservationKeptOnAbandon && events.iter().any(abandons))
    {
        events.retain(|e| !settles(e));
    } else if mutant == Mutant::BudgetNotReserved {
        events.retain(|e| !matches!(e, Event::BudgetReserved(_)));
    } else if mutant == Mutant::RecapNotReserved && events.iter().any(starts_recap) {
        events.retain(|e| !matches!(e, Event::BudgetReserved(_)));
    } else if mutant == Mutant::RecapWithoutItsCompaction {
        events.retain(|e| !matches!(e, Event::ContextCompacted(e) if e.by_model));
    } else if mutant == Mutant::QueueStartsAfterCancel && !state.queue.is_empty() {
        start_queued(state, events);
    }
    let attaches = matches!(input.what, What::Attach { .. });
    for event in events {
        tamper_event(mutant, attaches, state, &input.what, event);
    }
}

fn tamper_event(mutant: Mutant, attaches: bool, state: &State, what: &What, event: &mut Event) {
    let lower = |attempt: &mut u32| {
        if attaches && *attempt > 1 {
            *attempt -= 1;
        }
    };
    match (mutant, event) {
        (Mutant::AttachKeepsTheEpoch, Event::DriverAttached(e)) => e.epoch = state.epoch,
        (Mutant::ModelAttemptNotRaised, Event::ModelCallStarted(e)) => lower(&mut e.attempt),
        (Mutant::ModelAttemptNotRaised, Event::ModelCallReserving(e)) => lower(&mut e.attempt),
        (Mutant::ModelAttemptNotRaised, Event::BudgetReserved(e)) => lower(&mut e.attempt),
        (Mutant::SpentIsGivenBack, Event::BudgetSettled(e))
            if matches!(what, What::BudgetSpent { .. }) =>
        {
            e.estimated = false;
        }
        (Mutant::MoneyForgotten, Event::BudgetSettled(e)) if e.estimated => e.cost_micro_usd = 0,
        (Mutant::FailureCostsNothing, Event::BudgetSettled(e)) => {
            if matches!(what, What::ModelFailed { .. }) {
                e.usage = Usage::default();
            }
        }
        (Mutant::RecapOfSomethingElse, Event::ContextCompacted(e)) if e.by_model => {
            let recap = e.recap.as_deref().cloned().unwrap_or_default();
            let written = Some("nothing of note".to_owned());
            e.recap = Some(Arc::new(Recap { written, ..recap }));
        }
        (Mutant::ToolOfCutReplyDispatched, Event::ModelCallCompleted(e)) => {
            if let What::ModelCompleted { reply, .. } = what {
                e.stop = reply.stop.clone();
            }
        }
        _ => {}
    }
}

fn start_queued(state: &State, events: &mut Vec<Event>) {
    let cancelled = events.iter().find_map(|event| {
        if let Event::LoopEnded(e) = event {
            matches!(e.reason, EndReason::Cancelled { .. }).then_some(e.at)
        } else {
            None
        }
    });
    if let Some(at) = cancelled {
        let id = LoopId(state.next_loop);
        events.push(Event::LoopStarted(event::LoopStarted {
            id,
            at,
            traceparent: None,
            agent: None,
            limits: None,
        }));
    }
}

fn starts_recap(event: &Event) -> bool {
    matches!(event, Event::ModelCallStarted(e) if e.recap.is_some())
}

fn pretend_success(event: &mut Event) {
    if let Event::ToolCallUnknown(e) = event {
        let output = ToolOutput {
            text: "done".to_owned(),
            ..ToolOutput::default()
        };
        *event = Event::ToolCallCompleted(event::ToolCallCompleted {
            call: e.call,
            attempt: 1,
            output: Arc::new(output),
        });
    }
}

fn end_all_tools(state: &mut State) {
    if let Some(active) = &mut state.active {
        for tool in &mut active.tools {
            if !tool.phase.has_ended() {
                tool.phase = ToolPhase::Ended(Arc::default());
            }
        }
    }
}

fn tamper_fold(mutant: Mutant, state: &mut State, event: &Event) {
    if let (Mutant::SteerJoinsTwice, Event::MessageAdded(e)) = (mutant, event)
        && e.origin == Origin::Steer
    {
        state.pending.push(Pending {
            nudge: false,
            parts: Arc::clone(&e.parts),
        });
    }
    if mutant == Mutant::RecapIsAStep
        && starts_recap(event)
        && let Some(active) = &mut state.active
    {
        active.totals.steps += 1;
    }
    if let (Mutant::MessageLostOnCancel, Event::LoopEnded(e)) = (mutant, event)
        && matches!(e.reason, EndReason::Cancelled { .. })
    {
        state.pending.clear();
    }
}
