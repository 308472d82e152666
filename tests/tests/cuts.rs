//! Two hundred cut connections: the entries and the shown text come through whole, in order, once.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use loopwright_client::{Client, ClientOptions, ConverseEvent, Opening, TextAssembler, WatchEvent};
use loopwright_proto::v1::{
    Agent, Entry, ReadEntriesRequest, StartLoopRequest, delta::Content, event::Kind, part,
    start_loop_request::Input,
};
use loopwright_tests::{
    kit::{self, Server},
    proxy::Proxy,
};

/// What every delta of the script's text contains.
const MARKER: &[u8] = b"token-";
const CUTS: u32 = 200;
/// Sessions after which the cuts must have been made.
const MOST_SESSIONS: usize = 40;

/// A model that streams four long texts, with a pause after each word.
pub fn script() -> String {
    let words: Vec<String> = (0..150).map(|n| format!("token-{n:03}")).collect();
    let text = words.join(" ");
    let say = |n: u32| format!("- text: \"{n}: {text}\"\n  chunk: {{ chars: 20, delay_ms: 3 }}\n");
    let mut turns = String::from("turns:\n");
    for n in 0..3 {
        turns.push_str(&say(n));
        turns.push_str("  tool_calls:\n  - tool: none__such\n    arguments: {}\n");
    }
    turns.push_str(&say(3));
    turns
}

fn serve() -> Result<(Server, tempfile::TempDir)> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("script.yaml");
    std::fs::write(&path, script())?;
    let server = kit::Options::default()
        .set("models.words.provider", "scripted")
        .set("models.words.script", path.display().to_string())
        .start()?;
    Ok((server, dir))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rust_client_misses_and_doubles_nothing() -> Result<()> {
    let (server, _dir) = serve()?;
    let target: SocketAddr = server.url.trim_start_matches("http://").parse()?;
    let proxy = Proxy::start(target, CUTS, MARKER, 1).await?;
    let options = |url: &str| ClientOptions {
        retry_delay: Duration::from_millis(2),
        retries: 1_000,
        ..ClientOptions::at(url)
    };
    let direct = Client::connect(options(&server.url))?;
    for session in 0..MOST_SESSIONS {
        let through = Client::connect(options(&proxy.url))?;
        let seen = converse(&through)
            .await
            .with_context(|| format!("session {session}"))?;
        check(&direct, &seen)
            .await
            .with_context(|| format!("session {session}"))?;
        let (frames, deltas) = proxy.cuts();
        if frames + deltas >= CUTS {
            ensure!(
                frames == CUTS / 2,
                "{frames} cuts in frames, {deltas} in deltas"
            );
            return Ok(());
        }
    }
    bail!("{:?} cuts after {MOST_SESSIONS} sessions", proxy.cuts())
}

struct Seen {
    session: String,
    entries: Vec<Entry>,
    /// What was shown of each attempt, by call and attempt.
    shown: BTreeMap<(String, u32), String>,
}

/// Starts a loop through the proxy and watches it to its end.
async fn converse(client: &Client) -> Result<Seen> {
    let start = StartLoopRequest {
        agent: Some(Agent {
            model: "words".to_owned(),
            ..Agent::default()
        }),
        input: Some(Input::Text("speak".to_owned())),
        ..StartLoopRequest::default()
    };
    let mut talk = client.converse(Opening::Start(Box::new(start)));
    let mut text = TextAssembler::new(0);
    let mut seen = Seen {
        session: String::new(),
        entries: Vec::new(),
        shown: BTreeMap::new(),
    };
    while let Some(event) = talk.next().await {
        match event? {
            ConverseEvent::Watch(WatchEvent::Entry(entry)) => {
                text.entry(&entry);
                let ended = |event: &loopwright_proto::v1::Event| {
                    matches!(event.kind, Some(Kind::LoopEnded(_)))
                };
                let over = entry.events.iter().any(ended);
                seen.session.clone_from(&entry.session_id);
                seen.entries.push(entry);
                if over {
                    return Ok(seen);
                }
            }
            ConverseEvent::Watch(WatchEvent::Delta(delta)) => {
                if let Some(delta) = text.delta(delta)
                    && let Some(Content::Text(piece)) = &delta.content
                {
                    let key = (delta.call.clone(), delta.attempt);
                    seen.shown.entry(key).or_default().push_str(piece);
                }
            }
            ConverseEvent::Reply(reply) => {
                reply.result?;
            }
            _ => {}
        }
    }
    bail!("the conversation ended before the loop did")
}

/// The entries are those of the log, and what was shown of each reply is how the reply begins.
async fn check(direct: &Client, seen: &Seen) -> Result<()> {
    let request = ReadEntriesRequest {
        session_id: seen.session.clone(),
        ..ReadEntriesRequest::default()
    };
    let mut all = direct.read_entries(request);
    let mut log = Vec::new();
    while let Some(entry) = all.next().await {
        log.push(entry?);
    }
    let first = seen.entries.first().context("at least one entry")?.seq;
    log.retain(|entry| entry.seq >= first);
    ensure!(log == seen.entries, "the entries differ from the log's");
    for event in log.iter().flat_map(|entry| &entry.events) {
        let Some(Kind::ModelCallCompleted(reply)) = &event.kind else {
            continue;
        };
        let parts = reply.message.iter().flat_map(|message| &message.parts);
        let text: String = parts
            .filter_map(|part| match &part.kind {
                Some(part::Kind::Text(text)) => Some(text.as_str()),
                _ => None,
            })
            .collect();
        let shown = seen.shown.get(&(reply.call.clone(), reply.attempt));
        let shown = shown.with_context(|| format!("nothing was shown of {}", reply.call))?;
        ensure!(
            text.starts_with(shown.as_str()),
            "{} was shown as {shown:?}",
            reply.call
        );
        ensure!(
            shown.len() * 2 > text.len(),
            "only {} bytes of {}",
            shown.len(),
            reply.call
        );
    }
    Ok(())
}
