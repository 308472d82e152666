//! What a sidecar remembers of calls by key: each key runs once and is answered once, and the memory can
//! say what became of it.
//!
//! Invariants: a key of a deduplicated tool is never forgotten before its retention is over: where the
//! memory is full, new keys are refused instead. A key of an at-most-once tool may be forgotten early, and
//! the memory then says no more of any call of before. It never says that a call did not start unless it
//! would surely know if it had: a restart forgets all, unless there is a key file.

mod call;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::answer::{MAX_ANSWER_BYTES, Outcome};
use crate::keyfile::{Begun, Kept};
use crate::running::Running;
use call::{Fresh, Remembered};

/// Most keys remembered, running calls included.
const MAX_KEYS: usize = 10_000;
/// Most bytes of remembered answers. They are counted whenever the keys have doubled, so that up to twice
/// as many may be held for a while.
const MAX_BYTES: usize = 64 * 1024 * 1024;
/// Keys below which the memory is not looked through: even the largest answers fit.
const FIRST_LOOK: usize = MAX_BYTES / MAX_ANSWER_BYTES;
/// When a call refused for want of room may be tried again.
const FULL_PAUSE: Duration = Duration::from_secs(5);
/// By how much a caller's clock may differ from ours without our saying more than we know.
pub(crate) const CLOCK_SLACK: Duration = Duration::from_secs(2);

/// The calls of one sidecar's tools that are remembered, by key.
pub(crate) struct Memory {
    calls: Mutex<Calls>,
}

struct Calls {
    by_key: HashMap<String, Remembered>,
    /// No call that was dispatched from then on is missing, but those whose retention is over.
    since: SystemTime,
    max_keys: usize,
    next_look: usize,
}

/// What is known of a call that is asked about.
pub(crate) enum Known {
    /// It runs, or it ran: the outcome is there, or will be.
    Call(Arc<Running>),
    /// It surely did not start, and attempts up to this one will be refused. To be written down, as it
    /// is here, before it is said.
    NeverStarted(Begun),
    /// Nothing is known, for this reason.
    Nothing(String),
}

impl Memory {
    pub(crate) fn new() -> Self {
        Self::with_room(MAX_KEYS)
    }

    fn with_room(max_keys: usize) -> Self {
        let calls = Calls {
            by_key: HashMap::new(),
            since: SystemTime::now(),
            max_keys,
            next_look: FIRST_LOOK,
        };
        Self {
            calls: Mutex::new(calls),
        }
    }

    /// Takes in calls of earlier processes; none that was dispatched after `since` is missing.
    pub(crate) fn restore(&self, kept: Vec<Kept>, since: SystemTime) {
        let mut calls = self.calls();
        calls.since = calls.since.min(since);
        for kept in kept {
            let key = kept.begun.key.clone();
            calls.by_key.insert(key, Remembered::restored(kept));
        }
    }

    /// The call of this key: the one that runs or ran, or a new one that `start` starts. An error says why
    /// neither may be.
    pub(crate) fn enter(
        &self,
        asked: &Begun,
        start: impl FnOnce(Begun) -> Result<Arc<Running>, Outcome>,
    ) -> Result<Arc<Running>, Outcome> {
        let key = asked.key.as_str();
        if key.is_empty() {
            return Err(Outcome::not_executed(
                "the call has no key, and this tool runs each key once",
            ));
        }
        let mut calls = self.calls();
        if let Some(known) = calls.remembered(key) {
            known.admit(asked)?;
            if let Some(running) = known.answer_to(asked) {
                return Ok(running);
            }
            return known.run(asked, start);
        }
        calls.make_room()?;
        let running = start(asked.clone())?;
        let call = Remembered::running(asked.clone(), Arc::clone(&running));
        calls.by_key.insert(key.to_owned(), call);
        Ok(running)
    }

    /// What became of the call of this key. `first` is when it was first dispatched, by the caller's clock.
    pub(crate) fn look_up(&self, asked: &Begun, first: Option<SystemTime>) -> Known {
        let mut calls = self.calls();
        if let Some(known) = calls.remembered(&asked.key) {
            return match known.admit_question(asked) {
                Err(why) => Known::Nothing(why),
                Ok(()) => match known.fresh() {
                    Fresh::Call(running) => Known::Call(running),
                    Fresh::Interrupted(why) => Known::Nothing(why),
                    Fresh::DidNothing => Known::NeverStarted(known.bind(asked)),
                },
            };
        }
        if let Err(why) = calls.would_know(first, asked.retention()) {
            return Known::Nothing(why);
        }
        if let Err(full) = calls.make_room() {
            return Known::Nothing(full.text().to_owned());
        }
        let begun = Begun {
            bound: asked.attempt,
            attempt: 0,
            ..asked.clone()
        };
        let call = Remembered::bound(begun.clone());
        calls.by_key.insert(asked.key.clone(), call);
        Known::NeverStarted(begun)
    }

    /// A panic elsewhere cannot leave the map half changed.
    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Calls {
    /// The call of this key, unless its time is over.
    fn remembered(&mut self, key: &str) -> Option<&mut Remembered> {
        if self.by_key.get(key)?.is_forgotten() {
            self.by_key.remove(key);
        }
        self.by_key.get_mut(key)
    }

    /// Whether a call that is not here would be, had it run: in words why it might not.
    fn would_know(&self, first: Option<SystemTime>, retention: Duration) -> Result<(), String> {
        let Some(first) = first else {
            return Err("the call is not remembered, and nobody says when it was made".to_owned());
        };
        if first < self.since + CLOCK_SLACK {
            return Err(
                "the call is not remembered, and it may have been made before this sidecar began to \
                 remember: it was started, or had no more room"
                    .to_owned(),
            );
        }
        let now = SystemTime::now();
        if first > now + CLOCK_SLACK {
            return Err("the call was made in the future, by the caller's clock".to_owned());
        }
        let age = now.duration_since(first).unwrap_or_default();
        if age + CLOCK_SLACK > retention {
            return Err(format!(
                "the call is not remembered, and it was made longer ago than the {retention:?} for which \
                 results are kept"
            ));
        }
        Ok(())
    }

    /// Lets go of what may be forgotten when it is time to look; refuses when the rest fills the memory.
    fn make_room(&mut self) -> Result<(), Outcome> {
        if self.by_key.len() < self.next_look.min(self.max_keys) {
            return Ok(());
        }
        self.by_key.retain(|_, call| !call.is_forgotten());
        if self.is_full() {
            let before = self.by_key.len();
            self.by_key.retain(|_, call| !call.may_go_early());
            if self.by_key.len() < before {
                self.since = SystemTime::now();
            }
        }
        if !self.is_full() {
            self.next_look = FIRST_LOOK.max(self.by_key.len() * 2);
            return Ok(());
        }
        let keys = self.by_key.len();
        Err(Outcome::try_later(
            format!("the sidecar remembers {keys} calls already and has no room for another"),
            FULL_PAUSE,
        ))
    }

    fn is_full(&self) -> bool {
        let bytes: usize = self.by_key.values().map(Remembered::bytes).sum();
        self.by_key.len() >= self.max_keys || bytes >= MAX_BYTES
    }
}

/// `ago` before now.
fn back(ago: Duration) -> Instant {
    let now = Instant::now();
    // A machine that was started since cannot say so long ago: then it is remembered longer.
    now.checked_sub(ago).unwrap_or(now)
}

#[cfg(test)]
mod tests;
