//! What a sidecar remembers of calls by key: each key runs once and is answered once, and the memory can
//! say what became of it.
//!
//! Invariants: a key of a deduplicated tool is never forgotten before its retention is over: where the
//! memory is full, new keys are refused instead. A key of an at-most-once tool may be forgotten early, and
//! the memory then says no more of any call of before. It never says that a call did not start unless it
//! would surely know if it had: a restart forgets all, unless there is a key file. Whether a call was made
//! to this memory is told by the memory's name, never by comparing two hosts' clocks.

mod call;

use std::collections::HashMap;
use std::fmt;
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
/// What is said of a call that did nothing here, and may have been somewhere else before.
const NOT_SEEN: &str = "an attempt of the call did nothing here, and an earlier one may have been made to \
    another process of this sidecar";

/// The calls of one sidecar's tools that are remembered, by key.
pub(crate) struct Memory {
    calls: Mutex<Calls>,
}

struct Calls {
    by_key: HashMap<String, Remembered>,
    name: Name,
    max_keys: usize,
    next_look: usize,
}

/// What a memory is called: another memory, and one that forgot a call before its time, has another name.
struct Name {
    /// The process, or the key file.
    of: String,
    /// How often calls were forgotten early.
    gaps: u64,
}

/// What a caller says of when it made a call.
pub(crate) struct Dispatched {
    /// The name of the memory that each attempt was meant for; empty where the caller knows of none, or
    /// of more than one.
    pub(crate) to: String,
    /// When the first attempt was made, by the caller's clock.
    pub(crate) first: Option<SystemTime>,
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
            name: Name {
                of: random_name(),
                gaps: 0,
            },
            max_keys,
            next_look: FIRST_LOOK,
        };
        Self {
            calls: Mutex::new(calls),
        }
    }

    /// What it is called now, as callers are told.
    pub(crate) fn instance(&self) -> String {
        self.calls().name.to_string()
    }

    /// Whether a call that is meant for `instance` is meant for this memory.
    pub(crate) fn is_of(&self, instance: &str) -> bool {
        let of = instance.rsplit_once('.').map_or(instance, |(of, _)| of);
        self.calls().name.of == of
    }

    /// Takes in calls of earlier processes, which shared the memory of this name with this one.
    pub(crate) fn restore(&self, kept: Vec<Kept>, name: String) {
        let mut calls = self.calls();
        calls.name.of = name;
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

    /// What became of the call of this key.
    pub(crate) fn look_up(&self, asked: &Begun, when: &Dispatched) -> Known {
        let mut calls = self.calls();
        let to_this_one = when.to == calls.name.to_string();
        if let Some(known) = calls.remembered(&asked.key) {
            return match known.admit_question(asked) {
                Err(why) => Known::Nothing(why),
                Ok(()) => match known.fresh() {
                    Fresh::Call(running) => Known::Call(running),
                    Fresh::Interrupted(why) => Known::Nothing(why),
                    Fresh::DidNothing if to_this_one || known.saw_all(asked) => {
                        Known::NeverStarted(known.bind(asked))
                    }
                    Fresh::DidNothing => Known::Nothing(NOT_SEEN.to_owned()),
                },
            };
        }
        if let Err(why) = calls.would_know(when, asked.retention()) {
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
    fn would_know(&self, when: &Dispatched, retention: Duration) -> Result<(), String> {
        if when.to.is_empty() {
            return Err(
                "the call is not remembered, and its caller does not say which process of this sidecar \
                 it was meant for"
                    .to_owned(),
            );
        }
        if when.to != self.name.to_string() {
            return Err(
                "the call is not remembered, and it may have been made to an earlier process of this \
                 sidecar, or before this one had no more room to remember it"
                    .to_owned(),
            );
        }
        let Some(first) = when.first else {
            return Err("the call is not remembered, and nobody says when it was made".to_owned());
        };
        let now = SystemTime::now();
        let apart = now
            .duration_since(first)
            .unwrap_or_else(|ahead| ahead.duration());
        // The other half is for clocks that differ.
        if apart > retention / 2 {
            return Err(format!(
                "the call is not remembered, and by its caller's clock it was made {apart:?} from now: \
                 results are kept for {retention:?}, and clocks may differ by half of that"
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
                self.name.gaps += 1;
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

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { of, gaps } = self;
        write!(f, "{of}.{gaps}")
    }
}

/// A name that no other memory has.
pub(crate) fn random_name() -> String {
    uuid::Uuid::now_v7().simple().to_string()
}

/// `ago` before now.
fn back(ago: Duration) -> Instant {
    let now = Instant::now();
    // A machine that was started since cannot say so long ago: then it is remembered longer.
    now.checked_sub(ago).unwrap_or(now)
}

#[cfg(test)]
mod tests;
