//! Spans hang together across processes, cost nothing when off, and metrics are what was counted.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::SystemTime;

use opentelemetry::trace::SpanKind;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SpanData};
use tracing::Span;

use super::*;

mod collector;
mod page;

const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Telemetry that exports to memory, with the subscriber of this thread.
fn traced_to_memory() -> (
    Telemetry,
    InMemorySpanExporter,
    tracing::subscriber::DefaultGuard,
) {
    let memory = InMemorySpanExporter::default();
    let provider = provider("test", |builder| {
        builder.with_simple_exporter(memory.clone())
    });
    let (telemetry, layer) = traced(Some(&provider), "test");
    let config = TelemetryConfig::default();
    let layers: Vec<BoxedLayer> = layer
        .into_iter()
        .chain([log_layer(&config, Some("trace")).unwrap()])
        .collect();
    let guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(layers));
    (telemetry, memory, guard)
}

fn model_call(telemetry: &Telemetry, parent: Option<&str>) -> Span {
    let call = ModelCallSpan {
        provider: "anthropic",
        model: "m-1",
        session: "s1",
        call: "c1",
        attempt: 1,
        max_output_tokens: 4096,
    };
    telemetry.model_call(parent, &call)
}

fn loop_span<'a>(traceparent: &'a str, caller: Option<&'a str>) -> LoopSpan<'a> {
    LoopSpan {
        traceparent,
        caller,
        session: "s1",
        loop_id: "l1",
        started: SystemTime::UNIX_EPOCH + Duration::from_secs(10),
        ended: SystemTime::UNIX_EPOCH + Duration::from_secs(20),
        reason: "completed",
        failed: false,
        steps: 1,
        tokens: TokenCounts::default(),
    }
}

fn named<'a>(spans: &'a [SpanData], name: &str) -> &'a SpanData {
    let mut found = spans.iter().filter(|span| span.name == name);
    let (one, more) = (found.next(), found.next());
    assert!(
        one.is_some() && more.is_none(),
        "exactly one {name} in {spans:?}"
    );
    one.unwrap()
}

fn attribute(span: &SpanData, key: &str) -> Option<String> {
    span.attributes
        .iter()
        .find(|a| a.key.as_str() == key)
        .map(|a| a.value.to_string())
}

#[test]
fn a_lookup_says_what_it_found_and_not_to_know_is_a_failure() {
    let (telemetry, memory, _guard) = traced_to_memory();
    for (tool, outcome) in [("calc__add", "never_started"), ("calc__sub", "not_known")] {
        let call = ToolCallSpan {
            tool,
            session: "s1",
            call: "c2",
            attempt: 1,
        };
        let span = telemetry.tool_lookup(Some(CALLER), &call);
        looked_up(&span, outcome);
    }
    let spans = memory.get_finished_spans().unwrap();
    let (found, lost) = (
        named(&spans, "lookup_tool calc__add"),
        named(&spans, "lookup_tool calc__sub"),
    );
    let caller = context::parse(CALLER).unwrap();
    assert_eq!(found.parent_span_id, caller.span_id());
    assert_eq!(found.span_kind, SpanKind::Client);
    for (span, outcome, error) in [
        (found, "never_started", None),
        (lost, "not_known", Some("not_known".to_owned())),
    ] {
        let told = attribute(span, "loopwright.lookup.outcome");
        assert_eq!(told.as_deref(), Some(outcome));
        assert_eq!(attribute(span, "error.type"), error);
    }
}

