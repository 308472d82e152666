//! A conversation: a refused command gets its reply and the stream goes on, also once the client has
//! said its last word.

use anyhow::{Context as _, Result, bail, ensure};
use loopwright_proto::v1::{
    ConverseRequest, ConverseResponse, Reply, SendMessageRequest, StartLoopRequest,
    converse_request::Command, converse_response::Item, event::Kind,
    loop_service_client::LoopServiceClient, send_message_request::Input,
};
use loopwright_tests::scene::{PATIENCE, Stage, ask, has};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

const SLOW: &str = "- {text: one two three four, chunk: {chars: 4, delay_ms: 100}}\n";

async fn next(down: &mut Streaming<ConverseResponse>) -> Result<Item> {
    let next = timeout(PATIENCE, down.message())
        .await
        .context("silence")??;
    next.context("the stream ended")?.item.context("an item")
}

/// The next reply; what comes between is passed over.
async fn reply(down: &mut Streaming<ConverseResponse>) -> Result<(String, Code)> {
    loop {
        match next(down).await? {
            Item::Reply(Reply {
                request_id, status, ..
            }) => {
                let code = status.context("a status")?.code;
                return Ok((request_id, Code::from_i32(code)));
            }
            Item::Goodbye(goodbye) => bail!("{goodbye:?}"),
            _ => {}
        }
    }
}

fn say(id: &str, session: &str, text: &str) -> Command {
    Command::Message(SendMessageRequest {
        request_id: id.to_owned(),
        session_id: session.to_owned(),
        input: Some(Input::Text(text.to_owned())),
        ..SendMessageRequest::default()
    })
}

#[tokio::test]
async fn a_refused_command_is_answered_and_the_stream_goes_on_past_the_last_word() -> Result<()> {
    let scene = Stage::new(&[("slow", SLOW)])?.start()?;
    let mut loops = LoopServiceClient::connect(scene.server.url.clone()).await?;
    let (up, commands) = mpsc::channel(8);
    let commands = ReceiverStream::new(commands);
    let mut down = loops.converse(commands).await?.into_inner();
    let start = |id: &str, model: &str| {
        Command::Start(StartLoopRequest {
            request_id: id.to_owned(),
            ..ask(model)
        })
    };
    let told = [
        // Before the stream has a session.
        (say("r1", "", "hello"), Code::FailedPrecondition),
        (start("r2", "no_such_model"), Code::FailedPrecondition),
        (start("r3", "slow"), Code::Ok),
        (start("r4", "slow"), Code::FailedPrecondition),
        (
            say("r5", "another-session", "hello"),
            Code::FailedPrecondition,
        ),
        (say("r6", "", ""), Code::InvalidArgument),
    ];
    for (at, (command, code)) in told.into_iter().enumerate() {
        let command = Some(command);
        up.send(ConverseRequest { command }).await?;
        assert_eq!(reply(&mut down).await?, (format!("r{}", at + 1), code));
    }
    up.send(ConverseRequest { command: None }).await?;
    assert_eq!(
        reply(&mut down).await?,
        (String::new(), Code::InvalidArgument)
    );
    // The last word; what follows is watched.
    drop(up);
    let mut deltas = 0;
    loop {
        match next(&mut down).await? {
            Item::Delta(_) => deltas += 1,
            Item::Entry(entry) if has(&entry, |k| matches!(k, Kind::LoopEnded(_))) => break,
            Item::Goodbye(goodbye) => bail!("{goodbye:?}"),
            _ => {}
        }
    }
    ensure!(deltas > 0, "nothing was live");
    // A stream that is at its end would end here; this one waits for what the session does next.
    let session = scene.client.list_sessions(Default::default()).await?;
    let session = session.sessions.first().context("one")?.session_id.clone();
    let message = SendMessageRequest {
        session_id: session.clone(),
        input: Some(Input::Text("more".to_owned())),
        ..SendMessageRequest::default()
    };
    let sent = scene.client.send_message(message).await?;
    loop {
        if let Item::Entry(entry) = next(&mut down).await?
            && entry.seq >= sent.seq
        {
            break;
        }
    }
    Ok(())
}
