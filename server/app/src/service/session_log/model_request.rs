//! GetModelRequest: what the model was sent, rendered again.
//!
//! Boundary: folds the log up to the entry that licensed the attempt, which is the state that the driver
//! rendered from, and has the models render. Invariant: `exact` is said only where the outcome of the
//! attempt carries the checksum of these very bytes.

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _, stream};
use loopwright_core::{
    entry::Entry,
    event::Event,
    ids::{Attempt, CallId},
    prompt::ModelRequest,
    state::State,
};
use loopwright_log::{Id, Log, LogError, ReadItem, ReadMode, Seq, StreamKey};
use loopwright_proto::v1::{self, get_model_request_response::Item};
use tonic::Status;

use super::MOST_CHUNK;
use crate::{
    effects::model::RequestBody,
    redaction::Fields,
    service::{
        ServiceState,
        convert::{
            entry,
            fields::{self, Violations},
        },
        status,
    },
};

/// Which attempt is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The call; none = the last one.
    pub(super) call: Option<CallId>,
    /// Its attempt; 0 = the last one.
    pub(super) attempt: Attempt,
}

/// An attempt of a model call, as the log tells it.
struct Found {
    seq: Seq,
    request: ModelRequest,
    /// The request without what is hidden, where something is.
    shown: Option<ModelRequest>,
    /// The checksum that its outcome carries; empty without.
    sent_crc: String,
    ended: bool,
}

/// Checks a GetModelRequest.
///
/// # Errors
/// Every field that cannot be taken.
pub(super) fn parse(
    namespace: &Id,
    request: &v1::GetModelRequestRequest,
) -> Result<(StreamKey, Wanted), Status> {
    let mut all = Violations::default();
    let id = fields::id("session_id", &request.session_id, &mut all);
    let call = fields::optional_call("call", &request.call, &mut all);
    let key = fields::key(namespace, id, all).map_err(|all| status::invalid(&all))?;
    let attempt = request.attempt;
    Ok((key, Wanted { call, attempt }))
}

/// The request of an attempt: the head, then the body in pieces.
///
/// # Errors
/// As GetModelRequest names them.
pub(super) async fn open(
    service: &ServiceState,
    key: &StreamKey,
    wanted: Wanted,
    hidden: &Fields,
) -> Result<impl Stream<Item = v1::GetModelRequestResponse> + Send + use<>, Status> {
    let found = find(&*service.log, key, wanted, hidden).await?;
    let Some(found) = found else {
        let missing = status::sessions::call_not_found(key.id(), wanted.call, wanted.attempt);
        return Err(missing);
    };
    let request = found.shown.as_ref().unwrap_or(&found.request);
    let body = service.models.body(request).map_err(status::no_model)?;
    let head = Item::Head(head(&found, &body));
    let pieces = chunks(body.into_pieces()).map(Item::Body);
    let items = std::iter::once(head).chain(pieces);
    Ok(stream::iter(items.map(|item| {
        v1::GetModelRequestResponse { item: Some(item) }
    })))
}

fn head(found: &Found, body: &RequestBody) -> v1::ModelRequestHead {
    let crc = body.crc();
    v1::ModelRequestHead {
        call: found.request.call.to_string(),
        attempt: found.request.attempt,
        model: found.request.model.clone(),
        provider: body.provider.to_owned(),
        exact: found.sent_crc == crc && found.shown.is_none(),
        redacted: found.shown.is_some(),
        body_crc32c: crc,
        sent_crc32c: found.sent_crc.clone(),
        bytes: body.bytes(),
        seq: found.seq,
    }
}

/// Looks the attempt up. A log that is damaged behind it is good enough.
async fn find(
    log: &dyn Log,
    key: &StreamKey,
    wanted: Wanted,
    hidden: &Fields,
) -> Result<Option<Found>, Status> {
    let (mut state, mut found) = (State::default(), None);
    // The same fold without what is hidden, from the first entry on that has something to hide.
    let mut shown: Option<State> = None;
    let mut items = log.read(key, 0, ReadMode::ToTail);
    while let Some(item) = items.next().await {
        let record = match item {
            Ok(ReadItem::Fact(record)) => record,
            Ok(ReadItem::Progress(_) | ReadItem::CompleteThrough(_)) => continue,
            Err(LogError::Corrupt(_)) if found.is_some() && wanted.call.is_some() => break,
            Err(error) => return Err(status::log(&error)),
        };
        let entry = entry::parse(&record).map_err(|error| status::unreadable(&error))?;
        if let Some(found) = &mut found {
            note_outcome(found, &entry);
        }
        let other = hidden.entry(&entry);
        if other.is_some() && shown.is_none() {
            shown = Some(state.clone());
        }
        if let Some(shown) = &mut shown {
            shown.apply_entry(record.seq, other.as_ref().unwrap_or(&entry));
        }
        state.apply_entry(record.seq, &entry);
        for event in &entry.events {
            if let Event::ModelCallStarted(started) = event
                && wanted.call.is_none_or(|call| call == started.call)
                && (wanted.attempt == 0 || wanted.attempt == started.attempt)
                && let Some(request) = state.model_request()
                && (request.call, request.attempt) == (started.call, started.attempt)
            {
                found = Some(Found {
                    seq: record.seq,
                    request,
                    shown: shown.as_ref().and_then(State::model_request),
                    sent_crc: String::new(),
                    ended: false,
                });
            }
        }
        let named = wanted.call.is_some() && wanted.attempt != 0;
        if named && found.as_ref().is_some_and(|found| found.ended) {
            break;
        }
    }
    Ok(found)
}

fn note_outcome(found: &mut Found, entry: &Entry) {
    for event in &entry.events {
        let (call, attempt, crc) = match event {
            Event::ModelCallCompleted(e) => (e.call, e.attempt, e.body_crc.as_str()),
            Event::ModelCallFailed(e) => (e.call, e.attempt, e.body_crc.as_str()),
            Event::ModelCallAbandoned(e) => (e.call, e.attempt, ""),
            _ => continue,
        };
        if (call, attempt) == (found.request.call, found.request.attempt) {
            crc.clone_into(&mut found.sent_crc);
            found.ended = true;
        }
    }
}

/// The same bytes in pieces of `MOST_CHUNK`, but for the last one.
fn chunks(mut pieces: impl Iterator<Item = Bytes>) -> impl Iterator<Item = Bytes> {
    let (mut rest, mut gathered) = (Bytes::new(), BytesMut::new());
    std::iter::from_fn(move || {
        loop {
            let room = MOST_CHUNK - gathered.len();
            let take = rest.split_to(room.min(rest.len()));
            gathered.extend_from_slice(&take);
            if gathered.len() == MOST_CHUNK {
                return Some(gathered.split().freeze());
            }
            match pieces.next() {
                Some(next) => rest = next,
                None if gathered.is_empty() => return None,
                None => return Some(gathered.split().freeze()),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_joined_and_cut_and_none_is_lost() {
        let lengths = [0, 1, MOST_CHUNK - 1, 3 * MOST_CHUNK, 5];
        let pieces: Vec<Bytes> = (0..)
            .zip(lengths)
            .map(|(fill, length)| Bytes::from(vec![fill; length]))
            .collect();
        let all: Vec<Bytes> = chunks(pieces.iter().cloned()).collect();
        let lengths: Vec<usize> = all.iter().map(Bytes::len).collect();
        let chunk = MOST_CHUNK;
        assert_eq!(lengths, [chunk, chunk, chunk, chunk, 5]);
        assert_eq!(all.concat(), pieces.concat());
        assert_eq!(chunks(std::iter::empty()).count(), 0);
    }
}
