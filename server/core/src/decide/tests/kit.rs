//! A session under test: inputs in, events out, and after each entry what must always hold.

use std::sync::Arc;

use crate::{
    Entry, Event, Input, Instances, Rejection, State, What,
    agent::{Agent, Limits, ToolSet, ToolSpec},
    decide,
    effect::{EffectKey, wanted},
    event::UnknownResolution,
    ids::{Attempt, CallId, Timestamp},
    input::{Command, Mode, TimerWhy},
    message::Part,
    outcome::{
        EndReason, LookupAnswer, ModelFailure, ModelFailureKind, StopReason, ToolFailure,
        ToolFailureKind,
    },
    replay::{fold, redecide},
    retry::JITTER_ONE,
    state::{ToolPhase, Turn},
    usage::Usage,
};

mod inputs;

pub(super) use inputs::{
    answer, by, call, call_with, cancel, completed, create, pause, resolve, resume, said, send,
    specs, start, tool_completed, update, usage,
};

/// When a session under test begins, milliseconds.
pub(super) const BEGIN: u64 = 1_000_000;

pub(super) struct Session {
    pub(super) state: State,
    pub(super) now: u64,
    /// Which instance each sidecar is from now on.
    pub(super) instances: Instances,
    entries: Vec<Entry>,
}

impl Session {
    /// Created with these terms, attached, at rest.
    pub(super) fn new(limits: Limits, agent: Agent) -> Self {
        let mut session = Self::empty();
        let by = Command::default();
        session.go(What::Create(create(by, limits, agent)));
        session.attach();
        session
    }

    /// With a loop whose first model call runs, or is reserving.
    pub(super) fn started(limits: Limits) -> Self {
        let mut session = Self::new(limits, Agent::default());
        session.start("hello");
        session
    }

    pub(super) fn empty() -> Self {
        Self {
            state: State::default(),
            now: BEGIN,
            instances: Instances::default(),
            entries: Vec::new(),
        }
    }

    pub(super) fn go(&mut self, what: What) -> Vec<Event> {
        self.offer(what).expect("the input is accepted")
    }

    pub(super) fn offer(&mut self, what: What) -> Result<Vec<Event>, Rejection> {
        let at = Timestamp(self.now);
        let input = Input {
            instances: self.instances.clone(),
            ..Input::new(at, what)
        };
        let cause = input.cause();
        let events = decide(&self.state, input)?;
        if !events.is_empty() {
            let entry = Entry::new(cause, events.clone());
            redecide(&self.state, at, &entry).expect("the recovered input decides the same");
            self.state.apply_entry(self.state.seq + 1, &entry);
            self.entries.push(entry);
            self.check();
        }
        Ok(events)
    }

    fn check(&self) {
        assert_eq!(
            fold(&self.entries),
            self.state,
            "the fold is not the live state"
        );
        let mut open: Vec<CallId> = Vec::new();
        for turn in self.state.conversation.turns() {
            match &*turn {
                Turn::Results(results) => {
                    let told: Vec<CallId> = results.iter().map(|r| r.call).collect();
                    assert_eq!(told, open, "results without their calls");
                    open.clear();
                }
                Turn::User(_) => assert_eq!(open, [], "a message parts calls from results"),
                Turn::Assistant { parts, first_call } => {
                    assert_eq!(open, [], "a reply parts calls from results");
                    let asked = parts.iter().filter(|p| matches!(p, Part::ToolCall(_)));
                    open.extend((first_call.0..).zip(asked).map(|(id, _)| CallId(id)));
                }
            }
        }
        let waits = self
            .state
            .active
            .as_ref()
            .is_some_and(|a| !a.tools.is_empty());
        assert!(open.is_empty() || waits, "{open:?} will never have results");
    }

    pub(super) fn wait(&mut self, millis: u64) {
        self.now += millis;
    }

