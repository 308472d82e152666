//! What was said, as a persistent list: pushing and cloning cost the same at any length.

use std::sync::Arc;

use crate::{
    budget::{MARGIN_PER_CALL, MARGIN_PER_MESSAGE, MARGIN_PER_PART},
    context::{Shortened, shorten},
    ids::{CallId, Seq},
    message::{NO_OUTPUT, Parts, ToolOutput, content_bytes, margin},
};

/// One turn of the conversation, as a model is shown it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Somebody speaks to the model.
    User(Parts),
    /// The model speaks.
    Assistant {
        /// What it said.
        parts: Parts,
        /// The session's id of its first tool call; the others follow in order.
        first_call: CallId,
    },
    /// The results of the tool calls of the turn before, all of them, in call order.
    Results(Arc<Vec<ToolResult>>),
}

/// The one result of a tool call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolResult {
    /// The call.
    pub call: CallId,
    /// What the model is told.
    pub output: Arc<ToolOutput>,
}

impl Turn {
    /// Bytes of content that it puts into a prompt.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        match self {
            Self::User(parts) | Self::Assistant { parts, .. } => {
                parts.iter().map(content_bytes).sum()
            }
            Self::Results(all) => all.iter().map(ToolResult::bytes).sum(),
        }
    }

    /// Tokens set aside for what a provider wraps around it: each result may be a message of its own.
    #[must_use]
    pub fn margin(&self) -> u64 {
        let parts = match self {
            Self::User(parts) => MARGIN_PER_PART * (parts.len() as u64).saturating_sub(1),
            Self::Assistant { parts, .. } => parts.iter().map(margin).sum(),
            Self::Results(all) => MARGIN_PER_CALL * all.len() as u64,
        };
        MARGIN_PER_MESSAGE.saturating_add(parts)
    }
}

impl ToolResult {
    /// Bytes of content that it puts into a prompt. Our own id of the call goes with it, at most 11 bytes.
    fn bytes(&self) -> u64 {
        let text = &self.output.text;
        let blank = text.trim().is_empty();
        let least = if blank { NO_OUTPUT.len() } else { 0 };
        text.len().max(least) as u64 + 16
    }
}

/// The turns of a session, newest at hand.
#[derive(Clone, Debug, Default)]
pub struct Conversation {
    last: Option<Arc<Node>>,
    len: usize,
    bytes: u64,
    margin: u64,
    replies: u64,
}

#[derive(Debug)]
struct Node {
    turn: Arc<Turn>,
    /// The entry that it came with.
    seq: Seq,
    before: Option<Arc<Node>>,
}

impl Conversation {
    /// A conversation of one turn, which came with no entry.
    pub(crate) fn one(turn: Turn) -> Self {
        let mut all = Self::default();
        all.push(turn, 0);
        all
    }

    /// A conversation of these turns.
    #[cfg(test)]
    pub(crate) fn of(turns: &[Arc<Turn>]) -> Self {
        let mut all = Self::default();
        turns.iter().for_each(|turn| all.put(Arc::clone(turn), 1));
        all
    }

    /// How many turns there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of content of all turns.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Tokens set aside for what a provider wraps around all turns.
    #[must_use]
    pub fn margin(&self) -> u64 {
        self.margin
    }

    /// Turns of the model so far, those that were dropped since included.
    #[must_use]
    pub fn replies(&self) -> u64 {
        self.replies
    }

    /// The last turn.
    #[must_use]
    pub fn last(&self) -> Option<&Arc<Turn>> {
        self.last.as_ref().map(|node| &node.turn)
    }

    /// The turns from number `from` on (counted from 0), oldest first. Costs what it returns.
    #[must_use]
    pub fn since(&self, from: usize) -> Vec<Arc<Turn>> {
        let mut turns = Vec::with_capacity(self.len.saturating_sub(from));
        let mut node = self.last.as_ref();
        while let Some(at) = node.filter(|_| turns.len() + from < self.len) {
            turns.push(Arc::clone(&at.turn));
            node = at.before.as_ref();
        }
        turns.reverse();
        turns
    }

