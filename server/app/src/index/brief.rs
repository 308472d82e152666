//! What lists show of a session, and what the next start must know of it: a digest without the state
//! that it was folded from.
//!
//! Boundary: made of a digest, by nothing else; small enough to be kept on disk for every session.
//! Invariant: two briefs of one log as of one seq are equal.

use std::collections::{BTreeMap, VecDeque};

use loopwright_core::{
    effect::wanted,
    ids::{CallId, LoopId, Timestamp},
    state::{LoopRun, State, ToolPhase},
    usage::Totals,
};
use loopwright_log::Seq;
use serde::{Deserialize, Serialize};

use super::{
    digest::{Digest, LoopDigest},
    trouble::Trouble,
};

/// A session in short, as of `seq`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Brief {
    /// The last entry folded.
    pub seq: Seq,
    /// Its checksum, which covers all entries before it.
    pub crc: u32,
    /// When it was committed.
    pub updated_at: Timestamp,
    /// When the session was created; `None` where its first entry cannot be read.
    pub created_at: Option<Timestamp>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The first user message, cut.
    pub title: String,
    /// The name of its agent; empty for none.
    pub agent: String,
    /// The agent's model.
    pub model: String,
    /// What all loops consumed.
    pub totals: Totals,
    /// Loops so far.
    pub begun: u32,
    /// Messages that wait for a loop of their own.
    pub queued: u32,
    /// The last loops, oldest first; the last one may be going on.
    pub loops: VecDeque<LoopDigest>,
    /// Tool calls of the open loop that are not done.
    pub pending: Vec<PendingCall>,
    /// What a start must do with it.
    pub standing: Standing,
    /// Whether the log is damaged after `seq`.
    pub damaged: bool,
    /// The entry that made a session of a copy, which nobody was told of before; 0 for one that is none.
    #[serde(default)]
    pub born: Seq,
    /// How it stands with its drivers, where one was lost.
    #[serde(skip)]
    pub trouble: Option<Trouble>,
    /// Agents of all loops.
    agents: Vec<String>,
    /// All loops, oldest first: when each began, and which of `agents` it has.
    starts: Vec<(LoopId, Timestamp, u32)>,
}

/// Whether a driver has to see to a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// A loop has begun and not ended.
    pub open: bool,
    /// It wants more than to wait for a time or a person.
    pub runnable: bool,
    /// When it wants to be looked at although nothing happens to it.
    pub wake_at: Option<Timestamp>,
    /// Nothing of it runs, and a tool call waits for a person.
    pub waiting: bool,
    /// It waits for a budget.
    pub paused: bool,
    /// It is a copy that was not brought to its end: no session yet.
    pub unfinished: bool,
}

/// A tool call that is not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingCall {
    /// The call.
    pub call: CallId,
    /// Its tool's name on the model's wire.
    pub tool: String,
    /// What it waits for.
    pub waits: Waits,
}

/// What a tool call waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Waits {
    /// Its turn.
    Turn,
    /// Its next attempt.
    Attempt(Timestamp),
    /// The sidecar.
    Sidecar,
    /// The sidecar's word on what became of it.
    Lookup,
    /// A person, to allow it; until then, where the wait ends by itself.
    Approval(Option<Timestamp>),
    /// A person, to say what became of it; until then, where the wait ends by itself.
    Resolution(Option<Timestamp>),
}

impl Brief {
    /// The loop that is going on, or the last one.
    #[must_use]
    pub fn current(&self) -> Option<&LoopDigest> {
        self.loops.back()
    }

    /// The last loops of which an entry after `after` tells something new, oldest first: those that went
    /// on, or ended, since.
    pub fn loops_since(&self, after: Seq) -> impl Iterator<Item = &LoopDigest> {
        let (after, moved) = (self.told_from(after), self.seq > after);
        let changed = move |one: &&LoopDigest| one.ended_after(after);
        self.loops.iter().filter(move |_| moved).filter(changed)
    }

    /// Whether loops that ended after `after` may be missing in `loops`, since there were more.
    #[must_use]
    pub fn misses_loops_since(&self, after: Seq) -> bool {
        let after = self.told_from(after);
        let all = self.starts.len() <= self.loops.len();
        let oldest = self.loops.front();
        !all && self.seq > after && oldest.is_none_or(|oldest| oldest.ended_after(after))
    }

