//! The outside world of tools: what really ran, counted where no driver can touch it.
//!
//! Calls of one key arrive in any order and at any time, also after their driver is gone.

use std::{collections::BTreeMap, sync::Arc};

use loopwright_core::{
    agent::EffectClass,
    ids::{Attempt, CallId, Epoch},
    message::ToolOutput,
    outcome::LookupAnswer,
};

use super::{oracle::Violation, world::MOST_AHEAD_MS};

/// The longest that a request is under way to the sidecar, and the most that two drivers' clocks
/// differ, milliseconds: by so much longer a sidecar keeps its keys than it promises.
const TRANSIT_MS: u64 = 60 + MOST_AHEAD_MS;

/// What the sidecars know of each call.
#[derive(Default)]
pub(crate) struct Sidecar {
    jobs: BTreeMap<CallId, Job>,
    /// What an answer "never started" does not bind the sidecar to.
    pub(crate) forgets: Option<Forgets>,
}

/// What a sidecar forgets of its word that a call never started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forgets {
    /// All of it.
    Everything,
    /// Up to which attempt it was given.
    TheAttempt,
}

/// What a sidecar says of a call.
#[derive(Debug)]
pub(crate) enum Known {
    /// It ended, or never started, or the sidecar does not know.
    Answer(LookupAnswer),
    /// It runs until then.
    Running(u64),
}

struct Job {
    class: EffectClass,
    first_seen: Option<u64>,
    effects: u32,
    outputs: Vec<Arc<ToolOutput>>,
    /// Until when it runs.
    busy: u64,
    /// How often a person said that it did not run, and is to be run now.
    said_again: u32,
    refuses: Option<(Epoch, Attempt)>,
}

impl Sidecar {
    /// The call exists from here on, of the class that it is dispatched with first.
    pub(crate) fn expect(&mut self, call: CallId, class: EffectClass) {
        self.jobs.entry(call).or_insert(Job {
            class,
            first_seen: None,
            effects: 0,
            outputs: Vec::new(),
            busy: 0,
            said_again: 0,
            refuses: None,
        });
    }

    /// A person says that the call did not run, and is to be run now: what follows is their word.
    pub(crate) fn said_again(&mut self, call: CallId) {
        if let Some(job) = self.jobs.get_mut(&call) {
            job.said_again += 1;
        }
    }

    /// How often the call took effect.
    pub(crate) fn effects(&self, call: CallId) -> u32 {
        self.jobs.get(&call).map_or(0, |job| job.effects)
    }

    /// A request arrives, and runs until `until`. `None`: it is refused, since a lookup was told that
    /// it never started.
    pub(crate) fn run(
        &mut self,
        call: CallId,
        attempt: Attempt,
        epoch: Epoch,
        (now, until): (u64, u64),
    ) -> Result<Option<Arc<ToolOutput>>, Violation> {
        let job = self
            .jobs
            .get_mut(&call)
            .expect("dispatched before it arrives");
        if job
            .refuses
            .is_some_and(|(bound, last)| epoch < bound || attempt <= last)
        {
            return Ok(None);
        }
        if let EffectClass::Deduplicated { retention_ms } = job.class
            && job
                .first_seen
                .is_some_and(|first| now - first < retention_ms + TRANSIT_MS)
        {
            return Ok(job.outputs.last().cloned());
        }
        job.first_seen = Some(now);
        job.busy = job.busy.max(until);
        job.effects += 1;
        let text = match job.class {
            // What only reads finds what it found before.
            EffectClass::ReadOnly => "as before".to_owned(),
            EffectClass::Idempotent
            | EffectClass::Deduplicated { .. }
            | EffectClass::AtMostOnce => format!("{call} effect {}", job.effects),
        };
        let output = Arc::new(ToolOutput {
            text,
            ..ToolOutput::default()
        });
        job.outputs.push(Arc::clone(&output));
        let once = match job.class {
            EffectClass::AtMostOnce => Some("at_most_once"),
            EffectClass::Deduplicated { .. } => Some("deduplicated"),
            EffectClass::ReadOnly | EffectClass::Idempotent => None,
        };
        match once.filter(|_| job.effects > 1 + job.said_again) {
            Some(oracle) => Err(Violation::new(
                oracle,
                format!("{call} attempt {attempt} took effect again"),
            )),
            None => Ok(Some(output)),
        }
    }

    /// What became of the call; "never started" is a promise about every attempt up to `attempt`
    /// and every earlier epoch.
    pub(crate) fn look_up(
        &mut self,
        call: CallId,
        attempt: Attempt,
        epoch: Epoch,
        now: u64,
    ) -> Known {
        let job = self
            .jobs
            .get_mut(&call)
            .expect("dispatched before it is in doubt");
        if let Some(output) = job.outputs.last() {
            return if now < job.busy {
                Known::Running(job.busy)
            } else {
                Known::Answer(LookupAnswer::Completed(Arc::clone(output)))
            };
        }
        let (bound, last) = job.refuses.unwrap_or_default();
        job.refuses = match self.forgets {
            None => Some((bound.max(epoch), last.max(attempt))),
            Some(Forgets::TheAttempt) => Some((bound.max(epoch), 0)),
            Some(Forgets::Everything) => None,
        };
        Known::Answer(LookupAnswer::NeverStarted)
    }

    /// What a call that runs ends with.
    pub(crate) fn result(&self, call: CallId) -> LookupAnswer {
        let output = self.jobs.get(&call).and_then(|job| job.outputs.last());
        output.map_or_else(
            || LookupAnswer::NotKnown("it does not run".to_owned()),
            |output| LookupAnswer::Completed(Arc::clone(output)),
        )
    }

    /// Whether the sidecar gave this output for this call.
    pub(crate) fn gave(&self, call: CallId, output: &ToolOutput) -> bool {
        let job = self.jobs.get(&call);
        job.is_some_and(|job| job.outputs.iter().any(|given| **given == *output))
    }
}