    /// All turns, oldest first.
    #[must_use]
    pub fn turns(&self) -> Vec<Arc<Turn>> {
        self.since(0)
    }

    /// The entries that the turns number `first` and `last` (counted from 0) came with.
    #[must_use]
    pub fn entries_of(&self, first: usize, last: usize) -> Option<(Seq, Seq)> {
        let mut node = self.last.as_ref();
        let (mut at, mut ends) = (self.len, None);
        while let Some(this) = node {
            at -= 1;
            if at == last {
                ends = Some(this.seq);
            }
            if at == first {
                return Some((this.seq, ends?));
            }
            node = this.before.as_ref();
        }
        None
    }

    pub(super) fn push(&mut self, turn: Turn, seq: Seq) {
        self.put(Arc::new(turn), seq);
    }

    /// The same conversation with its first `dropped` turns replaced by one, and results told shorter.
    pub(super) fn compact(
        &mut self,
        dropped: usize,
        recap: Option<(Turn, Seq)>,
        shortened: &[Shortened],
        reads_output: bool,
    ) {
        let mut kept = Vec::new();
        let mut node = self.last.as_ref();
        while let Some(this) = node.filter(|_| kept.len() + dropped < self.len) {
            kept.push((Arc::clone(&this.turn), this.seq));
            node = this.before.as_ref();
        }
        let mut whole = Self::default();
        if let Some((turn, seq)) = recap {
            whole.push(turn, seq);
        }
        for (turn, seq) in kept.into_iter().rev() {
            whole.put(shorter(turn, shortened, reads_output), seq);
        }
        whole.replies = self.replies;
        *self = whole;
    }

    fn put(&mut self, turn: Arc<Turn>, seq: Seq) {
        self.len += 1;
        self.bytes = self.bytes.saturating_add(turn.bytes());
        self.margin = self.margin.saturating_add(turn.margin());
        self.replies += u64::from(matches!(*turn, Turn::Assistant { .. }));
        self.last = Some(Arc::new(Node {
            turn,
            seq,
            before: self.last.take(),
        }));
    }
}

/// A turn of results with those shortened that are to be.
fn shorter(turn: Arc<Turn>, shortened: &[Shortened], reads_output: bool) -> Arc<Turn> {
    let Turn::Results(results) = &*turn else {
        return turn;
    };
    let of = |result: &ToolResult| shortened.iter().find(|one| one.call == result.call);
    if results.iter().all(|result| of(result).is_none()) {
        return turn;
    }
    let told = results.iter().map(|result| match of(result) {
        None => result.clone(),
        Some(one) => ToolResult {
            call: result.call,
            output: Arc::new(ToolOutput {
                text: shorten(
                    &result.output.text,
                    one.chars,
                    reads_output.then_some(result.call),
                ),
                structured: None,
                ..(*result.output).clone()
            }),
        },
    });
    Arc::new(Turn::Results(Arc::new(told.collect())))
}

impl PartialEq for Conversation {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.turns() == other.turns()
    }
}

impl Drop for Node {
    // A long list must not be dropped by recursion: the stack would not hold it.
    fn drop(&mut self) {
        let mut next = self.before.take();
        while let Some(mut node) = next.and_then(Arc::into_inner) {
            next = node.before.take();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Part;

    fn said(text: &str) -> Turn {
        Turn::User(Arc::new(vec![Part::Text(text.to_owned())]))
    }

    #[test]
    fn a_clone_does_not_see_later_turns() {
        let mut now = Conversation::default();
        now.push(said("one"), 1);
        let then = now.clone();
        now.push(said("two"), 1);
        assert_eq!(then.len(), 1);
        assert_eq!(now.since(1), vec![Arc::new(said("two"))]);
        assert_eq!(now.turns().len(), 2);
        assert_eq!(now.since(7), Vec::new());
        assert_eq!(now.bytes(), 6);
    }

    #[test]
    fn a_long_conversation_is_dropped_without_recursion() {
        let mut long = Conversation::default();
        for _ in 0..300_000 {
            long.push(said("x"), 1);
        }
        drop(long);
    }
}
