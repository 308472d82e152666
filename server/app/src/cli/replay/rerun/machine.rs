//! The session run anew: the core decides, a model is called, tools answer from the recording.
//!
//! Invariant: every effect that the core wants is a model call, a recorded answer, or a wait for the next
//! attempt of a model call. Anything else ends the run.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use loopwright_core::{
    Entry, Input, State, What,
    agent::{Agent, Limits},
    decide,
    effect::{EffectKey, wanted},
    ids::{Attempt, CallId, LoopId},
    input::{Command, Mode, TimerWhy},
    ledger::OnExhausted,
    outcome::ModelFailure,
    state::{LoopRun, ToolPhase},
};
use loopwright_log::{Id, Log, MemoryLog, StreamKey};

use super::{
    recording::{Answers, Recording, Said, When},
    trail::{Asked, Trail},
};
use crate::{
    driver::Clock,
    effects::{
        CallTrace,
        model::{ModelFacts, Models, Transcript},
        progress::ProgressSink,
    },
    sidecars::schema::Schemas,
};

/// The new run.
pub(super) struct Machine<'a> {
    models: &'a Arc<Models>,
    facts: &'a ModelFacts,
    said: &'a [Said],
    answers: Answers,
    state: State,
    transcript: Transcript,
    schemas: Schemas,
    /// Nobody reads it: where progress goes.
    nowhere: Arc<dyn Log>,
    key: StreamKey,
    pub(super) trail: Trail,
    stopped: Option<Stopped>,
    last_failure: Option<ModelFailure>,
}

/// Why the new run ended before the recording was used up.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Stopped {
    /// Its model asked for this, which was not recorded, or not so often.
    NotRecorded { call: CallId, asked: Asked },
    /// The recording has something said in this loop, which has ended.
    LoopOver(LoopId),
}

impl<'a> Machine<'a> {
    /// A run of the recording with this model.
    pub(super) fn new(
        models: &'a Arc<Models>,
        facts: &'a ModelFacts,
        recording: &'a Recording,
    ) -> anyhow::Result<Self> {
        let create = recording.create.clone();
        let mut create = create.context("it does not tell how the session was made")?;
        create.agent = with_model(&create.agent, facts);
        create.limits = within(&create.limits, facts);
        let namespace = Id::parse("replay")?;
        let mut machine = Self {
            models,
            facts,
            said: &recording.said,
            answers: recording.answers(),
            state: State::default(),
            transcript: Transcript::default(),
            schemas: Schemas::default(),
            nowhere: MemoryLog::new(),
            key: StreamKey::session(&namespace, &namespace),
            trail: Trail::default(),
            stopped: None,
            last_failure: None,
        };
        machine.take(What::Create(create))?;
        machine.take(What::Attach {
            epoch: 1,
            cut_bytes: None,
            server: String::new(),
        })?;
        Ok(machine)
    }

    /// Why it ended early, where it did.
    pub(super) fn stopped(&self) -> Option<&Stopped> {
        self.stopped.as_ref()
    }

    /// What its model could not be called for, where that ended a loop.
    pub(super) fn failed(&self) -> Option<&ModelFailure> {
        let ended = self.trail.ends.last().map(|end| end.reason);
        self.last_failure
            .as_ref()
            .filter(|_| ended == Some("model_failed"))
    }

    /// Does the next thing, and says what it was; `None` when there is nothing left to do.
    pub(super) async fn go_on(&mut self) -> anyhow::Result<Option<String>> {
        while self.stopped.is_none() {
            if let Some(what) = self.said_now() {
                self.take(what)?;
                continue;
            }
            let wanted = wanted(&self.state);
            match wanted.into_iter().find(|key| !is_left_out(*key)) {
                Some(EffectKey::Model { call, attempt }) => {
                    return self.call_model(call, attempt).await.map(Some);
                }
                Some(EffectKey::Tool { call, attempt }) => self.answer(call, attempt)?,
                Some(EffectKey::Timer { at, why }) => {
                    tokio::time::sleep(Clock.until(at)).await;
                    self.take(What::TimerFired(why))?;
                }
                Some(
                    EffectKey::Lookup { .. } | EffectKey::Reserve { .. } | EffectKey::Settle { .. },
                ) => {
                    bail!("the new run came to something that only a server can do");
                }
                None => match self.held() {
                    Some(call) => self.allow(call)?,
                    None if self.said.is_empty() => return Ok(None),
                    None => self.stopped = self.left_over(),
                },
            }
        }
        Ok(None)
    }

    /// What the recording says next, if it is time.
    fn said_now(&mut self) -> Option<What> {
        let (first, rest) = self.said.split_first()?;
        let due = match (first.when, When::of(&self.state)) {
            (When::Idle, now) => now == When::Idle,
            (When::During { .. }, When::Idle) => false,
            (
                When::During { of, step, replied },
                When::During {
                    of: now_of,
                    step: now_step,
                    replied: now_replied,
                },
            ) => (of, step, replied) <= (now_of, now_step, now_replied),
        };
        if !due {
            return None;
        }
        self.said = rest;
        Some(self.told(&first.what))
    }

