//! The session as a running server exports it.
//!
//! Invariant: as it was recorded where the caller may see that, else as it is exported to them, which is
//! said.

use std::collections::VecDeque;

use anyhow::bail;
use futures_util::{StreamExt as _, stream};
use loopwright_client::{Client, Error, Export, cli::LogReplay, v1::ExportSessionRequest};
use tonic::Code;

use super::{Line, MAX_LINE_BYTES, Source, parse};

/// An export, cut into lines.
struct Exported {
    export: Export,
    /// Bytes behind the last newline.
    rest: Vec<u8>,
    lines: VecDeque<Vec<u8>>,
    at: u64,
}

pub(super) async fn open(command: &LogReplay, session: &str) -> anyhow::Result<Source> {
    let client = command.connect.connect()?;
    let mut name = format!("session {session}");
    let export = match export(&client, session, true).await {
        Err(Error::Rejected(no)) if no.code == Code::PermissionDenied => {
            name.push_str(" (as it is exported to this caller: an admin sees arguments whole)");
            export(&client, session, false).await
        }
        done => done,
    };
    let exported = Exported {
        export: export?,
        rest: Vec::new(),
        lines: VecDeque::new(),
        at: 0,
    };
    let lines = stream::try_unfold(exported, |mut exported| async move {
        let line = exported.next().await?;
        Ok(line.map(|line| (line, exported)))
    });
    Ok(Source {
        name,
        lines: lines.boxed(),
    })
}

async fn export(client: &Client, session: &str, unredacted: bool) -> Result<Export, Error> {
    let request = ExportSessionRequest {
        session_id: session.to_owned(),
        unredacted,
    };
    client.export_session(request).await
}

impl Exported {
    async fn next(&mut self) -> anyhow::Result<Option<Line>> {
        loop {
            while let Some(line) = self.lines.pop_front() {
                self.at += 1;
                let line = parse(&line);
                if let Some(line) = line.map_err(|e| e.context(format!("line {}", self.at)))? {
                    return Ok(Some(line));
                }
            }
            let Some(chunk) = self.export.next().await? else {
                if !self.rest.is_empty() {
                    bail!("the export was cut in the middle of line {}", self.at + 1);
                }
                return Ok(None);
            };
            self.rest.extend_from_slice(&chunk);
            while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let tail = self.rest.split_off(end + 1);
                self.lines
                    .push_back(std::mem::replace(&mut self.rest, tail));
            }
            if self.rest.len() as u64 > MAX_LINE_BYTES {
                bail!("line {} is longer than {MAX_LINE_BYTES} bytes", self.at + 1);
            }
        }
    }
}
