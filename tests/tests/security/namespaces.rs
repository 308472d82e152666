//! What is in one namespace is not there for another.

use anyhow::{Context as _, Result, bail, ensure};
use loopwright_client::{Client, ConverseEvent, Error, LoopsEvent, Opening};
use loopwright_proto::v1::{
    CancelLoopRequest, GetLoopRequest, GetSessionRequest, ReadEntriesRequest,
    RegisterSidecarRequest, SendMessageRequest, StartLoopRequest, send_message_request::Input,
    tool_service_client::ToolServiceClient,
};
use loopwright_tests::{
    kit,
    probe::Probe,
    scene::{ask, kinds, log, refusal, to_end},
};
use tonic::{Code, Request, metadata::MetadataValue};

use super::tokens::{Guarded, token};

/// Asks for a session in every way: each one says that there is none.
async fn sees_nothing(client: &Client, session: &str) -> Result<()> {
    let session_id = session.to_owned();
    let mut answers: Vec<(&str, Result<(), Error>)> = Vec::new();
    let get = GetSessionRequest {
        session_id: session_id.clone(),
    };
    answers.push(("GetSession", client.get_session(get).await.map(drop)));
    let get = GetLoopRequest {
        session_id: session_id.clone(),
        ..GetLoopRequest::default()
    };
    answers.push(("GetLoop", client.get_loop(get).await.map(drop)));
    let message = SendMessageRequest {
        session_id: session_id.clone(),
        input: Some(Input::Text("hello".to_owned())),
        ..SendMessageRequest::default()
    };
    answers.push(("SendMessage", client.send_message(message).await.map(drop)));
    let cancel = CancelLoopRequest {
        session_id: session_id.clone(),
        ..CancelLoopRequest::default()
    };
    answers.push(("CancelLoop", client.cancel_loop(cancel).await.map(drop)));
    let read = ReadEntriesRequest {
        session_id: session_id.clone(),
        ..ReadEntriesRequest::default()
    };
    let first = client.read_entries(read).next().await;
    answers.push(("ReadEntries", first.map_or(Ok(()), |read| read.map(drop))));
    let first = client.watch(session, 0).next().await;
    answers.push(("WatchLoop", first.map_or(Ok(()), |seen| seen.map(drop))));
    let attach = Opening::Attach {
        session_id,
        after_seq: 0,
        after_mark: None,
    };
    let first = client.converse(attach).next().await;
    let first = first.map_or(Ok(()), |event| match event {
        Ok(ConverseEvent::Reply(reply)) => reply.result.map(drop),
        other => other.map(drop),
    });
    answers.push(("Converse", first));
    for (rpc, answer) in answers {
        let refused = refusal(answer)?;
        ensure!(
            refused.code == Code::NotFound && refused.reason == "SESSION_NOT_FOUND",
            "{rpc}: {refused:?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_session_is_not_there_for_another_namespace() -> Result<()> {
    let guarded = Guarded::start()?;
    let (red, blue) = (
        guarded.client("red", "user")?,
        guarded.client("blue", "admin")?,
    );
    let request = StartLoopRequest {
        session_id: "same".to_owned(),
        request_id: "one".to_owned(),
        ..ask("m")
    };
    red.start_loop(request.clone()).await?;
    let entries = to_end(&red, "same", "").await?;
    sees_nothing(&blue, "same").await?;
    ensure!(
        blue.list_sessions(Default::default())
            .await?
            .sessions
            .is_empty()
    );
    ensure!(blue.list_loops(Default::default()).await?.loops.is_empty());
    let first = blue.watch_loops(Default::default()).next().await;
    let first = first.context("a snapshot")??;
    ensure!(
        matches!(&first, LoopsEvent::Snapshot(loops) if loops.is_empty()),
        "{first:?}"
    );
    // The same ids mean another session there, and this one is left alone.
    blue.start_loop(request).await?;
    let others = to_end(&blue, "same", "").await?;
    let created = kinds(&others).find_map(|kind| match kind {
        loopwright_proto::v1::event::Kind::SessionCreated(created) => Some(created),
        _ => None,
    });
    assert_eq!(
        created.map(|created| created.namespace.as_str()),
        Some("blue")
    );
    assert_eq!(log(&red, "same").await?, entries);
    let principal = |entries: &[loopwright_proto::v1::Entry]| {
        let mut causes = entries.iter().filter_map(|entry| entry.cause.clone());
        causes
            .find(|cause| !cause.principal.is_empty())
            .map(|cause| cause.principal)
    };
    assert_eq!(principal(&entries).as_deref(), Some("user-of-red"));
    assert_eq!(principal(&others).as_deref(), Some("admin-of-blue"));
    Ok(())
}

#[tokio::test]
async fn a_sidecar_serves_its_namespace_alone() -> Result<()> {
    let guarded = Guarded::start()?;
    let probe = Probe::serve().await?;
    let mut tools = ToolServiceClient::connect(guarded.scene.server.url.clone()).await?;
    let mut request = Request::new(RegisterSidecarRequest {
        name: "probe".to_owned(),
        endpoint: probe.endpoint.clone(),
        ..RegisterSidecarRequest::default()
    });
    let bearer = MetadataValue::try_from(format!("Bearer {}", token("red", "sidecar")))?;
    request.metadata_mut().insert("authorization", bearer);
    let lease = tools.register_sidecar(request).await?.into_inner().lease_id;
    kit::wait_for_tools(&guarded.client("red", "viewer")?, &["probe__note"]).await?;
    let blue = guarded.client("blue", "admin")?;
    let seen = blue.list_tools(Default::default()).await?.tools;
    ensure!(seen.is_empty(), "{seen:?}");
    ensure!(
        blue.list_sidecars(Default::default())
            .await?
            .sidecars
            .is_empty()
    );
    // Nor can it be taken out from there.
    let mut request = Request::new(loopwright_proto::v1::RenewLeaseRequest { lease_id: lease });
    let bearer = MetadataValue::try_from(format!("Bearer {}", token("blue", "sidecar")))?;
    request.metadata_mut().insert("authorization", bearer);
    match tools.renew_lease(request).await {
        Err(status) if status.code() == Code::NotFound => Ok(()),
        other => bail!("{other:?}"),
    }
}
