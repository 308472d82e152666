//! The oracle: what one run's log and effects must be, by its lane and its call's fate.

use loopwright_proto::v1::{EffectClass, EndReason, Entry, event::Kind, part};
use loopwright_tests::{rig::effects::Effect, scene};

use super::lanes::{Fate, Lane, Point};

/// What a run's log says of its tool call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// Attempt and epoch of each dispatch.
    pub(super) starts: Vec<(u32, u64)>,
    /// How the call ended, each time it did.
    pub(super) ends: Vec<&'static str>,
    /// What the model was given.
    pub(super) result: String,
    /// Calls that the model asked for.
    pub(super) asked: usize,
    /// Why nothing is known of it.
    pub(super) why: String,
    /// The loop ended because the model was done.
    pub(super) is_complete: bool,
}

/// What it must say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Due {
    end: &'static str,
    /// Dispatches, least and most.
    starts: (usize, usize),
    /// Effects, least and most.
    effects: (usize, usize),
}

impl Told {
    /// Reads the log of a run.
    pub(super) fn of(log: &[Entry]) -> Self {
        let mut told = Self::default();
        for entry in log {
            for kind in scene::kinds(std::slice::from_ref(entry)) {
                told.take(kind, entry.epoch);
            }
        }
        told
    }

    fn take(&mut self, kind: &Kind, epoch: u64) {
        let end = match kind {
            Kind::ToolCallRequested(_) => {
                self.asked += 1;
                return;
            }
            Kind::ToolCallStarted(started) => {
                self.starts.push((started.attempt, epoch));
                return;
            }
            Kind::ToolCallCompleted(done) => {
                let parts = done.result.iter().flat_map(|result| &result.parts);
                for part in parts {
                    if let Some(part::Kind::Text(text)) = &part.kind {
                        self.result.push_str(text);
                    }
                }
                "completed"
            }
            Kind::ToolCallFailed(failed) if failed.retry_at.is_none() => "failed",
            Kind::ToolCallUnknown(unknown) => {
                self.why.clone_from(&unknown.reason);
                "unknown"
            }
            Kind::ToolCallRejected(_) => "rejected",
            Kind::ToolCallCancelled(_) => "cancelled",
            Kind::LoopEnded(ended) => {
                self.is_complete = ended.reason() == EndReason::Completed;
                return;
            }
            _ => return,
        };
        self.ends.push(end);
    }

    /// Nothing wrong, or what is.
    pub(super) fn check(&self, lane: &Lane, fate: Fate, effects: &[Effect]) -> Result<(), String> {
        let due = Due::of(lane, fate);
        let within = |(least, most), count| (least..=most).contains(&count);
        if self.asked != 1 || self.ends != [due.end] {
            return Err(format!("it ended as {:?}, not as {}", self.ends, due.end));
        }
        if !within(due.starts, self.starts.len()) {
            return Err(format!("it was dispatched {} times", self.starts.len()));
        }
        if !within(due.effects, effects.len()) {
            return Err(format!("it had {} effects", effects.len()));
        }
        let licensed = |effect: &Effect| self.starts.contains(&(effect.attempt, effect.epoch));
        if let Some(effect) = effects.iter().find(|effect| !licensed(effect)) {
            return Err(format!("{effect:?} without an intent in the log"));
        }
        let result = effects
            .first()
            .map(|one| format!("did act for {}", one.key));
        if due.end == "completed" && Some(&self.result) != result.as_ref() {
            return Err(format!("the model was told {:?}", self.result));
        }
        if !self.is_complete {
            return Err("the loop did not complete".to_owned());
        }
        Ok(())
    }
}

impl Due {
    fn of(lane: &Lane, fate: Fate) -> Self {
        let once = Self {
            end: "completed",
            starts: (1, 1),
            effects: (1, 1),
        };
        match (lane.point, lane.class) {
            // Nothing was dispatched, or all is known.
            (Point::BeforeIntent | Point::AfterResult, _) => once,
            (_, EffectClass::AtMostOnce) => Self::of_at_most_once(lane, fate),
            (_, EffectClass::Deduplicated) => Self {
                starts: (2, usize::MAX),
                ..once
            },
            // The attempt that was left behind and the one that is known may both have had it.
            _ => Self {
                starts: (2, usize::MAX),
                effects: (1, usize::MAX),
                ..once
            },
        }
    }