    pub(super) fn start(&mut self, text: &str) -> Vec<Event> {
        self.go(What::StartLoop(start("", text)))
    }

    pub(super) fn send(&mut self, mode: Mode, text: &str) -> Vec<Event> {
        self.go(What::SendMessage(send("", mode, text)))
    }

    pub(super) fn cancel(&mut self) -> Vec<Event> {
        self.go(cancel("", None))
    }

    pub(super) fn attach(&mut self) -> Vec<Event> {
        let epoch = self.state.epoch + 1;
        self.go(What::Attach {
            epoch,
            cut_bytes: None,
            server: String::new(),
        })
    }

    /// The running model call ends with a text, which completes a loop at rest.
    pub(super) fn say(&mut self, text: &str) -> Vec<Event> {
        self.reply(vec![Part::Text(text.to_owned())], StopReason::EndTurn)
    }

    /// The running model call asks for tools.
    pub(super) fn ask(&mut self, tools: &[&str]) -> Vec<Event> {
        self.reply(
            tools.iter().map(|tool| call(tool)).collect(),
            StopReason::ToolUse,
        )
    }

    pub(super) fn reply(&mut self, parts: Vec<Part>, stop: StopReason) -> Vec<Event> {
        self.reply_with(parts, stop, usage(10, 5))
    }

    pub(super) fn reply_with(
        &mut self,
        parts: Vec<Part>,
        stop: StopReason,
        usage: Option<Usage>,
    ) -> Vec<Event> {
        let (call, attempt) = self.model();
        self.go(completed(call, attempt, parts, stop, usage))
    }

    pub(super) fn fail(&mut self, kind: ModelFailureKind) -> Vec<Event> {
        self.fail_with(kind, None, None)
    }

    /// The running model call fails; the backoff is drawn at its longest.
    pub(super) fn fail_with(
        &mut self,
        kind: ModelFailureKind,
        retry_after_ms: Option<u64>,
        usage: Option<Usage>,
    ) -> Vec<Event> {
        let (call, attempt) = self.model();
        let failure = ModelFailure {
            kind,
            message: "no luck".to_owned(),
            retry_after_ms,
            http_status: 0,
            usage,
            cost_micro_usd: None,
            body_crc: String::new(),
        };
        self.go(What::ModelFailed {
            call,
            attempt,
            failure,
            jitter: JITTER_ONE,
        })
    }

    pub(super) fn tool(&mut self, call: u32, attempt: Attempt, text: &str) -> Vec<Event> {
        self.go(tool_completed(call, attempt, text))
    }

    pub(super) fn tool_fails(
        &mut self,
        call: u32,
        attempt: Attempt,
        kind: ToolFailureKind,
        retryable: bool,
    ) -> Vec<Event> {
        self.go(What::ToolFailed {
            call: CallId(call),
            attempt,
            failure: ToolFailure {
                kind,
                message: "no luck".to_owned(),
                retryable,
                retry_after_ms: None,
                cause: None,
            },
            jitter: JITTER_ONE,
        })
    }

    pub(super) fn looked_up(&mut self, call: u32, answer: LookupAnswer) -> Vec<Event> {
        self.go(What::LookedUp {
            call: CallId(call),
            answer,
        })
    }

    pub(super) fn answer(&mut self, call: u32, allow: bool) -> Vec<Event> {
        self.go(answer("", call, allow))
    }

    pub(super) fn resolve(&mut self, call: u32, resolution: UnknownResolution) -> Vec<Event> {
        self.go(resolve("", call, resolution))
    }

    /// How far a tool call of the open step is.
    pub(super) fn phase(&self, call: u32) -> ToolPhase {
        let active = self.state.active.as_ref().expect("a loop runs");
        let tool = active.tool(CallId(call)).expect("it is of the open step");
        tool.phase.clone()
    }

    /// How many entries the log has.
    pub(super) fn length(&self) -> usize {
        self.entries.len()
    }

