//! One trace per loop, as a collector that speaks OTLP receives it from the real server.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context as _, Result, ensure};
use futures_util::{StreamExt as _, stream};
use loopwright_client::{Client, ClientOptions, WatchEvent};
use loopwright_proto::v1::{
    Agent, CallToolRequest, CallToolResponse, EffectClass, StartLoopRequest, ToolSpec,
    call_tool_response, event::Kind, start_loop_request::Input,
};
use loopwright_tests::{
    collector::Collector,
    kit,
    sidecar::{self, Answers, Plain, said},
};
use opentelemetry_proto::tonic::{common::v1::any_value::Value, trace::v1::Span};
use tonic::{Request, Status};

const SCRIPT: &str = "turns:\n- text: looking\n  tool_calls:\n  - tool: probe__look\n    arguments: {}\n- text: done\n";

/// A sidecar that keeps the trace context it was called with.
#[derive(Clone, Default)]
struct Probe(Arc<Mutex<Vec<String>>>);

#[tonic::async_trait]
impl Plain for Probe {
    fn tools(&self) -> Vec<ToolSpec> {
        vec![ToolSpec {
            name: "look".to_owned(),
            description: "Looks.".to_owned(),
            input_schema_json: "{\"type\":\"object\"}".to_owned(),
            effect_class: EffectClass::ReadOnly.into(),
            ..ToolSpec::default()
        }]
    }

    async fn call(&self, request: Request<CallToolRequest>) -> Result<Answers, Status> {
        let sent = request
            .metadata()
            .get("traceparent")
            .and_then(|value| value.to_str().ok());
        let sent = sent.unwrap_or_default().to_owned();
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(sent);
        let kind = Some(call_tool_response::Kind::Result(said("seen")));
        Ok(stream::iter([Ok(CallToolResponse { kind })]).boxed())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loop_is_one_trace_and_its_context_reaches_the_sidecar() -> Result<()> {
    let (collector, collector_url) = Collector::serve().await?;
    let probe = Probe::default();
    let probe_url = sidecar::serve(probe.clone()).await?;

    let dir = tempfile::tempdir()?;
    let script = dir.path().join("script.yaml");
    std::fs::write(&script, SCRIPT)?;
    let mut server = kit::Options::default()
        .set("models.m.provider", "scripted")
        .set("models.m.script", script.display().to_string())
        .set("telemetry.otlp_endpoint", collector_url)
        .start()?;
    kit::register(&server.url, "probe", &probe_url).await?;
    run_one_loop(&server.url).await?;
    // An orderly end sends the last spans.
    server.terminate()?;

    let sent = probe
        .0
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    check(&collector.spans(), &sent)
}

async fn run_one_loop(url: &str) -> Result<()> {
    let client = Client::connect(ClientOptions::at(url))?;
    kit::wait_for_tools(&client, &["probe__look"]).await?;
    let request = StartLoopRequest {
        agent: Some(Agent {
            model: "m".to_owned(),
            ..Agent::default()
        }),
        input: Some(Input::Text("look".to_owned())),
        ..StartLoopRequest::default()
    };
    let started = client.start_loop(request).await?;
    let mut watch = client.watch(&started.session_id, 0);
    loop {
        let event = watch.next().await.context("the watch goes on")??;
        let WatchEvent::Entry(entry) = event else {
            continue;
        };
        if entry
            .events
            .iter()
            .any(|event| matches!(event.kind, Some(Kind::LoopEnded(_))))
        {
            return Ok(());
        }
    }
}

fn text<'a>(span: &'a Span, key: &str) -> Option<&'a str> {
    let value = span
        .attributes
        .iter()
        .find(|pair| pair.key == key)?
        .value
        .as_ref()?;
    match value.value.as_ref()? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}

fn check(spans: &[Span], sent: &[String]) -> Result<()> {
    let mut by_name: BTreeMap<&str, Vec<&Span>> = BTreeMap::new();
    for span in spans {
        by_name.entry(&span.name).or_default().push(span);
    }
    let names: Vec<(&str, usize)> = by_name
        .iter()
        .map(|(name, all)| (*name, all.len()))
        .collect();
    let expected = [
        ("chat m", 2),
        ("execute_tool probe__look", 1),
        ("invoke_agent", 1),
        ("step", 2),
    ];
    ensure!(names == expected, "spans: {names:?}");
    let root = by_name["invoke_agent"][0];
    ensure!(
        spans.iter().all(|span| span.trace_id == root.trace_id),
        "more than one trace"
    );
    ensure!(
        root.parent_span_id.is_empty(),
        "the loop's span has a parent"
    );
    let steps = &by_name["step"];
    ensure!(
        steps.iter().all(|step| step.parent_span_id == root.span_id),
        "steps off the loop"
    );
    let in_step = |span: &&&Span| steps.iter().any(|step| step.span_id == span.parent_span_id);
    let (chats, tool) = (&by_name["chat m"], by_name["execute_tool probe__look"][0]);
    ensure!(
        chats.iter().all(|chat| in_step(&chat)) && in_step(&&tool),
        "calls off their steps"
    );
    ensure!(text(chats[0], "gen_ai.operation.name") == Some("chat"));
    ensure!(text(chats[0], "gen_ai.provider.name") == Some("scripted"));
    ensure!(text(tool, "gen_ai.tool.name") == Some("probe__look"));
    let hex = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let context = format!("00-{}-{}-01", hex(&root.trace_id), hex(&tool.span_id));
    ensure!(
        sent == [context.clone()],
        "the sidecar was sent {sent:?}, not {context}"
    );
    Ok(())
}
