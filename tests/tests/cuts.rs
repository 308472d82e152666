//! Two hundred cut connections: the entries and the shown text come through whole, in order, once.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use loopwright_client::{Client, ClientOptions, ConverseEvent, Opening, TextAssembler, WatchEvent};
use loopwright_proto::v1::{Entry, delta::Content, event::Kind};
use loopwright_tests::{
    cuts::{self, Cut},
    scene,
};

/// Sessions after which the cuts must have been made.
const MOST_SESSIONS: usize = 40;

#[tokio::test(flavor = "multi_thread")]
async fn the_rust_client_misses_and_doubles_nothing() -> Result<()> {
    let (texts, pause_ms, seed) = (4, 3, 1);
    let cut = Cut::serve(texts, pause_ms, seed).await?;
    for session in 0..MOST_SESSIONS {
        let through = Client::connect(ClientOptions {
            retry_delay: Duration::from_millis(2),
            retries: 1_000,
            ..ClientOptions::at(&cut.proxy.url)
        })?;
        let seen = converse(&through)
            .await
            .with_context(|| format!("session {session}"))?;
        check(&cut.scene.client, &seen)
            .await
            .with_context(|| format!("session {session}"))?;
        if cut.is_done()? {
            return Ok(());
        }
    }
    bail!("{:?} cuts after {MOST_SESSIONS} sessions", cut.proxy.cuts())
}

struct Seen {
    session: String,
    entries: Vec<Entry>,
    /// What was shown of each attempt, by call and attempt.
    shown: BTreeMap<(String, u32), String>,
}

/// Starts a loop through the proxy and watches it to its end.
async fn converse(client: &Client) -> Result<Seen> {
    let start = Box::new(scene::ask("words"));
    let mut talk = client.converse(Opening::Start(start));
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
    let mut log = scene::log(direct, &seen.session).await?;
    let first = seen.entries.first().context("at least one entry")?.seq;
    log.retain(|entry| entry.seq >= first);
    ensure!(log == seen.entries, "the entries differ from the log's");
    for (reply, text) in cuts::replies(&log) {
        let shown = seen.shown.get(&(reply.call.clone(), reply.attempt));
        let shown = shown.with_context(|| format!("nothing was shown of {}", reply.call))?;
        cuts::begins_as_shown(reply, &text, shown)?;
        ensure!(
            shown.len() * 2 > text.len(),
            "only {} bytes of {}",
            shown.len(),
            reply.call
        );
    }
    Ok(())
}
