//! `loopwright log show`: a session's log, or the conversation that it holds.
//!
//! Boundary: renders entries, which come over gRPC or from the binary, which can read a data directory. The conversation is folded by the server's own fold,
//! which the binary passes in. Invariant: what is shown ends with an error unless all of it came.

use std::path::PathBuf;

use clap::Args;
use futures_util::{Stream, StreamExt as _};
use loopwright_proto::v1::{Entry, Message, ReadEntriesRequest};

use super::super::{ConnectArgs, Exit, Failure, Terminal};
use crate::Client;
use crate::render::{Answering, Waits, entry_lines, message_lines};

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

impl LogShow {
    pub(crate) async fn execute(
        &self,
        client: &Client,
        terminal: &mut Terminal,
        fold: &dyn FoldMessages,
    ) -> Result<Exit, Failure> {
        let entries = client.read_entries(self.request());
        let entries = entries.map(|entry| entry.map_err(Failure::Client));
        let answering = Answering::at(&client.options().url);
        self.show(entries, Some(&answering), terminal, fold).await?;
        Ok(Exit::Completed)
    }

    /// Shows these entries: all from seq 1, in order, up to `at`; what waits for a person is said with
    /// the command that answers it, where there is a server to ask.
    pub(super) async fn show(
        &self,
        entries: impl Stream<Item = Result<Entry, Failure>>,
        answering: Option<&Answering>,
        terminal: &mut Terminal,
        fold: &dyn FoldMessages,
    ) -> Result<(), Failure> {
        if self.messages {
            return self.messages(entries, terminal, fold).await;
        }
        let mut entries = std::pin::pin!(entries);
        let mut waits = Waits::default();
        while let Some(entry) = entries.next().await {
            let entry = entry?;
            self.entry(&entry, terminal)?;
            waits.entry(&entry);
        }
        if let Some(answering) = answering.filter(|_| !self.json) {
            for line in waits.lines(answering) {
                terminal.note(&line)?;
            }
        }
        Ok(())
    }

    fn entry(&self, entry: &Entry, terminal: &mut Terminal) -> Result<(), Failure> {
        if self.json {
            return Ok(terminal.json(entry)?);
        }
        for line in entry_lines(entry) {
            terminal.line(&line)?;
        }
        Ok(())
    }

    async fn messages(
        &self,
        entries: impl Stream<Item = Result<Entry, Failure>>,
        terminal: &mut Terminal,
        fold: &dyn FoldMessages,
    ) -> Result<(), Failure> {
        if self.at == Some(0) {
            let words = "--at 0: nothing stands before the first entry; its seq is 1";
            return Err(Failure::Usage(words.to_owned()));
        }
        let mut entries = std::pin::pin!(entries);
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
