//! ImportSession: a session of the lines of an export.
//!
//! Boundary: bytes of a client in, entries and payloads to the log. Invariant: nothing is believed. A
//! line is taken only if its checksum, its seq and the checksum of the one before agree, a payload only
//! if it has the hash by which an entry names it; and memory holds one line and one payload.

use std::{collections::BTreeSet, sync::Arc};

use bytes::{Bytes, BytesMut};
use loopwright_core::{
    entry::{Cause, Entry},
    event::Event,
    input::{AdoptOrigin, Command},
};
use loopwright_log::{BlobRef, Fault, Id, MAX_BLOB_BYTES, Record, StreamKey};
use loopwright_proto::v1;
use tonic::Status;

use super::{
    blobs::{MOST_BLOBS, Named},
    copy::{Copy, Place},
    lines::{BlobLine, EndLine, Line},
};
use crate::{
    driver::Hold,
    service::{
        ServiceState,
        caller::Caller,
        convert::fields::{self, Violations},
        status,
        status::sessions::{export_damaged, not_an_export},
    },
};

/// What an import is for.
pub(super) struct Import {
    id: Option<Id>,
    namespace: Id,
    by: Command,
    allow_cut: bool,
}

/// An import under way.
pub(super) struct Importing {
    state: ServiceState,
    import: Import,
    /// The line that is looked at, from 1.
    line: u64,
    /// Where the entries go, from the first one on.
    copy: Option<Copy>,
    /// Nobody else writes there meanwhile.
    hold: Option<Hold>,
    /// The stream that was exported.
    from: Option<StreamKey>,
    prev: u32,
    named: Named,
    piece: Option<(BlobRef, BytesMut)>,
    done: BTreeSet<String>,
    ended: bool,
}

/// Where an import stands after a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The next line, please.
    More,
    /// The session was made by this request before; the lines are not looked at.
    Made(StreamKey),
}

impl Import {
    /// Checks the head of an import.
    ///
    /// # Errors
    /// Every field that cannot be taken.
    pub(super) fn parse(caller: &Caller, head: &v1::ImportHead) -> Result<Self, Status> {
        let mut all = Violations::default();
        let request_id = fields::request_id(&head.request_id, &mut all);
        let id = fields::optional_id("head.session_id", &head.session_id, &mut all);
        let id = all.check(id).map_err(|all| status::invalid(&all))?;
        Ok(Self {
            id,
            namespace: caller.namespace.clone(),
            by: Command {
                request_id,
                principal: caller.principal.clone(),
            },
            allow_cut: head.allow_cut,
        })
    }
}

impl Importing {
    pub(super) fn new(state: ServiceState, import: Import) -> Self {
        Self {
            state,
            import,
            line: 0,
            copy: None,
            hold: None,
            from: None,
            prev: 0,
            named: Named::default(),
            piece: None,
            done: BTreeSet::new(),
            ended: false,
        }
    }

    /// Removes what was written so far.
    pub(super) async fn give_up(mut self) {
        let copy = self.copy.take();
        if let Some(key) = copy.map(|copy| copy.key().clone()) {
            self.state.give_up(&key).await;
        }
        drop(self.hold);
    }

    /// Takes the next line, without its newline.
    pub(super) async fn take(&mut self, line: Bytes) -> Result<Step, Status> {
        self.line += 1;
        let at = self.line;
        if line.iter().all(u8::is_ascii_whitespace) {
            return Ok(Step::More);
        }
        if self.ended {
            return Err(not_an_export(
                at,
                "something follows the last line of the export",
            ));
        }
        match Line::parse(&line).map_err(|problem| not_an_export(at, problem))? {
            Line::Record => self.record(line).await,
            Line::Blob(blob) => self.blob(blob).await.map(|()| Step::More),
            Line::End(end) => self.end(&end).map(|()| Step::More),
        }
    }

    async fn record(&mut self, line: Bytes) -> Result<Step, Status> {
        let at = self.line;
        let record = Record::decode(line).map_err(|fault| refused(at, &fault))?;
        if self.piece.is_some() || !self.done.is_empty() {
            return Err(not_an_export(
                at,
                "a record follows a payload; records come first",
            ));
        }
        match &self.from {
            Some(from) if *from != record.key => {
                let found = record.key.to_string();
                return Err(refused(at, &Fault::Stream { found }));
            }
            Some(_) => {}
            None => {
                if let Some(made) = self.begin(&record).await? {
                    return Ok(Step::Made(made));
                }
            }
        }
        let copy = self.copy.as_mut().expect("the first record has begun it");
        let due = copy.tail() + 1;
        if record.seq != due {
            let (found, expected) = (record.seq, due);
            return Err(refused(at, &Fault::Gap { found, expected }));
        }
        if record.prev != self.prev {
            let (found, expected) = (record.prev, self.prev);
            return Err(refused(at, &Fault::Chain { found, expected }));
        }
        self.prev = record.crc;
        let noted = self.named.note(&record);
        noted.map_err(|_| status::sessions::too_many_blobs(MOST_BLOBS))?;
        copy.push(&record).await?;
        if copy.state().session.is_none() {
            let problem = "the first record does not create a session";
            return Err(not_an_export(at, problem));
        }
        Ok(Step::More)
    }

