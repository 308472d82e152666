//! Running what the state wants, and nothing else: starts what is missing, aborts what is surplus.

use std::{sync::Arc, time::Duration};

use futures_util::FutureExt;
use loopwright_core::{
    What,
    agent::ToolSpec,
    effect::{EffectKey, wanted},
    ids::{Attempt, CallId, Timestamp},
    ledger::HoldId,
    outcome::{LookupAnswer, ToolFailure, ToolFailureKind},
    prompt::ToolRequest,
};

use super::{
    End,
    effect::{Done, Effect, Work},
    run::Driver,
};
use crate::{
    effects::{
        budget::{Asked, Charged, Refused},
        model::Transcript,
        progress::ProgressSink,
    },
    sidecars::SessionRef,
};

/// Settlements that are written down together at most.
const TAKEN_AT_ONCE: usize = 64;

impl Driver {
    /// Makes `running == wanted`. Called once the entry that licenses it is durable, never before.
    pub(super) fn reconcile(&mut self) {
        let wanted = wanted(&self.state);
        self.running.retain(|key, _| wanted.contains(key));
        for key in wanted {
            if !self.running.contains_key(&key) {
                let (effect, running) = Effect::new(key, self.start(key));
                self.effects.push(effect);
                self.running.insert(key, running);
            }
        }
    }

    /// Takes an effect's end in. What was given up reports nothing, unless its answer was here
    /// already; what is stale decides to nothing.
    pub(super) async fn outcome(&mut self, done: Option<Done>) -> Result<(), End> {
        let Some(done) = done else {
            return Ok(());
        };
        if done.late {
            return self.commit(as_late(done)).await;
        }
        if let What::BudgetSettled {
            call,
            attempt,
            warnings,
            ..
        } = done.what
        {
            // It stays among what runs until it is written down, so that it is not begun again.
            self.taken.push((call, attempt));
            self.warnings.extend(warnings);
            return Ok(());
        }
        self.running.remove(&done.key);
        self.commit(done.what).await
    }

    fn start(&mut self, key: EffectKey) -> Work {
        match key {
            EffectKey::Model { call, attempt } => self.start_model(call, attempt),
            EffectKey::Tool { call, attempt } => self.start_tool(call, attempt),
            EffectKey::Timer { at, why } => {
                let clock = self.world.clock;
                let fired = async move {
                    wait_until(clock, at).await;
                    What::TimerFired(why)
                };
                Work::new(fired.boxed())
            }
            EffectKey::Lookup { call } => self.start_lookup(call),
            EffectKey::Reserve { call, attempt } => self.start_reserve(call, attempt),
            EffectKey::Settle { call, attempt } => self.start_settle(call, attempt),
        }
    }

    fn start_reserve(&mut self, call: CallId, attempt: Attempt) -> Work {
        let ask = self.state.budget_request();
        let ask = ask.expect("a wanted reservation has its request");
        let active = self.state.active.as_ref();
        let waits = active.is_some_and(|active| active.paused.is_some());
        let early = self.early.take();
        let early = early.filter(|(of, _)| !waits && *of == (call, attempt));
        let names = self.state.agent.budgets.iter();
        let granted = self.charged(call, attempt).reserve(
            names.map(|name| name.as_str().into()).collect(),
            ask,
            waits,
            early.map(|(_, asked)| asked),
        );
        let answered = async move {
            match granted.await {
                Ok(granted) => What::BudgetGranted {
                    call,
                    attempt,
                    max_output_tokens: granted.amount.output,
                    tool_calls: granted.tool_calls,
                    left: granted.left.into(),
                },
                Err(Refused::ForNow(waits_for)) => What::BudgetWaits {
                    call,
                    attempt,
                    waits_for,
                },
                Err(Refused::Spent) => What::BudgetSpent { call, attempt },
                Err(Refused::ForGood(reason)) => What::BudgetRefused {
                    call,
                    attempt,
                    reason,
                },
            }
        };
        Work::new(answered.boxed())
    }

