//! ExportSession: a session as lines of JSON.
//!
//! Boundary: reads the log and the payloads beside it; `lines` says what a line is. Invariant: what is
//! in memory is one payload and a few pieces, however slow the reader; the last line is written only if
//! everything before it was.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _, stream};
use loopwright_core::Entry;
use loopwright_log::{BlobError, Log, LogError, ReadItem, ReadMode, Record, Seq, StreamKey};
use serde::Serialize;
use tokio::sync::mpsc;
use tonic::Status;

use super::{
    blobs::{MOST_BLOBS, Named},
    lines::{BlobLine, EndLine},
};
use crate::{
    drain::DrainSignal,
    redaction::{Fields, patched},
    service::{convert::entry, status},
};

/// Bytes that are gathered before they are sent.
const CHUNK: usize = 256 << 10;
/// Chunks that wait for a reader.
const WAITING: usize = 2;

/// The lines of a session up to `through`, in pieces that end anywhere, at most 1 MiB each and one line.
/// What `hidden` names is left out, and the last line says so. Must be called within a tokio runtime.
pub(crate) fn lines(
    log: Arc<dyn Log>,
    key: StreamKey,
    through: Seq,
    hidden: Fields,
    drain: DrainSignal,
) -> impl Stream<Item = Result<Bytes, Status>> + Send + 'static {
    let (out, chunks) = mpsc::channel(WAITING);
    let writer = Writer {
        shown: Shown::new(hidden),
        gathered: BytesMut::new(),
        out,
        drain,
    };
    tokio::spawn(write(log, key, through, writer));
    stream::unfold(chunks, |mut chunks| async move {
        let chunk = chunks.recv().await?;
        Some((chunk, chunks))
    })
}

/// Records as whoever is not to see everything sees them: what is exported passes here, and only here.
struct Shown {
    hidden: Fields,
    /// The checksum of the last line, from the first one on that is not as it is stored: each names
    /// the one before, so all behind it differ as well.
    prev: Option<u32>,
}

impl Shown {
    fn new(hidden: Fields) -> Self {
        Self { hidden, prev: None }
    }

    /// The line in place of a record; none = the record's own.
    fn line(&mut self, record: &Record) -> Result<Option<Record>, Status> {
        if self.hidden.is_empty() {
            return Ok(None);
        }
        let entry = entry::parse(record).map_err(|error| status::unreadable(&error))?;
        let body = match (self.hidden.entry(&entry), self.prev) {
            (Some(shown), _) => body_of(record, &entry, &shown),
            (None, Some(_)) => record.body(),
            (None, None) => return Ok(None),
        };
        let shown = record.rewritten(body, self.prev.unwrap_or(record.prev));
        let shown = shown.map_err(|error| {
            status::log(&LogError::Unavailable {
                reason: error.to_string(),
            })
        })?;
        self.prev = Some(shown.crc);
        Ok(Some(shown))
    }
}

/// The record's body with what is hidden hidden, and with what a later version has added. Where that
/// cannot be told apart, what this version knows of the entry, and no more.
fn body_of(record: &Record, entry: &Entry, shown: &Entry) -> Bytes {
    let value = |entry| serde_json::to_value(entry).expect("an entry has string keys alone");
    let body = record.body();
    let text = std::str::from_utf8(&body).ok();
    let text = text.and_then(|text| patched(text, &value(entry), &value(shown)));
    let same = |text: &String| serde_json::from_str(text).is_ok_and(|back: Entry| back == *shown);
    match text.filter(same) {
        Some(text) => text.into(),
        None => value(shown).to_string().into(),
    }
}

struct Writer {
    shown: Shown,
    gathered: BytesMut,
    out: mpsc::Sender<Result<Bytes, Status>>,
    drain: DrainSignal,
}

/// Why writing ended early.
enum Stop {
    /// Nobody reads any more.
    Gone,
    /// To be told to the reader.
    Failed(Status),
}

async fn write(log: Arc<dyn Log>, key: StreamKey, through: Seq, mut writer: Writer) {
    let done = write_all(&*log, &key, through, &mut writer).await;
    let done = match done {
        // What was read before a failure is the reader's all the same.
        Err(Stop::Failed(status)) => writer.flush().await.and(Err(Stop::Failed(status))),
        done => done,
    };
    if let Err(Stop::Failed(status)) = done {
        // A reader that has gone need not know.
        let _ = writer.out.send(Err(status)).await;
    }
}