    /// Who has seen a copy that was no session yet has seen nothing.
    fn told_from(&self, after: Seq) -> Seq {
        if after < self.born { 0 } else { after }
    }

    /// Every loop, when it began and the name of its agent, oldest first.
    pub fn starts(&self) -> impl Iterator<Item = (LoopId, Timestamp, &str)> {
        let agent = |at: u32| self.agents.get(at as usize).map_or("", String::as_str);
        let starts = self.starts.iter();
        starts.map(move |&(id, at, of)| (id, at, agent(of)))
    }
}

impl LoopDigest {
    /// Whether it goes on, or ended by an entry after `after`.
    #[must_use]
    pub fn ended_after(&self, after: Seq) -> bool {
        let ended = self.ended.as_ref();
        ended.is_none_or(|(_, seq, _)| *seq > after)
    }
}

impl Standing {
    /// Where a state stands.
    #[must_use]
    pub fn of(state: &State) -> Self {
        Self {
            open: state.active.is_some(),
            runnable: wanted(state).iter().any(|key| !key.is_timer()),
            wake_at: state.wake_at(),
            waiting: state.active.as_ref().is_some_and(LoopRun::waits_for_person),
            paused: state
                .active
                .as_ref()
                .is_some_and(|active| active.paused.is_some()),
            unfinished: state.copied,
        }
    }
}

impl Digest {
    /// What lists show of it.
    #[must_use]
    pub fn brief(&self) -> Brief {
        let head = self.state.session.as_deref();
        let mut agents: Vec<String> = Vec::new();
        let starts = self.starts.iter().map(|(id, at, agent)| {
            let known = agents.iter().rposition(|known| *known == agent.name);
            let known = known.unwrap_or_else(|| {
                agents.push(agent.name.clone());
                agents.len() - 1
            });
            (*id, *at, u32::try_from(known).unwrap_or(u32::MAX))
        });
        let starts = starts.collect();
        Brief {
            seq: self.seq,
            crc: self.crc,
            updated_at: self.updated_at,
            created_at: head.map(|head| head.created_at),
            labels: head.map(|head| head.labels.clone()).unwrap_or_default(),
            title: self.title.clone(),
            agent: self.state.agent.name.clone(),
            model: self.state.agent.model.clone(),
            totals: self.state.totals,
            begun: self.state.next_loop.saturating_sub(1),
            queued: u32::try_from(self.state.queue.len()).unwrap_or(u32::MAX),
            loops: self.loops.clone(),
            pending: pending(&self.state),
            standing: Standing::of(&self.state),
            damaged: self.damage.is_some(),
            born: self.born,
            trouble: None,
            agents,
            starts,
        }
    }
}

fn pending(state: &State) -> Vec<PendingCall> {
    let Some(active) = &state.active else {
        return Vec::new();
    };
    let ends = ends_by_itself(state, active);
    let pending = |tool: &loopwright_core::state::ToolCall| {
        let waits = match tool.phase {
            ToolPhase::Waiting => Waits::Turn,
            ToolPhase::Backoff { until } => Waits::Attempt(until),
            ToolPhase::Running => Waits::Sidecar,
            ToolPhase::InDoubt { .. } => Waits::Lookup,
            ToolPhase::Held { until, .. } => {
                Waits::Approval([until, ends].into_iter().flatten().min())
            }
            ToolPhase::Asking => Waits::Resolution(ends),
            ToolPhase::Ended(_) => return None,
        };
        Some(PendingCall {
            call: tool.call,
            tool: active.tool_name(tool).to_owned(),
            waits,
        })
    };
    active.tools.iter().filter_map(pending).collect()
}

/// When the loop ends although nobody has answered, where it does.
fn ends_by_itself(state: &State, active: &LoopRun) -> Option<Timestamp> {
    let idle = active
        .asked_at
        .filter(|_| active.waits_for_person())
        .zip(state.limits.idle_timeout_ms)
        .map(|(asked_at, millis)| asked_at.plus(millis));
    [idle, active.deadline_at].into_iter().flatten().min()
}
