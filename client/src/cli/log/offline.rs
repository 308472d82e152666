//! What the binary shows of a data directory, in the words of the commands that speak to a server.
//!
//! Boundary: what was read comes in, text goes out. Invariant: a command looks the same either way.

use std::path::Path;

use futures_util::{Stream, StreamExt as _};
use loopwright_proto::v1::{Entry, IntegrityReport};

use super::super::{Exit, Failure, Terminal, concluded};
use super::moves::write_chunks;
use super::{FoldMessages, LogShow, LogVerify};

/// `log show --dir`: these entries, all from seq 1 in order, up to `--at`.
pub async fn show_offline(
    show: &LogShow,
    entries: impl Stream<Item = Result<Entry, String>>,
    terminal: &mut Terminal,
    fold: &dyn FoldMessages,
) -> Exit {
    let entries = entries.map(|entry| entry.map_err(Failure::Other));
    let done = show.show(entries, None, terminal, fold).await;
    concluded(done.map(|()| Exit::Completed), "", terminal)
}

/// `log verify --dir`: this report.
pub fn verified_offline(
    verify: &LogVerify,
    report: &IntegrityReport,
    terminal: &mut Terminal,
) -> Exit {
    let done = verify.show(report, terminal);
    concluded(done, "", terminal)
}

/// `log export --dir`: these lines, to a file or to standard output.
pub async fn written_offline(
    session: &str,
    output: Option<&Path>,
    chunks: impl Stream<Item = Result<Vec<u8>, String>>,
    terminal: &mut Terminal,
) -> Exit {
    let chunks = chunks.map(|chunk| chunk.map_err(Failure::Other));
    let done = write_chunks(session, output, chunks, terminal).await;
    concluded(done, "", terminal)
}
