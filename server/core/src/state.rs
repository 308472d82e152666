//! The state of a session: a fold of its log by [`State::apply_entry`].
//!
//! `apply` knows no clock and refuses nothing: what it does follows from the event alone. The
//! conversation and every larger value sit behind `Arc`, so that a clone costs the same at step 1
//! and at step 1,000.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use crate::{
    agent::{Agent, Limits, ToolSet},
    budget::{Amount, Beside, Warned},
    context::{Ratio, Recap},
    entry::Entry,
    ids::{Attempt, CallId, Epoch, LoopId, Seq, Timestamp},
    message::Parts,
    outcome::EndReason,
    usage::Totals,
};

mod apply;
mod conversation;
mod progress;
mod run;
mod time;

pub use conversation::{Conversation, ToolResult, Turn};
pub use progress::Progress;
pub use run::{LoopRun, ModelCall, ModelPhase, ToolCall, ToolPhase};

/// Answers to requests that a session remembers, so that a repeat gets the same one.
pub const ANSWERS_KEPT: usize = 1_024;
/// Calls whose outcome is unknown that a session remembers. A session that has so many holds every
/// call that might repeat one.
pub const UNKNOWN_KEPT: usize = 1_024;
/// Calls that a session remembers of those that ended without their own result.
pub const LATE_KEPT: usize = 64;
/// Ended loops that a session's state remembers; older ones are read from its log.
pub const ENDED_KEPT: usize = 64;

/// A session, as its log says it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// Identity and terms; `None` before `SessionCreated`.
    pub session: Option<Arc<Head>>,
    /// Position of the last entry applied.
    pub seq: Seq,
    /// Generation of the last driver that attached.
    pub epoch: Epoch,
    /// Who answers.
    pub agent: Arc<Agent>,
    /// Within which limits.
    pub limits: Arc<Limits>,
    /// The tools on offer.
    pub tools: Arc<ToolSet>,
    /// What was said.
    pub conversation: Conversation,
    /// Messages that join at the next model call, in accept order.
    pub pending: Vec<Pending>,
    /// Messages that wait for a loop of their own, in accept order.
    pub queue: VecDeque<Parts>,
    /// The running loop.
    pub active: Option<LoopRun>,
    /// The last loops that ended, oldest first.
    pub ended: Arc<VecDeque<EndedLoop>>,
    /// Settlements that named budgets have not yet taken.
    pub settling: BTreeMap<(CallId, Attempt), Settlement>,
    /// Everything that the session's loops consumed.
    pub totals: Totals,
    /// The number of the next call.
    pub next_call: u32,
    /// The number of the next loop.
    pub next_loop: u32,
    /// What the last prompt that a provider counted came to.
    pub counted: Option<Counted>,
    /// The last count of a provider and the bytes that it was of: what estimates are scaled by.
    pub measured: Option<Ratio>,
    /// What stands in the place of the turns that were dropped.
    pub recap: Option<Arc<Recap>>,
    /// Compactions in a row that missed their target.
    pub useless: u32,
    /// How often the tools on offer were changed.
    pub tool_changes: u64,
    /// Whether the last entry was copied from another log, so that the copy is unfinished.
    pub copied: bool,
    /// Dimensions of the session's own budget that were warned of.
    pub warned: Warned,
    answers: Arc<Answers>,
    /// Tool and arguments of each call whose outcome is unknown.
    unknown: Arc<BTreeMap<CallId, Signature>>,
    /// Dispatched calls that ended without their own result, each with its last attempt.
    without_result: VecDeque<(CallId, Attempt)>,
}

/// What makes two tool calls the same: the tool and the hash of the arguments.
type Signature = (Arc<str>, Arc<str>);

/// A session's identity and terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its id.
    pub session: String,
    /// The tenant that it belongs to.
    pub namespace: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it came to be under this id: it was created, forked or imported. What it reserves is told
    /// by it from what an earlier session of the same id did.
    pub born_at: Timestamp,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// A message that has been accepted and not yet joined the conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// True for a nudge of the loop's own, which goes with its loop.
    pub nudge: bool,
    /// What it says.
    pub parts: Parts,
}

/// A loop that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedLoop {
    /// Its id.
    pub id: LoopId,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Timestamp,
    /// Why.
    pub reason: EndReason,
    /// What it said last.
    pub text: String,
    /// What it consumed.
    pub totals: Totals,
}

/// A prompt whose size a provider reported, and what it was made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// What the provider counted, all classes of the prompt.
    pub tokens: u64,
    /// Content bytes of the conversation then.
    pub bytes: u64,
    /// Tokens set aside then for what a provider wraps around them.
    pub margin: u64,
    /// How often the tools had been changed then.
    pub tool_changes: u64,
}

/// What named budgets are told of an attempt that ended, or of a loop.
#[derive(Clone, Debug, PartialEq)]
pub enum Settlement {
    /// It used this.
    Used(Amount),
    /// Nobody reported what tokens it used: those of the reservation count, and this beside them.
    Whole(Beside),
    /// It was never made.
    Released,
    /// A loop has ended that ran on after its last model call: that time.
    Time {
        /// Who named the budgets that it is charged to.
        agent: Arc<Agent>,
        /// How long, milliseconds.
        wall_ms: u64,
    },
}

/// The answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The entry that it caused.
    pub seq: Seq,
    /// The loop that it started, or that was running.
    pub loop_id: LoopId,
}

