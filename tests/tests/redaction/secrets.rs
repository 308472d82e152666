//! `redaction.secrets`: the model, the log and watchers see the same text, and none of them the secret.

use anyhow::{Context as _, Result, ensure};
use loopwright_client::WatchEvent;
use loopwright_proto::v1::{
    Agent, GetModelRequestRequest, Message, MessageMode, Part, SendMessageRequest,
    StartLoopRequest, part, send_message_request, start_loop_request::Input,
};
use loopwright_tests::{
    collector::Collector,
    kit,
    scene::{self, Stage},
};
use prost::Message as _;

use super::leaky::{Leaky, files_with, have, token};

/// Every way in, in three loops; the model's own text repeats what it was told.
fn script() -> String {
    format!(
        "\
- {{text: \"you say {{{{last_user}}}}\", tool_calls: [{{tool: leaky__read}}, {{tool: leaky__refuse}}, {{tool: leaky__fail}}]}}
- {{text: \"it says {{{{result.0}}}} {{{{result.1}}}} {{{{result.2}}}}\"}}
- {{text: \"again {{{{last_user}}}}\"}}
- {{fail: {{kind: auth, message: \"the key {} is not known\"}}}}
",
        token()
    )
}

fn start(secret: &str) -> StartLoopRequest {
    StartLoopRequest {
        request_id: "r1".to_owned(),
        session_id: "s1".to_owned(),
        agent: Some(Agent {
            model: "m".to_owned(),
            system_prompt: format!("The key is {secret}."),
            ..Agent::default()
        }),
        input: Some(Input::Text(format!("use {secret} for it"))),
        ..StartLoopRequest::default()
    }
}

/// A message whose secret is split over its parts.
fn split(secret: &str) -> SendMessageRequest {
    let text = |text: &str| Part {
        kind: Some(part::Kind::Text(text.to_owned())),
        ..Part::default()
    };
    let (head, tail) = secret.split_at(9);
    SendMessageRequest {
        session_id: "s1".to_owned(),
        mode: MessageMode::Queue.into(),
        input: Some(send_message_request::Input::Message(Message {
            parts: vec![text(head), text(tail)],
            ..Message::default()
        })),
        ..SendMessageRequest::default()
    }
}

/// All that a watcher is sent, up to the entry with seq `tail`.
async fn watched(watch: &mut loopwright_client::Watch, tail: u64) -> Result<Vec<u8>> {
    let mut watched = Vec::new();
    while let Some(event) = watch.next().await {
        let (bytes, seq) = match event? {
            WatchEvent::Entry(entry) => (entry.encode_to_vec(), entry.seq),
            WatchEvent::Delta(delta) => (delta.encode_to_vec(), 0),
            _ => continue,
        };
        watched.extend(bytes);
        if seq == tail {
            break;
        }
    }
    Ok(watched)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_comes_in_gets_nowhere() -> Result<()> {
    let (collector, traces) = Collector::serve().await?;
    let mut scene = Stage::new(&[("m", &script())])?
        .set("redaction.secrets", "github_token,email")
        .set("telemetry.otlp_endpoint", traces)
        .start()?;
    let (_leaky, endpoint) = Leaky::serve().await?;
    kit::register(&scene.server.url, "leaky", &endpoint).await?;
    kit::wait_for_tools(&scene.client, &["leaky__read"]).await?;
    let secret = token();
    let mut watch = scene.client.watch("s1", 0);
    scene.run(start(&secret)).await?;
    let again = scene.client.start_loop(start(&secret)).await?;
    assert_eq!(
        (again.session_id.as_str(), again.loop_id.as_str()),
        ("s1", "l1")
    );
    for of in ["l2", "l3"] {
        scene.client.send_message(split(&secret)).await?;
        scene::to_end(&scene.client, "s1", of).await?;
    }
    let entries = scene::log(&scene.client, "s1").await?;
    let tail = entries.last().context("an entry")?.seq;
    let watched = watched(&mut watch, tail).await?;
    let asked = GetModelRequestRequest {
        session_id: "s1".to_owned(),
        ..GetModelRequestRequest::default()
    };
    let (_, body) = scene.client.get_model_request(asked).await?;

    scene.server.terminate()?;
    let dir = scene.server.dir();
    assert_eq!(files_with(dir, &secret)?, [""; 0], "in the data directory");
    assert_eq!(files_with(dir, &secret[..20])?, [""; 0], "half of it");
    for (what, bytes) in [
        ("watchers", watched),
        ("the model", body),
        ("traces", collector.bytes()),
    ] {
        ensure!(!have(&bytes, &secret[..20]), "{what} got it");
        let told = have(&bytes, "[redacted:github_token]");
        ensure!(told || what == "traces", "{what} got nothing in its place");
    }
    // Who said what, in place of the secret; the text that was cut has it in its blob alone.
    let all = entries
        .iter()
        .flat_map(prost::Message::encode_to_vec)
        .collect::<Vec<u8>>();
    for words in [
        "use [redacted:github_token] for it",
        "The key is [redacted:github_token].",
        "you say use [redacted:github_token] for it",
        "it is [redacted:github_token]",
        "{\"it\":\"[redacted:github_token]\"}",
        "the key [redacted:github_token] is not known",
    ] {
        ensure!(have(&all, words), "no {words:?} in {entries:#?}");
    }
    Ok(())
}
