//! The streams that a ledger lies in: one at a time, each with all that the ones before it come to.
//!
//! Boundary: a chain of streams in the log, nothing of what their facts mean but the two that chain
//! them. Invariants: a stream is sealed only once what the next one carries is durable, and the seal
//! is an append like every other, so that whoever writes to a stream that was sealed meanwhile loses;
//! a stream is removed only once another is sealed after it, oldest first, and what was begun and never
//! sealed for goes before the stream that it was begun beside: the lowest one is always the chain's.

use std::sync::Arc;

use futures_util::StreamExt as _;
use loopwright_core::{
    ids::Timestamp,
    ledger::{Ledger, LedgerEntry, LedgerEvent, LedgerSealed},
};
use loopwright_log::{
    AppendError, Id, KeyQuery, Log, LogError, NewRecord, ReadItem, ReadMode, Seq, StreamKey,
    StreamKind,
};

use super::LedgerError;

/// Id of a ledger's first stream; the later ones are `budgets-GENERATION-TRY`.
const FIRST: &str = "budgets";
/// Bytes of a record that carries a ledger over, about.
const CARRIED_BYTES: usize = 256 * 1024;
/// Streams that were sealed and are kept: so far a reader may be behind.
const KEPT: u64 = 1;
/// Streams of one ledger that are looked at.
const MAX_STREAMS: usize = 1_024;
/// Names that are tried for the next stream: each is taken by one that was never sealed for.
const TRIES: u32 = 64;

/// The stream that a ledger goes on in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The stream.
    pub key: StreamKey,
    /// The ledger's position before the stream's first record.
    pub base: Seq,
}

/// A ledger as its last stream says it is.
pub(super) struct Folded {
    pub(super) ledger: Ledger,
    pub(super) place: Place,
    /// Bytes of the stream.
    pub(super) bytes: u64,
    /// Those among them that carry the streams before it.
    pub(super) carried: u64,
}

/// The streams of a ledger.
struct Chain {
    /// Those that follow one another, with their generations; the last one is not sealed.
    links: Vec<(u64, StreamKey)>,
    /// Begun beside a link, and never sealed for: nobody will.
    dead: Vec<StreamKey>,
}

impl Place {
    /// The first stream of a namespace's ledger.
    ///
    /// # Panics
    /// Never: the id is one.
    #[must_use]
    pub fn first(namespace: &Id) -> Self {
        let id = Id::parse(FIRST).expect("the id of the ledger's first stream is an id");
        Self {
            key: StreamKey::new(StreamKind::Ledger, namespace, &id),
            base: 0,
        }
    }

    /// How many streams there were before.
    fn generation(&self) -> u64 {
        generation_of(self.key.id()).unwrap_or(0)
    }
}

/// Reads the ledger of a namespace, and removes what its chain has left behind.
pub(super) async fn open(log: &dyn Log, namespace: &Id) -> Result<Folded, LedgerError> {
    let chain = find(log, namespace).await?;
    tidy(log, &chain).await;
    let place = match chain.links.last() {
        Some((_, key)) => Place {
            key: key.clone(),
            base: 0,
        },
        None => Place::first(namespace),
    };
    fold(log, place).await
}

async fn fold(log: &dyn Log, mut place: Place) -> Result<Folded, LedgerError> {
    let mut ledger = Ledger::default();
    let (mut bytes, mut carried, mut missing) = (0, 0, 0);
    let mut items = log.read(&place.key, 0, ReadMode::ToTail);
    while let Some(item) = items.next().await {
        let ReadItem::Fact(record) = item.map_err(unreadable)? else {
            continue;
        };
        let entry = entry_of(&place.key, record.seq, &record.body())?;
        let mut carries = missing > 0;
        for event in &entry.events {
            if let LedgerEvent::LedgerCarried(e) = event {
                (place.base, missing, carries) = (e.seq, e.events, true);
            } else {
                missing = missing.saturating_sub(1);
            }
        }
        ledger.apply_entry(place.base + record.seq, &entry);
        bytes += record.stored_bytes();
        if carries {
            carried = bytes;
        }
    }
    if missing > 0 || (place.generation() > 0 && place.base == 0) {
        let key = &place.key;
        let reason = format!("{key} does not begin with all that the streams before it come to");
        return Err(LedgerError::Unreadable(reason));
    }
    Ok(Folded {
        ledger,
        place,
        bytes,
        carried,
    })
}

