//! What a server refuses: loops without a model, sessions beyond its room, a data directory in use.

use anyhow::{Context as _, Result};
use loopwright_tests::{
    kit,
    scene::{Stage, ask, client, eventually, refusal},
};
use tonic::Code;

const SILENT: &str = "- {text: never, delay_ms: 3600000}\n";

#[tokio::test]
async fn without_a_model_a_loop_is_refused_and_the_ways_out_are_named() -> Result<()> {
    let server = kit::Options::default().start()?;
    let client = client(&server.url, None)?;
    let refused = refusal(client.start_loop(ask("")).await)?;
    assert_eq!(
        (refused.code, refused.reason.as_str()),
        (Code::FailedPrecondition, "NO_MODEL")
    );
    for way_out in [
        "ANTHROPIC_API_KEY",
        "OPENAI_API_KEY",
        "models.",
        "loop.model",
        "loopwright demo",
    ] {
        assert!(refused.message.contains(way_out), "{}", refused.message);
    }
    // A loop that was refused left no session behind.
    let listed = client.list_sessions(Default::default()).await?;
    assert!(listed.sessions.is_empty(), "{listed:?}");
    Ok(())
}

#[tokio::test]
async fn no_more_sessions_run_than_may_and_room_that_is_freed_is_used() -> Result<()> {
    let stage = Stage::new(&[("silent", SILENT)])?.set("limits.sessions", "1");
    let scene = stage.start()?;
    let first = scene.client.start_loop(ask("silent")).await?;
    let refused = refusal(scene.client.start_loop(ask("silent")).await)?;
    assert_eq!(
        (refused.code, refused.reason.as_str()),
        (Code::ResourceExhausted, "TOO_MANY_SESSIONS")
    );
    assert!(
        refused.message.contains("limits.sessions"),
        "{}",
        refused.message
    );
    assert_eq!(refused.metadata.get("limit").map(String::as_str), Some("1"));
    assert!(
        refused.retry_after.is_some(),
        "room may come: say when to try again"
    );
    // A command to the session that runs needs no more room.
    let cancel = loopwright_proto::v1::CancelLoopRequest {
        session_id: first.session_id,
        ..Default::default()
    };
    scene.client.cancel_loop(cancel).await?;
    let client = &scene.client;
    eventually("room for another", || async move {
        match client.start_loop(ask("silent")).await {
            Ok(_) => Ok(true),
            Err(error) if error.reason() == Some("TOO_MANY_SESSIONS") => Ok(false),
            Err(error) => Err(error.into()),
        }
    })
    .await
}

#[tokio::test]
async fn a_second_server_on_the_same_data_names_the_first_and_leaves() -> Result<()> {
    let first = kit::Options::default().start()?;
    let second = kit::Options::default().start_in(first.dir());
    let said = second.err().context("two servers on one log")?.to_string();
    assert!(
        said.contains("ended with exit status: 1"),
        "it is to fail: {said}"
    );
    let holder = format!("process {}", first.pid());
    assert!(said.contains(&holder), "no {holder} in {said}");
    // The first one is not disturbed.
    let client = client(&first.url, None)?;
    client.list_sessions(Default::default()).await?;
    Ok(())
}
