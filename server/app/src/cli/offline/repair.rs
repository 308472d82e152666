//! `loopwright log repair`: the journal made one that a server starts on, a session cut back.
//!
//! Boundary: the log's own repair; this says what it did. Invariant: whatever was set aside is named, with
//! its place and whose it was, and so is every session that is damaged afterwards.

use std::{fs, io, path::Path, process::ExitCode};

use anyhow::{Context as _, bail};
use loopwright_client::cli::{Exit, LogRepair, Terminal};
use loopwright_log::{
    Corruption, JsonlLog, Log as _, RecoveryReport, Remains, Repaired, RepairedJournal, Seq,
    SetAside, StreamKey, disk::RealDisk, repair_journal, repair_stream,
};
use serde::Serialize;

use super::{super::Where, key, nobody};
use crate::app::INDEX_FILE;

/// What the repair of a session did, as JSON.
#[derive(Serialize)]
struct Done<'a> {
    session: &'a str,
    tail_seq: Seq,
    problem: Option<String>,
    line: Option<u64>,
    byte: Option<u64>,
    set_aside_bytes: u64,
    kept_in: Option<&'a Path>,
    journal: Journal<'a>,
}

/// What the repair of the journal did, as JSON.
#[derive(Serialize)]
struct Journal<'a> {
    set_aside: Vec<Aside<'a>>,
    /// Sessions that are damaged now.
    damaged: Vec<Damaged<'a>>,
}

#[derive(Serialize)]
struct Aside<'a> {
    from: &'a Path,
    offset: u64,
    bytes: u64,
    kept_in: &'a Path,
    was: &'static str,
    /// Whose they seem to be, by the beginnings of their lines.
    streams: Vec<&'a str>,
}

#[derive(Serialize)]
struct Damaged<'a> {
    stream: &'a str,
    good_through: Seq,
    reason: &'a str,
}

/// Runs `log repair`.
pub(in super::super) async fn repair(command: LogRepair, place: Where) -> anyhow::Result<ExitCode> {
    let dir = match &command.dir {
        Some(dir) => dir.clone(),
        None => place.load()?.0.config.session_log.dir.clone(),
    };
    if !dir.join("journal").is_dir() {
        bail!("there is no log in {}", dir.display());
    }
    let mut terminal = Terminal::stdio();
    match &command.session {
        Some(session) => {
            let key = key(&command.namespace, session)?;
            if !is_there(&dir, &key).await? {
                bail!("{}", nobody(&key, &dir));
            }
            let (of, at) = (key.clone(), dir.clone());
            let work = move || repair_stream(&RealDisk, &at, &of);
            let repaired = tokio::task::spawn_blocking(work).await??;
            say_session(&command, &key, &dir, &repaired, &mut terminal)?;
        }
        None => {
            let at = dir.clone();
            let work = move || repair_journal(&RealDisk, &at);
            let repaired = tokio::task::spawn_blocking(work).await??;
            say_journal(&command, &dir, &repaired, &mut terminal)?;
        }
    }
    forget_lists(&dir)?;
    Ok(Exit::Completed.into())
}

/// A session may stand in the journal alone.
async fn is_there(dir: &Path, key: &StreamKey) -> anyhow::Result<bool> {
    let folder = dir.join(key.namespace()).join("session").join(key.id());
    if folder.exists() {
        return Ok(true);
    }
    let at = dir.to_owned();
    let opened = tokio::task::spawn_blocking(move || JsonlLog::open_read_only(&at)).await?;
    let tail = opened?.0.tail(key).await;
    Ok(!matches!(tail, Ok(None)))
}

/// What lists show was from before the repair; the next start makes it anew.
fn forget_lists(dir: &Path) -> anyhow::Result<()> {
    let path = dir.join(INDEX_FILE);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).with_context(|| {
            let path = path.display();
            format!("the repair is done; but delete {path}, or lists may show what was before")
        }),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn say_journal(
    command: &LogRepair,
    dir: &Path,
    repaired: &RepairedJournal,
    terminal: &mut Terminal,
) -> anyhow::Result<()> {
    let (recovery, damaged) = (&repaired.recovery, &repaired.condemned[..]);
    if command.json {
        terminal.line(&serde_json::to_string(&journal(recovery, damaged))?)?;
        return Ok(());
    }
    let shown = dir.display();
    terminal.line(&if recovery.is_clean() {
        format!("the journal of {shown}: nothing was wrong")
    } else {
        format!("the journal of {shown} is repaired; a server starts there again")
    })?;
    for line in lines(recovery, damaged, dir) {
        terminal.line(&line)?;
    }
    Ok(())
}