    /// Makes room for the session; its key where it is made already.
    async fn begin(&mut self, first: &Record) -> Result<Option<StreamKey>, Status> {
        let id = match &self.import.id {
            Some(id) => id.clone(),
            None => Id::parse(first.key.id()).expect("a key holds an id"),
        };
        let key = StreamKey::session(&self.import.namespace, &id);
        let by = &self.import.by;
        let is_it = |entry: &Entry| {
            matches!(&entry.cause, Cause::Adopt(made) if made.request_id == by.request_id)
                && entry
                    .events
                    .iter()
                    .any(|event| matches!(event, Event::SessionImported(_)))
        };
        let hold = match self.state.make_room(&key, by, is_it).await? {
            Place::Made => return Ok(Some(key)),
            Place::Free(hold) => hold,
        };
        let limit = self.state.config.limits.session_bytes.get();
        let log = Arc::clone(&self.state.log);
        self.copy = Some(Copy::new(log, key, limit));
        self.hold = Some(hold);
        self.from = Some(first.key.clone());
        Ok(None)
    }

    async fn blob(&mut self, line: BlobLine) -> Result<(), Status> {
        let at = self.line;
        let sha256 = line.blob.clone();
        if self.named.bytes_of(&sha256) != Some(line.bytes) || self.done.contains(&sha256) {
            let problem = format!("no entry names a payload {sha256} of {} bytes", line.bytes);
            return Err(not_an_export(at, problem));
        }
        if line.missing {
            self.done.insert(sha256);
            return Ok(());
        }
        let bytes = line.bytes;
        if bytes > MAX_BLOB_BYTES {
            let problem = format!("a payload of {bytes} bytes is over {MAX_BLOB_BYTES}");
            return Err(not_an_export(at, problem));
        }
        let blob = BlobRef { sha256, bytes };
        let (open, mut gathered) = self
            .piece
            .take()
            .unwrap_or_else(|| (blob.clone(), BytesMut::new()));
        if open != blob || line.offset != Some(gathered.len() as u64) {
            let problem = format!("the pieces of payload {} do not follow on", open.sha256);
            return Err(export_damaged(at, problem));
        }
        gathered.extend(
            line.piece()
                .map_err(|problem| export_damaged(at, problem))?,
        );
        if (gathered.len() as u64) < bytes {
            self.piece = Some((blob, gathered));
            return Ok(());
        }
        if BlobRef::of(&gathered).ok().as_ref() != Some(&blob) {
            let problem = format!("payload {} does not have its hash", blob.sha256);
            return Err(export_damaged(at, problem));
        }
        let copy = self.copy.as_mut().expect("an entry names the payload");
        copy.count(bytes)?;
        let kept = self.state.log.put_blob(copy.key(), gathered.freeze()).await;
        kept.map_err(|error| status::sessions::blob(&error))?;
        self.done.insert(blob.sha256);
        Ok(())
    }

    fn end(&mut self, end: &EndLine) -> Result<(), Status> {
        let tail = self.copy.as_ref().map_or(0, Copy::tail);
        let from = self.from.as_ref().map_or("", StreamKey::as_str);
        let whole = end.tail_seq == tail
            && end.export == from
            && end.blobs == self.done.len() as u64
            && self.piece.is_none();
        if !whole {
            let problem = format!(
                "the export ended with seq {} of {} and {} payloads, and here are {tail} entries of \
                 {from} and {} payloads",
                end.tail_seq,
                end.export,
                end.blobs,
                self.done.len()
            );
            return Err(export_damaged(self.line, problem));
        }
        self.ended = true;
        Ok(())
    }

    /// All lines were taken: makes the session.
    ///
    /// # Errors
    /// The export is cut, or the log did not take the closing entry.
    pub(super) async fn close(mut self) -> Result<StreamKey, Status> {
        let done = self.try_close().await;
        if done.is_err() {
            self.give_up().await;
        }
        done
    }

    async fn try_close(&mut self) -> Result<StreamKey, Status> {
        let line = self.line;
        let (Some(copy), Some(from)) = (&mut self.copy, &self.from) else {
            return Err(not_an_export(line, "there is no record"));
        };
        let cut = !self.ended || self.piece.is_some() || self.done.len() < self.named.len();
        if cut && !self.import.allow_cut {
            let problem = "the export is cut: it has no last line, or not all payloads; import it \
                           with allow_cut to take what there is";
            return Err(export_damaged(line, problem));
        }
        let key = copy.key().clone();
        let origin = AdoptOrigin::Import {
            from: format!("{}/{}", from.namespace(), from.id()),
            from_seq: copy.tail(),
        };
        copy.close(self.import.by.clone(), origin).await?;
        Ok(key)
    }
}

/// Why a record is not taken.
fn refused(line: u64, fault: &Fault) -> Status {
    match fault {
        Fault::Shape | Fault::Stream { .. } => not_an_export(line, fault),
        Fault::Version { .. } => status::sessions::session_newer(fault, line),
        Fault::Checksum { .. } | Fault::Gap { .. } | Fault::Chain { .. } => {
            export_damaged(line, fault)
        }
    }
}
