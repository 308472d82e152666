//! The judges: what must hold whatever happens. They read the log and the outside world only, and
//! keep their own books.

use loopwright_core::{
    EffectKey, Entry, State,
    agent::Limits,
    ids::{Attempt, CallId, Timestamp},
};

use super::sidecar::Sidecar;

mod calls;
mod landing;
mod people;
mod recap;
mod rest;
mod shared;
mod talk;
mod tally;
mod time;

pub(crate) use shared::Said;

/// A promise that was broken.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    /// Which promise.
    pub(crate) oracle: &'static str,
    /// How.
    pub(crate) detail: String,
}

impl Violation {
    pub(crate) fn new(oracle: &'static str, detail: impl Into<String>) -> Self {
        Self {
            oracle,
            detail: detail.into(),
        }
    }
}

/// A violation where `holds` is false.
pub(crate) fn check(
    holds: bool,
    oracle: &'static str,
    detail: impl FnOnce() -> String,
) -> Result<(), Violation> {
    if holds {
        Ok(())
    } else {
        Err(Violation::new(oracle, detail()))
    }
}

/// All judges of one run.
#[derive(Default)]
pub(crate) struct Oracle {
    calls: calls::Calls,
    landing: landing::Landing,
    people: people::People,
    recaps: recap::Recaps,
    rest: rest::Rest,
    shared: shared::Shared,
    tally: tally::Tally,
    talk: talk::Talk,
    time: time::Time,
}

impl Oracle {
    /// Takes note of an entry that has become durable; `after` is the state with it.
    pub(crate) fn observe(
        &mut self,
        at: Timestamp,
        entry: &Entry,
        after: &State,
        sidecar: &Sidecar,
    ) -> Result<(), Violation> {
        let limits: &Limits = &after.limits;
        self.talk.before(entry, self.calls.model_runs())?;
        for event in &entry.events {
            self.calls.event(at, entry, event, limits, sidecar)?;
            self.rest.event(entry, event, after)?;
            self.people.event(at, entry, event, after, sidecar)?;
            self.tally.event(event, after)?;
            self.talk.event(entry, event)?;
            self.landing.event(event, after)?;
            self.time.event(at, entry, event, after)?;
            self.shared.event(entry, event, after)?;
        }
        self.recaps.entry(entry, after)?;
        self.tally.settles_up(after, self.calls.model_runs())?;
        self.time.settled(after, self.calls.model_runs())?;
        self.people.settled(after, self.rest.rests())?;
        self.talk.conversation(&self.calls, after)
    }

    /// Whether the entry that allows this effect is durable.
    pub(crate) fn licensed(&self, key: &EffectKey) -> bool {
        self.calls.licensed(key)
    }

    /// Whether nothing of the loop may start.
    pub(crate) fn rests(&self) -> bool {
        self.rest.rests()
    }

    /// Whether a result of this attempt must be logged as late.
    pub(crate) fn expects_late(&self, call: CallId, attempt: Attempt) -> bool {
        self.people.expects_late(call, attempt)
    }

    /// What the running model call has set aside for its prompt, where a budget asks for it.
    pub(crate) fn held_input(&self) -> Option<u64> {
        self.tally.held_input()
    }

    /// Tokens that a named budget of this limit must keep when the loop's next call is granted.
    pub(crate) fn keeps(&self, limits: &Limits, limit: u64) -> u64 {
        self.shared.keeps(limits, limit)
    }

    /// Judges the whole, once nothing happens any more.
    pub(crate) fn finish(&self, state: &State, sidecar: &Sidecar) -> Result<(), Violation> {
        let rests = self.rest.rests();
        self.calls.finish(&self.people, rests)?;
        self.people.finish(state, sidecar, rests)?;
        self.talk.finish(state)
    }
}