    fn start_settle(&self, call: CallId, attempt: Attempt) -> Work {
        let settlement = self.state.settling.get(&(call, attempt)).cloned();
        let settlement = settlement.expect("a wanted settlement has what it settles");
        let taken = self.charged(call, attempt).settle(settlement);
        let taken = taken.map(move |warnings| What::BudgetSettled {
            call,
            attempt,
            more: Vec::new(),
            warnings,
        });
        Work::new(taken.boxed())
    }

    /// Writes down which settlements were taken, once nothing else is under way or they are many: the
    /// ledger has them, and whoever drives on without knowing it settles them again, which changes
    /// nothing. What they brought to its warning share is told at once. Says whether it wrote.
    pub(super) async fn tell_taken(&mut self) -> Result<bool, End> {
        let waits = |key: &EffectKey| match *key {
            EffectKey::Settle { call, attempt } => self.taken.contains(&(call, attempt)),
            ref key => key.is_timer(),
        };
        let quiet = self.running.keys().all(waits);
        let many = self.taken.len() >= TAKEN_AT_ONCE;
        if self.taken.is_empty() || !(quiet || many || !self.warnings.is_empty()) {
            return Ok(false);
        }
        let mut more = std::mem::take(&mut self.taken);
        for &(call, attempt) in &more {
            self.running.remove(&EffectKey::Settle { call, attempt });
        }
        if let Some((call, attempt)) = more.pop() {
            let warnings = std::mem::take(&mut self.warnings);
            self.commit(What::BudgetSettled {
                call,
                attempt,
                more,
                warnings,
            })
            .await?;
        }
        Ok(true)
    }

    /// Asks named budgets for the reservation that the state has come to, whose entry is on its way: the
    /// ledger's record comes after it, and goes with it in a crash.
    pub(super) fn ask_early(&self) -> Option<((CallId, Attempt), Asked)> {
        let active = self.state.active.as_ref()?;
        let model = active.model.as_ref().filter(|_| active.paused.is_none())?;
        let (call, attempt) = (model.call, model.attempt);
        let ask = self.state.budget_request()?;
        let names = self.state.agent.budgets.iter();
        let names = names.map(|name| name.as_str().into()).collect();
        let asked = self.charged(call, attempt).ask(names, ask)?;
        Some(((call, attempt), asked))
    }

    fn charged(&self, call: CallId, attempt: Attempt) -> Charged {
        let hold = HoldId::of_call(self.key.id(), self.born_at(), call, attempt);
        Charged::new(Arc::clone(&self.world.ledgers), &self.key, hold)
    }

    fn start_model(&mut self, call: CallId, attempt: Attempt) -> Work {
        let request = self
            .state
            .model_request()
            .expect("a wanted model call has a request");
        let tools = Arc::clone(&request.tools);
        let sink = self.sink(call, attempt);
        let trace = self.model_trace(&request);
        let models = Arc::clone(&self.world.models);
        let reply = if request.recap {
            // Of another conversation, and for nobody's eyes: neither the cache nor watchers get it.
            let sink = sink.muted();
            models.call(&mut Transcript::default(), request, trace, sink)
        } else {
            models.call(&mut self.transcript, request, trace, sink)
        };
        let (sidecars, clock) = (Arc::clone(&self.world.sidecars), self.world.clock);
        let ended = async move {
            match reply.await {
                Ok(mut reply) => {
                    reply.verdicts = sidecars.verdicts(&tools, &reply.parts);
                    What::ModelCompleted {
                        call,
                        attempt,
                        reply,
                    }
                }
                Err(failure) => What::ModelFailed {
                    call,
                    attempt,
                    failure,
                    jitter: clock.jitter(),
                },
            }
        };
        Work::new(ended.boxed())
    }