/// Goes on in a new stream that begins with the ledger as it stands; `None` where the log does not let
/// it begin now, and nothing has changed.
///
/// # Errors
/// It is not known whether the old stream was sealed, or another one seals it.
pub(super) async fn go_on(
    log: &dyn Log,
    namespace: &Id,
    at: Timestamp,
    from: &Place,
    ledger: &Ledger,
) -> Result<Option<Folded>, LedgerError> {
    let seal = ledger.seq + 1;
    let generation = from.generation() + 1;
    let begun = match begin(log, namespace, at, generation, ledger.carry(seal)).await {
        Ok(begun) => begun,
        Err(error) => {
            tracing::warn!(key = %from.key, %error, "a ledger stays in its stream for now");
            return Ok(None);
        }
    };
    let next = Arc::from(begun.key.id());
    let records = begun.records;
    let sealed = vec![LedgerSealed { next, records }.into()];
    let (expected, seal_record) = (ledger.seq - from.base, record_of(at, sealed));
    append(log, &from.key, expected, seal_record).await?;
    let place = Place {
        key: begun.key,
        base: seal,
    };
    tracing::info!(from = %from.key, to = %place.key, "a ledger goes on in a new stream");
    match find(log, namespace).await {
        Ok(chain) => tidy(log, &chain).await,
        // The next one finds it, or the next start.
        Err(error) => tracing::warn!(%error, "old streams of a ledger stay"),
    }
    let mut ledger = ledger.clone();
    ledger.seq = seal + records;
    Ok(Some(Folded {
        ledger,
        place,
        bytes: begun.bytes,
        carried: begun.bytes,
    }))
}

struct Begun {
    key: StreamKey,
    records: u64,
    bytes: u64,
}

/// Writes what is carried into a stream of its own.
async fn begin(
    log: &dyn Log,
    namespace: &Id,
    at: Timestamp,
    generation: u64,
    events: Vec<LedgerEvent>,
) -> Result<Begun, AppendError> {
    let bodies = bodies_of(events);
    let bytes = bodies.iter().map(|body| body.len() as u64).sum();
    let at = loopwright_log::Timestamp::from_unix_ms(at.0);
    let mut tries = 0..TRIES;
    let key = loop {
        let taken = AppendError::Conflict { tail: 0 };
        let number = tries.next().ok_or(taken)?;
        let id = Id::parse(&format!("{FIRST}-{generation}-{number}"));
        let id = id.expect("a word with two numbers is an id");
        let key = StreamKey::new(StreamKind::Ledger, namespace, &id);
        let first = NewRecord::new(at, 0, bodies[0].clone().into());
        match log.append(&key, 0, first).await {
            Ok(_) => break key,
            // Begun once before, by another or before a crash.
            Err(AppendError::Conflict { .. }) => {}
            Err(error) => return Err(error),
        }
    };
    let mut records = 1;
    for body in &bodies[1..] {
        let record = NewRecord::new(at, 0, body.clone().into());
        records = log.append(&key, records, record).await?;
    }
    Ok(Begun {
        key,
        records,
        bytes,
    })
}

/// What is carried, as the bodies of records.
fn bodies_of(events: Vec<LedgerEvent>) -> Vec<Vec<u8>> {
    let mut bodies = Vec::new();
    let (mut some, mut size) = (Vec::new(), 0);
    for event in events {
        if size >= CARRIED_BYTES {
            bodies.push(body_of(std::mem::take(&mut some)));
            size = 0;
        }
        size += serde_json::to_vec(&event).map_or(0, |text| text.len());
        some.push(event);
    }
    bodies.push(body_of(some));
    bodies
}

fn body_of(events: Vec<LedgerEvent>) -> Vec<u8> {
    serde_json::to_vec(&LedgerEntry { events }).expect("an entry has string keys alone")
}

