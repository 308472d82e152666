//! Writing a session's entries under another name.
//!
//! Boundary: the log's streams and the core's fold; where the entries come from is the caller's. Each is
//! appended as `copied`, which nobody drives, lists or reads, until the closing entry that the core
//! decides makes a session of them. Invariant: a crash at any moment leaves either nothing, a log that
//! is unfinished and is removed, or the whole session.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesOrdered};
use loopwright_core::{
    Input, What, decide,
    entry::Entry,
    input::{AdoptOrigin, Command},
    replay::newer_kinds,
    state::State,
};
use loopwright_log::{AppendError, Log, NewRecord, Record, Seq, StreamKey};
use tonic::Status;

use crate::{
    driver::{Clock, Hold},
    service::{ServiceState, convert::entry, status},
};

/// Appends under way.
const IN_FLIGHT: usize = 256;
/// Bytes of them.
const BYTES_IN_FLIGHT: u64 = 8 << 20;
/// Silence after which the log may have put the stream out of memory: one append goes ahead alone, so
/// that those behind it meet it in order.
const WARM: Duration = Duration::from_secs(2);

type Appended = BoxFuture<'static, Result<Seq, AppendError>>;

/// A session in the making. Whoever gives it up clears its place.
pub(super) struct Copy {
    log: Arc<dyn Log>,
    key: StreamKey,
    state: State,
    /// The last entry that was handed to the log.
    tail: Seq,
    under_way: FuturesOrdered<Appended>,
    sizes: VecDeque<u64>,
    bytes: u64,
    limit: u64,
    last: Option<Instant>,
}

/// What is under an id that a session is to have.
pub(super) enum Place {
    /// Nothing is there, and nobody else can put anything there.
    Free(Hold),
    /// A session that this request made before.
    Made,
}

impl ServiceState {
    /// Makes room for a session under an id that no session has. What an unfinished copy left there is
    /// removed.
    ///
    /// # Errors
    /// ALREADY_EXISTS, unless `by` made it, as `is_it` says of its closing entry.
    pub(super) async fn make_room(
        &self,
        key: &StreamKey,
        by: &Command,
        is_it: impl Fn(&Entry) -> bool,
    ) -> Result<Place, Status> {
        if self.is_taken(key, by, &is_it).await? {
            return Ok(Place::Made);
        }
        let hold = self.drivers.release(key).await;
        let hold = hold.map_err(|error| status::sessions::release(&error, key.id()))?;
        // Whoever held it before may have made a session.
        if self.is_taken(key, by, &is_it).await? {
            return Ok(Place::Made);
        }
        self.clear(key).await?;
        Ok(Place::Free(hold))
    }

    /// Removes what is under an id, if anything is. The caller holds it.
    pub(super) async fn clear(&self, key: &StreamKey) -> Result<(), Status> {
        self.index.forget(key);
        let removed = self.log.remove(key).await;
        self.index.forget(key);
        removed.map(drop).map_err(|error| status::log(&error))
    }

    /// As [`ServiceState::clear`], of a copy that failed; what cannot be removed now is removed before
    /// the next copy there, or at the next start.
    pub(super) async fn give_up(&self, key: &StreamKey) {
        if let Err(status) = self.clear(key).await {
            tracing::warn!(session = %key, %status, "an unfinished copy was left behind");
        }
    }

    /// Whether there is a session, and this request made it; refused where another one did.
    async fn is_taken(
        &self,
        key: &StreamKey,
        by: &Command,
        is_it: &impl Fn(&Entry) -> bool,
    ) -> Result<bool, Status> {
        if !self.is_there(key).await? {
            return Ok(false);
        }
        let digest = self.index.digest(key).await;
        let digest = digest.map_err(|error| status::index(&error))?;
        let answer = digest.and_then(|digest| digest.state.answer(&by.request_id));
        let Some(answer) = answer else {
            return Err(status::sessions::session_exists(key.id()));
        };
        let entry = self.entry_at(key, answer.seq).await?;
        if is_it(&entry) {
            return Ok(true);
        }
        Err(status::request_id_reused(&by.request_id))
    }
}

impl Copy {
    /// A copy of nothing yet, of at most `limit` bytes. The caller holds the session.
    pub(super) fn new(log: Arc<dyn Log>, key: StreamKey, limit: u64) -> Self {
        Self {
            log,
            key,
            state: State::default(),
            tail: 0,
            under_way: FuturesOrdered::new(),
            sizes: VecDeque::new(),
            bytes: 0,
            limit,
            last: None,
        }
    }

    /// Where the entries are written.
    pub(super) fn key(&self) -> &StreamKey {
        &self.key
    }