    /// What was said, to the new run: its model is another one, and no call of it is given up.
    fn told(&self, what: &What) -> What {
        let mut what = what.clone();
        #[expect(clippy::wildcard_enum_match_arm, reason = "the rest is as it was said")]
        match &mut what {
            What::StartLoop(start) => {
                start.agent = start
                    .agent
                    .as_deref()
                    .map(|agent| with_model(agent, self.facts));
                start.limits = start
                    .limits
                    .as_deref()
                    .map(|limits| within(limits, self.facts));
                start.traceparent = None;
            }
            What::SendMessage(message) => {
                message.traceparent = None;
                if message.mode == Mode::Interrupt {
                    message.mode = Mode::Steer;
                }
            }
            _ => {}
        }
        what
    }

    fn left_over(&self) -> Option<Stopped> {
        self.said.first().map(|said| match said.when {
            When::During { of, .. } => Stopped::LoopOver(of),
            When::Idle => Stopped::LoopOver(LoopId(self.state.next_loop.saturating_sub(1))),
        })
    }

    async fn call_model(&mut self, call: CallId, attempt: Attempt) -> anyhow::Result<String> {
        let request = self.state.model_request();
        let request = request.context("a wanted model call has no request")?;
        let (tools, step) = (Arc::clone(&request.tools), request.step);
        let sink = ProgressSink::new(
            Arc::clone(&self.nowhere),
            self.key.clone(),
            self.state.seq,
            call,
            attempt,
        );
        let models = Arc::clone(self.models);
        let reply = models.call(&mut self.transcript, request, CallTrace::default(), sink);
        let of = self.state.current_loop();
        let (what, words) = match reply.await {
            Ok(mut reply) => {
                reply.verdicts = self.schemas.verdicts(&tools, &reply.parts);
                let calls = reply.verdicts.len();
                let words = format!("{of} step {step}: {calls} tool calls asked for");
                let what = What::ModelCompleted {
                    call,
                    attempt,
                    reply,
                };
                (what, words)
            }
            Err(failure) => {
                let words = format!("{of} step {step}, attempt {attempt}: {}", failure.message);
                self.last_failure = Some(failure.clone());
                let what = What::ModelFailed {
                    call,
                    attempt,
                    failure,
                    jitter: Clock.jitter(),
                };
                (what, words)
            }
        };
        self.take(what)?;
        Ok(words)
    }

    /// Answers a call from the recording; ends the run where it was not recorded.
    fn answer(&mut self, call: CallId, attempt: Attempt) -> anyhow::Result<()> {
        let request = self.state.tool_request(call);
        let request = request.context("a wanted tool call has no request")?;
        let asked = Asked::of(&request.part);
        match self.answers.next(&asked) {
            Some(output) => self.take(What::ToolCompleted {
                call,
                attempt,
                output,
            }),
            None => {
                self.stopped = Some(Stopped::NotRecorded { call, asked });
                Ok(())
            }
        }
    }

    /// A call that waits for a person, who is not here: what was recorded of it is its answer.
    fn held(&self) -> Option<CallId> {
        let active: &LoopRun = self.state.active.as_ref()?;
        let held = |phase: &ToolPhase| matches!(phase, ToolPhase::Held { .. });
        let mut calls = active.tools.iter().filter(|tool| held(&tool.phase));
        calls.next().map(|tool| tool.call)
    }

    fn allow(&mut self, call: CallId) -> anyhow::Result<()> {
        self.take(What::ResolveApproval {
            by: Command::default(),
            guard: None,
            call,
            allow: true,
            reason: String::new(),
        })
    }

    fn take(&mut self, what: What) -> anyhow::Result<()> {
        let input = Input::new(Clock.now(), what);
        let cause = input.cause();
        let events = decide(&self.state, input);
        let events = events.with_context(|| {
            format!(
                "what was recorded as `{}` is refused in the new run",
                cause.label()
            )
        })?;
        let entry = Entry::new(cause, events);
        self.state.apply_entry(self.state.seq + 1, &entry);
        self.trail.take(&entry, &self.state);
        Ok(())
    }
}

/// Timers that the new run does not wait for: its time and its people are others.
fn is_left_out(key: EffectKey) -> bool {
    match key {
        EffectKey::Timer { why, .. } => !matches!(why, TimerWhy::RetryModel(_)),
        EffectKey::Model { .. }
        | EffectKey::Tool { .. }
        | EffectKey::Lookup { .. }
        | EffectKey::Reserve { .. }
        | EffectKey::Settle { .. } => false,
    }
}

fn with_model(agent: &Agent, facts: &ModelFacts) -> Arc<Agent> {
    Arc::new(Agent {
        model: facts.name.clone(),
        fallbacks: Vec::new(),
        // They are a server's.
        budgets: Vec::new(),
        ..agent.clone()
    })
}

/// The recorded limits, as far as they go with another model and without a clock.
fn within(limits: &Limits, facts: &ModelFacts) -> Arc<Limits> {
    let mut limits = Limits {
        deadline_ms: None,
        idle_timeout_ms: None,
        approval_timeout_ms: None,
        // Nobody is here to raise them.
        on_exhausted: OnExhausted::End,
        ..limits.clone()
    };
    limits.budget.wall_ms = None;
    limits.session_budget.wall_ms = None;
    let price = facts.price.map(|price| (facts.name.clone(), price));
    limits.prices = price.into_iter().collect();
    if let (Some(window), Some(context)) = (facts.context_window, &mut limits.context) {
        context.max_tokens = context.max_tokens.min(window);
    }
    let most = [facts.max_output, facts.context_window];
    if let Some(most) = most.into_iter().flatten().min() {
        limits.max_output_tokens = limits.max_output_tokens.min(most);
    }
    Arc::new(limits)
}
