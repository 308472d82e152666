//! Two hundred cut connections, and a client of stock Python that resumes by cursor.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
};

use anyhow::{Context as _, Result, bail, ensure};
use loopwright_client::{Client, ClientOptions};
use loopwright_proto::v1::{Entry, ReadEntriesRequest, event::Kind, part};
use loopwright_tests::{kit, polyglot, proxy::Proxy};
use serde::Deserialize;

use super::served::Running;

/// What every delta of the script's text contains.
const MARKER: &[u8] = b"token-";
const CUTS: u32 = 200;
/// Sessions after which the cuts must have been made.
const MOST_SESSIONS: &str = "60";

/// A line of `converse.py`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Entry { seq: u64 },
    End(End),
}

#[derive(Deserialize)]
struct End {
    session: String,
    /// The text of each model call, as deltas showed it.
    shown: BTreeMap<String, String>,
    gaps: u32,
    differing: u32,
}

/// A model that streams three long texts, with a pause after every few words.
fn script() -> String {
    let words: Vec<String> = (0..150).map(|n| format!("token-{n:03}")).collect();
    let say = |n: u32| {
        format!(
            "- text: \"{n}: {}\"\n  chunk: {{chars: 20, delay_ms: 5}}\n",
            words.join(" ")
        )
    };
    let call = "  tool_calls: [{tool: none__such}]\n";
    format!("{}{call}{}{call}{}", say(0), say(1), say(2))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_client_misses_and_doubles_nothing() -> Result<()> {
    let Some(mut python) = polyglot::python("converse.py") else {
        return Ok(());
    };
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("script.yaml");
    std::fs::write(&path, script())?;
    let server = kit::Options::default()
        .set("models.words.provider", "scripted")
        .set("models.words.script", path.display().to_string())
        .start()?;
    let target: SocketAddr = server.url.trim_start_matches("http://").parse()?;
    let proxy = Proxy::start(target, CUTS, MARKER, 2).await?;
    let direct = Client::connect(ClientOptions::at(&server.url))?;

    let address = proxy.url.trim_start_matches("http://");
    let mut python = Running::start(python.args([address, "words", MOST_SESSIONS]))?;
    let lines = BufReader::new(python.0.stdout.take().context("a piped stdout")?).lines();
    let (mut seqs, mut shown, mut written) = (Vec::new(), 0, 0);
    for line in lines {
        let line = line?;
        match serde_json::from_str(&line).with_context(|| line.clone())? {
            Line::Entry { seq } => seqs.push(seq),
            Line::End(end) => {
                let log = log(&direct, &end.session).await?;
                let bytes =
                    check(&log, &std::mem::take(&mut seqs), &end).with_context(|| line.clone())?;
                (shown, written) = (shown + bytes.0, written + bytes.1);
                let (frames, deltas) = proxy.cuts();
                if frames + deltas >= CUTS {
                    ensure!(
                        frames == CUTS / 2,
                        "{frames} cuts in frames, {deltas} in deltas"
                    );
                    ensure!(
                        shown * 4 > written,
                        "only {shown} bytes of {written} were shown as they came"
                    );
                    return Ok(());
                }
            }
        }
    }
    bail!("the client ended after {:?} cuts", proxy.cuts())
}

async fn log(client: &Client, session: &str) -> Result<Vec<Entry>> {
    let request = ReadEntriesRequest {
        session_id: session.to_owned(),
        ..ReadEntriesRequest::default()
    };
    let mut all = client.read_entries(request);
    let mut log = Vec::new();
    while let Some(entry) = all.next().await {
        log.push(entry?);
    }
    Ok(log)
}

/// Every entry came once and in order, and each text was shown as the fact has it: bytes shown, bytes
/// of all texts.
fn check(log: &[Entry], seqs: &[u64], end: &End) -> Result<(usize, usize)> {
    let first = *seqs.first().context("at least one entry")?;
    let all: Vec<u64> = log
        .iter()
        .map(|entry| entry.seq)
        .filter(|seq| *seq >= first)
        .collect();
    ensure!(seqs == all, "entries {seqs:?} came, of {all:?}");
    ensure!(
        (end.gaps, end.differing) == (0, 0),
        "gaps or differing texts"
    );
    let (mut calls, mut bytes) = (0, (0, 0));
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
        let shown = end
            .shown
            .get(&reply.call)
            .context("a call that was not shown")?;
        ensure!(
            text.starts_with(shown.as_str()),
            "{} was shown as {shown:?}",
            reply.call
        );
        bytes = (bytes.0 + shown.len(), bytes.1 + text.len());
        calls += 1;
    }
    ensure!(calls == 3, "{calls} model calls");
    Ok(bytes)
}
