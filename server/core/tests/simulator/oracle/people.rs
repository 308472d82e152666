//! What waits for a person, what is unknown, and what came too late: nothing that may have run runs
//! again by itself, no question is closed but by an answer, and nothing unknown is hidden.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use loopwright_core::{
    Cause, Entry, Event, State,
    agent::{EffectClass, UnknownPolicy},
    event::{
        ApprovalOutcome, ApprovalRequested, ApprovalResolved, ToolCallFailed, ToolCallRequested,
        ToolCallStarted, ToolCallUnknown, UnknownResolution, UnknownResolved,
    },
    ids::{Attempt, CallId, Timestamp},
    input::TimerWhy,
    message::{Part, Parts},
    outcome::ToolFailureKind,
    state::LATE_KEPT,
};

use super::{Violation, check};
use crate::simulator::sidecar::Sidecar;

#[derive(Default)]
pub(super) struct People {
    reply: Parts,
    calls: BTreeMap<CallId, Call>,
    unknown: BTreeSet<CallId>,
    /// Dispatched calls that ended without their own result, with the last attempt of each.
    unheard: VecDeque<(CallId, Attempt)>,
    /// Calls that ended as not run, and were not made again by a person's word.
    not_run: BTreeSet<CallId>,
}

struct Call {
    tool: String,
    hash: String,
    attempt: Attempt,
    /// Whether a person, or the default that stands for one, let it run.
    let_run: bool,
    /// Whether a person said that it did not run.
    said_again: bool,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Waiting,
    Held {
        until: Option<Timestamp>,
        allow: bool,
    },
    Refused,
    Out,
    Due,
    Asking,
    Ended,
}

