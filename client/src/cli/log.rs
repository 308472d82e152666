//! `loopwright log show`: a session's log, or the conversation that it holds.
//!
//! Boundary: reads entries over gRPC and renders them. The conversation is folded by the server's own fold,
//! which the binary passes in. Invariant: what is shown ends with an error unless all of it came.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use loopwright_proto::v1::{Entry, Message, ReadEntriesRequest};

use super::{ConnectArgs, Exit, Failure, Terminal};
use crate::Client;
use crate::render::{Answering, Waits, entry_lines, message_lines};

/// The log of a session.
#[derive(Debug, Clone, Subcommand)]
pub enum LogCommand {
    /// Show a session's log, one line an event
    Show(LogShow),
    /// Decide a recorded session again, and say where this version parts from what was logged
    Replay(LogReplay),
}

/// Decide a recorded session again with its recorded outcomes. Ends with 0 where every entry is decided
/// as it was logged, else with 1 after the first that is not.
#[derive(Debug, Clone, Args)]
pub struct LogReplay {
    /// The session
    #[arg(value_name = "SESSION", required_unless_present = "file")]
    pub session: Option<String>,
    /// Read it from this data directory (session_log.dir), which may be in use; nothing is changed
    #[arg(long, value_name = "DIR", conflicts_with = "file")]
    pub dir: Option<PathBuf>,
    /// The session's namespace in that directory
    #[arg(long, value_name = "NAME", default_value = "default", requires = "dir")]
    pub namespace: String,
    /// Read it from this file: an export, a session's file of a log, a golden session; - = standard
    /// input
    #[arg(long, value_name = "FILE", conflicts_with = "session")]
    pub file: Option<PathBuf>,
    /// Write it as a golden session: a name in server/core/tests/golden, or a file
    #[arg(long, value_name = "NAME_OR_FILE")]
    pub golden: Option<String>,
    /// The outcome as one line of JSON, with both sides of a divergence whole
    #[arg(long)]
    pub json: bool,
    /// Which server, and who asks.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

/// Show a session's log, one line an event.
#[derive(Debug, Clone, Args)]
pub struct LogShow {
    /// The session
    #[arg(value_name = "SESSION")]
    pub session: String,
    /// One entry a line, as JSON; with --messages one message a line
    #[arg(long)]
    pub json: bool,
    /// The conversation instead, folded as the server folds it
    #[arg(long)]
    pub messages: bool,
    /// The conversation as it stood at this seq; default: at the end
    #[arg(long, value_name = "SEQ", requires = "messages")]
    pub at: Option<u64>,
    /// Which server, and who asks.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

/// Folds a log into the conversation as the driver does.
pub trait FoldMessages {
    /// The conversation that stands after these entries: all from seq 1, in order.
    ///
    /// # Errors
    /// Why the entries cannot be folded, in words.
    fn fold(&self, entries: &[Entry]) -> Result<Vec<Message>, String>;
}

/// For programs that do not have the server's fold.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoFold;

impl FoldMessages for NoFold {
    fn fold(&self, _entries: &[Entry]) -> Result<Vec<Message>, String> {
        Err("this program cannot fold a log into messages; `loopwright log show` can".to_owned())
    }
}

impl LogCommand {
    pub(crate) async fn execute(
        &self,
        client: &Client,
        terminal: &mut Terminal,
        fold: &dyn FoldMessages,
    ) -> Result<Exit, Failure> {
        let show = match self {
            Self::Show(show) => show,
            // The binary that has the rules takes it before it comes here.
            Self::Replay(_) => {
                let words = "this program has no rules to decide by; `loopwright log replay` does";
                return Err(Failure::Other(words.to_owned()));
            }
        };
        if show.messages {
            show.messages(client, terminal, fold).await?;
        } else {
            show.entries(client, terminal).await?;
        }
        Ok(Exit::Completed)
    }
}

impl LogShow {
    async fn entries(&self, client: &Client, terminal: &mut Terminal) -> Result<(), Failure> {
        let mut entries = client.read_entries(self.request());
        let mut waits = Waits::default();
        while let Some(entry) = entries.next().await {
            let entry = entry?;
            if self.json {
                terminal.json(&entry)?;
                continue;
            }
            waits.entry(&entry);
            for line in entry_lines(&entry) {
                terminal.line(&line)?;
            }
        }
        for line in waits.lines(&Answering::at(&client.options().url)) {
            terminal.note(&line)?;
        }
        Ok(())
    }

    async fn messages(
        &self,
        client: &Client,
        terminal: &mut Terminal,
        fold: &dyn FoldMessages,
    ) -> Result<(), Failure> {
        if self.at == Some(0) {
            let words = "--at 0: nothing stands before the first entry; its seq is 1";
            return Err(Failure::Usage(words.to_owned()));
        }
        let mut entries = client.read_entries(self.request());
        let mut all = Vec::new();
        while let Some(entry) = entries.next().await {
            all.push(entry?);
        }
        let tail = all.last().map_or(0, |entry| entry.seq);
        if let Some(at) = self.at.filter(|at| *at > tail) {
            let words = format!("--at {at}: the log ends at seq {tail}");
            return Err(Failure::Usage(words));
        }
        let messages = fold.fold(&all).map_err(Failure::Other)?;
        if self.json {
            for message in &messages {
                terminal.json(message)?;
            }
            return Ok(());
        }
        for line in message_lines(&messages) {
            terminal.line(&line)?;
        }
        Ok(())
    }

    fn request(&self) -> ReadEntriesRequest {
        ReadEntriesRequest {
            session_id: self.session.clone(),
            through_seq: self.at.unwrap_or(0),
            ..ReadEntriesRequest::default()
        }
    }
}