async fn write_all(
    log: &dyn Log,
    key: &StreamKey,
    through: Seq,
    writer: &mut Writer,
) -> Result<(), Stop> {
    let mut named = Named::default();
    let mut items = log.read(key, 0, ReadMode::ToTail);
    let mut at = 0;
    while at < through {
        let record = match items.next().await {
            Some(Ok(ReadItem::Fact(record))) => record,
            Some(Ok(ReadItem::Progress(_))) => continue,
            Some(Err(error)) => return Err(Stop::Failed(status::log(&error))),
            Some(Ok(ReadItem::CompleteThrough(_))) | None => {
                let lost = LogError::PastTail {
                    after: through,
                    tail: at,
                };
                return Err(Stop::Failed(status::log(&lost)));
            }
        };
        at = record.seq;
        let shown = writer.shown.line(&record).map_err(Stop::Failed)?;
        let line = shown.as_ref().map_or(record.line(), Record::line);
        writer.line(line).await?;
        let noted = named.note(&record);
        noted.map_err(|_| Stop::Failed(status::sessions::too_many_blobs(MOST_BLOBS)))?;
    }
    for (blob, _) in named.iter() {
        match log.get_blob(key, &blob).await {
            Ok(payload) => {
                for piece in BlobLine::of(&blob, &payload) {
                    writer.json(&piece).await?;
                }
            }
            Err(BlobError::Missing { .. } | BlobError::Damaged { .. }) => {
                writer.json(&BlobLine::missing(blob)).await?;
            }
            Err(error) => return Err(Stop::Failed(status::sessions::blob(&error))),
        }
    }
    let blobs = named.len() as u64;
    let redacted = writer.shown.prev.is_some();
    writer
        .json(&EndLine::new(key.as_str(), through, blobs, redacted))
        .await?;
    writer.flush().await
}

impl Writer {
    async fn json(&mut self, line: &impl Serialize) -> Result<(), Stop> {
        let line = serde_json::to_vec(line).expect("a line has string keys alone");
        self.line(&line).await
    }

    async fn line(&mut self, line: &[u8]) -> Result<(), Stop> {
        if self.drain.is_draining() {
            return Err(Stop::Failed(status::draining()));
        }
        if !self.gathered.is_empty() && self.gathered.len() + line.len() >= CHUNK {
            self.flush().await?;
        }
        self.gathered.extend_from_slice(line);
        self.gathered.extend_from_slice(b"\n");
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Stop> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let chunk = self.gathered.split().freeze();
        self.out.send(Ok(chunk)).await.map_err(|_| Stop::Gone)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use loopwright_log::{MemoryLog, NewRecord, Timestamp};
    use serde_json::{Value, json};

    use super::*;
    use crate::service::fixture;

    #[tokio::test]
    async fn what_a_later_version_has_added_stays_where_arguments_are_hidden() {
        let (log, key) = (MemoryLog::new(), fixture::key("s1"));
        let mut body = serde_json::to_value(fixture::asks(1, 2)).unwrap();
        body["later"] = json!({"of": ["the", "entry"]});
        body["events"][0]["ModelCallCompleted"]["later"] = json!("of the event");
        let text = body.to_string();
        assert!(text.contains(r#"\"path\":\"a\""#), "{text}");
        let record = NewRecord::new(Timestamp::from_unix_ms(1), 1, text.into());
        log.append(&key, 0, record).await.unwrap();
        let record = log.read_back(&key, Seq::MAX).next().await.unwrap().unwrap();
        let rules = Fields::new(&["files__read/path".to_owned()]);
        let shown = Shown::new(rules).line(&record).unwrap().unwrap();
        let back: Value = serde_json::from_slice(&shown.body()).unwrap();
        assert_eq!(back["later"], body["later"]);
        let event = |body: &Value| body["events"][0]["ModelCallCompleted"]["later"].clone();
        assert_eq!(event(&back), event(&body));
        let shown = back.to_string();
        assert!(
            shown.contains("[redacted]") && !shown.contains(r#"\"path\":\"a\""#),
            "{shown}"
        );
    }
}
