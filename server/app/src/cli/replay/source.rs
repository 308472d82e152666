//! Where a recorded session comes from, entry by entry: a server, a data directory, a file.
//!
//! Boundary: reads, and changes nothing. Invariant: an entry is read as the log's record or as a golden
//! session writes it; a line that is neither is an error that names it.

mod directory;
mod server;

use std::{
    fs::File,
    io::{BufRead, BufReader, Read as _},
    path::Path,
};

use anyhow::{Context as _, bail};
use futures_util::{StreamExt as _, stream, stream::BoxStream};
use loopwright_client::cli::LogReplay;
use loopwright_core::{
    Entry,
    ids::{Seq, Timestamp},
};
use serde::{Deserialize, de::IgnoredAny};

/// A longer line is no record, nor a golden entry.
const MAX_LINE_BYTES: u64 = 4 << 20;

/// A recorded session.
pub(super) struct Source {
    /// What it is called where something is said of it.
    pub(super) name: String,
    /// Its entries, in order.
    pub(super) lines: BoxStream<'static, anyhow::Result<Line>>,
}

/// One entry.
#[derive(Debug)]
pub(super) struct Line {
    /// Its position, where the source says it.
    pub(super) seq: Option<Seq>,
    /// When it was committed.
    pub(super) at: Timestamp,
    /// The entry.
    pub(super) entry: Entry,
}

/// Opens the source that the command names.
pub(super) async fn open(command: &LogReplay) -> anyhow::Result<Source> {
    match (&command.file, &command.dir, &command.session) {
        (Some(path), ..) => file(path),
        (None, Some(dir), Some(session)) => directory::open(dir, &command.namespace, session).await,
        (None, None, Some(session)) => server::open(command, session).await,
        (None, _, None) => bail!("name a SESSION, or give --file"),
    }
}

fn file(path: &Path) -> anyhow::Result<Source> {
    let (name, reader): (String, Box<dyn BufRead + Send>) = if path == Path::new("-") {
        let reader = BufReader::new(std::io::stdin());
        ("standard input".to_owned(), Box::new(reader))
    } else {
        let name = path.display().to_string();
        let opened = File::open(path).with_context(|| format!("{name} cannot be opened"))?;
        (name, Box::new(BufReader::new(opened)))
    };
    Ok(Source {
        name,
        lines: stream::iter(Lines { reader, at: 0 }).boxed(),
    })
}

/// The entries of a file.
struct Lines {
    reader: Box<dyn BufRead + Send>,
    at: u64,
}

impl Iterator for Lines {
    type Item = anyhow::Result<Line>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            self.at += 1;
            let mut line = Vec::new();
            let mut limited = (&mut self.reader).take(MAX_LINE_BYTES);
            let read = limited.read_until(b'\n', &mut line);
            let read = match read {
                Ok(0) => return None,
                Ok(_) if line.len() as u64 == MAX_LINE_BYTES => Err(anyhow::anyhow!(
                    "it is longer than {MAX_LINE_BYTES} bytes, which no entry is"
                )),
                Ok(_) if line.trim_ascii().is_empty() => continue,
                Ok(_) => match parse(&line) {
                    Ok(None) => continue,
                    Ok(Some(line)) => Ok(line),
                    Err(error) => Err(error),
                },
                Err(error) => Err(error.into()),
            };
            return Some(read.with_context(|| format!("line {}", self.at)));
        }
    }
}

/// An entry as a golden session writes it.
#[derive(Deserialize)]
struct Golden {
    at: Timestamp,
    entry: Entry,
}

/// What the log puts round an entry.
#[derive(Deserialize)]
struct Record {
    seq: Seq,
    at: String,
}

/// What an export holds beside records: a payload, or the word that it is whole.
#[derive(Deserialize)]
struct Beside {
    blob: Option<IgnoredAny>,
    export: Option<IgnoredAny>,
}

/// One line: of a golden session, or a record of the log; `None` for what an export holds beside
/// them. Checksums are not looked at: `log verify` does that, and a log that was edited on purpose is
/// just what a replay is for.
fn parse(line: &[u8]) -> anyhow::Result<Option<Line>> {
    if let Ok(Golden { at, entry }) = serde_json::from_slice(line) {
        return Ok(Some(Line {
            seq: None,
            at,
            entry,
        }));
    }
    let not_one = "it is neither a record of a session's log nor an entry of a golden session";
    let Record { seq, at } = match (serde_json::from_slice(line), serde_json::from_slice(line)) {
        (Ok(record), _) => record,
        (Err(_), Ok(Beside { blob, export })) if blob.is_some() || export.is_some() => {
            return Ok(None);
        }
        (Err(error), _) => return Err(error).context(not_one),
    };
    let at = millis(&at).with_context(|| format!("{at:?} is not a time"))?;
    let entry = serde_json::from_slice(line)
        .with_context(|| format!("the entry with seq {seq} cannot be read by this version"))?;
    Ok(Some(Line {
        seq: Some(seq),
        at,
        entry,
    }))
}

/// A time as the log writes it.
pub(super) fn time(at: Timestamp) -> String {
    let seconds = i64::try_from(at.0 / 1_000).unwrap_or(i64::MAX);
    let nanos = i32::try_from(at.0 % 1_000).unwrap_or(0) * 1_000_000;
    prost_types::Timestamp { seconds, nanos }.to_string()
}

fn millis(text: &str) -> Option<Timestamp> {
    let time: prost_types::Timestamp = text.parse().ok()?;
    let seconds = u64::try_from(time.seconds).ok()?.checked_mul(1_000)?;
    let millis = u64::try_from(time.nanos).ok()? / 1_000_000;
    Some(Timestamp(seconds + millis))
}

#[cfg(test)]
mod tests;
