//! Two hundred cut connections, and a client of stock Python that resumes by cursor.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
};

use anyhow::{Context as _, Result, bail, ensure};
use loopwright_proto::v1::Entry;
use loopwright_tests::{
    cuts::{self, Cut},
    polyglot, scene,
};
use serde::Deserialize;

use super::served::Running;

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

#[tokio::test(flavor = "multi_thread")]
async fn a_python_client_misses_and_doubles_nothing() -> Result<()> {
    let Some(mut python) = polyglot::python("converse.py") else {
        return Ok(());
    };
    let (texts, pause_ms, seed) = (3, 5, 2);
    let cut = Cut::serve(texts, pause_ms, seed).await?;
    let address = cut.proxy.url.trim_start_matches("http://");
    let mut python = Running::start(python.args([address, "words", MOST_SESSIONS]))?;
    let lines = BufReader::new(python.0.stdout.take().context("a piped stdout")?).lines();
    let (mut seqs, mut shown, mut written) = (Vec::new(), 0, 0);
    for line in lines {
        let line = line?;
        match serde_json::from_str(&line).with_context(|| line.clone())? {
            Line::Entry { seq } => seqs.push(seq),
            Line::End(end) => {
                let log = scene::log(&cut.scene.client, &end.session).await?;
                let bytes =
                    check(&log, &std::mem::take(&mut seqs), &end).with_context(|| line.clone())?;
                (shown, written) = (shown + bytes.0, written + bytes.1);
                if cut.is_done()? {
                    ensure!(
                        shown * 4 > written,
                        "only {shown} bytes of {written} were shown as they came"
                    );
                    return Ok(());
                }
            }
        }
    }
    bail!("the client ended after {:?} cuts", cut.proxy.cuts())
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
    for (reply, text) in cuts::replies(log) {
        let shown = end
            .shown
            .get(&reply.call)
            .context("a call that was not shown")?;
        cuts::begins_as_shown(reply, &text, shown)?;
        bytes = (bytes.0 + shown.len(), bytes.1 + text.len());
        calls += 1;
    }
    ensure!(calls == 3, "{calls} model calls");
    Ok(bytes)
}