fn say_session(
    command: &LogRepair,
    key: &StreamKey,
    dir: &Path,
    repaired: &Repaired,
    terminal: &mut Terminal,
) -> anyhow::Result<()> {
    let (session, tail) = (key.id(), repaired.tail);
    let found = repaired.found.as_ref();
    let problem = found.map(|found| found.fault.to_string());
    let problem = problem.or_else(|| repaired.condemned.clone());
    let aside = repaired.set_aside.as_ref();
    // This one goes on.
    let damaged = repaired.recovery.corrupt.iter();
    let others: Vec<_> = damaged.filter(|one| one.stream != *key).cloned().collect();
    if command.json {
        let done = Done {
            session,
            tail_seq: tail,
            problem,
            line: found.map(|found| found.line),
            byte: found.map(|found| found.offset),
            set_aside_bytes: aside.map_or(0, |aside| aside.bytes),
            kept_in: aside.map(|aside| aside.kept_in.as_path()),
            journal: journal(&repaired.recovery, &others),
        };
        terminal.line(&serde_json::to_string(&done)?)?;
        return Ok(());
    }
    match problem {
        None => terminal.line(&format!(
            "{session}: nothing was wrong with its own file; it ends with seq {tail}"
        ))?,
        Some(problem) => {
            let place = found.map_or(String::new(), |found| {
                format!(" in line {} (byte {})", found.line, found.offset)
            });
            terminal.line(&format!("{session}: what was wrong{place}: {problem}"))?;
            if let Some(aside) = aside {
                let (bytes, kept) = (aside.bytes, aside.kept_in.display());
                terminal.line(&format!("  cut:  {bytes} bytes, kept in {kept}"))?;
            }
            terminal.line(&match tail {
                0 => "  now:  it is empty: no entry could be kept".to_owned(),
                _ => format!("  now:  it ends with seq {tail} and goes on from there"),
            })?;
        }
    }
    if !repaired.recovery.is_clean() {
        terminal.line("the journal, which all sessions share, was repaired with it:")?;
        for line in lines(&repaired.recovery, &others, dir) {
            terminal.line(&line)?;
        }
    }
    Ok(())
}

/// What a recovery did, and what is damaged after it.
fn lines(recovery: &RecoveryReport, damaged: &[Corruption], dir: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    if recovery.manifest_damaged {
        lines.push("  checkpoint.json was damaged, and is written anew".to_owned());
    }
    for aside in &recovery.set_aside {
        let (bytes, offset) = (aside.bytes, aside.offset);
        let (from, kept) = (aside.from.display(), aside.kept_in.display());
        lines.push(format!(
            "  set aside: {bytes} bytes at {offset} of {from}, kept in {kept}"
        ));
        lines.push(format!("    they were {}", whose(aside)));
    }
    for one in damaged {
        let (id, namespace, good) = (one.stream.id(), one.stream.namespace(), one.good_through);
        let (reason, dir) = (&one.reason, dir.display());
        lines.push(format!(
            "  CORRUPT: {id} in namespace {namespace}, good up to seq {good}: {reason}"
        ));
        lines.push(format!(
            "    `loopwright log repair {id} --namespace {namespace} --dir {dir}` lets it go on from there"
        ));
    }
    lines
}

fn whose(aside: &SetAside) -> String {
    let was = match aside.remains {
        Remains::Torn => "of a write that was never acknowledged",
        Remains::Rotten => {
            "acknowledged entries: their sessions have them in their own files, or are CORRUPT now"
        }
        Remains::Nobodys => {
            "acknowledged entries, and nothing tells whose: a session that lost its last entries in \
             them is not CORRUPT and reads as whole up to there; a client that had read further is \
             refused with CURSOR_PAST_TAIL"
        }
    };
    if aside.streams.is_empty() {
        return was.to_owned();
    }
    let streams = aside.streams.iter().map(|(key, _)| key.as_str());
    let streams: Vec<_> = streams.collect();
    format!(
        "{was}; their lines begin as those of {}",
        streams.join(", ")
    )
}

fn journal<'a>(recovery: &'a RecoveryReport, damaged: &'a [Corruption]) -> Journal<'a> {
    let set_aside = recovery.set_aside.iter().map(|aside| Aside {
        from: &aside.from,
        offset: aside.offset,
        bytes: aside.bytes,
        kept_in: &aside.kept_in,
        was: match aside.remains {
            Remains::Torn => "torn",
            Remains::Rotten => "rotten",
            Remains::Nobodys => "nobodys",
        },
        streams: aside.streams.iter().map(|(key, _)| key.as_str()).collect(),
    });
    let damaged = damaged.iter().map(|one| Damaged {
        stream: one.stream.as_str(),
        good_through: one.good_through,
        reason: &one.reason,
    });
    Journal {
        set_aside: set_aside.collect(),
        damaged: damaged.collect(),
    }
}
