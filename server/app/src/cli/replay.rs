//! `loopwright log replay`: a recorded session decided again by this version, with the outcomes that it
//! recorded.
//!
//! Boundary: reads entries from a server, a data directory or a file, and changes none of them; what
//! decides is the core. Invariant: it says "as logged" only after every entry of the source was decided
//! again, and what it writes as a golden session is just what it has decided so.

mod diff;
mod golden;
mod rerun;
mod source;

use std::process::ExitCode;

use futures_util::StreamExt as _;
use loopwright_client::cli::{Exit, LogReplay, Terminal};
use loopwright_core::{
    Entry, Event, State,
    ids::{Seq, Timestamp},
    replay::{Divergence, newer_kinds, redecide},
};
use serde::Serialize;

use super::Where;
use golden::Golden;
use source::{Line, Source};

/// A session as far as it has been decided again.
#[derive(Debug, Default)]
struct Replay {
    state: State,
    counts: Counts,
}

/// What a session holds, for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct Counts {
    entries: u64,
    messages: u64,
    loops: u64,
    model_calls: u64,
    tool_calls: u64,
}

/// Where a session parts from what this version decides.
struct Parted {
    divergence: Divergence,
    at: Timestamp,
    cause: &'static str,
    newer: Vec<String>,
}

/// Runs the command: 0 where every entry is decided as it was logged, 1 otherwise. With another model,
/// see [`rerun`].
pub(super) async fn run(command: LogReplay, place: Where) -> anyhow::Result<ExitCode> {
    if let Some(model) = &command.model {
        return Box::pin(rerun::run(&command, model, &place)).await;
    }
    let mut terminal = Terminal::stdio();
    let mut golden = command.golden.as_deref().map(Golden::at).transpose()?;
    let Source { name, mut lines } = source::open(&command).await?;
    let mut replay = Replay::default();
    while let Some(line) = lines.next().await {
        let line = line.map_err(|error| error.context(name.clone()))?;
        if let Err(parted) = replay.take(&line)? {
            say_parted(&command, &name, &parted, &mut terminal)?;
            if golden.is_some() {
                terminal.note("no golden session was written: it would fail from the start")?;
            }
            return Ok(Exit::Error.into());
        }
        if let Some(golden) = &mut golden {
            golden.push(&line)?;
        }
    }
    anyhow::ensure!(replay.counts.entries > 0, "{name}: there is no entry in it");
    say_equal(&command, &name, &replay.counts, &mut terminal)?;
    if let Some(golden) = golden {
        for words in golden.write(&replay.counts)? {
            terminal.note(&words)?;
        }
    }
    Ok(Exit::Completed.into())
}

impl Replay {
    /// Decides one entry again; the outer error is of the source, which ends there.
    fn take(&mut self, line: &Line) -> anyhow::Result<Result<(), Box<Parted>>> {
        let due = self.state.seq + 1;
        let seq = line.seq.unwrap_or(due);
        anyhow::ensure!(
            seq == due,
            "the entry with seq {seq} stands where {due} was due: a replay needs the whole log, in order"
        );
        if let Err(divergence) = redecide(&self.state, line.at, &line.entry) {
            return Ok(Err(Box::new(Parted {
                divergence: *divergence,
                at: line.at,
                cause: line.entry.cause.label(),
                newer: newer_kinds(&line.entry).map(str::to_owned).collect(),
            })));
        }
        self.state.apply_entry(seq, &line.entry);
        self.counts.take(&line.entry);
        Ok(Ok(()))
    }
}

impl Counts {
    fn take(&mut self, entry: &Entry) {
        self.entries += 1;
        for event in &entry.events {
            #[expect(clippy::wildcard_enum_match_arm, reason = "a few kinds are counted")]
            match event {
                Event::MessageAdded(_) => self.messages += 1,
                Event::LoopStarted(_) => self.loops += 1,
                Event::ModelCallStarted(_) => self.model_calls += 1,
                Event::ToolCallRequested(_) => self.tool_calls += 1,
                _ => {}
            }
        }
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let all = [
            (self.loops, "loop", "loops"),
            (self.messages, "message", "messages"),
            (self.model_calls, "model call", "model calls"),
            (self.tool_calls, "tool call", "tool calls"),
        ];
        let words = all.map(|(n, one, many)| format!("{n} {}", if n == 1 { one } else { many }));
        f.write_str(&words.join(", "))
    }
}

fn say_equal(
    command: &LogReplay,
    name: &str,
    counts: &Counts,
    terminal: &mut Terminal,
) -> std::io::Result<()> {
    if command.json {
        let report = serde_json::json!({ "source": name, "equal": true, "counts": counts });
        return terminal.line(&report.to_string());
    }
    let all = counts.entries;
    let entries = if all == 1 { "entry" } else { "entries" };
    terminal.line(&format!(
        "{name}: {all} {entries} decided again, all as logged ({counts})"
    ))
}

fn say_parted(
    command: &LogReplay,
    name: &str,
    parted: &Parted,
    terminal: &mut Terminal,
) -> std::io::Result<()> {
    let seq: Seq = parted.divergence.seq;
    if command.json {
        let (decided, refused) = match &parted.divergence.decided {
            Ok(events) => (Some(events), None),
            Err(words) => (None, Some(words)),
        };
        let report = serde_json::json!({
            "source": name, "equal": false, "seq": seq, "at": parted.at, "cause": parted.cause,
            "logged": parted.divergence.logged, "decided": decided, "refused": refused,
        });
        return terminal.line(&report.to_string());
    }
    terminal.line(&format!(
        "{name}: diverges at seq {seq} (cause {}, committed {})",
        parted.cause,
        source::time(parted.at)
    ))?;
    if !parted.newer.is_empty() {
        let kinds = parted.newer.join(", ");
        terminal.line(&format!(
            "  it holds {kinds}, which a later version wrote and this one does not know"
        ))?;
    }
    for line in diff::render(&parted.divergence) {
        terminal.line(&line)?;
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests;
