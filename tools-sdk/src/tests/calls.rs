//! Describe and CallTool as a server meets them.

use std::sync::Arc;

use loopwright_proto::v1::{DescribeRequest, EffectClass};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc};
use tonic::Request;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};

use super::*;
use crate::{Json, Listen, NoArgs, Tool, ToolContext, ToolError};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Count {
    /// How far.
    to: u32,
}

#[derive(Serialize, JsonSchema)]
struct Counted {
    reached: u32,
}

fn counter() -> Sidecar {
    let count = |ctx: ToolContext, args: Count| async move {
        for number in 1..=args.to {
            ctx.progress(
                f64::from(number) / f64::from(args.to),
                format!("at {number}"),
            );
        }
        Ok(Json(Counted { reached: args.to }))
    };
    let fail = |_: ToolContext, _: NoArgs| async move {
        let read: Result<String, _> = std::fs::read_to_string("/nowhere/at/all");
        Ok(read?)
    };
    let refuse = |_: ToolContext, _: NoArgs| async move {
        Err::<(), _>(ToolError::not_executed("not today").retry_after(Duration::from_secs(3)))
    };
    let crash = |_: ToolContext, args: Count| async move {
        if args.to == 7 {
            panic!("seven");
        }
        Ok("fine")
    };
    Sidecar::new("counter")
        .version("1.2.3")
        .tool(
            Tool::new("count", "Counts up.", count)
                .read_only()
                .timeout(Duration::from_secs(9)),
        )
        .tool(
            Tool::new("fail", "Fails.", fail)
                .destructive()
                .without_lookup(),
        )
        .tool(
            Tool::new("refuse", "Refuses.", refuse)
                .idempotent()
                .max_concurrency(3),
        )
        .tool(Tool::new("crash", "Crashes.", crash).deduplicated(Duration::from_secs(60)))
}

