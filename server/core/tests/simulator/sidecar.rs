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
    /// Whether an answer "never started" binds the sidecar to refuse what comes later.
    pub(crate) forgets_its_word: bool,
}

struct Job {
    class: EffectClass,
    first_seen: Option<u64>,
    effects: u32,
    outputs: Vec<Arc<ToolOutput>>,
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
            refuses: None,
        });
    }

    /// A request arrives. `None`: it is refused, since a lookup was told that it never started.
    pub(crate) fn run(
        &mut self,
        call: CallId,
        attempt: Attempt,
        epoch: Epoch,
        now: u64,
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
        job.effects += 1;
        let output = Arc::new(ToolOutput {
            text: format!("{call} effect {}", job.effects),
            ..ToolOutput::default()
        });
        job.outputs.push(Arc::clone(&output));
        let once = match job.class {
            EffectClass::AtMostOnce => Some("at_most_once"),
            EffectClass::Deduplicated { .. } => Some("deduplicated"),
            EffectClass::ReadOnly | EffectClass::Idempotent => None,
        };
        match once.filter(|_| job.effects > 1) {
            Some(oracle) => Err(Violation::new(
                oracle,
                format!("{call} attempt {attempt} took effect again"),
            )),
            None => Ok(Some(output)),
        }
    }

    /// What became of the call; "never started" is a promise about every attempt up to `attempt`
    /// and every earlier epoch.
    pub(crate) fn look_up(&mut self, call: CallId, attempt: Attempt, epoch: Epoch) -> LookupAnswer {
        let job = self
            .jobs
            .get_mut(&call)
            .expect("dispatched before it is in doubt");
        if let Some(output) = job.outputs.last() {
            return LookupAnswer::Completed(Arc::clone(output));
        }
        if !self.forgets_its_word {
            let (bound, last) = job.refuses.unwrap_or_default();
            job.refuses = Some((bound.max(epoch), last.max(attempt)));
        }
        LookupAnswer::NeverStarted
    }

    /// Whether the sidecar gave this output for this call.
    pub(crate) fn gave(&self, call: CallId, output: &ToolOutput) -> bool {
        let job = self.jobs.get(&call);
        job.is_some_and(|job| job.outputs.iter().any(|given| **given == *output))
    }
}
