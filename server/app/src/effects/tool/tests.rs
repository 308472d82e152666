//! Time and the stream of an answer, on a clock of our own and without a network.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use loopwright_core::ids::CallId;
use loopwright_core::outcome::{ToolFailure, ToolFailureKind};
use loopwright_log::{MemoryLog, StreamKey};
use loopwright_proto::v1::call_tool_response::Kind;
use loopwright_proto::v1::{CallToolResponse, ToolProgress, ToolResult};
use tokio::time::Instant;
use tonic::Status;

use super::answer::collect;
use super::deadline::Deadline;
use crate::effects::progress::ProgressSink;
use crate::redaction::Redaction;

/// Messages, each after a pause of its own.
async fn read(
    script: Vec<(u64, Option<Kind>)>,
    patience: u64,
    whole: u64,
) -> Result<ToolResult, ToolFailure> {
    let messages = stream::iter(script).then(|(pause, kind)| async move {
        tokio::time::sleep(Duration::from_millis(pause)).await;
        Ok::<_, Status>(CallToolResponse { kind })
    });
    under(Box::pin(messages.chain(stream::pending())), patience, whole).await
}

async fn under(
    messages: impl Stream<Item = Result<CallToolResponse, Status>> + Unpin,
    patience: u64,
    whole: u64,
) -> Result<ToolResult, ToolFailure> {
    let key = StreamKey::parse("session/default/s1").unwrap();
    let mut sink = ProgressSink::new(MemoryLog::new(), key, 1, CallId(1), 1);
    let millis = Duration::from_millis;
    collect(
        messages,
        &mut Deadline::starting_now(millis(patience), millis(whole)),
        &mut sink,
        Redaction::default(),
    )
    .await?
}

fn progress() -> Option<Kind> {
    let message = "ä".repeat(5000);
    Some(Kind::Progress(ToolProgress {
        fraction: Some(f64::NAN),
        message,
    }))
}

fn result() -> Option<Kind> {
    Some(Kind::Result(ToolResult::default()))
}

#[tokio::test(start_paused = true)]
async fn each_progress_starts_the_wait_anew() {
    let mut script: Vec<_> = (0..50).map(|_| (90, progress())).collect();
    script.push((90, result()));
    assert!(read(script, 100, 60_000).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn silence_ends_the_call_when_it_has_been_too_long() {
    let began = Instant::now();
    let failure = read(vec![(90, progress()), (101, result())], 100, 60_000)
        .await
        .unwrap_err();
    assert_eq!(failure.kind, ToolFailureKind::Ambiguous);
    assert!(
        failure.message.contains("no progress within 100ms"),
        "{failure:?}"
    );
    assert_eq!(began.elapsed().as_millis(), 190);
}

#[tokio::test(start_paused = true)]
async fn progress_does_not_reach_past_the_whole() {
    let began = Instant::now();
    let script = (0..1000).map(|_| (90, progress())).collect();
    let failure = read(script, 100, 1000).await.unwrap_err();
    assert!(failure.message.contains("within 1s in all"), "{failure:?}");
    assert_eq!(began.elapsed().as_millis(), 1000);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_progress_does_not_outrun_the_clock() {
    let began = std::time::Instant::now();
    let flood = stream::repeat_with(|| Ok(CallToolResponse { kind: progress() })).then(|m| async {
        tokio::time::advance(Duration::from_millis(1)).await;
        m
    });
    let failure = under(Box::pin(flood), 100, 1000).await.unwrap_err();
    assert_eq!(failure.kind, ToolFailureKind::Ambiguous);
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[tokio::test(start_paused = true)]
async fn messages_of_a_later_version_are_no_sign_of_life() {
    let script = (0..10).map(|_| (60, None)).collect();
    let failure = read(script, 100, 60_000).await.unwrap_err();
    assert!(
        failure.message.contains("no progress within 100ms"),
        "{failure:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_hangs_after_its_answer_does_not_hold_the_call() {
    let began = Instant::now();
    assert!(read(vec![(10, result())], 60_000, 60_000).await.is_ok());
    assert!(began.elapsed() < Duration::from_secs(1));
}