    /// Dispatched, and the server died before it knew more.
    fn of_at_most_once(lane: &Lane, fate: Fate) -> Self {
        let has_effect = match (lane.point, fate) {
            (Point::AfterIntent | Point::AfterSend, Fate::Lost) => 0,
            _ => 1,
        };
        let unknown = Self {
            end: "unknown",
            starts: (1, 1),
            effects: (has_effect, has_effect),
        };
        if !lane.lookup {
            return unknown;
        }
        let found = Self {
            end: "completed",
            starts: (1, 1),
            effects: (1, 1),
        };
        match (lane.point, fate) {
            // The sidecar has never heard of it, says so, and is bound to its word.
            (Point::AfterIntent, Fate::Lost) => Self {
                starts: (2, 2),
                ..found
            },
            // The request is there when the sidecar is asked, or comes after it and is refused.
            (Point::AfterIntent, Fate::Late) => Self {
                starts: (1, 2),
                ..found
            },
            // The sidecar has forgotten it.
            (Point::AfterSend | Point::AfterEffect, Fate::Lost) => unknown,
            _ => found,
        }
    }
}

/// The oracle must fail for each lie that it is there to catch.
mod tests {
    use super::*;

    fn lane(class: EffectClass, lookup: bool) -> Lane {
        Lane {
            number: 0,
            point: Point::AfterEffect,
            class,
            lookup,
        }
    }

    fn effect(attempt: u32, epoch: u64) -> Effect {
        Effect {
            key: "default/s/c1".to_owned(),
            tool: "act".to_owned(),
            attempt,
            epoch,
        }
    }

    fn told(end: &'static str, starts: &[(u32, u64)]) -> Told {
        let is_known = end == "completed";
        Told {
            starts: starts.to_vec(),
            ends: vec![end],
            result: if is_known {
                "did act for default/s/c1"
            } else {
                ""
            }
            .into(),
            asked: 1,
            is_complete: true,
            ..Told::default()
        }
    }

    #[test]
    fn what_is_promised_passes() {
        let (first, second) = ((1, 1), (2, 2));
        let unknown = lane(EffectClass::AtMostOnce, false);
        let passes = |told: Told, lane: &Lane, effects: &[Effect]| {
            assert_eq!(told.check(lane, Fate::Now, effects), Ok(()));
        };
        passes(told("unknown", &[first]), &unknown, &[effect(1, 1)]);
        let found = lane(EffectClass::AtMostOnce, true);
        passes(told("completed", &[first]), &found, &[effect(1, 1)]);
        let once = lane(EffectClass::Deduplicated, false);
        passes(told("completed", &[first, second]), &once, &[effect(1, 1)]);
        let twice = lane(EffectClass::Idempotent, false);
        passes(
            told("completed", &[first, second]),
            &twice,
            &[effect(1, 1), effect(2, 2)],
        );
    }

    #[test]
    fn every_lie_is_caught() {
        let (first, second) = ((1, 1), (2, 2));
        let (one, two) = ([effect(1, 1)], [effect(1, 1), effect(2, 2)]);
        let at_most_once = lane(EffectClass::AtMostOnce, false);
        let once = lane(EffectClass::Deduplicated, false);
        let again = lane(EffectClass::ReadOnly, false);
        let both = [first, second];
        let mut unfinished = told("unknown", &[first]);
        unfinished.is_complete = false;
        let mut ended_twice = told("unknown", &[first]);
        ended_twice.ends.push("completed");
        let mut misled = told("completed", &both);
        misled.result = "did act for default/s/c2".to_owned();
        let lies: [(&str, Told, &Lane, &[Effect]); 9] = [
            ("run again", told("unknown", &both), &at_most_once, &one),
            (
                "two effects",
                told("unknown", &[first]),
                &at_most_once,
                &two,
            ),
            (
                "an unknown outcome hidden",
                told("completed", &[first]),
                &at_most_once,
                &one,
            ),
            ("not deduplicated", told("completed", &both), &once, &two),
            ("given up", told("unknown", &[first]), &again, &one),
            (
                "no intent",
                told("completed", &both),
                &again,
                &[effect(1, 9)],
            ),
            ("two ends", ended_twice, &at_most_once, &one),
            ("another result", misled, &again, &two),
            ("no end of the loop", unfinished, &at_most_once, &one),
        ];
        for (lie, told, lane, effects) in lies {
            let found = told.check(lane, Fate::Now, effects);
            assert!(found.is_err(), "not caught: {lie}");
        }
    }
}
