//! ReadEntries: a range of a log, either way, that ends.
//!
//! Invariant: what was committed after the call began is not sent, and a whole answer ends with a
//! heartbeat.

use std::sync::Arc;

use futures_util::{Stream, StreamExt as _, stream};
use loopwright_log::{
    BackStream, Id, Log, LogError, ReadItem, ReadMode, ReadStream, Record, Seq, StreamKey,
};
use loopwright_proto::v1;
use tonic::Status;

use super::check_finished;
use crate::{
    drain::DrainSignal,
    redaction::Fields,
    service::{
        convert::{
            entry,
            fields::{self, Violations},
            kinds::{self, KindSet},
        },
        cursor::{self, Cursor, Seen},
        status,
        watch::{Sent, Watching},
    },
};

/// What to read: entries after `after` up to `through`.
struct Range {
    key: StreamKey,
    after: Seq,
    seen: Seen,
    through: Seq,
    backward: bool,
    limit: u64,
    kinds: KindSet,
}

struct Reading {
    source: Source,
    range: Range,
    /// Behind the last entry that was looked at.
    at: Cursor,
    sent: u64,
    /// What the last heartbeat of a backward reading says.
    began_at: Seq,
    hidden: Fields,
    drain: DrainSignal,
    ended: bool,
}

enum Source {
    Forward(ReadStream),
    Backward(BackStream),
}

/// The items of a ReadEntries.
///
/// # Errors
/// As ReadEntries names them.
pub(super) async fn open(
    watching: &Watching,
    namespace: &Id,
    request: &v1::ReadEntriesRequest,
) -> Result<impl Stream<Item = Result<Sent, Status>> + Send + 'static, Status> {
    let mut range = parse(namespace, request)?;
    let mut tail = tail_of(&*watching.log, &range.key).await?;
    let source = loop {
        let source = range.read(&*watching.log, tail);
        // Deleted since the look, and perhaps made anew: then it is another session that is read.
        let now = tail_of(&*watching.log, &range.key).await?;
        if now >= tail {
            break source;
        }
        tail = now;
    };
    let (after, seen) = (range.after, range.seen);
    let at = cursor::check(&*watching.log, &range.key, after, seen, tail).await?;
    check_finished(&*watching.log, &range.key).await?;
    range.through = range.end(tail);
    let reading = Reading {
        source,
        at,
        sent: 0,
        began_at: tail,
        range,
        hidden: watching.fields.clone(),
        drain: watching.drain.clone(),
        ended: false,
    };
    Ok(stream::unfold(reading, |mut reading| async move {
        let item = reading.next().await?;
        reading.ended |= !matches!(item, Ok(Sent::Entry(_)));
        Some((item, reading))
    }))
}

async fn tail_of(log: &dyn Log, key: &StreamKey) -> Result<Seq, Status> {
    match log.tail(key).await {
        Ok(Some(tail)) => Ok(tail),
        Ok(None) => Err(status::session_not_found(key.id())),
        Err(LogError::Corrupt(damage)) => Ok(damage.good_through),
        Err(error) => Err(status::log(&error)),
    }
}

fn parse(namespace: &Id, request: &v1::ReadEntriesRequest) -> Result<Range, Status> {
    let mut all = Violations::default();
    let id = fields::id("session_id", &request.session_id, &mut all);
    let backward = match v1::ReadDirection::try_from(request.direction) {
        Ok(direction) => direction == v1::ReadDirection::Backward,
        Err(_) => {
            let problem = format!(
                "{} is no value of this enum; leave it out",
                request.direction
            );
            all.add("direction", problem);
            false
        }
    };
    let (after, through) = (request.after_seq, request.through_seq);
    if through != 0 && through < after {
        all.add(
            "through_seq",
            format!("{through} is below after_seq {after}; leave it out"),
        );
    }
    let kinds = kinds::filter(&request.kinds, &mut all);
    let (epoch, at) = (request.after_epoch, request.after_committed_at.as_ref());
    let seen = Seen::parse(after, epoch, at, &mut all);
    let id = all.check(id).map_err(|all| status::invalid(&all))?;
    let id = id.ok_or_else(|| status::invalid_field("session_id", "is empty; name one"))?;
    let key = StreamKey::session(namespace, &id);
    Ok(Range {
        key,
        after,
        seen,
        through,
        backward,
        limit: request.limit,
        kinds,
    })
}

impl Range {
    /// The last entry of the range in a log that ends at `tail`.
    fn end(&self, tail: Seq) -> Seq {
        match self.through {
            0 => tail,
            through => through.min(tail),
        }
    }

    fn read(&self, log: &dyn Log, tail: Seq) -> Source {
        if self.backward {
            Source::Backward(log.read_back(&self.key, self.end(tail).saturating_add(1)))
        } else {
            Source::Forward(log.read(&self.key, self.after, ReadMode::ToTail))
        }
    }
}

impl Reading {
    async fn next(&mut self) -> Option<Result<Sent, Status>> {
        if self.ended {
            return None;
        }
        loop {
            if self.drain.is_draining() {
                return Some(Ok(Sent::Goodbye(self.resume_at())));
            }
            let full = self.range.limit != 0 && self.sent >= self.range.limit;
            let record = if full { Ok(None) } else { self.pull().await };
            let record = match record {
                Ok(Some(record)) => record,
                Ok(None) => return Some(Ok(Sent::Heartbeat(self.complete_through(full)))),
                Err(LogError::Removed) => return Some(Ok(Sent::Deleted(self.resume_at().seq))),
                Err(error) => return Some(Err(status::log(&error))),
            };
            self.at = Cursor::behind(&record);
            match entry::ready(&record, &self.hidden) {
                Err(error) => return Some(Err(status::unreadable(&error))),
                Ok(ready) if self.range.kinds.wants(ready.kinds) => {
                    self.sent += 1;
                    return Some(Ok(Sent::Entry(ready.message)));
                }
                Ok(_) => {}
            }
        }
    }

    /// The next record of the range.
    async fn pull(&mut self) -> Result<Option<Arc<Record>>, LogError> {
        match &mut self.source {
            Source::Forward(source) => {
                if self.at.seq >= self.range.through {
                    return Ok(None);
                }
                match source.next().await.transpose()? {
                    Some(ReadItem::Fact(record)) => Ok(Some(record)),
                    // Before the end of the range: what was looked at is not there any more.
                    Some(ReadItem::Progress(_) | ReadItem::CompleteThrough(_)) | None => {
                        Err(LogError::Removed)
                    }
                }
            }
            Source::Backward(source) => {
                let record = source.next().await.transpose()?;
                Ok(record.filter(|record| record.seq > self.range.after))
            }
        }
    }

    fn complete_through(&self, full: bool) -> Cursor {
        if self.range.backward {
            return self.began_at.into();
        }
        if full || self.at.seq >= self.range.through {
            return self.at;
        }
        self.range.through.into()
    }

    /// Where a forward reading goes on; a backward one is asked for again.
    fn resume_at(&self) -> Cursor {
        if self.range.backward {
            self.range.after.into()
        } else {
            self.at
        }
    }
}
