//! LookupCall and AttachCall as a server meets them, and what a lost caller means.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use futures_util::FutureExt as _;
use loopwright_proto::v1::attach_call_response::Kind as AttachKind;
use loopwright_proto::v1::lookup_call_response::Outcome as Found;
use loopwright_proto::v1::{
    AttachCallRequest, AttachCallResponse, DescribeRequest, LookupCallRequest,
};
use loopwright_proto::well_known::Timestamp;
use tokio::sync::{Semaphore, watch};
use tonic::Code;

use super::*;
use crate::{NoArgs, Tool, ToolContext, ToolError};

/// An at-most-once tool that ends when the gate opens, or when it is told to stop.
struct Lever {
    runs: Arc<AtomicU32>,
    gate: Arc<Semaphore>,
    stopped: watch::Receiver<u32>,
    sidecar: Sidecar,
}

fn lever() -> Lever {
    let (runs, gate) = (Arc::new(AtomicU32::new(0)), Arc::new(Semaphore::new(0)));
    let (stops, stopped) = watch::channel(0);
    let (counted, passed) = (Arc::clone(&runs), Arc::clone(&gate));
    let pull = move |ctx: ToolContext, _: NoArgs| {
        let (counted, passed, stops) = (Arc::clone(&counted), Arc::clone(&passed), stops.clone());
        async move {
            let run = counted.fetch_add(1, Ordering::SeqCst) + 1;
            ctx.progress(0.5, "pulling");
            tokio::select! {
                permit = passed.acquire() => permit?.forget(),
                () = ctx.cancelled() => {
                    stops.send_modify(|count| *count += 1);
                    return Err(ToolError::failed("let go half-way"));
                }
            }
            ctx.progress(1.0, "pulled");
            Ok(format!("run {run}"))
        }
    };
    let refuse = |_: ToolContext, _: NoArgs| async move {
        Err::<(), _>(ToolError::not_executed("it is stuck"))
    };
    let sidecar = Sidecar::new("plant")
        .tool(Tool::new("pull", "Pulls the lever.", pull))
        .tool(Tool::new("refuse", "Does nothing.", refuse))
        .tool(Tool::new("mute", "Is not asked.", refuse).without_lookup())
        .tool(Tool::new("look", "Looks.", refuse).read_only());
    Lever {
        runs,
        gate,
        stopped,
        sidecar,
    }
}

/// About the call that [`request`] makes of this tool.
fn question(tool: &str) -> LookupCallRequest {
    let call = request(tool, "{}");
    LookupCallRequest {
        session_id: call.session_id,
        call: call.call,
        key: call.key,
        attempt: call.attempt,
        epoch: call.epoch,
        tool: call.tool,
        arguments_sha256: crate::toolbox::arguments_sha256("{}"),
        first_dispatched_at: timestamp(SystemTime::now()),
        instance: None,
    }
}

/// What the sidecar calls itself.
async fn instance(client: &mut Client) -> Option<String> {
    let described = client.describe(DescribeRequest {});
    within(described).await.unwrap().into_inner().instance
}

/// The same, about a call that was meant for the sidecar that is asked.
async fn question_to(client: &mut Client, tool: &str) -> LookupCallRequest {
    LookupCallRequest {
        instance: instance(client).await,
        ..question(tool)
    }
}

fn timestamp(at: SystemTime) -> Option<Timestamp> {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Some(Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap(),
        nanos: i32::try_from(since.subsec_nanos()).unwrap(),
    })
}

fn joining(tool: &str) -> AttachCallRequest {
    let asked = question(tool);
    AttachCallRequest {
        session_id: asked.session_id,
        call: asked.call,
        key: asked.key,
        attempt: asked.attempt,
        epoch: asked.epoch,
        tool: asked.tool,
        arguments_sha256: asked.arguments_sha256,
        ..AttachCallRequest::default()
    }
}

async fn look_up(client: &mut Client, question: LookupCallRequest) -> Found {
    let answer = within(client.lookup_call(question)).await.unwrap();
    answer.into_inner().outcome.unwrap()
}

async fn attach(client: &mut Client, tool: &str) -> Streaming<AttachCallResponse> {
    within(client.attach_call(joining(tool)))
        .await
        .unwrap()
        .into_inner()
}

async fn next_of(stream: &mut Streaming<AttachCallResponse>) -> Option<AttachKind> {
    within(stream.message())
        .await
        .unwrap()
        .map(|message| message.kind.unwrap())
}

/// The text of the result that the stream ends with.
async fn result_of(mut stream: Streaming<AttachCallResponse>) -> String {
    loop {
        match next_of(&mut stream).await.unwrap() {
            AttachKind::Progress(_) => (),
            AttachKind::Result(result) => return text_of(&Kind::Result(result)).unwrap(),
            other => panic!("{other:?}"),
        }
    }
}

