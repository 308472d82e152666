//! What a run came to, step by step: what its model asked for, what each step had cost, how loops ended.
//!
//! Boundary: events in, facts out; the same for the recorded run and the new one. Invariant: arguments are
//! compared as JSON, so that two models that write the same thing differently have asked for the same.

use loopwright_core::{
    Entry, Event, State,
    ids::LoopId,
    message::{CallPart, Part},
    usage::Totals,
};
use serde::Serialize;
use serde_json::Value;

/// A tool call as a model asked for it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Asked {
    /// The tool's name on the model's wire.
    pub(super) tool: String,
    /// Its arguments; text that is no JSON is kept as text.
    pub(super) arguments: Value,
}

/// One reply of a model.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Step {
    pub(super) of: LoopId,
    /// Which of its loop, from 1.
    pub(super) number: u32,
    pub(super) asked: Vec<Asked>,
    /// What the session had used after it.
    pub(super) spent: Totals,
}

/// The end of a loop.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct End {
    pub(super) of: LoopId,
    pub(super) reason: &'static str,
    /// Its reason in words.
    pub(super) words: String,
    pub(super) text: String,
}

/// A run so far.
#[derive(Debug, Default)]
pub(super) struct Trail {
    pub(super) steps: Vec<Step>,
    pub(super) ends: Vec<End>,
    /// Models that replied, in the order in which they first did.
    pub(super) models: Vec<String>,
    /// What the session has used.
    pub(super) spent: Totals,
    /// The model that is asked now.
    pub(super) model: String,
}

/// Where two runs part.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Parting {
    pub(super) of: LoopId,
    pub(super) step: u32,
    /// What the recorded run did there.
    pub(super) recorded: Did,
    /// What the new one did.
    pub(super) now: Did,
}

/// What a run did at a step.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Did {
    /// Its model asked for these tools.
    AskedFor(Vec<Asked>),
    /// Its model answered, and asked for nothing.
    Answered,
    /// The loop had ended.
    Ended(String),
    /// It did not come so far.
    Nothing,
}

impl Asked {
    pub(super) fn of(part: &CallPart) -> Self {
        let text = match part.arguments.trim() {
            "" => "{}",
            text => text,
        };
        let read = serde_json::from_str(text);
        Self {
            tool: part.tool.clone(),
            arguments: read.unwrap_or_else(|_| Value::String(part.arguments.clone())),
        }
    }
}

impl Trail {
    /// Takes an entry; `state` is the one after it.
    pub(super) fn take(&mut self, entry: &Entry, state: &State) {
        let going_on = state.active.as_ref().map(|active| active.id);
        for event in &entry.events {
            #[expect(clippy::wildcard_enum_match_arm, reason = "a few kinds tell the trail")]
            match event {
                Event::ModelCallStarted(e) => self.model.clone_from(&e.model),
                Event::LoopEnded(e) => self.ends.push(End {
                    of: e.id,
                    reason: e.reason.label(),
                    words: e.reason.describe(),
                    text: e.text.clone(),
                }),
                _ => {}
            }
        }
        self.spent = state.totals;
        let replies = entry.events.iter().filter_map(|event| match event {
            Event::ModelCallCompleted(e) => Some(&e.parts),
            _ => None,
        });
        for parts in replies {
            let of = ended_in(entry).or(going_on).unwrap_or(LoopId(0));
            let before = self.steps.iter().filter(|step| step.of == of).count();
            self.steps.push(Step {
                of,
                number: u32::try_from(before).unwrap_or(u32::MAX).saturating_add(1),
                asked: asked(parts),
                spent: state.totals,
            });
            if !self.models.contains(&self.model) {
                self.models.push(self.model.clone());
            }
        }
    }

    /// What the run did at a step of a loop.
    fn did(&self, of: LoopId, number: u32) -> Did {
        let step = self
            .steps
            .iter()
            .find(|step| step.of == of && step.number == number);
        let end = self.ends.iter().find(|end| end.of == of);
        match (step, end) {
            (Some(step), _) if !step.asked.is_empty() => Did::AskedFor(step.asked.clone()),
            (Some(_), _) => Did::Answered,
            (None, Some(end)) => Did::Ended(end.words.clone()),
            (None, None) => Did::Nothing,
        }
    }

    /// What had been used after a step; all of it where the run has no such step.
    pub(super) fn spent_through(&self, of: LoopId, number: u32) -> Totals {
        let step = self.steps.iter().rev();
        let mut through = step.filter(|step| (step.of, step.number) <= (of, number));
        through.next().map_or(self.spent, |step| step.spent)
    }

    /// Where another run of the same parts from this one: the first step at which they ask for
    /// different tools, or the first loop that ends differently.
    pub(super) fn parting(&self, now: &Self) -> Option<Parting> {
        let places = self.steps.iter().chain(&now.steps);
        let mut places: Vec<_> = places.map(|step| (step.of, step.number)).collect();
        places.sort_unstable();
        places.dedup();
        let by_step = places.into_iter().find_map(|(of, step)| {
            let (recorded, did) = (self.did(of, step), now.did(of, step));
            (recorded != did).then_some(Parting {
                of,
                step,
                recorded,
                now: did,
            })
        });
        by_step.or_else(|| self.by_end(now))
    }

    /// Equal steps, and another end.
    fn by_end(&self, now: &Self) -> Option<Parting> {
        self.ends.iter().find_map(|end| {
            let other = now.ends.iter().find(|other| other.of == end.of);
            if other.is_some_and(|other| other.reason == end.reason) {
                return None;
            }
            let last = self.steps.iter().filter(|step| step.of == end.of).count();
            Some(Parting {
                of: end.of,
                step: u32::try_from(last).unwrap_or(u32::MAX),
                recorded: Did::Ended(end.words.clone()),
                now: other.map_or(Did::Nothing, |other| Did::Ended(other.words.clone())),
            })
        })
    }
}

fn asked(parts: &[Part]) -> Vec<Asked> {
    let calls = parts.iter().filter_map(|part| match part {
        Part::ToolCall(call) => Some(Asked::of(call)),
        Part::Text(_) | Part::Thinking(_) | Part::Opaque(_) | Part::Blob(_) => None,
    });
    calls.collect()
}

/// The loop that an entry ended: a reply in it was that loop's, though another one may go on.
fn ended_in(entry: &Entry) -> Option<LoopId> {
    entry.events.iter().find_map(|event| match event {
        Event::LoopEnded(e) => Some(e.id),
        _ => None,
    })
}
