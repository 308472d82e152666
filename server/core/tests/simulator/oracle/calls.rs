//! Calls: every one is licensed once per attempt, within the caps, and ends exactly once.

use std::collections::{BTreeMap, BTreeSet};

use loopwright_core::{
    Cause, EffectKey, Entry, Event,
    agent::{Limits, UnknownPolicy},
    event::{
        ModelCallCompleted, ModelCallFailed, ModelCallStarted, ToolCallFailed, ToolCallStarted,
        UnknownResolution,
    },
    ids::{Attempt, CallId, Timestamp},
    message::{CallPart, Part, Parts},
    outcome::{ModelFailureKind, StopReason},
};

use super::{Violation, check, people::People};
use crate::simulator::sidecar::Sidecar;

/// How a tool call ended, as far as the model must be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Completed,
    /// A person says that it ran.
    Said,
    Otherwise,
}

#[derive(Default)]
pub(super) struct Calls {
    tools: BTreeMap<CallId, Tool>,
    licences: BTreeSet<EffectKey>,
    last_id: u32,
    /// The model call, the attempt that was started last, and whether it runs.
    model: Option<(CallId, Attempt, bool)>,
    failures: u32,
    retry_at: Timestamp,
    /// Whether the provider has found its prompt too long, and a smaller one was sent.
    overflowed: bool,
    /// Replies that the end of the window cut, in a row.
    fills: u32,
    steps: u32,
    per_name: BTreeMap<String, u32>,
    reply: Parts,
    cut: bool,
}

struct Tool {
    part: CallPart,
    cut: bool,
    attempt: Attempt,
    failures: u32,
    retry_at: Timestamp,
    end: Option<End>,
    /// Whether it takes one of the slots of parallel calls.
    busy: bool,
}

impl Calls {
    pub(super) fn model_runs(&self) -> bool {
        self.model.is_some_and(|(_, _, runs)| runs)
    }

    pub(super) fn licensed(&self, key: &EffectKey) -> bool {
        key.is_timer() || self.licences.contains(key)
    }

    pub(super) fn end(&self, call: CallId) -> Option<End> {
        self.tools.get(&call)?.end
    }

    pub(super) fn event(
        &mut self,
        at: Timestamp,
        entry: &Entry,
        event: &Event,
        limits: &Limits,
        sidecar: &Sidecar,
    ) -> Result<(), Violation> {
        #[expect(clippy::wildcard_enum_match_arm, reason = "the rest is no call")]
        match event {
            Event::LoopStarted(_) => {
                (self.steps, self.failures, self.fills) = (0, 0, 0);
                self.per_name.clear();
                Ok(())
            }
            Event::ModelCallReserving(e) => {
                let (call, attempt) = (e.call, e.attempt);
                self.licences.insert(EffectKey::Reserve { call, attempt });
                self.fresh(call, attempt == 1)?;
                self.is_due(at, call)
            }
            Event::ModelCallStarted(e) => self.model_started(at, e, limits),
            Event::ModelCallCompleted(e) if e.recap => self.model_ended(e.call, e.attempt),
            Event::ModelCallCompleted(e) => self.model_completed(e),
            Event::ModelCallFailed(e) => self.model_failed(at, entry, e, limits),
            Event::ModelCallAbandoned(e) => {
                if let Some((call, attempt, runs)) = &mut self.model
                    && *call == e.call
                {
                    // It may have been asked for only, and never started.
                    *attempt = e.attempt.max(*attempt);
                    *runs = false;
                }
                Ok(())
            }
            Event::BudgetSettled(e) => {
                let (call, attempt) = (e.call, e.attempt);
                let new = self.licences.insert(EffectKey::Settle { call, attempt });
                check(new, "settled_once", || format!("{call}/{attempt} again"))
            }
            Event::ToolCallRequested(e) => self.requested(e.call, e.index),
            Event::ToolCallStarted(e) => self.tool_started(at, e, limits),
            Event::ToolCallFailed(e) => self.tool_failed(at, entry, e, limits),
            Event::ToolCallInDoubt(e) => {
                self.licences.insert(EffectKey::Lookup { call: e.call });
                Ok(())
            }
            Event::ToolCallCompleted(e) => {
                check(sidecar.gave(e.call, &e.output), "completed_ran", || {
                    format!("{} completed with what no sidecar gave", e.call)
                })?;
                self.ends(e.call, End::Completed)
            }
            Event::ToolCallRejected(e) => self.ends(e.call, End::Otherwise),
            Event::ToolCallUnknown(e) if e.policy == UnknownPolicy::Ask => {
                self.idles(e.call);
                Ok(())
            }
            Event::UnknownResolved(e) if e.resolution == UnknownResolution::RunAgain => Ok(()),
            Event::UnknownResolved(e) => {
                let happened = e.resolution == UnknownResolution::Happened;
                let end = if happened { End::Said } else { End::Otherwise };
                self.ends(e.call, end)
            }
            Event::ToolCallUnknown(e) => self.ends(e.call, End::Otherwise),
            Event::ToolCallCancelled(e) => self.ends(e.call, End::Otherwise),
            Event::LoopEnded(_) => self.all_ended(),
            _ => Ok(()),
        }
    }

