//! What of a driver's work is seen in meters, traces and the server's own log.
//!
//! Everything here follows from entries that are durable; nothing here is read back. With tracing
//! off no span is made and no text is built.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime},
};

use loopwright_core::{
    Cause, Entry, Event,
    event::ModelCallCompleted,
    ids::{Attempt, CallId, Timestamp},
    outcome::EndReason,
    prompt::{ModelRequest, ToolRequest},
    usage::Usage,
};
use serde::Serialize;
use serde_json::Value;
use tracing::Span;

use super::{name_of, run::Driver};
use crate::{
    effects::CallTrace,
    telemetry::{
        LoopSpan, ModelCallSpan, ModelOutcome, Tally, Telemetry, TokenCounts, ToolCallSpan, fail,
        looked_up, model_done,
    },
};

/// How an attempt came to its end, in meters and spans; else it is the kind of its failure.
const COMPLETED: &str = "completed";
const ABORTED: &str = "aborted";
/// In place of the words of a tool whose arguments are not for everybody.
const HIDDEN: &str = "(not shown: tools.redact names this tool)";

/// The spans and the times of what is under way.
#[derive(Default)]
pub(super) struct LoopSpans {
    step: Option<(Span, Option<String>)>,
    calls: BTreeMap<(CallId, Attempt), Call>,
    lookups: BTreeMap<CallId, Call>,
    _driver: Option<Tally>,
}

struct Call {
    span: Span,
    began: Instant,
    /// The provider of a model call, `tool` of a tool call.
    provider: &'static str,
    /// The model or the tool.
    name: String,
}

impl LoopSpans {
    pub(super) fn new(telemetry: &Telemetry) -> Self {
        Self {
            _driver: Some(telemetry.metrics().driver()),
            ..Self::default()
        }
    }
}

impl Driver {
    /// The trace of an attempt of a model call, and the begin of its time.
    pub(super) fn model_trace(&mut self, request: &ModelRequest) -> CallTrace {
        let provider = self.world.models.provider_of(&request.model);
        let parent = self.call_parent();
        let span = match self.world.telemetry.tracing_on() {
            false => Span::none(),
            true => self.world.telemetry.model_call(
                parent.as_deref(),
                &ModelCallSpan {
                    provider,
                    model: &request.model,
                    session: self.key.id(),
                    call: &request.call.to_string(),
                    attempt: request.attempt,
                    max_output_tokens: request.max_output_tokens,
                },
            ),
        };
        let key = (request.call, request.attempt);
        self.begin(key, span, provider, request.model.clone(), parent)
    }

    /// The trace of an attempt of a tool call, and the begin of its time.
    pub(super) fn tool_trace(&mut self, request: &ToolRequest) -> CallTrace {
        let parent = self.call_parent();
        let span = match self.world.telemetry.tracing_on() {
            false => Span::none(),
            true => self.world.telemetry.tool_call(
                parent.as_deref(),
                &ToolCallSpan {
                    tool: &request.part.tool,
                    session: self.key.id(),
                    call: &request.call.to_string(),
                    attempt: request.attempt,
                },
            ),
        };
        let key = (request.call, request.attempt);
        self.begin(key, span, "tool", request.part.tool.clone(), parent)
    }

    /// The trace of a lookup, and the begin of its time.
    pub(super) fn lookup_trace(&mut self, request: &ToolRequest) -> CallTrace {
        let parent = self.call_parent();
        let telemetry = &self.world.telemetry;
        let span = match telemetry.tracing_on() {
            false => Span::none(),
            true => telemetry.tool_lookup(
                parent.as_deref(),
                &ToolCallSpan {
                    tool: &request.part.tool,
                    session: self.key.id(),
                    call: &request.call.to_string(),
                    attempt: request.attempt,
                },
            ),
        };
        let traceparent = telemetry.traceparent(&span).or(parent);
        let lookup = Call {
            span,
            began: Instant::now(),
            provider: "lookup",
            name: request.part.tool.clone(),
        };
        self.spans.lookups.insert(request.call, lookup);
        CallTrace { traceparent }
    }

