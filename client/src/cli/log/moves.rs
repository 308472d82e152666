//! `loopwright log export`, `import`, `fork` and `rm`: sessions as a whole.
//!
//! Boundary: files on this side, the client on the other. Invariant: a file has its name only once all of
//! it is written.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use clap::Args;
use futures_util::{Stream, StreamExt as _};
use loopwright_proto::v1::{
    DeleteSessionRequest, ExportSessionRequest, ForkSessionRequest, ImportHead, SessionSummary,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::super::{ConnectArgs, Exit, Failure, Terminal};
use crate::render::bytes_words;
use crate::{Client, Export};

/// Bytes of a file that are read and sent at once.
const CHUNK: usize = 256 << 10;

/// Write a session out, as lines of JSON.
#[derive(Debug, Clone, Args)]
pub struct LogExport {
    /// The session
    #[arg(value_name = "SESSION")]
    pub session: String,
    /// Where to; default, and -: standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Without the redaction that is configured for exports; needs the role admin
    #[arg(long)]
    pub unredacted: bool,
    /// Read it from this data directory (session_log.dir), which may be in use; nothing is changed
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// The session's namespace in that directory
    #[arg(long, value_name = "NAME", default_value = "default", requires = "dir")]
    pub namespace: String,
    /// Which server, and who asks.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

/// Make a session of an export.
#[derive(Debug, Clone, Args)]
pub struct LogImport {
    /// The export; -: standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The session's id; default: the one that it was exported as
    #[arg(long = "as", value_name = "SESSION")]
    pub session: Option<String>,
    /// Take lines without the last one of an export: a session's log.jsonl, or an export that was cut
    #[arg(long)]
    pub allow_cut: bool,
    /// The session as one line of JSON
    #[arg(long)]
    pub json: bool,
    /// Which server, and who asks.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

/// Make a new session of the entries of another one up to a seq.
#[derive(Debug, Clone, Args)]
pub struct LogFork {
    /// The session to copy
    #[arg(value_name = "SESSION")]
    pub session: String,
    /// The last entry to copy; default: the tail
    #[arg(long, value_name = "SEQ", value_parser = clap::value_parser!(u64).range(1..))]
    pub at: Option<u64>,
    /// The copy's id; default: a new one
    #[arg(long = "as", value_name = "SESSION")]
    pub copy: Option<String>,
    /// A label of the copy, KEY=VALUE; may be repeated; default: those of the session
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    pub labels: Vec<(String, String)>,
    /// The copy as one line of JSON
    #[arg(long)]
    pub json: bool,
    /// Which server, and who asks.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

/// Delete a session for good.
#[derive(Debug, Clone, Args)]
pub struct LogRm {
    /// The session
    #[arg(value_name = "SESSION")]
    pub session: String,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    /// Which server, and who asks.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

impl LogExport {
    pub(super) async fn execute(
        &self,
        client: &Client,
        terminal: &mut Terminal,
    ) -> Result<Exit, Failure> {
        let request = ExportSessionRequest {
            session_id: self.session.clone(),
            unredacted: self.unredacted,
        };
        let export = client.export_session(request).await?;
        let chunks = futures_util::stream::unfold(Some(export), next_chunk);
        write_chunks(&self.session, self.output.as_deref(), chunks, terminal).await
    }
}

/// The next piece; the stream ends with the export, or behind its error.
async fn next_chunk(export: Option<Export>) -> Option<(Result<Vec<u8>, Failure>, Option<Export>)> {
    let mut export = export?;
    match export.next().await {
        Ok(chunk) => chunk.map(|chunk| (Ok(chunk), Some(export))),
        Err(error) => Some((Err(error.into()), None)),
    }
}

/// Writes an export to a file, which gets its name once it is whole, or to standard output.
pub(super) async fn write_chunks(
    session: &str,
    output: Option<&Path>,
    chunks: impl Stream<Item = Result<Vec<u8>, Failure>>,
    terminal: &mut Terminal,
) -> Result<Exit, Failure> {
    let Some(path) = output.filter(|path| *path != Path::new("-")) else {
        let mut chunks = std::pin::pin!(chunks);
        while let Some(chunk) = chunks.next().await {
            terminal.raw(&chunk?)?;
        }
        return Ok(Exit::Completed);
    };
    terminal.begin(&format!("exporting {session}"));
    let written = write_file(path, chunks, terminal).await;
    terminal.end();
    let (size, path) = (bytes_words(written?), path.display());
    terminal.note(&format!("exported {session}: {size} in {path}"))?;
    Ok(Exit::Completed)
}

async fn write_file(
    path: &Path,
    chunks: impl Stream<Item = Result<Vec<u8>, Failure>>,
    terminal: &mut Terminal,
) -> Result<u64, Failure> {
    let failed =
        |error: io::Error| Failure::Other(format!("{} cannot be written: {error}", path.display()));
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let mut file = File::create(&part).map_err(failed)?;
    let (mut chunks, mut written) = (std::pin::pin!(chunks), 0);
    while let Some(chunk) = chunks.next().await {
        let wrote = chunk.and_then(|chunk| {
            file.write_all(&chunk).map_err(failed)?;
            Ok(chunk.len() as u64)
        });
        match wrote {
            Ok(size) => written += size,
            Err(failure) => {
                // What is not whole is of no use to anybody.
                let _ = std::fs::remove_file(&part);
                return Err(failure);
            }
        }
        terminal.progress(&bytes_words(written));
    }
    file.sync_all().map_err(failed)?;
    std::fs::rename(&part, path).map_err(failed)?;
    Ok(written)
}

impl LogImport {
    pub(super) async fn execute(
        &self,
        client: &Client,
        terminal: &mut Terminal,
    ) -> Result<Exit, Failure> {
        let name = self.file.display().to_string();
        let unreadable =
            |error: &io::Error| Failure::Other(format!("{name} cannot be read: {error}"));
        let (reader, size): (Box<dyn Read + Send>, u64) = if self.file == Path::new("-") {
            (terminal.take_input(), 0)
        } else {
            let file = File::open(&self.file).map_err(|error| unreadable(&error))?;
            let size = file.metadata().map_or(0, |of| of.len());
            (Box::new(file), size)
        };
        let head = ImportHead {
            session_id: self.session.clone().unwrap_or_default(),
            allow_cut: self.allow_cut,
            ..ImportHead::default()
        };
        let (chunks, broken) = pieces(reader);
        let words = match size {
            0 => format!("importing {name}"),
            size => format!("importing {name}, {}", bytes_words(size)),
        };
        terminal.begin(&words);
        let made = client.import_session(head, chunks).await;
        terminal.end();
        if let Some(error) = &*broken.lock().unwrap_or_else(PoisonError::into_inner) {
            return Err(unreadable(error));
        }
        say_made(&made?, "imported", self.json, terminal)
    }
}

/// A file in pieces, read by a thread of its own, and why it could not be read to its end.
fn pieces(
    mut reader: Box<dyn Read + Send>,
) -> (impl Stream<Item = Vec<u8>>, Arc<Mutex<Option<io::Error>>>) {
    let (out, chunks) = mpsc::channel(2);
    let broken = Arc::new(Mutex::new(None));
    let report = Arc::clone(&broken);
    tokio::task::spawn_blocking(move || {
        loop {
            let mut chunk = Vec::with_capacity(CHUNK);
            let read = (&mut reader).take(CHUNK as u64).read_to_end(&mut chunk);
            match read {
                Ok(0) => return,
                Ok(_) => {
                    if out.blocking_send(chunk).is_err() {
                        return;
                    }
                }
                Err(error) => {
                    *report.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    return;
                }
            }
        }
    });
    (ReceiverStream::new(chunks), broken)
}

impl LogFork {
    pub(super) async fn execute(
        &self,
        client: &Client,
        terminal: &mut Terminal,
    ) -> Result<Exit, Failure> {
        let request = ForkSessionRequest {
            session_id: self.session.clone(),
            seq: self.at.unwrap_or(0),
            new_session_id: self.copy.clone().unwrap_or_default(),
            labels: self.labels.iter().cloned().collect::<BTreeMap<_, _>>(),
            ..ForkSessionRequest::default()
        };
        terminal.begin(&format!("forking {}", self.session));
        let made = client.fork_session(request).await;
        terminal.end();
        say_made(&made?, "forked", self.json, terminal)
    }
}

impl LogRm {
    pub(super) async fn execute(
        &self,
        client: &Client,
        terminal: &mut Terminal,
    ) -> Result<Exit, Failure> {
        let question = format!("delete session {} for good? [y/N] ", self.session);
        if !self.yes {
            match terminal.confirm(&question)? {
                Some(true) => {}
                Some(false) => {
                    terminal.note("nothing was deleted")?;
                    return Ok(Exit::Cancelled);
                }
                None => {
                    let words = "nobody can be asked here: say --yes to delete the session";
                    return Err(Failure::Usage(words.to_owned()));
                }
            }
        }
        let request = DeleteSessionRequest {
            session_id: self.session.clone(),
            ..DeleteSessionRequest::default()
        };
        client.delete_session(request).await?;
        terminal.note(&format!("deleted {}", self.session))?;
        terminal.note(
            "pieces of the shared journal that were set aside as torn or damaged, if there are any in \
             quarantine/ of the data directory, may still hold entries of it",
        )?;
        Ok(Exit::Completed)
    }
}

/// The answer is the session's id; how far it goes is about how it came to be.
fn say_made(
    made: &SessionSummary,
    how: &str,
    json: bool,
    terminal: &mut Terminal,
) -> Result<Exit, Failure> {
    if json {
        terminal.json(made)?;
        return Ok(Exit::Completed);
    }
    terminal.line(&made.session_id)?;
    let id = &made.session_id;
    terminal.note(&format!(
        "{how} as {id}, up to seq {}; `loopwright run --session {id} \"..\"` goes on with it",
        made.tail_seq
    ))?;
    Ok(Exit::Completed)
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or_else(|| "expected KEY=VALUE".to_owned())?;
    Ok((key.to_owned(), value.to_owned()))
}