impl People {
    pub(super) fn event(
        &mut self,
        at: Timestamp,
        entry: &Entry,
        event: &Event,
        after: &State,
        sidecar: &Sidecar,
    ) -> Result<(), Violation> {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "the rest is no business of this one"
        )]
        match event {
            Event::SessionForked(_) | Event::SessionImported(_) => self.unheard.clear(),
            Event::ModelCallCompleted(e) => self.reply = e.parts.clone(),
            Event::ToolCallRequested(e) => self.requested(e),
            Event::ApprovalRequested(e) => return self.held(at, e, after),
            Event::ApprovalResolved(e) => return self.answered(at, entry, e),
            Event::ToolCallStarted(e) => return self.started(e, after),
            Event::ToolCallUnknown(e) => return self.unknown(e, after),
            Event::UnknownResolved(e) => return self.resolved(entry, e),
            Event::ToolCallFailed(e) => self.failed(e),
            Event::ToolCallCompleted(e) => {
                self.unknown.remove(&e.call);
                self.stage(e.call, Stage::Ended);
            }
            Event::ToolCallRejected(e) => {
                let stage = self.stage(e.call, Stage::Ended);
                let closed = matches!(stage, Some(Stage::Waiting | Stage::Refused));
                self.not_run.insert(e.call);
                return check(closed, "resolved_once", || {
                    format!("{} was {stage:?}", e.call)
                });
            }
            Event::ToolCallCancelled(e) => {
                let made = self.made(e.call);
                let stage = self.stage(e.call, Stage::Ended);
                let open = matches!(stage, Some(Stage::Held { .. } | Stage::Asking));
                check(!open, "resolved_once", || {
                    format!("{} ends while {stage:?}", e.call)
                })?;
                check(e.dispatched == (made > 0), "unknown_hidden", || {
                    format!("{} was dispatched {made} times: {e:?}", e.call)
                })?;
                self.never_heard(e.call);
                if !e.dispatched {
                    self.not_run.insert(e.call);
                }
            }
            Event::ToolCallResultLate(e) => {
                let expected = self.expects_late(e.call, e.attempt);
                self.unheard.retain(|&(call, _)| call != e.call);
                check(sidecar.gave(e.call, &e.output), "late", || {
                    format!("no sidecar gave {e:?}")
                })?;
                return check(expected, "late", || {
                    format!("{}/{} is late for nothing", e.call, e.attempt)
                });
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether a result of this attempt must be logged as late.
    pub(super) fn expects_late(&self, call: CallId, attempt: Attempt) -> bool {
        let is_it = |&(of, last): &(CallId, Attempt)| of == call && (1..=last).contains(&attempt);
        self.unheard.iter().any(is_it)
    }

    /// After each entry: what may run does, and no refusal is left without its end.
    pub(super) fn settled(&self, after: &State, rests: bool) -> Result<(), Violation> {
        let of = |wanted: &dyn Fn(Stage) -> bool| {
            self.calls
                .values()
                .filter(|call| wanted(call.stage))
                .count()
        };
        check(of(&|s| s == Stage::Refused) == 0, "resolved_once", || {
            "a refused call goes on".to_owned()
        })?;
        if after.active.is_none() || rests {
            return Ok(());
        }
        let busy = of(&|s| matches!(s, Stage::Out | Stage::Due));
        let free = busy < after.limits.max_parallel_tool_calls as usize;
        let waiting = of(&|s| s == Stage::Waiting);
        check(!free || waiting == 0, "slots_filled", || {
            format!("{waiting} calls wait and {busy} run")
        })
    }

    pub(super) fn finish(
        &self,
        state: &State,
        sidecar: &Sidecar,
        rests: bool,
    ) -> Result<(), Violation> {
        for call in &self.not_run {
            let effects = sidecar.effects(*call);
            check(effects == 0, "unknown_hidden", || {
                format!("{call} ended as not run, and ran {effects} times")
            })?;
        }
        let waits = |call: &Call| matches!(call.stage, Stage::Held { .. } | Stage::Asking);
        let open = self.calls.values().any(waits);
        let kept = if rests { true } else { open };
        check(kept == state.active.is_some(), "converges", || {
            "a loop waits for nobody, or nobody is waited for".to_owned()
        })
    }

    /// Whether the end of this call is left to a person.
    pub(super) fn waits(&self, call: CallId) -> bool {
        let stage = self.calls.get(&call).map(|call| call.stage);
        matches!(stage, Some(Stage::Held { .. } | Stage::Asking))
    }

    fn requested(&mut self, e: &ToolCallRequested) {
        let tool = match self.reply.get(e.index as usize) {
            Some(Part::ToolCall(part)) => part.tool.clone(),
            Some(Part::Text(_) | Part::Thinking(_) | Part::Opaque(_) | Part::Blob(_)) | None => {
                String::new()
            }
        };
        let call = Call {
            tool,
            hash: e.args_hash.clone(),
            attempt: 0,
            let_run: false,
            said_again: false,
            stage: Stage::Waiting,
        };
        self.calls.insert(e.call, call);
    }

    /// Whether another call of the same tool with the same arguments is unknown.
    fn repeats(&self, call: &Call) -> bool {
        let alike = |other: &Call| other.tool == call.tool && other.hash == call.hash;
        self.unknown
            .iter()
            .any(|other| self.calls.get(other).is_some_and(alike))
    }

    fn held(
        &mut self,
        at: Timestamp,
        e: &ApprovalRequested,
        after: &State,
    ) -> Result<(), Violation> {
        let before = self.calls.get(&e.call);
        let repeats = before.is_some_and(|call| {
            call.stage == Stage::Waiting && !call.let_run && self.repeats(call)
        });
        check(repeats, "held", || {
            format!("{} is held for nothing", e.call)
        })?;
        let limits = &after.limits;
        let until = limits.approval_timeout_ms.map(|ms| at.plus(ms));
        let allow = limits.approval_default_allow;
        self.stage(e.call, Stage::Held { until, allow });
        check(
            (e.expires_at, e.allow_on_expiry) == (until, allow),
            "expiry",
            || format!("{e:?}, expected {until:?} {allow}"),
        )
    }

    fn answered(
        &mut self,
        at: Timestamp,
        entry: &Entry,
        e: &ApprovalResolved,
    ) -> Result<(), Violation> {
        let next = if e.allowed {
            Stage::Waiting
        } else {
            Stage::Refused
        };
        let Some(Stage::Held { until, allow }) = self.stage(e.call, next) else {
            return Err(Violation::new(
                "resolved_once",
                format!("{e:?} was not asked"),
            ));
        };
        if let Some(call) = self.calls.get_mut(&e.call) {
            call.let_run |= e.allowed;
        }
        let by_a_person = matches!(entry.cause, Cause::ResolveApproval { .. })
            && !e.by.is_empty()
            && until.is_none_or(|until| at < until);
        let sound = match e.outcome {
            ApprovalOutcome::Allowed => by_a_person && e.allowed,
            ApprovalOutcome::Denied => by_a_person && !e.allowed,
            ApprovalOutcome::Expired => {
                entry.cause == Cause::Timer(TimerWhy::Approval(e.call))
                    && until.is_some_and(|until| until <= at)
                    && e.allowed == allow
            }
            ApprovalOutcome::Cancelled => ends_a_loop(entry) && !e.allowed,
        };
        check(sound, "answered", || format!("{:?} to {e:?}", entry.cause))
    }

    fn started(&mut self, e: &ToolCallStarted, after: &State) -> Result<(), Violation> {
        let Some(call) = self.calls.get(&e.call) else {
            return Err(Violation::new("one_end", format!("{} is unasked", e.call)));
        };
        let harms = match after.tools.get(&call.tool).map(|spec| spec.effect) {
            Some(EffectClass::ReadOnly | EffectClass::Idempotent) => false,
            Some(EffectClass::Deduplicated { .. } | EffectClass::AtMostOnce) | None => true,
        };
        let by_itself = e.attempt == 1 && harms && !call.let_run && self.repeats(call);
        check(!by_itself, "held", || {
            format!("{} repeats an unknown call by itself", e.call)
        })?;
        if let Some(call) = self.calls.get_mut(&e.call) {
            call.attempt = e.attempt;
        }
        let stage = self.stage(e.call, Stage::Out);
        let may_start = matches!(stage, Some(Stage::Waiting | Stage::Out | Stage::Due));
        check(may_start, "asked", || {
            format!("{} starts while {stage:?}", e.call)
        })
    }

    fn unknown(&mut self, e: &ToolCallUnknown, after: &State) -> Result<(), Violation> {
        let name = self.calls.get(&e.call).map(|call| call.tool.clone());
        let spec = name.and_then(|name| after.tools.get(&name));
        let by_tool = if spec.is_some_and(|spec| spec.destructive) {
            UnknownPolicy::Ask
        } else {
            UnknownPolicy::TellModel
        };
        let expected = after.limits.on_unknown.unwrap_or(by_tool);
        self.unknown.insert(e.call);
        if e.policy == UnknownPolicy::Ask {
            self.stage(e.call, Stage::Asking);
        } else {
            self.stage(e.call, Stage::Ended);
            self.never_heard(e.call);
        }
        check(e.policy == expected, "unknown_policy", || {
            format!("{e:?}, expected {expected:?}")
        })
    }

    fn resolved(&mut self, entry: &Entry, e: &UnknownResolved) -> Result<(), Violation> {
        let again = e.resolution == UnknownResolution::RunAgain;
        let next = if again { Stage::Waiting } else { Stage::Ended };
        let stage = self.stage(e.call, next);
        if let Some(call) = self.calls.get_mut(&e.call) {
            call.let_run |= again;
            call.said_again |= again;
        }
        if !again {
            self.never_heard(e.call);
        }
        let by_a_person = matches!(entry.cause, Cause::ResolveUnknown { .. }) && !e.by.is_empty();
        let sound = match e.resolution {
            UnknownResolution::Cancelled => ends_a_loop(entry),
            UnknownResolution::TellModel => by_a_person,
            UnknownResolution::Happened
            | UnknownResolution::DidNotHappen
            | UnknownResolution::RunAgain => {
                self.unknown.remove(&e.call);
                by_a_person
            }
        };
        check(stage == Some(Stage::Asking), "resolved_once", || {
            format!("{e:?} while {stage:?}")
        })?;
        check(sound, "answered", || format!("{:?} to {e:?}", entry.cause))
    }

    fn failed(&mut self, e: &ToolCallFailed) {
        if e.retry_at.is_some() {
            self.stage(e.call, Stage::Due);
            return;
        }
        self.stage(e.call, Stage::Ended);
        self.never_heard(e.call);
        let said_again = self.calls.get(&e.call).is_some_and(|call| call.said_again);
        if e.kind == ToolFailureKind::NotExecuted && !said_again {
            self.not_run.insert(e.call);
        }
    }

    fn never_heard(&mut self, call: CallId) {
        let made = self.made(call);
        if made > 0 {
            self.unheard.push_back((call, made));
            if self.unheard.len() > LATE_KEPT {
                self.unheard.pop_front();
            }
        }
    }

    fn made(&self, call: CallId) -> Attempt {
        self.calls.get(&call).map_or(0, |call| call.attempt)
    }

    /// Moves a call on, and says where it was.
    fn stage(&mut self, call: CallId, next: Stage) -> Option<Stage> {
        let call = self.calls.get_mut(&call)?;
        Some(std::mem::replace(&mut call.stage, next))
    }
}

fn ends_a_loop(entry: &Entry) -> bool {
    let ends = |e: &Event| matches!(e, Event::LoopEnded(_));
    entry.events.iter().any(ends)
}
