//! Persons: they answer what they are asked, in time or late, twice, wrongly, or never.

use std::sync::Arc;

use loopwright_core::{
    Entry, Event, What,
    agent::UnknownPolicy,
    event::UnknownResolution,
    ids::{CallId, Timestamp},
    input::Command,
    message::ToolOutput,
    outcome::WaitsFor,
};

use super::{Happening, Request, World};
use crate::simulator::{
    oracle::{Violation, check},
    plan::Feature,
};

const RESOLUTIONS: [UnknownResolution; 6] = [
    UnknownResolution::Happened,
    UnknownResolution::DidNotHappen,
    UnknownResolution::RunAgain,
    UnknownResolution::RunAgain,
    UnknownResolution::TellModel,
    UnknownResolution::Cancelled,
];

impl World {
    /// Whoever is asked something by this entry may answer.
    pub(super) fn ask_people(&mut self, at: Timestamp, entry: &Entry) {
        for event in &entry.events {
            let (call, asks_approval, last) = if let Event::ApprovalRequested(e) = event {
                (e.call, true, e.expires_at)
            } else if let Event::ToolCallUnknown(e) = event
                && e.policy == UnknownPolicy::Ask
            {
                (e.call, false, None)
            } else {
                continue;
            };
            let answers = match self.rng.between(0, 99) {
                0..=59 => 1,
                60..=74 => 2,
                _ => 0,
            };
            for _ in 0..answers {
                let what = self.word_on(call, asks_approval);
                let (after, seldom) = (self.rng.between(1, 160), self.rng.between(0, 400));
                // Some wait until the last moment, which is one too late.
                let last = last.filter(|_| seldom < 120);
                let after = last.map_or(after + seldom.saturating_sub(300), |l| l.since(at));
                if self.features.has(Feature::Persons) {
                    self.demand(after, what);
                }
            }
        }
    }

    /// What a person says of a call: mostly to the question.
    fn word_on(&mut self, call: CallId, asks_approval: bool) -> What {
        let by = Command {
            request_id: format!("{}p{}", self.prefix, self.requests.len()),
            principal: "eve".to_owned(),
        };
        let guard = self.rng.chance(50).then(|| self.shadow.current_loop());
        let (mistaken, allow) = (self.rng.chance(8), self.rng.chance(60));
        let resolution = self.rng.pick(&RESOLUTIONS);
        let reason = "as I see it".to_owned();
        if asks_approval != mistaken {
            return What::ResolveApproval {
                by,
                guard,
                call,
                allow,
                reason,
            };
        }
        let output = allow.then(|| {
            Arc::new(ToolOutput {
                text: "seen by a person".to_owned(),
                ..ToolOutput::default()
            })
        });
        What::ResolveUnknown {
            by,
            guard,
            call,
            resolution,
            output,
            reason,
        }
    }

    fn demand(&mut self, after: u64, what: What) {
        let number = self.requests.len();
        self.requests.push(Request {
            id: format!("{}p{number}", self.prefix),
            what,
            answer: None,
            done: false,
        });
        self.put(after, Happening::Send(number));
    }

    /// What is logged of an answer is what the person said.
    pub(super) fn judge_answer(&self, request: &Request, entry: &Entry) -> Result<(), Violation> {
        let said = match &request.what {
            What::ResolveApproval { call, allow, .. } => entry.events.iter().any(|event| {
                matches!(event, Event::ApprovalResolved(e) if e.call == *call && e.allowed == *allow)
            }),
            What::ResolveUnknown {
                call, resolution, ..
            } => entry.events.iter().any(|event| {
                matches!(event, Event::UnknownResolved(e)
                    if e.call == *call && e.resolution == *resolution)
            }),
            What::PauseLoop { .. } => entry.events.iter().any(|event| {
                matches!(event, Event::LoopPaused(e) if matches!(e.waits_for, WaitsFor::Client { .. }))
            }),
            What::ResumeLoop { by, .. } => entry.events.iter().any(
                |event| matches!(event, Event::LoopResumed(e) if e.by == by.principal),
            ),
            What::UpdateLimits { change, .. } => entry.events.iter().any(
                |event| matches!(event, Event::LimitsUpdated(e) if change.of(&e.limits) == *e.limits),
            ),
            What::Create(_)
            | What::StartLoop(_)
            | What::SendMessage(_)
            | What::CancelLoop { .. }
            | What::Adopt { .. }
            | What::Attach { .. }
            | What::Detach
            | What::ToolsChanged(_)
            | What::ModelCompleted { .. }
            | What::ModelFailed { .. }
            | What::ToolCompleted { .. }
            | What::ToolFailed { .. }
            | What::LookedUp { .. }
            | What::BudgetGranted { .. }
            | What::BudgetWaits { .. }
            | What::BudgetRefused { .. }
            | What::BudgetSpent { .. }
            | What::BudgetSettled { .. }
            | What::TimerFired(_) => true,
        };
        check(said, "as_the_person_said", || {
            format!("{:?} is logged as {:?}", request.what, entry.events)
        })
    }
}
