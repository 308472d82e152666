//! What a sidecar remembers of deduplicated calls: each key runs once and is answered once.
//!
//! A key that is remembered is never forgotten before its retention is over: where the memory is full,
//! new keys are refused instead. A restart forgets all, unless there is a key file.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::answer::{MAX_ANSWER_BYTES, Outcome};
use crate::keyfile::{Begun, Kept};
use crate::running::Running;

/// Most keys remembered, running calls included.
const MAX_KEYS: usize = 10_000;
/// Most bytes of remembered answers. They are counted whenever the keys have doubled, so that up to twice
/// as many may be held for a while.
const MAX_BYTES: usize = 64 * 1024 * 1024;
/// Keys below which the memory is not looked through: even the largest answers fit.
const FIRST_LOOK: usize = MAX_BYTES / MAX_ANSWER_BYTES;
/// When a call refused for want of room may be tried again.
const FULL_PAUSE: Duration = Duration::from_secs(5);

/// The calls of one sidecar's deduplicated tools, by key.
pub(crate) struct Memory {
    calls: Mutex<Calls>,
}

struct Calls {
    by_key: HashMap<String, Remembered>,
    max_keys: usize,
    next_look: usize,
}

struct Remembered {
    /// The call as it was asked for; the epoch is the highest seen.
    begun: Begun,
    running: Arc<Running>,
}

impl Memory {
    pub(crate) fn new() -> Self {
        Self::with_room(MAX_KEYS)
    }

    fn with_room(max_keys: usize) -> Self {
        let calls = Calls {
            by_key: HashMap::new(),
            max_keys,
            next_look: FIRST_LOOK,
        };
        Self {
            calls: Mutex::new(calls),
        }
    }

    /// Takes in calls of an earlier process.
    pub(crate) fn restore(&self, kept: Vec<Kept>) {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        for Kept {
            begun,
            ended_ago,
            outcome,
        } in kept
        {
            // A machine that was started since cannot say so long ago: then it is remembered longer.
            let at = now.checked_sub(ended_ago).unwrap_or(now);
            let running = Running::over(outcome, at);
            calls
                .by_key
                .insert(begun.key.clone(), Remembered { begun, running });
        }
    }

    /// The call of this key: the one that runs or ran, or a new one that `start` starts. An error says why
    /// neither may be.
    pub(crate) fn enter(
        &self,
        asked: &Begun,
        start: impl FnOnce() -> Result<Arc<Running>, Outcome>,
    ) -> Result<Arc<Running>, Outcome> {
        let key = asked.key.as_str();
        if key.is_empty() {
            return Err(Outcome::not_executed(
                "the call has no key, and this tool runs each key once",
            ));
        }
        // A panic elsewhere cannot leave the map half changed.
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = calls.by_key.get_mut(key)
            && !known.is_forgotten()
        {
            known.admit(asked)?;
            if !known.surely_did_nothing() {
                return Ok(Arc::clone(&known.running));
            }
            known.running = start()?;
            return Ok(Arc::clone(&known.running));
        }
        calls.by_key.remove(key);
        calls.make_room()?;
        let running = start()?;
        let (begun, same) = (asked.clone(), Arc::clone(&running));
        calls.by_key.insert(
            key.to_owned(),
            Remembered {
                begun,
                running: same,
            },
        );
        Ok(running)
    }
}

impl Remembered {
    fn admit(&mut self, asked: &Begun) -> Result<(), Outcome> {
        if asked.epoch < self.begun.epoch {
            return Err(Outcome::not_executed(format!(
                "the call comes from epoch {}, and epoch {} has taken over",
                asked.epoch, self.begun.epoch
            )));
        }
        if asked.tool != self.begun.tool || asked.arguments_sha256 != self.begun.arguments_sha256 {
            return Err(Outcome::not_executed(format!(
                "the key {:?} was used before for another tool or other arguments",
                asked.key
            )));
        }
        self.begun.epoch = asked.epoch;
        Ok(())
    }

    fn is_forgotten(&self) -> bool {
        let ended = self.running.ended();
        ended.is_some_and(|ended| ended.at.elapsed() > self.begun.retention())
    }

    fn surely_did_nothing(&self) -> bool {
        self.running.ended().is_some_and(|ended| ended.did_nothing)
    }
}

impl Calls {
    /// Lets go of what may be forgotten when it is time to look; refuses when the rest fills the memory.
    fn make_room(&mut self) -> Result<(), Outcome> {
        if self.by_key.len() < self.next_look.min(self.max_keys) {
            return Ok(());
        }
        self.by_key.retain(|_, call| !call.is_forgotten());
        let ended = self.by_key.values().filter_map(|call| call.running.ended());
        let bytes: usize = ended.map(|ended| ended.bytes).sum();
        let keys = self.by_key.len();
        if keys < self.max_keys && bytes < MAX_BYTES {
            self.next_look = FIRST_LOOK.max(keys * 2);
            return Ok(());
        }
        Err(Outcome::try_later(
            format!("the sidecar remembers {keys} calls already and has no room for another"),
            FULL_PAUSE,
        ))
    }
}

#[cfg(test)]
mod tests;
