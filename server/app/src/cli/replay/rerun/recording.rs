//! What a recording gives a new run: how the session was made, what people said and when, and what tools
//! answered.
//!
//! Invariant: what a tool answered is what the model was told of it, whichever way the call ended.

use std::collections::{BTreeMap, VecDeque};

use anyhow::Context as _;
use loopwright_core::{
    Event, Input, State, What,
    entry::Cause,
    ids::{CallId, LoopId},
    input::Create,
    message::{Part, ToolOutput},
    state::Turn,
};
use std::sync::Arc;

use super::{
    super::source::Line,
    trail::{Asked, Trail},
};

/// A recorded session.
#[derive(Debug, Default)]
pub(super) struct Recording {
    pub(super) create: Option<Create>,
    /// What people said, in order.
    pub(super) said: Vec<Said>,
    /// What each call asked for, in order, and what it was answered.
    calls: BTreeMap<CallId, Call>,
    pub(super) trail: Trail,
    state: State,
}

/// Something that reached the session from outside.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) when: When,
    pub(super) what: What,
}

/// When something was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// No loop went on.
    Idle,
    /// In a loop, when so many of its model calls had begun.
    During {
        of: LoopId,
        step: u32,
        /// Its model had replied: tools ran, or people were asked.
        replied: bool,
    },
}

#[derive(Debug)]
struct Call {
    asked: Asked,
    output: Option<Arc<ToolOutput>>,
}

/// Recorded answers that no call has had yet.
#[derive(Debug, Default)]
pub(super) struct Answers(Vec<(Asked, VecDeque<Arc<ToolOutput>>)>);

impl When {
    /// Where a session stands.
    pub(super) fn of(state: &State) -> Self {
        state
            .active
            .as_ref()
            .map_or(Self::Idle, |active| Self::During {
                of: active.id,
                step: active.totals.steps,
                replied: active.model.is_none(),
            })
    }
}

impl Recording {
    /// Takes the next entry.
    pub(super) fn take(&mut self, line: &Line) -> anyhow::Result<()> {
        let entry = &line.entry;
        let when = When::of(&self.state);
        let of_people = matches!(
            entry.cause,
            Cause::StartLoop(_)
                | Cause::SendMessage { .. }
                | Cause::CancelLoop { .. }
                | Cause::Tools
        );
        if of_people || matches!(entry.cause, Cause::Create(_)) {
            let seq = self.state.seq + 1;
            let input = Input::from_entry(line.at, entry).with_context(|| format!("seq {seq}"))?;
            match input.what {
                What::Create(create) => self.create = Some(create),
                what => self.said.push(Said { when, what }),
            }
        }
        let mut reply = Vec::new();
        for event in &entry.events {
            self.note_call(event, &mut reply);
            self.state.apply(event);
            self.note_answers();
        }
        self.state.seq += 1;
        self.trail.take(entry, &self.state);
        Ok(())
    }

    fn note_call(&mut self, event: &Event, reply: &mut Vec<Part>) {
        #[expect(clippy::wildcard_enum_match_arm, reason = "two kinds tell a call")]
        match event {
            Event::ModelCallCompleted(e) => reply.clone_from(&e.parts),
            Event::ToolCallRequested(e) => {
                if let Some(Part::ToolCall(part)) = reply.get(e.index as usize) {
                    let (asked, output) = (Asked::of(part), None);
                    self.calls.insert(e.call, Call { asked, output });
                }
            }
            _ => {}
        }
    }

    /// Results join the conversation when the last one of a reply is there.
    fn note_answers(&mut self) {
        let Some(last) = self.state.conversation.last() else {
            return;
        };
        if let Turn::Results(results) = &**last {
            for result in results.iter() {
                if let Some(call) = self.calls.get_mut(&result.call) {
                    call.output
                        .get_or_insert_with(|| Arc::clone(&result.output));
                }
            }
        }
    }

    /// Every recorded answer, once.
    pub(super) fn answers(&self) -> Answers {
        let mut answers = Answers::default();
        for call in self.calls.values() {
            let Some(output) = &call.output else {
                continue;
            };
            match answers.0.iter_mut().find(|(asked, _)| *asked == call.asked) {
                Some((_, outputs)) => outputs.push_back(Arc::clone(output)),
                None => {
                    let outputs = VecDeque::from([Arc::clone(output)]);
                    answers.0.push((call.asked.clone(), outputs));
                }
            }
        }
        answers
    }
}

impl Answers {
    /// The next recorded answer to this call; none where it was not recorded, or not so often.
    pub(super) fn next(&mut self, asked: &Asked) -> Option<Arc<ToolOutput>> {
        let known = self.0.iter_mut().find(|(known, _)| known == asked);
        known.and_then(|(_, outputs)| outputs.pop_front())
    }
}
