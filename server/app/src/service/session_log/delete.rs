//! DeleteSession: erasure, which a repeat finds done.
//!
//! Boundary: the session's stream, and a stream of the log's own that keeps which request deleted what.
//! Invariant: what is deleted is written down before it goes, by the checksum of its last entry, so that
//! a repeat of the request finishes a deletion that was cut short and never touches a session that took
//! the id since.

use futures_util::StreamExt as _;
use loopwright_core::{input::Command, ledger::Request};
use loopwright_log::{
    AppendError, Id, Log, LogError, NewRecord, ReadItem, ReadMode, Record, Seq, StreamKey,
    StreamKind,
};
use loopwright_proto::v1;
use serde::{Deserialize, Serialize};
use tonic::Status;

use crate::{
    driver::Clock,
    service::{
        ServiceState,
        caller::Caller,
        convert::fields::{self, Violations},
        status,
    },
};

/// Deletions that a repeat is looked up among, newest first.
const REMEMBERED: usize = 1_024;
/// Times that another deletion may be written down first.
const TRIES: usize = 16;

/// What is written down of a deletion.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Deletion {
    by: Command,
    session: String,
    /// The session's last entry then, and its checksum; 0 where none can be read.
    seq: Seq,
    crc: u32,
}

#[derive(Serialize, Deserialize)]
struct Noted {
    deletion: Deletion,
}

/// Deletes a session.
///
/// # Errors
/// As DeleteSession names them.
pub(super) async fn delete(
    state: ServiceState,
    caller: Caller,
    request: v1::DeleteSessionRequest,
) -> Result<(), Status> {
    let mut all = Violations::default();
    let request_id = fields::request_id(&request.request_id, &mut all);
    let id = fields::id("session_id", &request.session_id, &mut all);
    let key = fields::key(&caller.namespace, id, all).map_err(|all| status::invalid(&all))?;
    let by = Command {
        request_id,
        principal: caller.principal.clone(),
    };
    let book = book(&caller.namespace);
    let log = &*state.log;
    if let Some(before) = find(log, &book, &by).await.map_err(|e| status::log(&e))? {
        if before.session != key.id() {
            return Err(status::request_id_reused(&by.request_id));
        }
        if !before.is_of(log, &key).await.map_err(|e| status::log(&e))? {
            return Ok(());
        }
        return remove(&state, &key).await;
    }
    // An unfinished copy can be deleted too.
    if let Ok(None) = log.tail(&key).await {
        return Err(status::session_not_found(key.id()));
    }
    let hold = state.drivers.release(&key).await;
    let _hold = hold.map_err(|error| status::sessions::release(&error, key.id()))?;
    let (seq, crc) = last(log, &key).await.map_err(|e| status::log(&e))?;
    let session = key.id().to_owned();
    let deletion = Deletion {
        by,
        session,
        seq,
        crc,
    };
    note(log, &book, deletion).await?;
    let removed = erase(&state, &key).await;
    tracing::info!(session = %key, by = %caller.principal, "a session was deleted");
    removed
}

/// Finishes a deletion that was cut short.
async fn remove(state: &ServiceState, key: &StreamKey) -> Result<(), Status> {
    let hold = state.drivers.release(key).await;
    let _hold = hold.map_err(|error| status::sessions::release(&error, key.id()))?;
    erase(state, key).await
}

/// Removes a session that is held. What it had set aside and not settled counts as used.
async fn erase(state: &ServiceState, key: &StreamKey) -> Result<(), Status> {
    state.clear(key).await?;
    let session = key.id().to_owned();
    let Ok(namespace) = Id::parse(key.namespace()) else {
        return Ok(());
    };
    let abandoned = state.ledgers.ask(&namespace, Request::Abandon { session });
    if let Err(error) = abandoned.await {
        // It is found like every reservation that no session knows of.
        tracing::warn!(session = %key, %error, "what a deleted session had set aside stays for now");
    }
    Ok(())
}

/// Where deletions of a namespace are written down.
fn book(namespace: &Id) -> StreamKey {
    let id = Id::parse("deletions").expect("a word is an id");
    StreamKey::new(StreamKind::Log, namespace, &id)
}

async fn find(log: &dyn Log, book: &StreamKey, by: &Command) -> Result<Option<Deletion>, LogError> {
    let mut records = log.read_back(book, Seq::MAX).take(REMEMBERED);
    while let Some(record) = records.next().await {
        let noted = serde_json::from_slice::<Noted>(record?.line());
        // Another kind of note, of a later version.
        let Ok(Noted { deletion }) = noted else {
            continue;
        };
        if deletion.by.request_id == by.request_id {
            return Ok(Some(deletion));
        }
    }
    Ok(None)
}

async fn note(log: &dyn Log, book: &StreamKey, deletion: Deletion) -> Result<(), Status> {
    let at = loopwright_log::Timestamp::from_unix_ms(Clock.now().0);
    let body = serde_json::to_vec(&Noted { deletion }).expect("a note has string keys alone");
    let record = NewRecord::new(at, 0, body.into());
    let mut expected = log.tail(book).await.map_err(|e| status::log(&e))?;
    for _ in 0..TRIES {
        match log
            .append(book, expected.unwrap_or(0), record.clone())
            .await
        {
            Ok(_) => return Ok(()),
            Err(AppendError::Conflict { tail }) => expected = Some(tail),
            Err(error) => return Err(status::append(&error)),
        }
    }
    let tail = expected.unwrap_or(0);
    Err(status::append(&AppendError::Conflict { tail }))
}

impl Deletion {
    /// Whether the session is still the one that was to be deleted.
    async fn is_of(&self, log: &dyn Log, key: &StreamKey) -> Result<bool, LogError> {
        if self.seq == 0 {
            return Ok(last(log, key).await? == (0, 0) && log.tail(key).await?.is_some());
        }
        match record_at(log, key, self.seq).await? {
            Some(record) => Ok(record.crc == self.crc),
            None => Ok(false),
        }
    }
}

/// The last entry that can be read, and its checksum.
async fn last(log: &dyn Log, key: &StreamKey) -> Result<(Seq, u32), LogError> {
    match log.read_back(key, Seq::MAX).next().await {
        Some(Ok(record)) => Ok((record.seq, record.crc)),
        Some(Err(LogError::Corrupt(_) | LogError::NewerVersion { .. })) | None => Ok((0, 0)),
        Some(Err(error)) => Err(error),
    }
}

async fn record_at(
    log: &dyn Log,
    key: &StreamKey,
    seq: Seq,
) -> Result<Option<std::sync::Arc<Record>>, LogError> {
    match log.read(key, seq - 1, ReadMode::ToTail).next().await {
        Some(Ok(ReadItem::Fact(record))) => Ok(Some(record)),
        Some(Ok(ReadItem::Progress(_) | ReadItem::CompleteThrough(_)))
        | Some(Err(LogError::PastTail { .. } | LogError::Corrupt(_) | LogError::Removed))
        | None => Ok(None),
        Some(Err(error)) => Err(error),
    }
}
