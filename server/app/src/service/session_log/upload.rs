//! The stream of an ImportSession: its head, and its lines out of pieces that end anywhere.

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use loopwright_proto::v1::{
    ImportHead, ImportSessionRequest, SessionSummary, import_session_request::Item,
};
use tonic::Status;

use super::{
    import::{Import, Importing, Step},
    lines::MOST_LINE,
};
use crate::service::{ServiceState, caller::Caller, status, status::sessions::not_an_export};

/// Imports what a client sends.
///
/// # Errors
/// As ImportSession names them.
pub(super) async fn import(
    state: ServiceState,
    caller: Caller,
    mut items: impl Stream<Item = Result<ImportSessionRequest, Status>> + Unpin + Send,
) -> Result<SessionSummary, Status> {
    let _permit = state.transfers.take()?;
    let head = head(&mut items).await?;
    let import = Import::parse(&caller, &head)?;
    let mut importing = Importing::new(state.clone(), import);
    match take_all(&mut importing, &state, items).await {
        Ok(None) => {
            let key = importing.close().await?;
            state.summary(&key).await
        }
        Ok(Some(made)) => state.summary(&made).await,
        Err(error) => {
            importing.give_up().await;
            Err(error)
        }
    }
}

async fn head(
    items: &mut (impl Stream<Item = Result<ImportSessionRequest, Status>> + Unpin),
) -> Result<ImportHead, Status> {
    let first = items.next().await.transpose()?;
    match first.and_then(|first| first.item) {
        Some(Item::Head(head)) => Ok(head),
        Some(Item::Chunk(_)) | None => Err(status::invalid_field(
            "head",
            "is missing; the first message of an import is its head",
        )),
    }
}

/// Takes all lines; the session's key where it is made already.
async fn take_all(
    importing: &mut Importing,
    state: &ServiceState,
    mut items: impl Stream<Item = Result<ImportSessionRequest, Status>> + Unpin,
) -> Result<Option<loopwright_log::StreamKey>, Status> {
    let mut lines = Lines::default();
    let mut drain = state.drain.clone();
    loop {
        let item = tokio::select! {
            item = items.next() => item.transpose()?,
            () = drain.wait() => return Err(status::draining()),
        };
        match item.map(|item| item.item) {
            Some(Some(Item::Chunk(chunk))) => lines.push(&chunk),
            Some(Some(Item::Head(_))) => {
                let problem = "came twice; the head of an import comes once";
                return Err(status::invalid_field("head", problem));
            }
            // A kind that this version does not know.
            Some(None) => {}
            None => lines.end(),
        }
        let last = lines.ended;
        while let Some(line) = lines.next() {
            if line.len() > MOST_LINE {
                return Err(too_long(lines.taken));
            }
            if let Step::Made(key) = importing.take(line).await? {
                return Ok(Some(key));
            }
        }
        if lines.gathered.len() > MOST_LINE {
            return Err(too_long(lines.taken + 1));
        }
        if last {
            return Ok(None);
        }
    }
}

fn too_long(line: u64) -> Status {
    let problem = format!("it is longer than {MOST_LINE} bytes, which no line of an export is");
    not_an_export(line, problem)
}

/// Lines out of pieces.
#[derive(Default)]
struct Lines {
    gathered: BytesMut,
    /// Bytes at the beginning that hold no newline.
    looked_at: usize,
    taken: u64,
    ended: bool,
}

impl Lines {
    fn push(&mut self, chunk: &[u8]) {
        self.gathered.extend_from_slice(chunk);
    }

    /// Nothing follows: what is left is a line.
    fn end(&mut self) {
        self.ended = true;
    }

    fn next(&mut self) -> Option<Bytes> {
        let rest = &self.gathered[self.looked_at..];
        let Some(at) = rest.iter().position(|byte| *byte == b'\n') else {
            self.looked_at = self.gathered.len();
            if self.ended && !self.gathered.is_empty() {
                self.looked_at = 0;
                self.taken += 1;
                return Some(self.gathered.split().freeze());
            }
            return None;
        };
        let mut line = self.gathered.split_to(self.looked_at + at + 1);
        line.truncate(line.len() - 1);
        self.looked_at = 0;
        self.taken += 1;
        Some(line.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_out_whole_however_they_are_cut() {
        let text = b"one\n\ntwo\r\nthree";
        for size in 1..=text.len() {
            let (mut lines, mut got) = (Lines::default(), Vec::new());
            for piece in text.chunks(size) {
                lines.push(piece);
                got.extend(std::iter::from_fn(|| lines.next()));
            }
            lines.end();
            got.extend(std::iter::from_fn(|| lines.next()));
            assert_eq!(got, ["one", "", "two\r", "three"], "pieces of {size}");
        }
    }
}
