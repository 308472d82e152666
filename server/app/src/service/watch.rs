//! WatchLoop: a session's entries after a cursor, then live.
//!
//! Boundary: reads the log and nothing else, so that any replica serves watchers; it knows
//! nobody who advances a session. Invariant: pull-based. A watcher that does not read costs its place in the log and no
//! memory; it gets each entry once and in order.

mod feed;
mod seats;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use loopwright_log::{Log, LogError, ReadMode, Seq};
use loopwright_proto::v1::{self, watch_loop_response::Item};
use tonic::Status;

use super::{
    convert::questions::Watched,
    cursor::{self, Cursor},
    session_log::check_finished,
    status,
    wire::{Encoded, EncodedStream},
};
use crate::{drain::DrainSignal, index::Index, redaction::Fields};

pub use feed::{Sent, Watch};
pub use seats::{SEATS_OF_NAMESPACE, SEATS_OF_SESSION, Seat, Seats};

/// What watching takes.
#[derive(Clone)]
pub struct Watching {
    /// The log.
    pub log: Arc<dyn Log>,
    /// Where loops begin and end.
    pub index: Arc<Index>,
    /// Room for watchers.
    pub seats: Arc<Seats>,
    /// What of tools' arguments is not shown.
    pub fields: Fields,
    /// Says when to say goodbye.
    pub drain: DrainSignal,
}

impl Watching {
    /// Starts to watch.
    ///
    /// # Errors
    /// As WatchLoop names them.
    pub async fn open(&self, what: Watched) -> Result<Watch, Status> {
        let seat = self.seats.take(&what.key)?;
        self.open_seated(what, seat).await
    }

    /// As [`Watching::open`], with a seat that was taken before.
    ///
    /// # Errors
    /// As WatchLoop names them.
    pub async fn open_seated(&self, what: Watched, seat: Seat) -> Result<Watch, Status> {
        // Before the look: a session that is deleted from here on ends what reads it.
        let source = self.log.read(&what.key, what.after, ReadMode::Follow);
        let cursor = self.check_cursor(&what).await?;
        let over = self.is_over(&what).await?;
        let source = if over {
            stream::empty().boxed()
        } else {
            source
        };
        Ok(Watch::new(source, what, cursor, over, self, seat))
    }

    async fn check_cursor(&self, what: &Watched) -> Result<Cursor, Status> {
        let (log, key) = (&*self.log, &what.key);
        let tail = match log.tail(key).await {
            Ok(None) => return Err(status::session_not_found(key.id())),
            Ok(Some(tail)) => tail,
            // A damaged session is watched up to its damage: the read says so.
            Err(LogError::Corrupt(damage)) => damage.good_through.max(what.after),
            Err(error) => return Err(status::log(&error)),
        };
        let cursor = cursor::check(log, key, what.after, what.seen, tail).await?;
        check_finished(log, key).await?;
        Ok(cursor)
    }

    /// Whether the loop that is watched ended at or before the cursor.
    async fn is_over(&self, what: &Watched) -> Result<bool, Status> {
        let Some(id) = what.until else {
            return Ok(false);
        };
        let session = what.key.id();
        let brief = self.index.brief(&what.key).await;
        let brief = brief.map_err(|e| status::index(&e))?;
        let brief = brief.ok_or_else(|| status::session_not_found(session))?;
        let found = self.index.find_loop(&what.key, &brief, id).await;
        let found = found.map_err(|e| status::index(&e))?;
        let found = found.ok_or_else(|| status::loop_not_found(session, &id.to_string()))?;
        Ok(found.ended.is_some_and(|(_, seq, _)| seq <= what.after))
    }
}

/// A watch as the answer of WatchLoop.
#[must_use]
pub fn response(watch: Watch) -> EncodedStream<v1::WatchLoopResponse> {
    watch
        .map(|sent| {
            Ok(match sent? {
                Sent::Entry(bytes) | Sent::Delta(bytes) => Encoded::raw(bytes),
                Sent::Heartbeat(through) => item(Item::Heartbeat(heartbeat(through))),
                Sent::Goodbye(cursor) => item(Item::Goodbye(goodbye(cursor))),
                Sent::Deleted(cursor) => item(Item::Goodbye(deleted(cursor))),
            })
        })
        .boxed()
}

/// A sign of life.
#[must_use]
pub fn heartbeat(complete_through: impl Into<Cursor>) -> v1::Heartbeat {
    let through = complete_through.into();
    let (epoch, committed_at) = through.on_the_wire();
    v1::Heartbeat {
        complete_through: through.seq,
        epoch,
        committed_at,
    }
}

/// The last message of a server that shuts down.
#[must_use]
pub fn goodbye(cursor: impl Into<Cursor>) -> v1::Goodbye {
    let cursor = cursor.into();
    let (epoch, committed_at) = cursor.on_the_wire();
    v1::Goodbye {
        cursor: cursor.seq,
        reason: v1::GoodbyeReason::Draining as i32,
        epoch,
        committed_at,
    }
}

/// The last message of a session that was deleted.
#[must_use]
pub fn deleted(cursor: Seq) -> v1::Goodbye {
    v1::Goodbye {
        cursor,
        reason: v1::GoodbyeReason::SessionDeleted as i32,
        // Nothing is left that they could name.
        epoch: None,
        committed_at: None,
    }
}

fn item(item: Item) -> Encoded<v1::WatchLoopResponse> {
    Encoded::new(&v1::WatchLoopResponse { item: Some(item) })
}
