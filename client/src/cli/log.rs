//! `loopwright log`: a session's log, read, checked, moved and deleted.
//!
//! Boundary: each command speaks to a server through the client. With `--dir` some read a data directory
//! instead: the binary, which has the log's crate, takes those before they come here, and renders with
//! what stands here. Invariant: what is written ends with an error unless all of it came.

mod look;
mod moves;
mod show;
mod tail;

use std::path::PathBuf;

use clap::{Args, Subcommand};

pub use look::{LogRepair, LogVerify};
pub use moves::{LogExport, LogFork, LogImport, LogRm};
pub use offline::{show_offline, verified_offline, written_offline};
pub use show::{FoldMessages, LogShow, NoFold};
pub use tail::LogTail;

use super::{ConnectArgs, Exit, Failure, Terminal};
use crate::Client;

mod offline;

/// The log of a session.
#[derive(Debug, Clone, Subcommand)]
pub enum LogCommand {
    /// Show a session's log, one line an event
    Show(LogShow),
    /// Show the last entries of a session's log, and with -f those that come
    Tail(LogTail),
    /// Check a session's log; exits with 7 where it is damaged
    Verify(LogVerify),
    /// Repair the journal, or cut a damaged session back to its good entries, with the server stopped
    Repair(LogRepair),
    /// Write a session out, as lines of JSON
    Export(LogExport),
    /// Make a session of an export
    Import(LogImport),
    /// Make a new session of the entries of another one up to a seq
    Fork(LogFork),
    /// Delete a session for good
    Rm(LogRm),
    /// Decide a recorded session again, and say where this version parts from what was logged
    Replay(LogReplay),
}

/// Decide a recorded session again with its recorded outcomes. Ends with 0 where every entry is decided
/// as it was logged, else with 1 after the first that is not. With --model: 0 wherever the two part, 1 where
/// the model cannot be called.
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
    /// Run the session again with this model, which gets the recorded results of tools; no tool is
    /// called. Says where the two runs part and what each cost. The model is called from here, with
    /// this configuration, and what it costs is real
    #[arg(long, value_name = "MODEL", conflicts_with = "golden")]
    pub model: Option<String>,
    /// The outcome as one line of JSON, with both sides of a divergence whole
    #[arg(long)]
    pub json: bool,
    /// Which server, and who asks.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

impl LogCommand {
    pub(crate) async fn execute(
        &self,
        client: &Client,
        terminal: &mut Terminal,
        fold: &dyn FoldMessages,
    ) -> Result<Exit, Failure> {
        // The binary takes these before they come here.
        let of_the_binary = |what: &str| {
            let words = format!("this program cannot read {what}; the binary `loopwright` can");
            Err(Failure::Other(words))
        };
        match self {
            Self::Show(LogShow { dir: Some(_), .. })
            | Self::Verify(LogVerify { dir: Some(_), .. })
            | Self::Export(LogExport { dir: Some(_), .. })
            | Self::Repair(_) => of_the_binary("a data directory"),
            Self::Replay(_) => of_the_binary("recorded sessions"),
            Self::Show(show) => show.execute(client, terminal, fold).await,
            Self::Tail(tail) => tail.execute(client, terminal).await,
            Self::Verify(verify) => verify.execute(client, terminal).await,
            Self::Export(export) => export.execute(client, terminal).await,
            Self::Import(import) => import.execute(client, terminal).await,
            Self::Fork(fork) => fork.execute(client, terminal).await,
            Self::Rm(rm) => rm.execute(client, terminal).await,
        }
    }

    pub(super) fn connect(&self) -> &ConnectArgs {
        match self {
            Self::Show(show) => &show.connect,
            Self::Tail(tail) => &tail.connect,
            Self::Verify(verify) => &verify.connect,
            Self::Repair(repair) => &repair.connect,
            Self::Export(export) => &export.connect,
            Self::Import(import) => &import.connect,
            Self::Fork(fork) => &fork.connect,
            Self::Rm(rm) => &rm.connect,
            Self::Replay(replay) => &replay.connect,
        }
    }
}
