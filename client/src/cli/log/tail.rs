//! `loopwright log tail`: the last entries, and those that come.
//!
//! Boundary: reads backward from the tail, then watches from there on. Invariant: no entry is shown twice
//! and none is left out in between.

use clap::Args;
use loopwright_proto::v1::{Entry, ReadDirection, ReadEntriesRequest};

use super::super::{ConnectArgs, Exit, Failure, Terminal};
use crate::render::entry_lines;
use crate::{Client, EntryMark, Error, WatchEvent, WatchOptions};

/// Show the last entries of a session's log, and with -f those that come.
#[derive(Debug, Clone, Args)]
pub struct LogTail {
    /// The session
    #[arg(value_name = "SESSION")]
    pub session: String,
    /// How many of the last entries, 1 to 10,000
    #[arg(
        short = 'n',
        long,
        value_name = "N",
        default_value_t = 10,
        value_parser = clap::value_parser!(u64).range(1..=10_000)
    )]
    pub lines: u64,
    /// Go on with the entries that come, until Ctrl-C
    #[arg(short, long)]
    pub follow: bool,
    /// One entry a line, as JSON
    #[arg(long)]
    pub json: bool,
    /// Which server, and who asks.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

impl LogTail {
    pub(crate) async fn execute(
        &self,
        client: &Client,
        terminal: &mut Terminal,
    ) -> Result<Exit, Failure> {
        let mut entries = client.read_entries(ReadEntriesRequest {
            session_id: self.session.clone(),
            direction: ReadDirection::Backward.into(),
            limit: self.lines,
            ..ReadEntriesRequest::default()
        });
        let mut last = Vec::new();
        while let Some(entry) = entries.next().await {
            last.push(entry?);
        }
        last.reverse();
        for entry in &last {
            self.show(entry, terminal)?;
        }
        if !self.follow {
            return Ok(Exit::Completed);
        }
        self.follow(client, last.last(), terminal).await
    }

    async fn follow(
        &self,
        client: &Client,
        last: Option<&Entry>,
        terminal: &mut Terminal,
    ) -> Result<Exit, Failure> {
        let options = WatchOptions {
            after_seq: last.map_or(0, |entry| entry.seq),
            after_mark: last.map(EntryMark::from),
            deltas: false,
            ..WatchOptions::default()
        };
        let mut watch = client.watch_with(&self.session, options);
        loop {
            tokio::select! {
                event = watch.next() => match event {
                    Some(Ok(WatchEvent::Entry(entry))) => self.show(&entry, terminal)?,
                    Some(Ok(WatchEvent::Interrupted { error, .. })) => {
                        terminal.note(&format!("{error}; coming back"))?;
                    }
                    Some(Ok(WatchEvent::Delta(_) | WatchEvent::Heartbeat { .. })) => {}
                    Some(Err(error @ Error::SessionDeleted { .. })) => {
                        terminal.note(&error.to_string())?;
                        return Ok(Exit::Completed);
                    }
                    Some(Err(error)) => return Err(error.into()),
                    None => return Ok(Exit::Completed),
                },
                () = terminal.interrupted() => return Ok(Exit::Cancelled),
            }
        }
    }

    fn show(&self, entry: &Entry, terminal: &mut Terminal) -> Result<(), Failure> {
        if self.json {
            return Ok(terminal.json(entry)?);
        }
        for line in entry_lines(entry) {
            terminal.line(&line)?;
        }
        Ok(())
    }
}