    /// No id is given twice.
    fn fresh(&mut self, call: CallId, first: bool) -> Result<(), Violation> {
        if self.model.is_some_and(|(known, ..)| known == call) {
            return Ok(());
        }
        let is_new = first && call.0 > self.last_id;
        self.last_id = call.0;
        self.model = Some((call, 0, false));
        self.failures = 0;
        self.overflowed = false;
        self.retry_at = Timestamp(0);
        check(is_new, "ids_never_repeat", || format!("{call} again"))
    }

    /// A backoff is waited for, once.
    fn is_due(&mut self, at: Timestamp, call: CallId) -> Result<(), Violation> {
        let due = std::mem::take(&mut self.retry_at);
        check(at >= due, "backoff", || {
            format!("{call} at {at:?}, due at {due:?}")
        })
    }

    fn model_started(
        &mut self,
        at: Timestamp,
        e: &ModelCallStarted,
        limits: &Limits,
    ) -> Result<(), Violation> {
        let (call, attempt) = (e.call, e.attempt);
        self.fresh(call, true)?;
        let before = self.model.map_or(0, |(_, attempt, _)| attempt);
        check(attempt == before + 1, "attempts_rise", || {
            format!("{call} attempt {attempt} after {before}")
        })?;
        self.is_due(at, call)?;
        check(self.fills <= 1, "window_full", || {
            format!("{call} after {} replies cut by the window", self.fills)
        })?;
        self.steps += u32::from(attempt == 1 && e.recap.is_none());
        let is_begun = attempt > 1;
        check(
            is_begun || self.steps <= limits.max_steps,
            "max_steps",
            || format!("step {} of {}", self.steps, limits.max_steps),
        )?;
        self.model = Some((call, attempt, true));
        let new = self.licences.insert(EffectKey::Model { call, attempt });
        check(new, "attempts_rise", || format!("{call}/{attempt} again"))
    }

    fn model_completed(&mut self, e: &ModelCallCompleted) -> Result<(), Violation> {
        self.reply = e.parts.clone();
        self.fills = match e.stop {
            StopReason::ContextFull => self.fills + 1,
            StopReason::EndTurn
            | StopReason::ToolUse
            | StopReason::MaxTokens
            | StopReason::StopSequence
            | StopReason::Refusal
            | StopReason::Pause
            | StopReason::ContentFilter
            | StopReason::Other(_) => 0,
        };
        self.cut = match e.stop {
            StopReason::MaxTokens
            | StopReason::Refusal
            | StopReason::ContentFilter
            | StopReason::ContextFull => true,
            StopReason::EndTurn
            | StopReason::ToolUse
            | StopReason::StopSequence
            | StopReason::Pause
            | StopReason::Other(_) => false,
        };
        self.model_ended(e.call, e.attempt)
    }

    fn model_ended(&mut self, call: CallId, attempt: Attempt) -> Result<(), Violation> {
        let ran = self.model == Some((call, attempt, true));
        self.model = Some((call, attempt, false));
        check(ran, "one_end", || format!("{call}/{attempt} did not run"))
    }

    fn model_failed(
        &mut self,
        at: Timestamp,
        entry: &Entry,
        e: &ModelCallFailed,
        limits: &Limits,
    ) -> Result<(), Violation> {
        self.model_ended(e.call, e.attempt)?;
        self.failures += 1;
        let Some(retry_at) = e.retry_at else {
            return Ok(());
        };
        self.retry_at = retry_at;
        if e.fallback.is_some() {
            self.failures = 0;
            return Ok(());
        }
        let Cause::Model { retry_after_ms, .. } = entry.cause else {
            return Err(Violation::new("cause", entry.cause.label()));
        };
        let floor = retry_after_ms.unwrap_or(0);
        check(retry_at >= at.plus(floor), "retry_after", || {
            format!("{} waits less than {floor} ms", e.call)
        })?;
        if e.kind == ModelFailureKind::ContextTooLong {
            // What is sent then is another prompt, whatever attempts are left.
            let again = std::mem::replace(&mut self.overflowed, true);
            return check(!again, "overflow_once", || {
                format!("{} is made smaller again", e.call)
            });
        }
        check(
            self.failures < limits.retry.max_attempts,
            "max_attempts",
            || format!("{} is tried again after {} failures", e.call, self.failures),
        )
    }

