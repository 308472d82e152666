//! ForkSession: a new session of the entries of another one.
//!
//! Invariant: the session that is copied is only read; the copy ends what was open at the seq, so that
//! it never dispatches anything of its own accord.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::StreamExt as _;
use loopwright_core::{
    entry::{Cause, Entry},
    event::Event,
    input::{AdoptOrigin, Command},
};
use loopwright_log::{BlobError, Log, LogError, ReadItem, ReadMode, Seq, StreamKey};
use loopwright_proto::v1;
use tonic::Status;

use super::{
    blobs::{MOST_BLOBS, Named},
    copy::{Copy, Place},
};
use crate::service::{
    ServiceState,
    caller::Caller,
    convert::{
        commands,
        fields::{self, Violations},
    },
    status,
};

/// A ForkSession that has been checked.
struct Fork {
    from: StreamKey,
    /// The last entry to copy; 0 = the tail.
    seq: Seq,
    to: StreamKey,
    labels: BTreeMap<String, String>,
    by: Command,
}

/// Makes the copy, or finds the one that this request has made before.
///
/// # Errors
/// As ForkSession names them.
pub(super) async fn fork(
    state: ServiceState,
    caller: Caller,
    request: v1::ForkSessionRequest,
) -> Result<v1::SessionSummary, Status> {
    let fork = parse(&caller, request).map_err(|all| status::invalid(&all))?;
    let _permit = state.transfers.take()?;
    let tail = state.check_there(&fork.from).await?;
    if fork.seq > tail {
        return Err(status::sessions::seq_past_tail(fork.seq, tail));
    }
    let is_it = |entry: &Entry| fork.made(entry);
    let _hold = match state.make_room(&fork.to, &fork.by, is_it).await? {
        Place::Made => return state.summary(&fork.to).await,
        Place::Free(hold) => hold,
    };
    let limit = state.config.limits.session_bytes.get();
    let copy = Copy::new(Arc::clone(&state.log), fork.to.clone(), limit);
    let to = fork.to.clone();
    if let Err(error) = write(&*state.log, fork, copy).await {
        state.give_up(&to).await;
        return Err(error);
    }
    state.summary(&to).await
}

fn parse(caller: &Caller, request: v1::ForkSessionRequest) -> Result<Fork, Violations> {
    let mut all = Violations::default();
    let request_id = fields::request_id(&request.request_id, &mut all);
    let from = fields::id("session_id", &request.session_id, &mut all);
    let to = fields::optional_id("new_session_id", &request.new_session_id, &mut all);
    let labels = fields::labels(request.labels, &mut all);
    let from = fields::key(&caller.namespace, from, all)?;
    let to = to.unwrap_or_else(|| commands::derived_id(&caller.namespace, &request_id));
    Ok(Fork {
        from,
        seq: request.seq,
        to: StreamKey::session(&caller.namespace, &to),
        labels,
        by: Command {
            request_id,
            principal: caller.principal.clone(),
        },
    })
}

async fn write(log: &dyn Log, fork: Fork, mut copy: Copy) -> Result<(), Status> {
    let mut named = Named::default();
    let mut items = log.read(&fork.from, 0, ReadMode::ToTail);
    while fork.seq == 0 || copy.tail() < fork.seq {
        let record = match items.next().await {
            Some(Ok(ReadItem::Fact(record))) => record,
            Some(Ok(ReadItem::Progress(_))) => continue,
            Some(Ok(ReadItem::CompleteThrough(_))) | None => break,
            // All that can be read, where no seq was named.
            Some(Err(LogError::Corrupt(_))) if fork.seq == 0 && copy.tail() > 0 => break,
            Some(Err(error)) => return Err(status::log(&error)),
        };
        let news = named.note(&record);
        let news = news.map_err(|_| status::sessions::too_many_blobs(MOST_BLOBS))?;
        for blob in news {
            match log.get_blob(&fork.from, &blob).await {
                Ok(payload) => {
                    copy.count(blob.bytes)?;
                    let kept = log.put_blob(&fork.to, payload).await;
                    kept.map_err(|error| status::sessions::blob(&error))?;
                }
                // The copy lacks what the session lacks.
                Err(BlobError::Missing { .. } | BlobError::Damaged { .. }) => {}
                Err(error) => return Err(status::sessions::blob(&error)),
            }
        }
        copy.push(&record).await?;
    }
    if copy.tail() < fork.seq.max(1) {
        return Err(status::sessions::seq_past_tail(fork.seq, copy.tail()));
    }
    let labels = if fork.labels.is_empty() {
        let head = copy.state().session.as_ref();
        head.map(|head| head.labels.clone()).unwrap_or_default()
    } else {
        fork.labels
    };
    let origin = AdoptOrigin::Fork {
        from: fork.from.id().to_owned(),
        from_seq: copy.tail(),
        labels,
    };
    copy.close(fork.by, origin).await
}

impl Fork {
    /// Whether an entry is the one that closed the copy of this very request.
    fn made(&self, entry: &Entry) -> bool {
        matches!(&entry.cause, Cause::Adopt(by) if by.request_id == self.by.request_id)
            && entry.events.iter().any(|event| match event {
                Event::SessionForked(e) => {
                    e.from == self.from.id() && (self.seq == 0 || self.seq == e.from_seq)
                }
                _ => false,
            })
    }
}