#[tokio::test]
async fn describe_says_what_was_declared() {
    let (_serving, mut client) = served(counter()).await;
    let described = client
        .describe(DescribeRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(described.version, "1.2.3");
    let names: Vec<&str> = described
        .tools
        .iter()
        .map(|tool| tool.name.as_str())
        .collect();
    assert_eq!(names, ["count", "crash", "fail", "refuse"]);
    let [count, crash, fail, refuse] = described.tools.as_slice() else {
        panic!()
    };
    assert_eq!(count.effect_class(), EffectClass::ReadOnly);
    assert_eq!(count.timeout.as_ref().unwrap().seconds, 9);
    let input: serde_json::Value = serde_json::from_str(&count.input_schema_json).unwrap();
    assert_eq!(input["type"], "object");
    assert_eq!(input["properties"]["to"]["description"], "How far.");
    let output: serde_json::Value = serde_json::from_str(&count.output_schema_json).unwrap();
    assert_eq!(output["properties"]["reached"]["type"], "integer");
    assert_eq!(crash.effect_class(), EffectClass::Deduplicated);
    assert_eq!(crash.retention.as_ref().unwrap().seconds, 60);
    assert!(!crash.supports_cancel && count.supports_cancel);
    assert_eq!(
        (fail.effect_class(), fail.destructive),
        (EffectClass::AtMostOnce, true)
    );
    assert_eq!((refuse.max_concurrency, refuse.destructive), (3, false));
}

#[tokio::test]
async fn a_call_streams_progress_and_ends_with_its_result_on_tcp_and_unix() {
    let dir = tempfile::tempdir().unwrap();
    for listen in [Listen::default(), Listen::Unix(dir.path().join("c.sock"))] {
        let (serving, mut client) = served(counter().listen(listen)).await;
        let mut stream = call(&mut client, request("count", r#"{"to": 4}"#)).await;
        for number in 1..=4 {
            let Some(Kind::Progress(progress)) = next(&mut stream).await else {
                panic!()
            };
            assert_eq!(progress.message, format!("at {number}"));
            assert_eq!(progress.fraction, Some(f64::from(number) / 4.0));
        }
        let (kind, text) = last(stream).await;
        let Kind::Result(result) = kind else {
            panic!("{kind:?}")
        };
        assert!(!result.is_error);
        assert_eq!(
            (text.as_str(), result.structured_json.as_str()),
            (r#"{"reached":4}"#, text.as_str())
        );
        within(serving.shutdown()).await.unwrap();
    }
}

#[tokio::test]
async fn health_says_serving_for_the_process_and_the_service() {
    let (serving, _client) = served(counter()).await;
    let channel = Endpoint::from_shared(serving.endpoint().to_owned())
        .unwrap()
        .connect()
        .await;
    let mut health = HealthClient::new(channel.unwrap());
    for service in ["", "loopwright.v1.SidecarService"] {
        let request = HealthCheckRequest {
            service: service.to_owned(),
        };
        let status = health.check(request).await.unwrap().into_inner().status();
        assert_eq!(status, ServingStatus::Serving, "{service:?}");
    }
}

#[tokio::test]
async fn failing_refusing_and_crashing_are_three_things() {
    let (_serving, mut client) = served(counter()).await;
    let (kind, text) = last(call(&mut client, request("fail", "{}")).await).await;
    assert!(
        matches!(kind, Kind::Result(result) if result.is_error),
        "{text}"
    );
    assert!(text.contains("No such file"), "{text}");

    let (kind, text) = last(call(&mut client, request("refuse", "{}")).await).await;
    let Kind::NotExecuted(refusal) = kind else {
        panic!("{text}")
    };
    assert_eq!(
        (text.as_str(), refusal.retry_after.unwrap().seconds),
        ("not today", 3)
    );

    let (kind, text) = last(call(&mut client, request("crash", r#"{"to": 7}"#)).await).await;
    assert!(
        matches!(kind, Kind::Result(result) if result.is_error),
        "{text}"
    );
    assert!(text.contains("may have done a part"), "{text}");
}

#[tokio::test]
async fn what_does_not_fit_is_not_executed_and_says_why() {
    let (_serving, mut client) = served(counter()).await;
    let long_key = CallToolRequest {
        key: "k".repeat(2000),
        ..request("count", r#"{"to": 1}"#)
    };
    let forged = CallToolRequest {
        arguments_sha256: "00".repeat(32),
        ..request("count", r#"{"to": 1}"#)
    };
    let table = [
        (request("count", r#"{"too": 1}"#), "`to` is missing"),
        (
            request("count", r#"{"too": 1}"#),
            "`too` is not an argument; there are: to",
        ),
        (
            request("count", r#"{"to": "three"}"#),
            "`to`: \"three\" is not of type \"integer\"",
        ),
        (
            request("count", r#"{"to": -1}"#),
            "`to`: -1 is less than the minimum of 0",
        ),
        (
            request("count", r#"{"to": 4294967296}"#),
            "`to`: 4294967296 is greater than",
        ),
        (request("count", r#"{"to""#), "no JSON"),
        (request("count", "[1]"), "not of type \"object\""),
        (
            request("cuont", "{}"),
            "no tool \"cuont\"; this sidecar has: count, crash",
        ),
        (long_key, "key has 2000 bytes"),
        (forged, "arguments_sha256"),
    ];
    for (request, expected) in table {
        let (kind, text) = last(call(&mut client, request).await).await;
        assert!(matches!(kind, Kind::NotExecuted(_)), "{text}");
        assert!(text.contains(expected), "{text}");
    }
}

#[tokio::test]
async fn a_tool_sees_that_its_caller_went() {
    let (told, mut tells) = mpsc::unbounded_channel();
    let wait = move |ctx: ToolContext, _: NoArgs| {
        let told = told.clone();
        async move {
            ctx.progress(None, "begun");
            ctx.cancelled().await;
            told.send(ctx.is_cancelled()).unwrap();
            Ok("stopped")
        }
    };
    let tool = Tool::new("wait", "Waits.", wait).without_lookup();
    let (_serving, mut client) = served(Sidecar::new("slow").tool(tool)).await;
    let mut stream = call(&mut client, request("wait", "{}")).await;
    assert!(matches!(next(&mut stream).await, Some(Kind::Progress(_))));
    drop(stream);
    assert_eq!(
        within(tells.recv()).await,
        Some(true),
        "by dropping the stream"
    );

    let mut other = dial(_serving.endpoint()).await;
    let mut stream = call(&mut other, request("wait", "{}")).await;
    assert!(matches!(next(&mut stream).await, Some(Kind::Progress(_))));
    drop((stream, other));
    assert_eq!(
        within(tells.recv()).await,
        Some(true),
        "by closing the connection"
    );
}

#[tokio::test]
async fn calls_beyond_the_limit_are_put_off_until_one_ends() {
    let go = Arc::new(Notify::new());
    let gate = Arc::clone(&go);
    let wait = move |ctx: ToolContext, _: NoArgs| {
        let gate = Arc::clone(&gate);
        async move {
            ctx.progress(None, "begun");
            gate.notified().await;
            Ok("went")
        }
    };
    let tool = Tool::new("wait", "Waits.", wait)
        .idempotent()
        .max_concurrency(1);
    let (_serving, mut client) = served(Sidecar::new("one").tool(tool)).await;
    let mut first = call(&mut client, request("wait", "{}")).await;
    assert!(matches!(next(&mut first).await, Some(Kind::Progress(_))));
    let (kind, text) = last(call(&mut client, request("wait", "{}")).await).await;
    assert!(
        matches!(kind, Kind::NotExecuted(refusal) if refusal.retry_after.is_some()),
        "{text}"
    );
    go.notify_one();
    assert_eq!(last(first).await.1, "went");
    // The place is free when the task ends, a moment after its outcome: then the next call gets in.
    let second = within(async {
        loop {
            let mut stream = call(&mut client, request("wait", "{}")).await;
            if let Some(Kind::Progress(_)) = next(&mut stream).await {
                return stream;
            }
            tokio::task::yield_now().await;
        }
    });
    let second = second.await;
    go.notify_one();
    assert_eq!(last(second).await.1, "went");
}

#[tokio::test]
async fn the_trace_context_and_the_call_reach_the_tool() {
    let tell = |ctx: ToolContext, _: NoArgs| async move {
        let trace = ctx.traceparent().unwrap_or("none").to_owned();
        Ok(format!(
            "{} {} {} {trace}",
            ctx.session_id(),
            ctx.key(),
            ctx.attempt()
        ))
    };
    let (_serving, mut client) =
        served(Sidecar::new("t").tool(Tool::new("tell", "Tells.", tell).read_only())).await;
    let carried = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let mut traced = Request::new(request("tell", "{}"));
    traced
        .metadata_mut()
        .insert("traceparent", carried.parse().unwrap());
    let stream = client.call_tool(traced).await.unwrap().into_inner();
    assert_eq!(
        last(stream).await.1,
        format!("s1 default/s1/c1 1 {carried}")
    );
    let mut in_field = request("tell", "{}");
    in_field.traceparent = carried.to_owned();
    assert!(
        last(call(&mut client, in_field).await)
            .await
            .1
            .ends_with(carried)
    );
    assert!(
        last(call(&mut client, request("tell", "{}")).await)
            .await
            .1
            .ends_with("none")
    );
}

#[tokio::test]
async fn an_answer_too_large_for_the_wire_is_an_error_result() {
    let flood = |_: ToolContext, _: NoArgs| async move { Ok("x".repeat(5 * 1024 * 1024)) };
    let (_serving, mut client) =
        served(Sidecar::new("f").tool(Tool::new("flood", "Floods.", flood))).await;
    let (kind, text) = last(call(&mut client, request("flood", "{}")).await).await;
    assert!(
        matches!(kind, Kind::Result(result) if result.is_error),
        "{}",
        text.len()
    );
    assert!(text.contains("5242880 bytes"), "{text}");
}

#[tokio::test]
async fn a_sidecar_that_cannot_be_served_says_so_before_it_listens() {
    let ok = |_: ToolContext, _: NoArgs| async move { Ok("ok") };
    let tool = |name: &str| Tool::new(name, "Does it.", ok);
    let table = [
        (
            Sidecar::new("Bad").tool(tool("a")),
            "the sidecar name \"Bad\"",
        ),
        (Sidecar::new("s"), "has no tools"),
        (
            Sidecar::new("s").tool(tool("a")).tool(tool("a")),
            "two tools are named \"a\"",
        ),
        (
            Sidecar::new("s").tool(tool("a__b")),
            "the tool name \"a__b\"",
        ),
        (
            Sidecar::new("s").tool(Tool::new("a", " ", ok)),
            "description is empty",
        ),
        (
            Sidecar::new("s").tool(tool("a").max_concurrency(0)),
            "max_concurrency is 0",
        ),
        (
            Sidecar::new("s").tool(tool("a").timeout(Duration::ZERO)),
            "timeout",
        ),
        (
            Sidecar::new("s").tool(tool("a").deduplicated(Duration::ZERO)),
            "retention",
        ),
    ];
    for (sidecar, expected) in table {
        let error = sidecar.spawn().await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