#[test]
fn a_loop_is_one_trace_under_its_caller_though_two_processes_run_it() {
    // The first process starts the loop and makes a model call; only the text survives it.
    let (first, first_spans, guard) = traced_to_memory();
    let logged = first.begin_loop(Some(CALLER)).unwrap();
    let step = first.step(Some(&logged), "s1", 1);
    let step_parent = first.traceparent(&step).unwrap();
    drop(model_call(&first, Some(&step_parent)));
    drop(step);
    drop(guard);

    let (second, second_spans, _guard) = traced_to_memory();
    let call = ToolCallSpan {
        tool: "files__read",
        session: "s1",
        call: "c2",
        attempt: 2,
    };
    let tool = second.tool_call(Some(&logged), &call);
    let sent = second.traceparent(&tool).unwrap();
    drop(tool);
    second.end_loop(&loop_span(&logged, Some(CALLER)));

    let mut spans = first_spans.get_finished_spans().unwrap();
    spans.extend(second_spans.get_finished_spans().unwrap());
    assert_eq!(spans.len(), 4);
    let whole = named(&spans, "invoke_agent");
    let caller = context::parse(CALLER).unwrap();
    assert!(
        spans
            .iter()
            .all(|span| span.span_context.trace_id() == caller.trace_id())
    );
    assert_eq!(whole.parent_span_id, caller.span_id());
    assert_eq!(
        context::of(&whole.span_context).as_deref(),
        Some(logged.as_str())
    );
    assert_eq!(
        whole.end_time.duration_since(whole.start_time).unwrap(),
        Duration::from_secs(10)
    );

    let step = named(&spans, "step");
    assert_eq!(step.parent_span_id, whole.span_context.span_id());
    assert_eq!(
        named(&spans, "chat m-1").parent_span_id,
        step.span_context.span_id()
    );
    let tool = named(&spans, "execute_tool files__read");
    assert_eq!(tool.parent_span_id, whole.span_context.span_id());
    assert_eq!(context::of(&tool.span_context), Some(sent));
}

#[test]
fn a_loop_without_a_caller_is_a_root_of_its_own() {
    let (telemetry, spans, _guard) = traced_to_memory();
    let logged = telemetry.begin_loop(Some("00-not-a-parent")).unwrap();
    telemetry.end_loop(&loop_span(&logged, None));
    let spans = spans.get_finished_spans().unwrap();
    assert_eq!(context::of(&spans[0].span_context), Some(logged));
    assert_eq!(
        spans[0].parent_span_id,
        opentelemetry::trace::SpanId::INVALID
    );
}

#[test]
fn the_announced_ids_are_used_for_one_span_only() {
    let (telemetry, spans, _guard) = traced_to_memory();
    let logged = telemetry.begin_loop(None).unwrap();
    telemetry.end_loop(&loop_span(&logged, None));
    drop(model_call(&telemetry, None));
    let spans = spans.get_finished_spans().unwrap();
    let (whole, call) = (&spans[0].span_context, &spans[1].span_context);
    assert_ne!(whole.span_id(), call.span_id());
    assert_ne!(whole.trace_id(), call.trace_id());
}

#[test]
fn a_caller_that_does_not_sample_is_obeyed() {
    let (telemetry, spans, _guard) = traced_to_memory();
    let unsampled = CALLER.replace("-01", "-00");
    let logged = telemetry.begin_loop(Some(&unsampled)).unwrap();
    assert!(logged.ends_with("-00"), "{logged}");
    drop(model_call(&telemetry, Some(&logged)));
    telemetry.end_loop(&loop_span(&logged, Some(&unsampled)));
    telemetry.end_loop(&loop_span(&logged, None));
    assert_eq!(spans.get_finished_spans().unwrap().len(), 0);
}

#[test]
fn a_model_call_follows_the_conventions() {
    let (telemetry, spans, _guard) = traced_to_memory();
    let span = model_call(&telemetry, Some(CALLER));
    let tokens = TokenCounts {
        input: 1,
        output: 20,
        cache_write: 300,
        cache_read: 4000,
    };
    let outcome = ModelOutcome {
        model: Some("m-1-2026"),
        response_id: Some("msg_1"),
        finish_reason: "end_turn",
        tokens,
    };
    model_done(&span, &outcome);
    drop(span);
    let spans = spans.get_finished_spans().unwrap();
    let span = named(&spans, "chat m-1");
    assert_eq!(span.span_kind, SpanKind::Client);
    for (key, value) in [
        ("gen_ai.operation.name", "chat"),
        ("gen_ai.provider.name", "anthropic"),
        ("gen_ai.request.model", "m-1"),
        ("gen_ai.request.max_tokens", "4096"),
        ("gen_ai.conversation.id", "s1"),
        ("gen_ai.response.model", "m-1-2026"),
        ("gen_ai.response.id", "msg_1"),
        ("gen_ai.response.finish_reasons", "[\"end_turn\"]"),
        ("gen_ai.usage.input_tokens", "4301"),
        ("gen_ai.usage.output_tokens", "20"),
        ("gen_ai.usage.cache_creation.input_tokens", "300"),
        ("gen_ai.usage.cache_read.input_tokens", "4000"),
        ("loopwright.attempt", "1"),
    ] {
        assert_eq!(
            attribute(span, key).as_deref(),
            Some(value),
            "{key} of {span:?}"
        );
    }
    assert_eq!(attribute(span, "error.type"), None);
}

