//! How loops come down: what their models are told and when, and that a last call is the last.

use std::collections::BTreeSet;

use loopwright_core::{
    Event, State,
    agent::Limits,
    agent::UnknownPolicy,
    event::{MessageAdded, ModelCallCompleted, Nudge, Origin, UnknownResolution},
    ids::CallId,
    message::{Part, Parts, text_of},
    outcome::EndReason,
};

use super::{Violation, check};

/// Steps without anything new before the last one of them that the model is told so.
const STEPS_BEFORE: u32 = 4;

/// The books of the running loop, and of the messages that wait.
#[derive(Default)]
pub(super) struct Landing {
    run: Run,
    /// Messages of clients that no call has taken up.
    waiting: usize,
    /// The call that is reserving, and how many of them join it.
    reserving: Option<(CallId, usize)>,
}

#[derive(Default)]
struct Run {
    steps: u32,
    idle: u32,
    told: bool,
    wrapped_up: bool,
    concluding: Option<EndReason>,
    reply: Parts,
    seen: BTreeSet<String>,
    /// A person's words were a result: whether they were new is not followed here.
    unsure: bool,
}

impl Landing {
    pub(super) fn event(&mut self, event: &Event, after: &State) -> Result<(), Violation> {
        let limits = &after.limits;
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "the rest brings nothing new"
        )]
        match event {
            Event::SessionForked(_) => self.waiting = 0,
            Event::LoopStarted(_) => self.run = Run::default(),
            Event::MessageAdded(e) => return self.message(e, limits),
            Event::ModelCallReserving(e) if e.recap.is_none() => {
                self.begins(limits, e.attempt)?;
                if self.reserving.is_none_or(|(call, _)| call != e.call) {
                    self.reserving = Some((e.call, self.waiting));
                }
            }
            Event::ModelCallStarted(e) if e.recap.is_none() => {
                self.begins(limits, e.attempt)?;
                if e.attempt == 1 {
                    let of_call = self.reserving.filter(|(call, _)| *call == e.call);
                    self.joins(of_call.map_or(self.waiting, |(_, joining)| joining));
                }
            }
            Event::ModelCallCompleted(e) if !e.recap => self.run.replied(e),
            Event::ToolCallRequested(e) => {
                if let Some(Part::ToolCall(part)) = self.run.reply.get(e.index as usize) {
                    let call = format!("call {} {}", part.tool, e.args_hash);
                    self.run.sees(call);
                }
            }
            Event::ToolCallRejected(e) => self.run.result(true, &e.message),
            Event::ToolCallCompleted(e) => self.run.result(e.output.is_error, &e.output.text),
            Event::ToolCallFailed(e) if e.retry_at.is_none() => self.run.result(true, &e.message),
            Event::ToolCallUnknown(e) if e.policy != UnknownPolicy::Ask => {
                self.run.result(true, &e.message);
            }
            Event::UnknownResolved(e) => {
                self.run.unsure |= e.resolution != UnknownResolution::RunAgain;
            }
            Event::ToolCallStarted(e) => {
                return check(self.run.concluding.is_none(), "last_call", || {
                    format!("{} is dispatched after the last call was made", e.call)
                });
            }
            Event::LoopEnded(e) => return self.run.ended(&e.reason, limits),
            _ => {}
        }
        Ok(())
    }

    /// A step, or the last call, begins: what had to be said before it was said.
    fn begins(&self, limits: &Limits, attempt: u32) -> Result<(), Violation> {
        let run = &self.run;
        if attempt > 1 || run.concluding.is_some() {
            return Ok(());
        }
        let stuck = limits.no_progress.is_some_and(|limit| run.idle >= limit);
        check(
            !stuck || run.unsure || self.waiting > 0,
            "no_progress",
            || format!("another step after {} without anything new", run.idle),
        )?;
        let told = run.told || run.unsure || run.idle < told_at(limits);
        check(told, "nudged", || {
            format!("{} idle steps, unsaid", run.idle)
        })?;
        let few = run.steps > 0 && limits.max_steps - run.steps <= limits.wrapup_steps;
        check(!few || run.wrapped_up, "nudged", || {
            format!("{} of {} steps, unsaid", run.steps, limits.max_steps)
        })
    }

    fn joins(&mut self, joining: usize) {
        self.reserving = None;
        self.waiting -= joining;
        self.run.steps += 1;
        if joining > 0 {
            (self.run.idle, self.run.told) = (0, false);
        }
    }

    fn message(&mut self, e: &MessageAdded, limits: &Limits) -> Result<(), Violation> {
        let run = &mut self.run;
        self.waiting += usize::from(matches!(e.origin, Origin::User | Origin::Steer));
        match &e.nudge {
            None => Ok(()),
            Some(Nudge::NoProgress) => {
                let again = std::mem::replace(&mut run.told, true);
                let due = run.unsure || run.idle >= told_at(limits);
                check(due && !again, "nudged", || {
                    format!("told after {} idle steps, before: {again}", run.idle)
                })
            }
            Some(Nudge::Wrapup) => {
                let again = std::mem::replace(&mut run.wrapped_up, true);
                let due = limits.max_steps - run.steps <= limits.wrapup_steps;
                check(due && !again, "nudged", || {
                    format!("told after {} steps, before: {again}", run.steps)
                })
            }
            Some(Nudge::Conclude(reason)) => {
                let again = run.concluding.replace(reason.clone());
                let exceeded = matches!(reason, EndReason::BudgetExceeded { .. });
                check(again.is_none() && exceeded, "last_call", || {
                    format!("for {reason:?}, after {again:?}")
                })
            }
        }
    }
}

impl Run {
    fn replied(&mut self, e: &ModelCallCompleted) {
        self.idle += 1;
        self.reply = e.parts.clone();
        let text = text_of(&e.parts);
        let asks = |part: &Part| matches!(part, Part::ToolCall(_));
        if !text.is_empty() && !e.parts.iter().any(asks) {
            self.sees(format!("words {text}"));
        }
    }

    fn result(&mut self, is_error: bool, text: &str) {
        self.sees(format!("result {is_error} {text}"));
    }

    fn sees(&mut self, what: String) {
        if self.seen.insert(what) {
            (self.idle, self.told) = (0, false);
        }
    }

    fn ended(&self, reason: &EndReason, limits: &Limits) -> Result<(), Violation> {
        if let EndReason::NoProgress { steps } = reason {
            let due = limits.no_progress.is_some_and(|limit| self.idle >= limit);
            check(
                self.unsure || (due && *steps == self.idle),
                "no_progress",
                || format!("ended after {steps}, {} idle steps", self.idle),
            )?;
        }
        let first = matches!(
            reason,
            EndReason::Cancelled { .. } | EndReason::Deadline { .. }
        );
        let landed = self
            .concluding
            .as_ref()
            .is_none_or(|landing| landing == reason);
        check(first || landed, "last_call", || {
            format!("{reason:?} after the last call for {:?}", self.concluding)
        })
    }
}

/// The idle steps after which the model is told of them.
fn told_at(limits: &Limits) -> u32 {
    let limit = limits.no_progress.unwrap_or(u32::MAX);
    limit.saturating_sub(STEPS_BEFORE).max(1)
}
