//! One remembered key: what may still come under it, and what is answered.

use std::sync::Arc;

use tokio::time::Instant;

use super::back;
use crate::answer::Outcome;
use crate::keyfile::{Begun, Fate, Kept};
use crate::running::Running;

/// What is said of a call that the sidecar's end interrupted.
pub(crate) const INTERRUPTED: &str = "The sidecar stopped in the middle of this call: whether it had its \
    effect is not known. Check before you try it again.";

/// A call under its key.
pub(super) struct Remembered {
    /// The call as it was asked for last; the epoch is the highest seen.
    begun: Begun,
    fate: State,
}

enum State {
    Call(Arc<Running>),
    /// An earlier process ended in the middle of it.
    Interrupted(Instant),
    /// It was said that it never started.
    Bound(Instant),
}

/// What is known of a call, as of now.
pub(super) enum Fresh {
    Call(Arc<Running>),
    /// It cannot be known, for this reason.
    Interrupted(String),
    DidNothing,
}

impl Remembered {
    pub(super) fn running(begun: Begun, running: Arc<Running>) -> Self {
        Self {
            begun,
            fate: State::Call(running),
        }
    }

    pub(super) fn bound(begun: Begun) -> Self {
        Self {
            begun,
            fate: State::Bound(Instant::now()),
        }
    }

    pub(super) fn restored(kept: Kept) -> Self {
        let at = back(kept.ago);
        let fate = match kept.fate {
            Fate::Ended(outcome) => State::Call(Running::over(outcome, at)),
            Fate::Interrupted => State::Interrupted(at),
            Fate::Bound => State::Bound(at),
        };
        Self {
            begun: kept.begun,
            fate,
        }
    }

    /// Whether a call may come under this key; the higher epoch stands from now on.
    pub(super) fn admit(&mut self, asked: &Begun) -> Result<(), Outcome> {
        self.admit_question(asked).map_err(Outcome::not_executed)?;
        if asked.attempt <= self.begun.bound {
            return Err(Outcome::not_executed(format!(
                "attempt {} comes too late: it was said of it that it never started",
                asked.attempt
            )));
        }
        Ok(())
    }

    /// Whether this caller may ask about the key; the higher epoch stands from now on.
    pub(super) fn admit_question(&mut self, asked: &Begun) -> Result<(), String> {
        if asked.epoch < self.begun.epoch {
            return Err(format!(
                "the call comes from epoch {}, and epoch {} has taken over",
                asked.epoch, self.begun.epoch
            ));
        }
        if asked.tool != self.begun.tool || asked.arguments_sha256 != self.begun.arguments_sha256 {
            return Err(format!(
                "the key {:?} was used before for another tool or other arguments",
                asked.key
            ));
        }
        self.begun.epoch = asked.epoch;
        Ok(())
    }

    /// The call that answers this one, where it is not to run.
    pub(super) fn answer_to(&self, asked: &Begun) -> Option<Arc<Running>> {
        // Whoever sends a further attempt of an at-most-once call was told that its outcome is unknown,
        // and wants it all the same.
        let insists = self.begun.lossy && asked.attempt > self.begun.attempt;
        match &self.fate {
            State::Call(_) if self.did_nothing() => None,
            State::Call(running) if insists && running.was_stopped() => None,
            State::Call(running) => Some(Arc::clone(running)),
            State::Interrupted(_) if insists => None,
            State::Interrupted(at) => Some(Running::over(Outcome::failed(INTERRUPTED), *at)),
            State::Bound(_) => None,
        }
    }

    /// Runs the call, anew or for the first time.
    pub(super) fn run(
        &mut self,
        asked: &Begun,
        start: impl FnOnce(Begun) -> Result<Arc<Running>, Outcome>,
    ) -> Result<Arc<Running>, Outcome> {
        let begun = Begun {
            bound: self.begun.bound,
            ..asked.clone()
        };
        let running = start(begun.clone())?;
        *self = Self::running(begun, Arc::clone(&running));
        Ok(running)
    }

    pub(super) fn fresh(&self) -> Fresh {
        match &self.fate {
            State::Call(_) if self.did_nothing() => Fresh::DidNothing,
            State::Call(running) => Fresh::Call(Arc::clone(running)),
            State::Interrupted(_) => Fresh::Interrupted(INTERRUPTED.to_owned()),
            State::Bound(_) => Fresh::DidNothing,
        }
    }

    /// Whether each attempt up to the one that is asked about came here, or was refused beforehand.
    pub(super) fn saw_all(&self, asked: &Begun) -> bool {
        let begun = &self.begun;
        let none_before = begun.attempt <= begun.bound.saturating_add(1);
        asked.attempt <= begun.bound || (begun.attempt >= asked.attempt && none_before)
    }

    /// From now on, attempts up to the one that is asked about are refused.
    pub(super) fn bind(&mut self, asked: &Begun) -> Begun {
        self.begun.bound = self.begun.bound.max(asked.attempt);
        self.fate = State::Bound(Instant::now());
        self.begun.clone()
    }

    pub(super) fn is_forgotten(&self) -> bool {
        match &self.fate {
            State::Call(running) => running
                .ended()
                .is_some_and(|ended| ended.at.elapsed() > self.begun.retention()),
            State::Interrupted(at) => at.elapsed() > self.begun.retention(),
            State::Bound(at) => at.elapsed() > self.begun.bound_for(),
        }
    }

    /// Whether it may make room for others.
    pub(super) fn may_go_early(&self) -> bool {
        let ended = matches!(&self.fate, State::Call(running) if running.ended().is_some());
        self.begun.lossy && ended
    }

    pub(super) fn bytes(&self) -> usize {
        match &self.fate {
            State::Call(running) => running.ended().map_or(0, |ended| ended.bytes),
            State::Interrupted(_) | State::Bound(_) => 0,
        }
    }

    fn did_nothing(&self) -> bool {
        matches!(&self.fate, State::Call(running)
            if running.ended().is_some_and(|ended| ended.did_nothing))
    }
}