/// The last [`ANSWERS_KEPT`] answers by request id.
#[derive(Clone, Debug, Default, PartialEq)]
struct Answers {
    by_request: BTreeMap<Arc<str>, Answer>,
    order: VecDeque<Arc<str>>,
}

impl State {
    /// Applies one entry, the next of the log.
    pub fn apply_entry(&mut self, seq: Seq, entry: &Entry) {
        self.seq = seq;
        for event in &entry.events {
            self.apply(event);
        }
        if let Some(command) = entry.cause.command() {
            let creates = matches!(entry.cause, crate::entry::Cause::Create(_));
            if !command.request_id.is_empty() && !creates {
                let answer = Answer {
                    seq,
                    loop_id: self.current_loop(),
                };
                Arc::make_mut(&mut self.answers).remember(&command.request_id, answer);
            }
        }
        self.copied = entry.copied;
    }

    /// The answer that a request has had already.
    #[must_use]
    pub fn answer(&self, request_id: &str) -> Option<Answer> {
        self.answers.by_request.get(request_id).copied()
    }

    /// Whether a call of this tool with these arguments has an unknown outcome.
    #[must_use]
    pub fn is_unknown(&self, tool: &str, args_hash: &str) -> bool {
        let same = |(name, hash): &Signature| &**name == tool && &**hash == args_hash;
        self.unknown.len() >= UNKNOWN_KEPT || self.unknown.values().any(same)
    }

    /// Whether this attempt of a tool call was dispatched, and its call ended without its result.
    #[must_use]
    pub fn ended_without_result(&self, call: CallId, attempt: Attempt) -> bool {
        let is_it = |&(of, last): &(CallId, Attempt)| of == call && (1..=last).contains(&attempt);
        self.without_result.iter().any(is_it)
    }

    /// The running loop, or else the last one.
    #[must_use]
    pub fn current_loop(&self) -> LoopId {
        match (&self.active, self.ended.back()) {
            (Some(active), _) => active.id,
            (None, Some(ended)) => ended.id,
            (None, None) => LoopId(0),
        }
    }

    /// When the session must be looked at again although nothing happens to it: the earliest timer.
    #[must_use]
    pub fn wake_at(&self) -> Option<Timestamp> {
        let at = |key| match key {
            crate::effect::EffectKey::Timer { at, .. } => Some(at),
            crate::effect::EffectKey::Model { .. }
            | crate::effect::EffectKey::Tool { .. }
            | crate::effect::EffectKey::Lookup { .. }
            | crate::effect::EffectKey::Reserve { .. }
            | crate::effect::EffectKey::Settle { .. } => None,
        };
        crate::effect::wanted(self).into_iter().filter_map(at).min()
    }

    /// An upper bound of the tokens of the next prompt, every waiting message that will join it
    /// included. See [`crate::budget`] for why it holds.
    #[must_use]
    pub fn prompt_bound(&self) -> u64 {
        use crate::budget::{MARGIN_PER_COUNT, MARGIN_PER_PROMPT, MARGIN_PER_TOOL};
        let joining = self.joining().iter();
        let waiting: u64 = joining
            .map(|message| Turn::User(Arc::clone(&message.parts)).margin())
            .sum();
        let margin = self.conversation.margin().saturating_add(waiting);
        let waiting = self.waiting_bytes();
        let bytes = self.conversation.bytes().saturating_add(waiting);
        let tools = self.tools.content_bytes() + MARGIN_PER_TOOL * self.tools.len() as u64;
        let by_bytes = (self.agent.content_bytes())
            .saturating_add(bytes)
            .saturating_add(margin)
            .saturating_add(tools)
            .saturating_add(MARGIN_PER_PROMPT);
        let note = self.note_bound();
        let Some(c) = self.counted else {
            return by_bytes.saturating_add(note);
        };
        let counted = c
            .tokens
            .saturating_add(bytes.saturating_sub(c.bytes))
            .saturating_add(margin.saturating_sub(c.margin))
            .saturating_add(if self.tool_changes == c.tool_changes {
                0
            } else {
                tools
            })
            .saturating_add(MARGIN_PER_COUNT);
        // After a compaction the count is of more than what is left.
        counted.min(by_bytes).saturating_add(note)
    }

    /// Content bytes of the messages that join at the next start of a model call.
    #[must_use]
    pub fn waiting_bytes(&self) -> u64 {
        let parts = self
            .joining()
            .iter()
            .flat_map(|message| message.parts.iter());
        parts.map(crate::message::content_bytes).sum()
    }

    /// The waiting messages that join at the next start of a model call: none where it is a repeat,
    /// and not those that came while it was reserving.
    fn joining(&self) -> &[Pending] {
        let model = self
            .active
            .as_ref()
            .and_then(|active| active.model.as_ref());
        let of_call = model.and_then(|model| match model.phase {
            ModelPhase::Reserving | ModelPhase::Backoff { .. } => Some(model.joining),
            ModelPhase::Running { .. } | ModelPhase::Abandoned => None,
        });
        let count = of_call.unwrap_or(self.pending.len());
        &self.pending[..count.min(self.pending.len())]
    }
}

impl Answers {
    fn remember(&mut self, request_id: &str, answer: Answer) {
        let key: Arc<str> = request_id.into();
        if self.by_request.insert(Arc::clone(&key), answer).is_some() {
            return;
        }
        self.order.push_back(key);
        if self.order.len() > ANSWERS_KEPT
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_request.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests;