    fn begin(
        &mut self,
        key: (CallId, Attempt),
        span: Span,
        provider: &'static str,
        name: String,
        parent: Option<String>,
    ) -> CallTrace {
        let traceparent = self.world.telemetry.traceparent(&span).or(parent);
        self.spans.calls.insert(
            key,
            Call {
                span,
                began: Instant::now(),
                provider,
                name,
            },
        );
        CallTrace { traceparent }
    }

    /// What calls hang from: the step's span, or the loop's where the step began elsewhere.
    pub(super) fn call_parent(&self) -> Option<String> {
        match &self.spans.step {
            Some((_, Some(traceparent))) => Some(traceparent.clone()),
            Some((_, None)) | None => self.loop_traceparent(),
        }
    }

    fn loop_traceparent(&self) -> Option<String> {
        self.state
            .active
            .as_ref()?
            .traceparent
            .as_deref()
            .map(str::to_owned)
    }

    /// Takes in an entry that has just been applied.
    pub(super) fn observe(&mut self, entry: &Entry) {
        if let Cause::Lookup { call, not_known } = &entry.cause {
            let completed = |event: &Event| matches!(event, Event::ToolCallCompleted(_));
            let outcome = match not_known {
                Some(_) => "not_known",
                None if entry.events.iter().any(completed) => COMPLETED,
                None => "never_started",
            };
            self.lookup_ended(*call, outcome);
        }
        for event in &entry.events {
            match event {
                Event::LoopStarted(_) => self.world.telemetry.metrics().loop_started(),
                Event::ModelCallStarted(e) if e.attempt == 1 && e.recap.is_none() => {
                    self.step_began();
                }
                Event::ModelCallCompleted(e) => self.model_ended(e),
                Event::ModelCallFailed(e) => {
                    self.call_failed((e.call, e.attempt), &word(&e.kind), &e.message);
                }
                Event::ModelCallAbandoned(e) => {
                    self.call_failed((e.call, e.attempt), ABORTED, "given up");
                }
                Event::ToolCallCompleted(e) => {
                    let outcome = if e.output.is_error {
                        "tool_error"
                    } else {
                        COMPLETED
                    };
                    self.tool_ended((e.call, e.attempt), outcome);
                }
                Event::ToolCallFailed(e) => {
                    self.call_failed((e.call, e.attempt), &word(&e.kind), &e.message);
                }
                Event::ToolCallInDoubt(e) => {
                    self.call_failed((e.call, e.attempt), "in_doubt", &e.message);
                }
                Event::LoopEnded(e) => self.loop_ended(e),
                _ => {}
            }
        }
    }

    fn step_began(&mut self) {
        self.world.telemetry.metrics().step();
        if !self.world.telemetry.tracing_on() {
            return;
        }
        let steps = self
            .state
            .active
            .as_ref()
            .map_or(0, |active| active.totals.steps);
        let parent = self.loop_traceparent();
        let span = self
            .world
            .telemetry
            .step(parent.as_deref(), self.key.id(), steps);
        let traceparent = self.world.telemetry.traceparent(&span);
        self.spans.step = Some((span, traceparent));
    }

    fn model_ended(&mut self, e: &ModelCallCompleted) {
        let Some(call) = self.spans.calls.remove(&(e.call, e.attempt)) else {
            return;
        };
        let tokens = counts(&e.usage.unwrap_or_default());
        let metrics = self.world.telemetry.metrics();
        metrics.model_call(call.provider, COMPLETED, call.began.elapsed());
        metrics.model_tokens(call.provider, &call.name, &tokens);
        if let Some(cost) = e.cost_micro_usd {
            metrics.model_cost(call.provider, &call.name, cost);
        }
        if call.span.is_disabled() {
            return;
        }
        let outcome = ModelOutcome {
            model: Some(call.name.as_str()),
            response_id: e.response_id.as_deref(),
            finish_reason: &word(&e.stop),
            tokens,
        };
        model_done(&call.span, &outcome);
    }