fn why(found: Found) -> String {
    match found {
        Found::NotKnown(unknown) => unknown.reason,
        other => panic!("{other:?}"),
    }
}

async fn begun(client: &mut Client, tool: &str) -> Streaming<CallToolResponse> {
    let mut stream = call(client, request(tool, "{}")).await;
    assert!(matches!(next(&mut stream).await, Some(Kind::Progress(_))));
    stream
}

#[tokio::test]
async fn a_call_is_running_then_rejoined_then_completed() {
    let Lever {
        runs,
        gate,
        sidecar,
        ..
    } = lever();
    let (_serving, mut client) = served(sidecar).await;
    let first = begun(&mut client, "pull").await;
    let found = look_up(&mut client, question("pull")).await;
    assert!(matches!(found, Found::Running(_)), "{found:?}");
    let mut heir = dial(_serving.endpoint()).await;
    let (second, third) = (
        attach(&mut client, "pull").await,
        attach(&mut heir, "pull").await,
    );
    gate.add_permits(1);
    assert_eq!(last(first).await.1, "run 1");
    assert_eq!(result_of(second).await, "run 1");
    assert_eq!(result_of(third).await, "run 1");
    let Found::Completed(result) = look_up(&mut heir, question("pull")).await else {
        panic!()
    };
    assert_eq!(text_of(&Kind::Result(result)).unwrap(), "run 1");
    assert_eq!(result_of(attach(&mut heir, "pull").await).await, "run 1");
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_rejoined_call_is_heard_from_then_on() {
    let Lever { gate, sidecar, .. } = lever();
    let (_serving, mut client) = served(sidecar).await;
    let _first = begun(&mut client, "pull").await;
    let mut second = attach(&mut client, "pull").await;
    gate.add_permits(1);
    let Some(AttachKind::Progress(progress)) = next_of(&mut second).await else {
        panic!()
    };
    assert_eq!(progress.message, "pulled");
    assert!(matches!(
        next_of(&mut second).await,
        Some(AttachKind::Result(_))
    ));
    assert_eq!(next_of(&mut second).await, None);
}

#[tokio::test]
async fn a_caller_that_dies_leaves_its_call_to_the_next_one() {
    let Lever {
        runs,
        gate,
        sidecar,
        mut stopped,
    } = lever();
    let (serving, mut doomed) = served(sidecar).await;
    let stream = begun(&mut doomed, "pull").await;
    // The connection goes with the caller, as it does when a process is killed.
    drop((doomed, stream));
    let mut heir = dial(serving.endpoint()).await;
    let found = look_up(&mut heir, question("pull")).await;
    assert!(matches!(found, Found::Running(_)), "{found:?}");
    let joined = attach(&mut heir, "pull").await;
    gate.add_permits(1);
    assert_eq!(result_of(joined).await, "run 1");
    let cancelled = stopped.wait_for(|&count| count > 0).now_or_never();
    assert!(cancelled.is_none() && runs.load(Ordering::SeqCst) == 1);
}

#[tokio::test]
async fn a_caller_that_cancels_stops_its_call_and_the_last_listener_counts() {
    let Lever {
        sidecar,
        mut stopped,
        ..
    } = lever();
    let (_serving, mut client) = served(sidecar).await;
    let first = begun(&mut client, "pull").await;
    let second = attach(&mut client, "pull").await;
    drop(first);
    let found = look_up(&mut client, question("pull")).await;
    assert!(matches!(found, Found::Running(_)), "{found:?}");
    drop(second);
    within(stopped.wait_for(|&count| count == 1)).await.unwrap();
    let ended = attach(&mut client, "pull").await;
    assert_eq!(result_of(ended).await, "let go half-way");
}

#[tokio::test]
async fn a_call_that_never_started_cannot_start_late() {
    let Lever {
        runs,
        gate,
        sidecar,
        ..
    } = lever();
    gate.add_permits(9);
    let (_serving, mut client) = served(sidecar).await;
    for tool in ["pull", "pull"] {
        let question = question_to(&mut client, tool).await;
        let found = look_up(&mut client, question).await;
        assert!(matches!(found, Found::NeverStarted(_)), "{found:?}");
    }
    // The first attempt was on its way all the time.
    let (kind, text) = last(call(&mut client, request("pull", "{}")).await).await;
    assert!(matches!(kind, Kind::NotExecuted(_)), "{text}");
    assert_eq!(runs.load(Ordering::SeqCst), 0);
    let second = CallToolRequest {
        attempt: 2,
        ..request("pull", "{}")
    };
    assert_eq!(last(call(&mut client, second).await).await.1, "run 1");
}

#[tokio::test]
async fn a_call_that_was_refused_never_started() {
    let Lever { sidecar, .. } = lever();
    let (_serving, mut client) = served(sidecar).await;
    last(call(&mut client, request("refuse", "{}")).await).await;
    let ended = next_of(&mut attach(&mut client, "refuse").await).await;
    assert!(
        matches!(ended, Some(AttachKind::NeverStarted(_))),
        "{ended:?}"
    );
    let found = look_up(&mut client, question("refuse")).await;
    assert!(matches!(found, Found::NeverStarted(_)), "{found:?}");
}

#[tokio::test]
async fn what_is_not_remembered_is_not_claimed() {
    let Lever { sidecar, .. } = lever();
    let (_serving, mut client) = served(sidecar).await;
    for tool in ["mute", "look", "none"] {
        let status = client.lookup_call(question(tool)).await.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented, "{tool}: {status:?}");
        let status = client.attach_call(joining(tool)).await.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented, "{tool}: {status:?}");
    }
    // A server of before, and one that called an earlier process.
    let unnamed = look_up(&mut client, question("pull")).await;
    assert!(why(unnamed).contains("does not say which process"));
    let earlier = LookupCallRequest {
        instance: Some("01.0".to_owned()),
        ..question("pull")
    };
    assert!(why(look_up(&mut client, earlier).await).contains("an earlier process"));
    let old = LookupCallRequest {
        first_dispatched_at: timestamp(SystemTime::now() - Duration::from_secs(86_400 * 30)),
        ..question_to(&mut client, "pull").await
    };
    assert!(why(look_up(&mut client, old).await).contains("results are kept"));
    let ended = next_of(&mut attach(&mut client, "pull").await).await;
    assert!(matches!(ended, Some(AttachKind::NotKnown(_))), "{ended:?}");
}

