//! The spans of a loop, by OpenTelemetry's conventions for generative AI.
//!
//! Boundary: names and attributes; who calls whom is told by `traceparent` texts. Invariant: no
//! message, argument or result is ever an attribute: a trace tells what ran and how it went, the
//! log tells what was said.

use std::time::SystemTime;

use opentelemetry::trace::{Span as _, SpanKind, Status, TraceContextExt, Tracer};
use opentelemetry::{Array, KeyValue, StringValue, Value};
use tracing::{Span, field};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::metrics::TokenCounts;
use super::{Telemetry, context};

/// A loop that has ended.
#[derive(Debug, Clone, Copy)]
pub struct LoopSpan<'a> {
    /// What [`Telemetry::begin_loop`] gave and the log kept.
    pub traceparent: &'a str,
    /// The `traceparent` of the request that started it, if that is known.
    pub caller: Option<&'a str>,
    /// The session.
    pub session: &'a str,
    /// The loop.
    pub loop_id: &'a str,
    /// When it started, by the log.
    pub started: SystemTime,
    /// When it ended, by the log.
    pub ended: SystemTime,
    /// Its end's label, such as `completed`.
    pub reason: &'a str,
    /// Whether that is a failure.
    pub failed: bool,
    /// Model calls made.
    pub steps: u32,
    /// Tokens of all its calls.
    pub tokens: TokenCounts,
}

/// A model call that starts.
#[derive(Debug, Clone, Copy)]
pub struct ModelCallSpan<'a> {
    /// `anthropic`, `openai` or `scripted`.
    pub provider: &'a str,
    /// The model as it is asked for.
    pub model: &'a str,
    /// The session.
    pub session: &'a str,
    /// Our id of the call.
    pub call: &'a str,
    /// The attempt, from 1.
    pub attempt: u32,
    /// The output cap of the request, in tokens.
    pub max_output_tokens: u64,
}

/// A model call that was answered.
#[derive(Debug, Clone, Copy)]
pub struct ModelOutcome<'a> {
    /// The model that answered, by its own word.
    pub model: Option<&'a str>,
    /// The provider's id of the answer.
    pub response_id: Option<&'a str>,
    /// Why it stopped, in the provider's word.
    pub finish_reason: &'a str,
    /// What it used.
    pub tokens: TokenCounts,
}

/// A tool call that starts.
#[derive(Debug, Clone, Copy)]
pub struct ToolCallSpan<'a> {
    /// The tool, as the model names it.
    pub tool: &'a str,
    /// The session.
    pub session: &'a str,
    /// Our id of the call.
    pub call: &'a str,
    /// The attempt, from 1.
    pub attempt: u32,
}

impl Telemetry {
    /// The `traceparent` of a loop that starts, to be kept in the log. When tracing is off it is
    /// the caller's own, so that sidecars and models still see the caller's trace.
    #[must_use]
    pub fn begin_loop(&self, caller: Option<&str>) -> Option<String> {
        let caller = caller.and_then(context::parse);
        if self.tracing_on() {
            Some(context::mint(caller.as_ref()))
        } else {
            caller.as_ref().and_then(context::of)
        }
    }

    /// Writes the span of a loop that has ended, under the id that [`Self::begin_loop`] announced.
    pub fn end_loop(&self, ended: &LoopSpan<'_>) {
        let (Some(tracer), Some(own)) = (&self.tracer, context::parse(ended.traceparent)) else {
            return;
        };
        // A caller of another trace is no parent: the ids that are out already would not match.
        let caller = ended.caller.filter(|caller| {
            context::parse(caller).is_some_and(|caller| caller.trace_id() == own.trace_id())
        });
        if caller.is_none() && !own.is_sampled() {
            return;
        }
        let mut attributes = vec![
            KeyValue::new("gen_ai.operation.name", "invoke_agent"),
            KeyValue::new("gen_ai.conversation.id", ended.session.to_owned()),
            KeyValue::new("loopwright.loop.id", ended.loop_id.to_owned()),
            KeyValue::new("loopwright.loop.reason", ended.reason.to_owned()),
            KeyValue::new("loopwright.loop.steps", i64::from(ended.steps)),
        ];
        attributes.extend(usage(&ended.tokens));
        let builder = tracer
            .span_builder("invoke_agent")
            .with_kind(SpanKind::Internal)
            .with_start_time(ended.started)
            .with_attributes(attributes);
        let parent = context::remote(caller);
        let mut span = context::announced(&own, || builder.start_with_context(tracer, &parent));
        if ended.failed {
            span.set_attribute(KeyValue::new("error.type", ended.reason.to_owned()));
            span.set_status(Status::error(ended.reason.to_owned()));
        }
        span.end_with_timestamp(ended.ended);
    }

    /// The span of one step; it ends when it is dropped.
    #[must_use]
    pub fn step(&self, parent: Option<&str>, session: &str, step: u32) -> Span {
        self.span(parent, || {
            tracing::info_span!(
                target: "loopwright::trace",
                parent: None,
                "step",
                gen_ai.conversation.id = session,
                loopwright.step = i64::from(step),
                error.type = field::Empty,
                otel.status_code = field::Empty,
                otel.status_description = field::Empty,
            )
        })
    }