    fn tool_ended(&mut self, key: (CallId, Attempt), outcome: &'static str) {
        let Some(call) = self.spans.calls.remove(&key) else {
            return;
        };
        self.world
            .telemetry
            .metrics()
            .tool_call(&call.name, outcome, call.began.elapsed());
        if outcome != COMPLETED {
            fail(&call.span, outcome, "the tool says that it failed");
        }
    }

    fn lookup_ended(&mut self, call: CallId, outcome: &'static str) {
        let Some(lookup) = self.spans.lookups.remove(&call) else {
            return;
        };
        let metrics = self.world.telemetry.metrics();
        metrics.tool_lookup(&lookup.name, outcome, lookup.began.elapsed());
        looked_up(&lookup.span, outcome);
    }

    fn call_failed(&mut self, key: (CallId, Attempt), kind: &str, message: &str) {
        let Some(call) = self.spans.calls.remove(&key) else {
            return;
        };
        // A tool may well quote what it was given.
        let hidden = call.provider == "tool" && self.world.fields.covers(&call.name);
        let message = if hidden { HIDDEN } else { message };
        self.count_failed(&call, kind, message);
        tracing::warn!(
            session = name_of(&self.key), call = %key.0, attempt = key.1, name = call.name, kind,
            message, "a call failed"
        );
    }

    fn count_failed(&self, call: &Call, kind: &str, message: &str) {
        let (metrics, took) = (self.world.telemetry.metrics(), call.began.elapsed());
        if call.provider == "tool" {
            metrics.tool_call(&call.name, kind, took);
        } else {
            metrics.model_call(call.provider, kind, took);
        }
        fail(&call.span, kind, message);
    }

    fn loop_ended(&mut self, e: &loopwright_core::event::LoopEnded) {
        // What was cancelled with the loop reports no end of its own.
        for call in std::mem::take(&mut self.spans.calls).into_values() {
            self.count_failed(&call, ABORTED, "given up with its loop");
        }
        while let Some(call) = self.spans.lookups.keys().next().copied() {
            self.lookup_ended(call, ABORTED);
        }
        let telemetry = &self.world.telemetry;
        telemetry.metrics().loop_ended(e.reason.label());
        self.spans.step = None;
        let (session, reason) = (name_of(&self.key), e.reason.label());
        let started = self
            .state
            .ended
            .back()
            .map_or(e.at, |ended| ended.started_at);
        let traceparent = self.traceparent.take();
        tracing::info!(session, id = %e.id, reason, steps = e.totals.steps, "a loop ended");
        if let Some(traceparent) = traceparent.filter(|_| telemetry.tracing_on()) {
            telemetry.end_loop(&LoopSpan {
                traceparent: &traceparent,
                caller: None,
                session,
                loop_id: &e.id.to_string(),
                started: instant(started),
                ended: instant(e.at),
                reason,
                failed: !matches!(e.reason, EndReason::Completed | EndReason::Cancelled { .. }),
                steps: e.totals.steps,
                tokens: counts(&e.totals.usage),
            });
        }
    }

    /// Remembers the running loop's trace before an entry that may end the loop is applied.
    pub(super) fn before_apply(&mut self) {
        if self.state.active.is_some() {
            self.traceparent = self.loop_traceparent();
        }
    }
}

/// The word that the log has for it.
fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(word)) => word,
        // A word of the provider's that this version does not know.
        Ok(Value::Object(named)) => named
            .into_iter()
            .next()
            .and_then(|(_, word)| word.as_str().map(str::to_owned))
            .unwrap_or_default(),
        _ => String::new(),
    }
}

fn counts(usage: &Usage) -> TokenCounts {
    TokenCounts {
        input: usage.input,
        output: usage.output,
        cache_write: usage.cache_write,
        cache_read: usage.cache_read,
    }
}

fn instant(at: Timestamp) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(at.0)
}