    fn requested(&mut self, call: CallId, index: u32) -> Result<(), Violation> {
        let Some(Part::ToolCall(part)) = self.reply.get(index as usize) else {
            return Err(Violation::new(
                "one_end",
                format!("{call} was not asked for"),
            ));
        };
        let tool = Tool {
            part: part.clone(),
            cut: self.cut,
            attempt: 0,
            failures: 0,
            retry_at: Timestamp(0),
            end: None,
            busy: false,
        };
        self.tools.insert(call, tool);
        let is_new = call.0 > self.last_id;
        self.last_id = call.0;
        check(is_new, "ids_never_repeat", || format!("{call} again"))
    }

    fn tool_started(
        &mut self,
        at: Timestamp,
        e: &ToolCallStarted,
        limits: &Limits,
    ) -> Result<(), Violation> {
        let (call, attempt) = (e.call, e.attempt);
        let Some(tool) = self.tools.get_mut(&call) else {
            return Err(Violation::new(
                "one_end",
                format!("{call} was not requested"),
            ));
        };
        check(tool.end.is_none(), "one_end", || {
            format!("{call} starts after its end")
        })?;
        check(!tool.cut, "cut_reply", || {
            format!("{call} is of a cut reply")
        })?;
        let sound = tool.part.tool != "t__gone" && !tool.part.arguments.contains("bad");
        check(sound, "checked_first", || {
            format!("{call} is {:?}", tool.part)
        })?;
        check(attempt == tool.attempt + 1, "attempts_rise", || {
            format!("{call} attempt {attempt} after {}", tool.attempt)
        })?;
        check(at >= tool.retry_at, "backoff", || {
            format!("{call} was not due")
        })?;
        // One that has its slot keeps it, wherever the cap has moved.
        let takes_slot = !std::mem::replace(&mut tool.busy, true);
        tool.attempt = attempt;
        tool.retry_at = Timestamp(0);
        if attempt == 1 {
            let count = self.per_name.entry(tool.part.tool.clone()).or_default();
            *count += 1;
            let within = limits
                .max_tool_calls_per_name
                .is_none_or(|limit| *count <= limit);
            check(within, "per_name_cap", || format!("{call} is one too many"))?;
        }
        let busy = self.tools.values().filter(|tool| tool.busy).count();
        check(
            !takes_slot || busy <= limits.max_parallel_tool_calls as usize,
            "parallel_cap",
            || format!("{busy} at once with {call}"),
        )?;
        let new = self.licences.insert(EffectKey::Tool { call, attempt });
        check(new, "attempts_rise", || format!("{call}/{attempt} again"))
    }

    fn tool_failed(
        &mut self,
        at: Timestamp,
        entry: &Entry,
        e: &ToolCallFailed,
        limits: &Limits,
    ) -> Result<(), Violation> {
        let Some(retry_at) = e.retry_at else {
            return self.ends(e.call, End::Otherwise);
        };
        let Some(tool) = self.tools.get_mut(&e.call) else {
            return Err(Violation::new(
                "one_end",
                format!("{} was not requested", e.call),
            ));
        };
        tool.retry_at = retry_at;
        if matches!(entry.cause, Cause::Lookup { .. }) && retry_at == at {
            // It was lost with its driver, which is no failure of its own.
            return Ok(());
        }
        tool.failures += 1;
        if let Cause::Tool { retry_after_ms, .. } = entry.cause {
            let floor = retry_after_ms.unwrap_or(0);
            check(retry_at >= at.plus(floor), "retry_after", || {
                format!("{} waits less than {floor} ms", e.call)
            })?;
        }
        check(
            tool.failures < limits.retry.max_attempts,
            "max_attempts",
            || format!("{} is tried again after {} failures", e.call, tool.failures),
        )
    }

    fn ends(&mut self, call: CallId, end: End) -> Result<(), Violation> {
        let Some(tool) = self.tools.get_mut(&call) else {
            return Err(Violation::new(
                "one_end",
                format!("{call} was not requested"),
            ));
        };
        tool.busy = false;
        let before = tool.end.replace(end);
        check(before.is_none(), "one_end", || format!("{call} ends again"))
    }

    fn all_ended(&self) -> Result<(), Violation> {
        let open = self.tools.iter().find(|(_, tool)| tool.end.is_none());
        check(open.is_none(), "one_end", || {
            format!("{:?} has no end", open.map(|(call, _)| call))
        })?;
        check(!self.model_runs(), "one_end", || {
            format!("{:?} still runs", self.model)
        })
    }

    /// Whatever is open waits for a person, or for its loop to go on.
    pub(super) fn finish(&self, people: &People, rests: bool) -> Result<(), Violation> {
        let open = |(call, tool): &(&CallId, &Tool)| tool.end.is_none() && !people.waits(**call);
        let open = self.tools.iter().find(open);
        let ended = open.is_none() || rests;
        check(ended && !self.model_runs(), "one_end", || {
            format!("{:?} has no end", open.map(|(call, _)| call))
        })
    }

    fn idles(&mut self, call: CallId) {
        if let Some(tool) = self.tools.get_mut(&call) {
            tool.busy = false;
        }
    }
}