    fn start_tool(&mut self, call: CallId, attempt: Attempt) -> Work {
        let (request, spec) = self.tool_and_spec(call);
        let clock = self.world.clock;
        let spec = match spec {
            Ok(spec) => spec,
            Err(message) => {
                return Work::done(What::ToolFailed {
                    call,
                    attempt,
                    failure: ToolFailure {
                        kind: ToolFailureKind::NotExecuted,
                        message,
                        retryable: false,
                        retry_after_ms: None,
                        cause: None,
                    },
                    jitter: 0,
                });
            }
        };
        let sink = self.sink(call, attempt);
        let flight = sink.flight().clone();
        let trace = self.tool_trace(&request);
        let sidecars = Arc::clone(&self.world.sidecars);
        let output = sidecars.call(self.session_ref(), request, spec, trace, sink);
        let began = tokio::time::Instant::now();
        let ended = async move {
            match output.await {
                Ok(mut output) => {
                    let took = began.elapsed().as_millis();
                    output.latency_ms = u64::try_from(took).unwrap_or(u64::MAX);
                    What::ToolCompleted {
                        call,
                        attempt,
                        output: Arc::new(output),
                    }
                }
                Err(failure) => What::ToolFailed {
                    call,
                    attempt,
                    failure,
                    jitter: clock.jitter(),
                },
            }
        };
        Work {
            future: ended.boxed(),
            flight,
            attempt,
        }
    }

    fn start_lookup(&mut self, call: CallId) -> Work {
        let (request, spec) = self.tool_and_spec(call);
        let spec = match spec {
            Ok(spec) => spec,
            Err(message) => {
                let answer = LookupAnswer::NotKnown(message);
                return Work::done(What::LookedUp { call, answer });
            }
        };
        let attempt = request.attempt;
        let sink = self.sink(call, attempt);
        let flight = sink.flight().clone();
        let trace = self.lookup_trace(&request);
        let passed = self.world.clock.now().since(request.first_at);
        let passed = Duration::from_millis(passed);
        let sidecars = Arc::clone(&self.world.sidecars);
        let answer = sidecars.look_up(self.session_ref(), request, spec, passed, trace, sink);
        Work {
            future: answer
                .map(move |answer| What::LookedUp { call, answer })
                .boxed(),
            flight,
            attempt,
        }
    }

    /// The request of a tool call that was dispatched, and its tool; an error is why there is none.
    fn tool_and_spec(&self, call: CallId) -> (ToolRequest, Result<ToolSpec, String>) {
        let request = self
            .state
            .tool_request(call)
            .expect("a wanted tool call has a request");
        let name = &request.part.tool;
        let spec = self.state.tools.get(name).cloned();
        let spec = spec.ok_or_else(|| format!("there is no tool named `{name}` any more"));
        (request, spec)
    }

    fn born_at(&self) -> Timestamp {
        let head = self.state.session.as_ref();
        head.map(|head| head.born_at).unwrap_or_default()
    }

    fn session_ref(&self) -> SessionRef {
        SessionRef {
            namespace: self.key.namespace().into(),
            session: self.key.id().into(),
            born_at: self.born_at(),
        }
    }

    /// Where the effect says how far it is; the entry that licensed it is the last one.
    fn sink(&mut self, call: CallId, attempt: Attempt) -> ProgressSink {
        let anchor = self.state.seq;
        self.anchors.insert((call, attempt), anchor);
        ProgressSink::new(
            Arc::clone(&self.world.log),
            self.key.clone(),
            anchor,
            call,
            attempt,
        )
    }
}

/// What an answer says that nobody waits for any more: a lookup's is the call's own result.
fn as_late(done: Done) -> What {
    let attempt = done.attempt;
    match done.what {
        What::LookedUp {
            call,
            answer: LookupAnswer::Completed(output),
        } => What::ToolCompleted {
            call,
            attempt,
            output,
        },
        what => what,
    }
}

/// Waits for a wall-clock instant, in pieces: a clock that is set forward is noticed.
async fn wait_until(clock: super::Clock, at: Timestamp) {
    const LONGEST: std::time::Duration = std::time::Duration::from_secs(60);
    loop {
        let left = clock.until(at);
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(LONGEST)).await;
    }
}
