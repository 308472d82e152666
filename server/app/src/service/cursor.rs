//! Cursors: where a client stands in a session's log, and whether the log still holds what it saw there.
//!
//! A seq alone does not tell. A log that lost its last entries gives their seqs to others as soon as it goes on:
//!
//! ```text
//! seen     .. 8/e1  9/e1  10/e1                  a client stands at 10
//! lost     .. 8/e1
//! goes on  .. 8/e1  9/e2  10/e2  11/e2           after 10 comes 11, and 9 and 10 are others
//! ```
//!
//! The epoch at the cursor shows it, but where the attach that began the epoch was lost too: the next attach
//! takes the same one. The time of the entry shows that, and a session that was deleted and made anew.
//!
//! Boundary: reads the log. Invariant: the look comes after the reading that it speaks for was begun, so that
//! what is read is what was looked at, or ends as removed.

use futures_util::StreamExt as _;
use loopwright_log::{Log, LogError, ReadItem, ReadMode, Record, Seq, StreamKey, Timestamp};
use loopwright_proto::well_known;
use tonic::Status;

use super::{
    convert::{self, fields::Violations},
    status,
};

#[cfg(test)]
mod tests;

/// A place behind an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The entry; 0 = before the first.
    pub seq: Seq,
    /// What tells it from others of that seq, where it was read.
    pub mark: Option<Mark>,
}

/// What tells an entry from another one that takes its seq.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Its epoch.
    pub epoch: u64,
    /// Its time.
    pub at: Timestamp,
}

/// What a client says of the entry at its cursor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Its epoch; absent = not said.
    pub epoch: Option<u64>,
    /// Its time; absent = not said.
    pub at: Option<Timestamp>,
}

impl Cursor {
    /// The cursor behind an entry.
    #[must_use]
    pub fn behind(record: &Record) -> Self {
        Self {
            seq: record.seq,
            mark: Some(Mark::of(record)),
        }
    }

    /// Its epoch and its time, as the wire has them.
    #[must_use]
    pub fn on_the_wire(&self) -> (Option<u64>, Option<well_known::Timestamp>) {
        let at = self.mark.map(|mark| convert::committed_at(mark.at));
        (self.mark.map(|mark| mark.epoch), at)
    }
}

impl Mark {
    fn of(record: &Record) -> Self {
        let &Record { epoch, at, .. } = record;
        Self { epoch, at }
    }
}

impl From<Seq> for Cursor {
    fn from(seq: Seq) -> Self {
        Self { seq, mark: None }
    }
}

impl Seen {
    /// What a request says of the entry at `after_seq`.
    pub fn parse(
        after: Seq,
        epoch: Option<u64>,
        at: Option<&well_known::Timestamp>,
        all: &mut Violations,
    ) -> Self {
        let none = "goes with an after_seq above 0; leave it out";
        if after == 0 && epoch.is_some() {
            all.add("after_epoch", none);
        }
        let Some(at) = at else {
            return Self { epoch, at: None };
        };
        if after == 0 {
            all.add("after_committed_at", none);
        }
        let millis = millis(at);
        if millis.is_none() {
            let problem = format!(
                "{} s and {} ns is no time of an entry; give its committed_at as it came",
                at.seconds, at.nanos
            );
            all.add("after_committed_at", problem);
        }
        let at = millis.map(Timestamp::from_unix_ms);
        Self { epoch, at }
    }

    fn is_nothing(self) -> bool {
        self == Self::default()
    }

    fn is(self, there: Mark) -> bool {
        self.epoch.is_none_or(|epoch| epoch == there.epoch)
            && self.at.is_none_or(|at| at == there.at)
    }
}

/// The cursor behind the entry `after`, if that is the one that the client saw. `tail` is the last entry that
/// can be read.
///
/// # Errors
/// DATA_LOSS (CURSOR_PAST_TAIL, CURSOR_DIVERGED), and what the log says where the entry cannot be read.
pub async fn check(
    log: &dyn Log,
    key: &StreamKey,
    after: Seq,
    seen: Seen,
    tail: Seq,
) -> Result<Cursor, Status> {
    if after > tail {
        let agrees = match seen.epoch {
            Some(epoch) => last_of(log, key, tail.saturating_add(1), epoch).await,
            None => None,
        };
        return Err(status::cursor_past_tail(after, tail, agrees));
    }
    if after == 0 {
        return Ok(after.into());
    }
    match at(log, key, after).await {
        Ok(mark) if seen.is(mark) => Ok(Cursor {
            seq: after,
            mark: Some(mark),
        }),
        Ok(mark) => {
            // Epochs rise: of one epoch or the other, what was written since it began is another's.
            let most = mark.epoch.saturating_sub(1);
            let most = seen.epoch.map_or(most, |epoch| epoch.min(most));
            let agrees = last_of(log, key, after, most).await;
            Err(status::cursor_diverged(after, tail, agrees))
        }
        // Who reads on is told what is wrong.
        Err(_) if seen.is_nothing() => Ok(after.into()),
        Err(error) => Err(status::log(&error)),
    }
}

/// What tells the entry of a seq from others.
async fn at(log: &dyn Log, key: &StreamKey, seq: Seq) -> Result<Mark, LogError> {
    // Not `ToTail`, which has the next block read ahead.
    let mut items = log.read(key, seq.saturating_sub(1), ReadMode::Follow);
    match items.next().await.transpose()? {
        Some(ReadItem::Fact(record)) => Ok(Mark::of(&record)),
        // The session was deleted and made anew since the caller looked at its tail.
        Some(ReadItem::Progress(_) | ReadItem::CompleteThrough(_)) | None => Err(LogError::Removed),
    }
}

/// The last entry before `end` whose epoch is `most` or lower; 0 = none is.
async fn last_of(log: &dyn Log, key: &StreamKey, end: Seq, most: u64) -> Option<Seq> {
    let (mut low, mut high) = (0, end);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if at(log, key, middle).await.ok()?.epoch <= most {
            low = middle;
        } else {
            high = middle;
        }
    }
    Some(low)
}

/// Unix milliseconds, where it is a whole number of them.
fn millis(at: &well_known::Timestamp) -> Option<u64> {
    let (seconds, nanos) = (
        u64::try_from(at.seconds).ok()?,
        u64::try_from(at.nanos).ok()?,
    );
    if nanos % 1_000_000 != 0 || nanos >= 1_000_000_000 {
        return None;
    }
    seconds.checked_mul(1_000)?.checked_add(nanos / 1_000_000)
}
