//! One session in short: the state without its conversation and its tools, and its last loops.

use std::{collections::VecDeque, sync::Arc};

use loopwright_core::{
    agent::Agent,
    entry::Entry,
    event::{Event, Origin},
    ids::{LoopId, Timestamp},
    message::{Part, clamp, text_of},
    outcome::EndReason,
    state::{Conversation, State},
    usage::Totals,
};
use loopwright_log::{Corruption, Record, Seq};
use serde::{Deserialize, Serialize};

/// Loops of a session that its digest keeps.
pub const LOOPS_KEPT: usize = 64;
/// Characters of a title.
const TITLE_CHARS: usize = 128;
/// Characters of the last text.
const TEXT_CHARS: usize = 1_024;

/// A session, as of `seq`.
#[derive(Clone, Debug)]
pub struct Digest {
    /// The last entry folded.
    pub seq: Seq,
    /// Its checksum, which covers all entries before it.
    pub crc: u32,
    /// Bytes of the log up to there.
    pub bytes: u64,
    /// When it was committed.
    pub updated_at: Timestamp,
    /// The state; its conversation and its tools are left out.
    pub state: State,
    /// The first user message, cut.
    pub title: String,
    /// Every loop and when it began, oldest first.
    pub starts: Vec<(LoopId, Timestamp, Arc<Agent>)>,
    /// The last loops, oldest first; the last one may be going on.
    pub loops: VecDeque<LoopDigest>,
    /// The entry that made a session of a copy; 0 for a session that is none.
    pub born: Seq,
    /// What is wrong with the log after `seq`, where something is.
    pub damage: Option<Corruption>,
    keep: usize,
    only: Option<LoopId>,
}

/// A loop of a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoopDigest {
    /// Its id.
    pub id: LoopId,
    /// When it began.
    pub started_at: Timestamp,
    /// When its last entry was committed.
    pub updated_at: Timestamp,
    /// When it ended, by the entry with which seq, and why.
    pub ended: Option<(Timestamp, Seq, EndReason)>,
    /// What it consumed.
    pub totals: Totals,
    /// What the model said last, cut.
    pub last_text: String,
    /// The model that it last called.
    pub model: String,
    /// The name of its agent; empty for none.
    pub agent: String,
    /// Times that a driver took it up again.
    pub restarts: u32,
    /// Since when it is paused.
    pub paused_at: Option<Timestamp>,
    /// How long it was paused before, milliseconds.
    pub paused_ms: u64,
}

impl Digest {
    /// A digest of nothing yet, that keeps the last `keep` loops, or `only` one.
    #[must_use]
    pub(super) fn new(keep: usize, only: Option<LoopId>) -> Self {
        Self {
            seq: 0,
            crc: 0,
            bytes: 0,
            updated_at: Timestamp(0),
            state: State::default(),
            title: String::new(),
            starts: Vec::new(),
            loops: VecDeque::new(),
            born: 0,
            damage: None,
            keep,
            only,
        }
    }

    /// The loop that is going on, or the last one.
    #[must_use]
    pub fn current(&self) -> Option<&LoopDigest> {
        self.loops.back()
    }

    pub(super) fn apply(&mut self, record: &Record, entry: &Entry) {
        let at = super::at(record);
        let going_on = self.open().is_some();
        for event in &entry.events {
            self.note(event, record.seq);
        }
        self.state.apply_entry(record.seq, entry);
        self.state.conversation = Conversation::default();
        self.state.tools = Arc::default();
        self.bytes = self.bytes.saturating_add(record.stored_bytes());
        let active = self.state.active.as_ref();
        let run = active.map(|active| (active.totals, active.paused_at, active.paused_ms));
        let touched = going_on || self.open().is_some();
        if let Some(current) = self.loops.back_mut().filter(|_| touched) {
            current.updated_at = at;
            if let Some(run) = run.filter(|_| current.ended.is_none()) {
                (current.totals, current.paused_at, current.paused_ms) = run;
            }
        }
        (self.seq, self.crc, self.updated_at) = (record.seq, record.crc, at);
    }

    fn note(&mut self, event: &Event, seq: Seq) {
        match event {
            Event::MessageAdded(e) if self.title.is_empty() && e.origin != Origin::Nudge => {
                self.title = cut(&e.parts, TITLE_CHARS);
            }
            Event::LoopStarted(e) if self.only.is_none_or(|only| only == e.id) => {
                let agent = e.agent.as_ref().unwrap_or(&self.state.agent);
                let agent = Arc::clone(agent);
                self.begin(e.id, e.at, &agent);
            }
            Event::DriverAttached(_) => {
                if let Some(current) = self.open() {
                    current.restarts = current.restarts.saturating_add(1);
                }
            }
            Event::ModelCallStarted(e) if e.recap.is_none() => {
                if let Some(current) = self.open() {
                    current.model.clone_from(&e.model);
                }
            }
            Event::ModelCallCompleted(e) if !e.recap => {
                let said = e.parts.iter().any(|part| matches!(part, Part::Text(_)));
                if let Some(current) = self.open().filter(|_| said) {
                    current.last_text = cut(&e.parts, TEXT_CHARS);
                }
            }
            Event::SessionForked(_) | Event::SessionImported(_) => self.born = seq,
            Event::LoopEnded(e) => {
                if let Some(current) = self.open() {
                    current.ended = Some((e.at, seq, e.reason.clone()));
                    current.totals = e.totals;
                }
            }
            _ => {}
        }
    }

    fn begin(&mut self, id: LoopId, at: Timestamp, agent: &Arc<Agent>) {
        self.starts.push((id, at, Arc::clone(agent)));
        self.loops.push_back(LoopDigest {
            id,
            started_at: at,
            updated_at: at,
            ended: None,
            totals: Totals::default(),
            last_text: String::new(),
            model: agent.model.clone(),
            agent: agent.name.clone(),
            restarts: 0,
            paused_at: None,
            paused_ms: 0,
        });
        if self.loops.len() > self.keep {
            self.loops.pop_front();
        }
    }

    fn open(&mut self) -> Option<&mut LoopDigest> {
        self.loops
            .back_mut()
            .filter(|current| current.ended.is_none())
    }
}

fn cut(parts: &[Part], chars: usize) -> String {
    // No character is longer than four bytes.
    let text = text_of(parts);
    clamp(&text, chars * 4).chars().take(chars).collect()
}
