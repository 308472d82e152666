//! The text of calls in flight, put together from deltas so that none of it is doubled.
//!
//! ```text
//! key (anchor seq, call, attempt)   entry ModelCallStarted opens it; Completed, Failed or Abandoned ends it
//! have  |-----------|
//! delta       |---------|           overlap up to `have` is cut, the rest is appended
//! delta                    |----|   a hole: held back; the reply's own entry brings the whole text
//! ```
//!
//! Invariant: what was yielded of an attempt is at any time a prefix of what that attempt sent. Deltas of
//! an attempt that ended are void, and so are those of a call whose start has not come yet.

use std::collections::BTreeMap;

use loopwright_proto::v1::{Delta, Entry, delta::Content, event::Kind};

/// The text of calls in flight, put together from deltas.
#[derive(Debug, Clone, Default)]
pub struct TextAssembler {
    /// Calls may have started at or before this seq without our having seen it.
    unseen_through: u64,
    open: BTreeMap<String, Attempt>,
    /// Last ended attempts of calls whose start lies in the unseen part.
    ended: BTreeMap<String, u32>,
}

#[derive(Debug, Clone, Default)]
struct Attempt {
    anchor_seq: u64,
    attempt: u32,
    text: String,
    thinking: String,
}

impl TextAssembler {
    /// For a reader that begins after `after_seq`: calls that started up to there are taken up by their
    /// deltas alone. `u64::MAX` for a reader that does not see the entries which start calls.
    #[must_use]
    pub fn new(after_seq: u64) -> Self {
        Self {
            unseen_through: after_seq,
            ..Self::default()
        }
    }

    /// Takes an entry into account: calls that it starts and ends.
    pub fn entry(&mut self, entry: &Entry) {
        for event in &entry.events {
            match &event.kind {
                Some(Kind::ModelCallStarted(e)) => self.start(entry.seq, &e.call, e.attempt),
                Some(Kind::ToolCallStarted(e)) => self.start(entry.seq, &e.call, e.attempt),
                Some(Kind::ModelCallCompleted(e)) => self.end(&e.call, e.attempt),
                Some(Kind::ModelCallFailed(e)) => self.end(&e.call, e.attempt),
                Some(Kind::ModelCallAbandoned(e)) => self.end(&e.call, e.attempt),
                Some(Kind::ToolCallCompleted(e)) => self.end(&e.call, e.attempt),
                Some(Kind::ToolCallFailed(e)) => self.end(&e.call, e.attempt),
                Some(Kind::ToolCallInDoubt(e)) => self.end(&e.call, e.attempt),
                Some(Kind::ToolCallUnknown(e)) => self.end(&e.call, e.attempt),
                Some(Kind::ToolCallCancelled(e)) => self.end(&e.call, u32::MAX),
                Some(Kind::LoopEnded(_)) => self.end_all(),
                _ => {}
            }
        }
    }

    /// Takes a delta: gives it back with what is known already cut off, or nothing where it brings
    /// nothing new, is void, or leaves a hole.
    pub fn delta(&mut self, mut delta: Delta) -> Option<Delta> {
        let attempt = self.attempt_of(&delta)?;
        let (have, came) = match delta.content.as_mut()? {
            Content::ToolProgress(_) => return Some(delta),
            Content::Text(came) => (&mut attempt.text, came),
            Content::Thinking(came) => (&mut attempt.thinking, came),
        };
        let known = (have.len() as u64).checked_sub(delta.offset)?;
        // A cut inside a character can only be a peer's fault: the reply's own entry repairs it.
        let new = came.get(usize::try_from(known).ok()?..)?;
        if new.is_empty() {
            return None;
        }
        delta.offset = have.len() as u64;
        have.push_str(new);
        *came = new.to_owned();
        Some(delta)
    }

    /// The text so far of the call's attempt in flight; absent where there is none.
    #[must_use]
    pub fn text(&self, call: &str) -> Option<&str> {
        self.open.get(call).map(|attempt| attempt.text.as_str())
    }

    /// The thinking so far of the call's attempt in flight; absent where there is none.
    #[must_use]
    pub fn thinking(&self, call: &str) -> Option<&str> {
        self.open.get(call).map(|attempt| attempt.thinking.as_str())
    }

    fn start(&mut self, anchor_seq: u64, call: &str, attempt: u32) {
        let fresh = Attempt {
            anchor_seq,
            attempt,
            ..Attempt::default()
        };
        self.open.insert(call.to_owned(), fresh);
    }

    fn end(&mut self, call: &str, attempt: u32) {
        let started_unseen = match self.open.get(call) {
            Some(open) if open.attempt > attempt => return,
            Some(open) => open.anchor_seq <= self.unseen_through,
            None => self.unseen_through > 0,
        };
        self.open.remove(call);
        if started_unseen {
            self.ended.insert(call.to_owned(), attempt);
        }
    }

    /// One loop runs at a time: with it, every call that we did not see start is over too.
    fn end_all(&mut self) {
        self.open.clear();
        if self.unseen_through != u64::MAX {
            self.unseen_through = 0;
            self.ended.clear();
        }
    }

    fn attempt_of(&mut self, delta: &Delta) -> Option<&mut Attempt> {
        let known = self.open.get(&delta.call);
        let matches = known.is_some_and(|open| {
            open.anchor_seq == delta.anchor_seq && open.attempt == delta.attempt
        });
        if !matches {
            let newer = known.is_none_or(|open| open.attempt < delta.attempt);
            let ended = self.ended.get(&delta.call);
            let alive = ended.is_none_or(|ended| *ended < delta.attempt);
            if !(newer && alive && delta.anchor_seq <= self.unseen_through) {
                return None;
            }
            self.start(delta.anchor_seq, &delta.call, delta.attempt);
        }
        self.open.get_mut(&delta.call)
    }
}

#[cfg(test)]
mod tests;