    /// The span of one attempt of a model call; it ends when it is dropped.
    #[must_use]
    pub fn model_call(&self, parent: Option<&str>, call: &ModelCallSpan<'_>) -> Span {
        self.span(parent, || {
            tracing::info_span!(
                target: "loopwright::trace",
                parent: None,
                "chat",
                otel.name = format!("chat {}", call.model),
                otel.kind = "client",
                gen_ai.operation.name = "chat",
                gen_ai.provider.name = call.provider,
                gen_ai.request.model = call.model,
                gen_ai.request.max_tokens = whole(call.max_output_tokens),
                gen_ai.conversation.id = call.session,
                loopwright.call.id = call.call,
                loopwright.attempt = i64::from(call.attempt),
                error.type = field::Empty,
                otel.status_code = field::Empty,
                otel.status_description = field::Empty,
            )
        })
    }

    /// The span of one attempt of a tool call; it ends when it is dropped.
    #[must_use]
    pub fn tool_call(&self, parent: Option<&str>, call: &ToolCallSpan<'_>) -> Span {
        self.span(parent, || {
            tracing::info_span!(
                target: "loopwright::trace",
                parent: None,
                "execute_tool",
                otel.name = format!("execute_tool {}", call.tool),
                otel.kind = "client",
                gen_ai.operation.name = "execute_tool",
                gen_ai.tool.name = call.tool,
                gen_ai.tool.type = "function",
                gen_ai.tool.call.id = call.call,
                gen_ai.conversation.id = call.session,
                loopwright.attempt = i64::from(call.attempt),
                error.type = field::Empty,
                otel.status_code = field::Empty,
                otel.status_description = field::Empty,
            )
        })
    }

    /// The span of a lookup, from the first question to the answer that counts; it ends when it is
    /// dropped. `attempt` is the one that is in doubt.
    #[must_use]
    pub fn tool_lookup(&self, parent: Option<&str>, call: &ToolCallSpan<'_>) -> Span {
        self.span(parent, || {
            tracing::info_span!(
                target: "loopwright::trace",
                parent: None,
                "lookup_tool",
                otel.name = format!("lookup_tool {}", call.tool),
                otel.kind = "client",
                gen_ai.tool.name = call.tool,
                gen_ai.tool.type = "function",
                gen_ai.tool.call.id = call.call,
                gen_ai.conversation.id = call.session,
                loopwright.attempt = i64::from(call.attempt),
                loopwright.lookup.outcome = field::Empty,
                error.type = field::Empty,
                otel.status_code = field::Empty,
                otel.status_description = field::Empty,
            )
        })
    }

    /// The `traceparent` of a span, to hang others from: a step's for its calls, a call's for the
    /// request that it makes. `None` when tracing is off; pass on the loop's then.
    #[must_use]
    pub fn traceparent(&self, span: &Span) -> Option<String> {
        self.tracer.as_ref()?;
        context::of(span.context().span().span_context())
    }

    fn span(&self, parent: Option<&str>, make: impl FnOnce() -> Span) -> Span {
        if !self.tracing_on() {
            return Span::none();
        }
        let span = make();
        // Fails only where no layer listens, and then there is nothing to hang from anything.
        let _ = span.set_parent(context::remote(parent));
        span
    }
}

/// Adds to a model call's span what the answer says.
pub fn model_done(span: &Span, outcome: &ModelOutcome<'_>) {
    if span.is_disabled() {
        return;
    }
    if let Some(model) = outcome.model {
        span.set_attribute("gen_ai.response.model", model.to_owned());
    }
    if let Some(id) = outcome.response_id {
        span.set_attribute("gen_ai.response.id", id.to_owned());
    }
    let reasons = vec![StringValue::from(outcome.finish_reason.to_owned())];
    span.set_attribute(
        "gen_ai.response.finish_reasons",
        Value::Array(Array::String(reasons)),
    );
    for attribute in usage(&outcome.tokens) {
        span.set_attribute(attribute.key, attribute.value);
    }
}

/// Adds to a lookup's span what it found; not to know is a failure.
pub fn looked_up(span: &Span, outcome: &str) {
    span.record("loopwright.lookup.outcome", outcome);
    if !matches!(outcome, "completed" | "never_started") {
        fail(span, outcome, "nobody can say what became of the call");
    }
}

/// Marks a span as failed; `kind` is a short word such as `rate_limited` or `timeout`.
pub fn fail(span: &Span, kind: &str, message: &str) {
    span.record("error.type", kind);
    span.record("otel.status_code", "ERROR");
    span.record("otel.status_description", message);
}

/// The convention counts cached tokens as input, so the three input classes are added up.
fn usage(tokens: &TokenCounts) -> [KeyValue; 4] {
    let input = tokens
        .input
        .saturating_add(tokens.cache_write)
        .saturating_add(tokens.cache_read);
    [
        KeyValue::new("gen_ai.usage.input_tokens", whole(input)),
        KeyValue::new("gen_ai.usage.output_tokens", whole(tokens.output)),
        KeyValue::new(
            "gen_ai.usage.cache_creation.input_tokens",
            whole(tokens.cache_write),
        ),
        KeyValue::new(
            "gen_ai.usage.cache_read.input_tokens",
            whole(tokens.cache_read),
        ),
    ]
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