#[test]
fn a_failed_tool_call_is_marked_with_its_kind() {
    let (telemetry, spans, _guard) = traced_to_memory();
    let call = ToolCallSpan {
        tool: "calc__add",
        session: "s1",
        call: "c2",
        attempt: 1,
    };
    let span = telemetry.tool_call(None, &call);
    fail(&span, "timeout", "no progress for 120s");
    drop(span);
    let spans = spans.get_finished_spans().unwrap();
    let span = named(&spans, "execute_tool calc__add");
    assert_eq!(
        attribute(span, "gen_ai.tool.name").as_deref(),
        Some("calc__add")
    );
    assert_eq!(
        attribute(span, "gen_ai.tool.call.id").as_deref(),
        Some("c2")
    );
    assert_eq!(attribute(span, "error.type").as_deref(), Some("timeout"));
    assert_eq!(
        span.status,
        opentelemetry::trace::Status::error("no progress for 120s")
    );
}

#[test]
fn only_our_spans_are_exported_and_events_are_not() {
    let (telemetry, spans, _guard) = traced_to_memory();
    let other = tracing::info_span!(target: "h2", "noise");
    let _entered = other.enter();
    let ours = telemetry.step(Some(CALLER), "s1", 1);
    ours.in_scope(|| tracing::info!("a log line"));
    drop(ours);
    let spans = spans.get_finished_spans().unwrap();
    assert_eq!(
        spans
            .iter()
            .map(|span| span.name.as_ref())
            .collect::<Vec<_>>(),
        ["step"]
    );
    assert_eq!(spans[0].events.len(), 0);
}

#[test]
fn without_a_collector_no_span_is_made_and_the_callers_trace_is_passed_on() {
    let telemetry = Telemetry::off();
    assert_eq!(telemetry.begin_loop(None), None);
    assert_eq!(telemetry.begin_loop(Some("nonsense")), None);
    assert_eq!(telemetry.begin_loop(Some(CALLER)).as_deref(), Some(CALLER));
    let span = model_call(&telemetry, Some(CALLER));
    assert!(span.is_none());
    assert_eq!(telemetry.traceparent(&span), None);
    let (_, layer) = traced(None, "test");
    assert!(layer.is_none());
}

#[test]
fn rust_log_goes_before_the_configuration_and_is_named_when_it_is_wrong() {
    let config = TelemetryConfig::default();
    let text = log_filter(&config, None).unwrap().to_string();
    assert!(
        text.contains("info") && text.contains("opentelemetry=warn"),
        "{text}"
    );
    assert!(text.contains("loopwright::trace=off"), "{text}");
    assert!(
        !log_filter(&config, Some("debug"))
            .unwrap()
            .to_string()
            .contains("info")
    );
    assert!(
        log_filter(&config, Some(" "))
            .unwrap()
            .to_string()
            .contains("info")
    );
    let error = log_filter(&config, Some("a=b=c")).unwrap_err().to_string();
    assert!(error.starts_with("RUST_LOG = \"a=b=c\": "), "{error}");
}

#[tokio::test]
async fn shutting_down_ends_in_time_though_the_collector_never_answers() {
    // A listener that accepts and stays silent is worse than one that refuses.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let exporter = exporter(&endpoint).unwrap();
    let provider = provider("test", |builder| builder.with_batch_exporter(exporter));
    let (telemetry, layer) = traced(Some(&provider), "test");
    let layers: Vec<BoxedLayer> = layer.into_iter().collect();
    let guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(layers));
    drop(model_call(&telemetry, None));
    drop(guard);
    let begun = std::time::Instant::now();
    TelemetryGuard {
        provider: Some(provider),
    }
    .shutdown(Duration::from_millis(300))
    .await;
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
}