#[tokio::test]
async fn describe_offers_lookups_where_calls_are_remembered() {
    let Lever { sidecar, .. } = lever();
    let (_serving, mut client) = served(sidecar).await;
    let described = client.describe(DescribeRequest {});
    let tools = within(described).await.unwrap().into_inner().tools;
    let offered: Vec<_> = tools
        .iter()
        .map(|tool| {
            (
                tool.name.as_str(),
                tool.supports_lookup,
                tool.supports_attach,
            )
        })
        .collect();
    let expected = [
        ("look", false, false),
        ("mute", false, false),
        ("pull", true, true),
        ("refuse", true, true),
    ];
    assert_eq!(offered, expected);
}

#[tokio::test]
async fn a_restarted_sidecar_with_a_file_knows_what_it_knew() {
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("keys.jsonl");
    let first = lever();
    first.gate.add_permits(1);
    let (serving, mut client) = served(first.sidecar.remember_in(&keys)).await;
    let done = call(&mut client, request("pull", "{}")).await;
    assert_eq!(last(done).await.1, "run 1");
    let meant = instance(&mut client).await;
    let at = |key: &str| LookupCallRequest {
        key: key.to_owned(),
        instance: meant.clone(),
        ..question("pull")
    };
    let never = look_up(&mut client, at("default/s1/never")).await;
    assert!(matches!(never, Found::NeverStarted(_)), "{never:?}");
    let open = CallToolRequest {
        key: "default/s1/open".to_owned(),
        ..request("pull", "{}")
    };
    let mut open = call(&mut client, open).await;
    next(&mut open).await;
    let before = std::fs::read(&keys).unwrap();
    drop((client, open));
    within(serving.shutdown()).await.unwrap();
    // As if it had been killed with the call under way.
    std::fs::write(&keys, before).unwrap();

    let second = lever();
    second.gate.add_permits(9);
    let (_serving, mut client) = served(second.sidecar.remember_in(&keys)).await;
    let done = look_up(&mut client, question("pull")).await;
    assert!(matches!(done, Found::Completed(_)), "{done:?}");
    assert!(why(look_up(&mut client, at("default/s1/open")).await).contains("not known"));
    let late = CallToolRequest {
        key: "default/s1/never".to_owned(),
        ..request("pull", "{}")
    };
    let (kind, text) = last(call(&mut client, late).await).await;
    assert!(matches!(kind, Kind::NotExecuted(_)), "{text}");
    let unheard = look_up(&mut client, at("default/s1/unheard")).await;
    assert!(matches!(unheard, Found::NeverStarted(_)), "{unheard:?}");
    assert_eq!(second.runs.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_call_that_is_meant_for_an_earlier_process_is_refused() {
    let (first, second) = (lever(), lever());
    second.gate.add_permits(2);
    let (_serving, mut client) = served(first.sidecar).await;
    let meant = instance(&mut client).await;
    let (_serving, mut client) = served(second.sidecar).await;
    let astray = CallToolRequest {
        instance: meant,
        ..request("pull", "{}")
    };
    let (kind, text) = last(call(&mut client, astray.clone()).await).await;
    let Kind::NotExecuted(refusal) = kind else {
        panic!("{text}")
    };
    assert!(refusal.retry_after.is_some(), "{refusal:?}");
    let found = CallToolRequest {
        instance: instance(&mut client).await,
        ..astray
    };
    assert_eq!(last(call(&mut client, found).await).await.1, "run 1");
}
