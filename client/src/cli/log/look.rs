//! `loopwright log verify` and `log repair`: whether a log holds, and what can be done where it does not.
//!
//! Boundary: what verifies is the server, or the binary over a data directory; this renders. Invariant: a
//! damaged log is never shown without what is left of it.

use std::path::PathBuf;

use clap::Args;
use loopwright_proto::v1::{IntegrityReport, Verdict};

use super::super::{ConnectArgs, Exit, Failure, Terminal};
use crate::Client;
use crate::render::integrity_lines;

/// Check a session's log. Ends with 0 where it is good, and with 7 where entries or payloads are damaged,
/// missing or of a newer version.
#[derive(Debug, Clone, Args)]
pub struct LogVerify {
    /// The session
    #[arg(value_name = "SESSION")]
    pub session: String,
    /// The report as one line of JSON
    #[arg(long)]
    pub json: bool,
    /// Check this data directory (session_log.dir), which may be in use; nothing is changed
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// The session's namespace in that directory
    #[arg(long, value_name = "NAME", default_value = "default", requires = "dir")]
    pub namespace: String,
    /// Which server, and who asks.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

/// Cut a damaged session back to its good entries, so that it goes on; without SESSION, repair the journal,
/// which all sessions share, so that a server starts again. What is cut off is kept in the quarantine of the
/// data directory. The server must be stopped.
#[derive(Debug, Clone, Args)]
pub struct LogRepair {
    /// The session; without one, the journal alone is repaired and no session is cut back
    #[arg(value_name = "SESSION")]
    pub session: Option<String>,
    /// What was done, as one line of JSON
    #[arg(long)]
    pub json: bool,
    /// The data directory; default: session_log.dir as it is configured
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// The session's namespace in that directory
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub namespace: String,
    /// Not used: a repair speaks to no server.
    #[command(flatten)]
    pub connect: ConnectArgs,
}

impl LogVerify {
    pub(super) async fn execute(
        &self,
        client: &Client,
        terminal: &mut Terminal,
    ) -> Result<Exit, Failure> {
        terminal.begin(&format!("verifying {}", self.session));
        let report = client.verify_session(&self.session).await;
        terminal.end();
        self.show(&report?, terminal)
    }

    pub(super) fn show(
        &self,
        report: &IntegrityReport,
        terminal: &mut Terminal,
    ) -> Result<Exit, Failure> {
        if self.json {
            terminal.json(report)?;
        } else {
            for line in integrity_lines(report) {
                terminal.line(&line)?;
            }
        }
        Ok(match report.verdict() {
            Verdict::Good => Exit::Completed,
            Verdict::BlobsMissing | Verdict::Corrupt | Verdict::Newer | Verdict::Unspecified => {
                Exit::Damaged
            }
        })
    }
}