    /// The last entry that was taken.
    pub(super) fn tail(&self) -> Seq {
        self.tail
    }

    /// What the entries so far make.
    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// Counts bytes of a payload towards the limit.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED.
    pub(super) fn count(&mut self, bytes: u64) -> Result<(), Status> {
        self.bytes = self.bytes.saturating_add(bytes);
        let (limit, what) = (self.limit, "the entries and their payloads");
        let held = self.bytes <= limit;
        held.then_some(())
            .ok_or_else(|| status::sessions::session_too_large(what, limit))
    }

    /// Takes the next entry. It may still be on its way when this returns.
    ///
    /// # Errors
    /// This version cannot read it, or the log did not take it or one before it.
    pub(super) async fn push(&mut self, record: &Record) -> Result<(), Status> {
        let mut entry = entry::parse(record).map_err(|error| status::unreadable(&error))?;
        if let Some(kind) = newer_kinds(&entry).next() {
            let problem = format!("seq {} holds an event of the kind {kind}", record.seq);
            return Err(status::sessions::session_newer(problem, record.seq));
        }
        self.count(record.stored_bytes())?;
        let body = if entry.copied {
            record.body()
        } else {
            marked(&record.body())
        };
        entry.copied = true;
        let expected = self.tail;
        self.tail += 1;
        self.state.apply_entry(self.tail, &entry);
        let new = NewRecord::new(record.at, record.epoch, body);
        self.append(expected, new).await
    }

    /// Closes the copy: from here on it is a session.
    ///
    /// # Errors
    /// The log did not take an entry.
    pub(super) async fn close(&mut self, by: Command, origin: AdoptOrigin) -> Result<(), Status> {
        while !self.under_way.is_empty() {
            self.settle().await?;
        }
        let at = Clock.now();
        let (session, namespace) = (self.key.id().to_owned(), self.key.namespace().to_owned());
        let what = What::Adopt {
            by,
            session,
            namespace,
            origin,
        };
        let input = Input::new(at, what);
        let cause = input.cause();
        let events = decide(&self.state, input);
        let events = events.map_err(|rejection| status::rejected(&rejection, self.key.id()))?;
        let entry = Entry::new(cause, events);
        let body = serde_json::to_vec(&entry).expect("an entry has string keys alone");
        let at = loopwright_log::Timestamp::from_unix_ms(at.0);
        let record = NewRecord::new(at, self.state.epoch, body.into());
        let appended = self.log.append(&self.key, self.tail, record).await;
        appended.map(drop).map_err(|error| status::append(&error))
    }

    async fn append(&mut self, expected: Seq, record: NewRecord) -> Result<(), Status> {
        let size = record.body.len() as u64;
        let now = Instant::now();
        let warm = self
            .last
            .is_some_and(|last| now.duration_since(last) < WARM);
        self.last = Some(now);
        let (log, key) = (Arc::clone(&self.log), self.key.clone());
        self.under_way.push_back(Box::pin(
            async move { log.append(&key, expected, record).await },
        ));
        self.sizes.push_back(size);
        while !self.under_way.is_empty() && (!warm || self.is_full()) {
            self.settle().await?;
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.sizes.len() >= IN_FLIGHT || self.sizes.iter().sum::<u64>() >= BYTES_IN_FLIGHT
    }

    /// Waits for the oldest append under way.
    async fn settle(&mut self) -> Result<(), Status> {
        self.sizes.pop_front();
        match self.under_way.next().await {
            Some(Err(AppendError::Conflict { .. })) => {
                Err(status::sessions::session_exists(self.key.id()))
            }
            Some(Err(error)) => Err(status::append(&error)),
            Some(Ok(_)) | None => Ok(()),
        }
    }
}

/// The body with the mark of a copied entry; all that it holds besides is kept to the letter.
fn marked(body: &Bytes) -> Bytes {
    let mut marked = BytesMut::with_capacity(body.len() + 16);
    marked.put_slice(b"{\"copied\":true");
    if body.get(1) != Some(&b'}') {
        marked.put_u8(b',');
    }
    marked.put_slice(&body[1..]);
    marked.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_leaves_the_rest_to_the_letter() {
        let body = Bytes::from_static(br#"{"cause":"attach","events":[],"later":1.50}"#);
        let expected = br#"{"copied":true,"cause":"attach","events":[],"later":1.50}"#;
        assert_eq!(&marked(&body)[..], expected);
        assert_eq!(
            &marked(&Bytes::from_static(b"{}"))[..],
            b"{\"copied\":true}"
        );
    }
}
