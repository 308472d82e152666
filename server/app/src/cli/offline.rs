//! `loopwright log show`, `verify` and `export` with `--dir`, and `log repair`: a data directory without a
//! server.
//!
//! Boundary: the log's own reader, and the code that the server reads with; what is shown looks as it does
//! over gRPC. Invariant: all but `repair` change nothing and take no lock; `repair` is refused while a
//! server has the directory.

use std::{path::Path, process::ExitCode, sync::Arc};

use anyhow::{Context as _, bail};
use futures_util::{Stream, StreamExt as _, future};
use loopwright_client::cli::{
    Exit, LogCommand, LogExport, LogShow, LogVerify, Terminal, show_offline, verified_offline,
    written_offline,
};
use loopwright_log::{
    Id, JsonlLog, Log as _, LogError, ReadItem, ReadMode, RecoveryReport, Seq, StreamKey,
};
use loopwright_proto::v1;

use crate::{
    drain::Drain,
    redaction::Fields,
    service::{
        convert::{Fold, entry},
        session_log::{check_finished, export, verify},
    },
};

pub(super) use repair::repair;

mod repair;

/// A session in a data directory.
struct Place {
    log: Arc<JsonlLog>,
    /// What a start would find.
    report: RecoveryReport,
    key: StreamKey,
    /// Its last seq; the highest there is where the log is damaged.
    tail: Seq,
}

/// Whether a command reads a data directory.
pub(super) fn takes(command: &LogCommand) -> bool {
    match command {
        LogCommand::Show(show) => show.dir.is_some(),
        LogCommand::Verify(verify) => verify.dir.is_some(),
        LogCommand::Export(export) => export.dir.is_some(),
        _ => false,
    }
}

/// Runs a command that [`takes`] is true of.
pub(super) async fn run(command: LogCommand) -> anyhow::Result<ExitCode> {
    let mut terminal = Terminal::stdio();
    let exit = match command {
        LogCommand::Show(show) => self::show(&show, &mut terminal).await?,
        LogCommand::Verify(verify) => self::verify(&verify, &mut terminal).await?,
        LogCommand::Export(export) => self::export(&export, &mut terminal).await?,
        _ => bail!("this command reads no data directory"),
    };
    Ok(exit.into())
}

async fn show(show: &LogShow, terminal: &mut Terminal) -> anyhow::Result<Exit> {
    let place = open(show.dir.as_deref(), &show.namespace, &show.session).await?;
    let last = show.at.unwrap_or(Seq::MAX);
    let entries = entries(&place).take_while(move |entry| {
        future::ready(entry.as_ref().map_or(true, |entry| entry.seq <= last))
    });
    Ok(show_offline(show, entries, terminal, &Fold).await)
}

async fn verify(verify: &LogVerify, terminal: &mut Terminal) -> anyhow::Result<Exit> {
    let place = open(verify.dir.as_deref(), &verify.namespace, &verify.session).await?;
    let report = verify::report(&*place.log, &place.key).await?;
    let report = report.context("the session went while it was read")?;
    let exit = verified_offline(verify, &report, terminal);
    let dir = verify.dir.as_deref().unwrap_or(Path::new("."));
    let mut lost = false;
    for aside in place.report.nobodys() {
        lost = true;
        let (bytes, offset, from) = (aside.bytes, aside.offset, aside.from.display());
        terminal.note(&format!(
            "the journal: {bytes} bytes at {offset} of {from} are damaged, and nothing tells whose they \
             were: no server starts here, and every session may have lost its last entries in them. \
             Restore that file, or accept the loss with `loopwright log repair --dir {}`",
            dir.display()
        ))?;
    }
    Ok(if lost { Exit::Damaged } else { exit })
}

async fn export(export: &LogExport, terminal: &mut Terminal) -> anyhow::Result<Exit> {
    let place = open(export.dir.as_deref(), &export.namespace, &export.session).await?;
    let unfinished = check_finished(&*place.log, &place.key).await;
    unfinished.map_err(|status| anyhow::anyhow!("{}", status.message()))?;
    // Nothing drains this process.
    let (_drain, drain) = Drain::new();
    // Whoever reads the folder sees everything: a server's rules hide nothing here.
    let whole = Fields::default();
    let lines = export::lines(place.log, place.key, place.tail, whole, drain);
    let lines = lines.map(|chunk| match chunk {
        Ok(chunk) => Ok(chunk.to_vec()),
        Err(status) => Err(status.message().to_owned()),
    });
    let output = export.output.as_deref();
    Ok(written_offline(&export.session, output, lines, terminal).await)
}

async fn open(dir: Option<&Path>, namespace: &str, session: &str) -> anyhow::Result<Place> {
    let dir = dir.context("give --dir")?.to_owned();
    let key = key(namespace, session)?;
    let at = dir.clone();
    let opened = tokio::task::spawn_blocking(move || JsonlLog::open_read_only(&at)).await?;
    let (log, report) = opened?;
    let tail = match log.tail(&key).await {
        Ok(Some(tail)) => tail,
        Ok(None) => bail!("{}", nobody(&key, &dir)),
        Err(LogError::Corrupt(_) | LogError::NewerVersion { .. }) => Seq::MAX,
        Err(error) => return Err(error.into()),
    };
    Ok(Place {
        log,
        report,
        key,
        tail,
    })
}

fn key(namespace: &str, session: &str) -> anyhow::Result<StreamKey> {
    let namespace = Id::parse(namespace).context("--namespace")?;
    Ok(StreamKey::session(&namespace, &Id::parse(session)?))
}

fn nobody(key: &StreamKey, dir: &Path) -> String {
    format!(
        "there is no session {:?} in {}; its sessions are the folders of {}",
        key.id(),
        dir.display(),
        dir.join(key.namespace()).join("session").display()
    )
}

/// The entries as a client gets them.
fn entries(place: &Place) -> impl Stream<Item = Result<v1::Entry, String>> + use<> {
    let items = place.log.read(&place.key, 0, ReadMode::ToTail);
    items.filter_map(|item| {
        future::ready(match item {
            Ok(ReadItem::Fact(record)) => Some(match entry::parse(&record) {
                Ok(parsed) => Ok(entry::to_wire(&record, &parsed)),
                Err(error) => Err(error.to_string()),
            }),
            Ok(ReadItem::Progress(_) | ReadItem::CompleteThrough(_)) => None,
            Err(error) => Some(Err(error.to_string())),
        })
    })
}
