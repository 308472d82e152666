//! `traceparent`, the text that carries a trace across processes, and the ids in it.
//!
//! Boundary: W3C trace context to OpenTelemetry's types and back. Invariant: what is not a valid
//! `traceparent` is no context at all; nothing of it is kept or passed on.

use std::cell::Cell;
use std::collections::HashMap;

use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceId};
use opentelemetry::{Context, trace::TraceFlags};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};

/// Random ids, but for a span whose ids were announced before it was made.
#[derive(Debug, Default)]
pub(super) struct Ids(RandomIdGenerator);

thread_local! {
    static ANNOUNCED: Cell<Option<(TraceId, SpanId)>> = const { Cell::new(None) };
}

impl IdGenerator for Ids {
    fn new_trace_id(&self) -> TraceId {
        ANNOUNCED
            .get()
            .map_or_else(|| self.0.new_trace_id(), |(trace, _)| trace)
    }

    fn new_span_id(&self) -> SpanId {
        ANNOUNCED
            .get()
            .map_or_else(|| self.0.new_span_id(), |(_, span)| span)
    }
}

/// Runs `make`, which makes one span, under ids that were announced.
pub(super) fn announced<T>(context: &SpanContext, make: impl FnOnce() -> T) -> T {
    ANNOUNCED.set(Some((context.trace_id(), context.span_id())));
    let made = make();
    ANNOUNCED.set(None);
    made
}

/// A new `traceparent` beneath `caller`, or at the root of a trace of its own.
pub(super) fn mint(caller: Option<&SpanContext>) -> String {
    let ids = RandomIdGenerator::default();
    let (trace, flags) = match caller {
        Some(caller) => (caller.trace_id(), caller.trace_flags()),
        None => (ids.new_trace_id(), TraceFlags::SAMPLED),
    };
    written(trace, ids.new_span_id(), flags)
}

/// Reads a `traceparent`; `None` for whatever is not one.
pub(super) fn parse(traceparent: &str) -> Option<SpanContext> {
    let carrier = HashMap::from([("traceparent".to_owned(), traceparent.to_owned())]);
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &carrier);
    let span = context.span().span_context().clone();
    span.is_valid().then_some(span)
}

/// The context of a parent in another process, or an empty one.
pub(super) fn remote(traceparent: Option<&str>) -> Context {
    match traceparent.and_then(parse) {
        Some(span) => Context::new().with_remote_span_context(span),
        None => Context::new(),
    }
}

/// The `traceparent` of a span; `None` if it is not a recorded one.
pub(super) fn of(span: &SpanContext) -> Option<String> {
    span.is_valid()
        .then(|| written(span.trace_id(), span.span_id(), span.trace_flags()))
}

fn written(trace: TraceId, span: SpanId, flags: TraceFlags) -> String {
    format!(
        "00-{trace}-{span}-{:02x}",
        flags.to_u8() & TraceFlags::SAMPLED.to_u8()
    )
}
