//! `loopwright watch`: shows a session from a cursor on, live.
//!
//! Boundary: one session, until it is left with Ctrl-C. Invariant: what is shown comes from the stream
//! alone.

use clap::Args;
use loopwright_proto::v1::{WatchLoopResponse, watch_loop_response::Item};

use super::{ConnectArgs, Exit, Failure, Terminal};
use crate::render::{Answering, RunView, Style};
use crate::{Client, WatchEvent};

/// Show a session from a cursor on, live.
#[derive(Debug, Clone, Args)]
pub struct WatchCommand {
    /// The session
    #[arg(value_name = "SESSION")]
    pub session: String,
    /// Entries after this seq; 0 = from the beginning
    #[arg(long, value_name = "SEQ", default_value_t = 0)]
    pub after: u64,
    /// One entry or delta a line, as JSON
    #[arg(long)]
    pub json: bool,
    /// Which server, and who asks.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

impl WatchCommand {
    pub(crate) async fn execute(
        &self,
        client: &Client,
        terminal: &mut Terminal,
    ) -> Result<Exit, Failure> {
        let mut watch = client.watch(&self.session, self.after);
        let style = Style {
            user_messages: true,
            ..terminal.style()
        };
        let answering = Answering::at(&client.options().url);
        let mut view = RunView::new(style, self.after).answering(answering);
        loop {
            tokio::select! {
                event = watch.next() => match event {
                    Some(Ok(event)) => write_event(&event, &mut view, self.json, terminal)?,
                    Some(Err(error)) => return Err(error.into()),
                    None => return Ok(Exit::Completed),
                },
                () = terminal.interrupted() => return Ok(Exit::Cancelled),
            }
        }
    }
}

/// Shows an event, as JSON or for a person.
pub(super) fn write_event(
    event: &WatchEvent,
    view: &mut RunView,
    json: bool,
    terminal: &mut Terminal,
) -> Result<(), Failure> {
    let pieces = view.feed(event);
    if !json {
        return Ok(terminal.pieces(pieces)?);
    }
    let item = match event {
        WatchEvent::Entry(entry) => Item::Entry(entry.clone()),
        WatchEvent::Delta(delta) => Item::Delta(delta.clone()),
        // About the connection, not about the session: for people, on standard error.
        WatchEvent::Interrupted { .. } => return Ok(terminal.pieces(pieces)?),
        WatchEvent::Heartbeat { .. } => return Ok(()),
    };
    Ok(terminal.json(&WatchLoopResponse { item: Some(item) })?)
}