/// The record of an entry that says this.
pub(super) fn record_of(at: Timestamp, events: Vec<LedgerEvent>) -> NewRecord {
    let at = loopwright_log::Timestamp::from_unix_ms(at.0);
    NewRecord::new(at, 0, body_of(events).into())
}

/// Appends an entry to a stream; its seq there.
pub(super) async fn append(
    log: &dyn Log,
    key: &StreamKey,
    expected: Seq,
    record: NewRecord,
) -> Result<Seq, LedgerError> {
    let seq = log.append(key, expected, record).await;
    seq.map_err(|error| LedgerError::Unavailable(error.to_string()))
}

/// The ledger's streams, from the oldest that is kept along the seals.
async fn find(log: &dyn Log, namespace: &Id) -> Result<Chain, LedgerError> {
    let page = log.keys(KeyQuery {
        namespace: Some(namespace.clone()),
        kind: StreamKind::Ledger,
        after: None,
        limit: MAX_STREAMS,
    });
    let keys = page.await.map_err(unreadable)?.keys;
    let mut all: Vec<(u64, StreamKey)> = keys
        .into_iter()
        .filter_map(|key| Some((generation_of(key.id())?, key)))
        .collect();
    all.sort();
    let mut links = Vec::new();
    let mut next = all.first().cloned();
    while let Some((generation, key)) = next.take() {
        if let Some(id) = sealed_for(log, &key).await? {
            let is_it = |(_, key): &&(u64, StreamKey)| key.id() == &*id;
            let found = all.iter().find(is_it).filter(|(of, _)| *of > generation);
            let gone = || LedgerError::Unreadable(format!("{key} goes on in {id}, which is gone"));
            next = Some(found.cloned().ok_or_else(gone)?);
        }
        links.push((generation, key));
    }
    let newest = links.last().map_or(0, |(generation, _)| *generation);
    all.retain(|stream| stream.0 <= newest && !links.contains(stream));
    let dead = all.into_iter().map(|(_, key)| key).collect();
    Ok(Chain { links, dead })
}

/// Removes what is over, in the order that keeps the lowest stream the chain's.
async fn tidy(log: &dyn Log, chain: &Chain) {
    let newest = chain.links.last().map_or(0, |(generation, _)| *generation);
    let old = chain
        .links
        .iter()
        .filter(|(generation, _)| generation + KEPT < newest)
        .map(|(_, key)| key);
    for key in chain.dead.iter().chain(old) {
        if let Err(error) = log.remove(key).await {
            // The next one finds it, or the next start.
            tracing::warn!(%key, %error, "an old stream of a ledger stays");
            return;
        }
    }
}

/// The stream that one was sealed for.
async fn sealed_for(log: &dyn Log, key: &StreamKey) -> Result<Option<Arc<str>>, LedgerError> {
    let Some(record) = log.read_back(key, Seq::MAX).next().await else {
        return Ok(None);
    };
    let record = record.map_err(unreadable)?;
    let entry = entry_of(key, record.seq, &record.body())?;
    Ok(entry.events.last().and_then(|event| match event {
        LedgerEvent::LedgerSealed(e) => Some(Arc::clone(&e.next)),
        _ => None,
    }))
}

/// How many streams come before the one of this id; `None` for an id that is none of a ledger's.
fn generation_of(id: &str) -> Option<u64> {
    if id == FIRST {
        return Some(0);
    }
    let (generation, number) = id.strip_prefix(FIRST)?.strip_prefix('-')?.split_once('-')?;
    number.parse::<u32>().ok()?;
    generation.parse().ok().filter(|&generation| generation > 0)
}

/// An entry of a ledger.
pub(crate) fn entry_of(key: &StreamKey, seq: Seq, body: &[u8]) -> Result<LedgerEntry, LedgerError> {
    serde_json::from_slice(body)
        .map_err(|error| LedgerError::Unreadable(format!("{key} at seq {seq}: {error}")))
}

fn unreadable(error: LogError) -> LedgerError {
    match error {
        LogError::Unavailable { reason } => LedgerError::Unavailable(reason),
        other => LedgerError::Unreadable(other.to_string()),
    }
}