    /// What is left of a process that was killed when this entry was its last durable one.
    pub(super) fn killed_after(&self, seq: usize) -> Self {
        let entries = self.entries[..seq].to_vec();
        Self {
            state: fold(&entries),
            now: self.now,
            instances: self.instances.clone(),
            entries,
        }
    }

    /// A copy of the log up to `seq`, not closed.
    pub(super) fn copied(&self, seq: usize) -> Self {
        let copy = |entry: &Entry| Entry {
            copied: true,
            ..entry.clone()
        };
        let entries: Vec<Entry> = self.entries[..seq].iter().map(copy).collect();
        Self {
            state: fold(&entries),
            now: self.now,
            instances: self.instances.clone(),
            entries,
        }
    }

    /// The entry after so many.
    pub(super) fn entry(&self, at: usize) -> Entry {
        self.entries[at].clone()
    }

    pub(super) fn granted(&mut self, max_output_tokens: u64) -> Vec<Event> {
        self.granted_with(max_output_tokens, None)
    }

    pub(super) fn granted_with(
        &mut self,
        max_output_tokens: u64,
        tool_calls: Option<u64>,
    ) -> Vec<Event> {
        let (call, attempt) = self.model();
        self.go(What::BudgetGranted {
            call,
            attempt,
            max_output_tokens,
            tool_calls,
            left: Arc::default(),
        })
    }

    pub(super) fn fire(&mut self, why: TimerWhy) -> Vec<Event> {
        self.go(What::TimerFired(why))
    }

    /// Time passes until the earliest timer, which fires.
    pub(super) fn fire_next(&mut self) -> Vec<Event> {
        let timer = wanted(&self.state).into_iter().filter_map(|key| {
            if let EffectKey::Timer { at, why } = key {
                Some((at, why))
            } else {
                None
            }
        });
        let (at, why) = timer.min().expect("a timer is wanted");
        self.now = self.now.max(at.0);
        self.fire(why)
    }

    pub(super) fn change_tools(&mut self, tools: Vec<ToolSpec>) -> Vec<Event> {
        self.go(What::ToolsChanged(ToolSet::new(tools)))
    }

    /// The model call that is under way.
    pub(super) fn model(&self) -> (CallId, Attempt) {
        let active = self.state.active.as_ref().expect("a loop runs");
        let model = active.model.as_ref().expect("a model call is under way");
        (model.call, model.attempt)
    }

    /// Why the last loop ended.
    pub(super) fn reason(&self) -> EndReason {
        assert_eq!(
            self.state.active.as_ref().map(|a| a.id),
            None,
            "a loop runs"
        );
        self.state
            .ended
            .back()
            .expect("a loop ended")
            .reason
            .clone()
    }

    /// What the model was told of each call of its last step.
    pub(super) fn results(&self) -> Vec<(u32, String, bool)> {
        let turns = self.state.conversation.turns();
        let last = turns.iter().rev().find_map(|turn| {
            if let Turn::Results(results) = &**turn {
                Some(Arc::clone(results))
            } else {
                None
            }
        });
        let told = last.expect("a step had calls");
        let told = told.iter();
        told.map(|r| (r.call.0, r.output.text.clone(), r.output.is_error))
            .collect()
    }

    /// The texts of the conversation, with who said them.
    pub(super) fn talk(&self) -> Vec<String> {
        let turns = self.state.conversation.turns();
        let line = |turn: &Arc<Turn>| match &**turn {
            Turn::User(parts) => format!("user: {}", crate::message::text_of(parts)),
            Turn::Assistant { parts, .. } => format!("model: {}", crate::message::text_of(parts)),
            Turn::Results(results) => format!("{} results", results.len()),
        };
        turns.iter().map(line).collect()
    }
}

pub(super) fn kinds(events: &[Event]) -> Vec<&str> {
    events.iter().map(Event::kind).collect()
}

pub(super) fn nothing() -> Vec<Event> {
    Vec::new()
}
