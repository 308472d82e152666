//! The stream of one watcher.
//!
//! Invariant: what it holds does not grow with what it has not sent. Signs of life are only thought
//! of when there is nothing to send, so that the busy path reads no clock.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt as _, Stream, StreamExt as _, future::BoxFuture};
use loopwright_core::{event::Event, ids::LoopId};
use loopwright_log::{LogError, ReadItem, ReadStream, Record, Seq};
use tokio::time::{Instant, Sleep};
use tonic::Status;

use super::{Seat, Watched, Watching};
use crate::{
    drain::DrainSignal,
    redaction::Fields,
    service::{
        convert::{delta, entry, kinds::KindSet},
        cursor::Cursor,
        status,
    },
};

/// Silence after which a heartbeat is sent.
pub(super) const IDLE: Duration = Duration::from_secs(15);
/// Entries that a filter may hold back before other tasks get their turn.
const HELD_BACK: u32 = 256;

/// One item; entries and deltas are whole messages of any of the streams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// An entry.
    Entry(Bytes),
    /// A delta.
    Delta(Bytes),
    /// Everything up to here was sent.
    Heartbeat(Cursor),
    /// The last item: attach again here.
    Goodbye(Cursor),
    /// The last item: the session was deleted.
    Deleted(Seq),
}

/// The items of one watcher.
pub struct Watch {
    source: ReadStream,
    cursor: Cursor,
    deltas: bool,
    kinds: KindSet,
    until: Option<LoopId>,
    fields: Fields,
    drain: DrainSignal,
    drained: BoxFuture<'static, ()>,
    silence: Pin<Box<Sleep>>,
    last_sent: Instant,
    sent_since: bool,
    phase: Phase,
    _seat: Seat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// The loop that was asked for has ended: one heartbeat, then the end.
    Over,
    Ended,
}

impl Watch {
    pub(super) fn new(
        source: ReadStream,
        what: Watched,
        cursor: Cursor,
        over: bool,
        from: &Watching,
        seat: Seat,
    ) -> Self {
        let drain = from.drain.clone();
        let mut hears = drain.clone();
        Self {
            source,
            cursor,
            deltas: what.deltas,
            kinds: what.kinds,
            until: what.until,
            fields: from.fields.clone(),
            drain,
            drained: async move { hears.wait().await }.boxed(),
            silence: Box::pin(tokio::time::sleep(IDLE)),
            last_sent: Instant::now(),
            sent_since: false,
            phase: if over { Phase::Over } else { Phase::Running },
            _seat: seat,
        }
    }

    /// Everything up to this seq was sent or held back by the filter.
    #[must_use]
    pub fn cursor(&self) -> Seq {
        self.cursor.seq
    }

    /// What the watcher is sent of an item of the log, if anything.
    fn take(&mut self, item: ReadItem) -> Result<Option<Sent>, Status> {
        match item {
            ReadItem::Fact(record) => self.entry(&record),
            ReadItem::Progress(progress) if self.deltas => {
                Ok(delta::ready(&progress).map(Sent::Delta))
            }
            ReadItem::Progress(_) => Ok(None),
            // Of the entry that the cursor stands behind: all before the tail came.
            ReadItem::CompleteThrough(_) => Ok(Some(Sent::Heartbeat(self.cursor))),
        }
    }

    fn entry(&mut self, record: &Record) -> Result<Option<Sent>, Status> {
        let ready =
            entry::ready(record, &self.fields).map_err(|error| status::unreadable(&error))?;
        self.cursor = Cursor::behind(record);
        if let Some(id) = self
            .until
            .filter(|_| KindSet::LOOP_ENDED.wants(ready.kinds))
        {
            let entry = entry::parse(record).map_err(|error| status::unreadable(&error))?;
            let ends = |event: &Event| matches!(event, Event::LoopEnded(e) if e.id == id);
            if entry.events.iter().any(ends) {
                self.phase = Phase::Over;
            }
        }
        Ok(self
            .kinds
            .wants(ready.kinds)
            .then_some(Sent::Entry(ready.message)))
    }

    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Sent, Status>>> {
        for _ in 0..HELD_BACK {
            let item = match self.source.poll_next_unpin(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Ready(Some(item)) => item,
            };
            if let Err(LogError::Removed) = item {
                self.phase = Phase::Ended;
                return Poll::Ready(Some(Ok(Sent::Deleted(self.cursor.seq))));
            }
            let sent = item
                .map_err(|error| status::log(&error))
                .and_then(|item| self.take(item));
            match sent.transpose() {
                Some(sent) => return Poll::Ready(Some(sent)),
                None if self.phase == Phase::Over => return Poll::Ready(Some(Ok(self.finish()))),
                None => {}
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn finish(&mut self) -> Sent {
        self.phase = Phase::Ended;
        Sent::Heartbeat(self.cursor)
    }

    /// Nothing to send: is it time for a sign of life?
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<Sent> {
        if self.sent_since {
            self.sent_since = false;
            self.last_sent = Instant::now();
        }
        while self.silence.poll_unpin(cx).is_ready() {
            let due = self.last_sent + IDLE;
            if Instant::now() >= due {
                return Poll::Ready(Sent::Heartbeat(self.cursor));
            }
            self.silence.as_mut().reset(due);
        }
        Poll::Pending
    }
}

impl Stream for Watch {
    type Item = Result<Sent, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        match this.phase {
            Phase::Ended => return Poll::Ready(None),
            Phase::Over => return Poll::Ready(Some(Ok(this.finish()))),
            Phase::Running => {}
        }
        if this.drain.is_draining() {
            this.phase = Phase::Ended;
            return Poll::Ready(Some(Ok(Sent::Goodbye(this.cursor))));
        }
        match this.poll_source(cx) {
            Poll::Ready(Some(Ok(sent))) => {
                this.sent_since = true;
                return Poll::Ready(Some(Ok(sent)));
            }
            Poll::Ready(end) => {
                this.phase = Phase::Ended;
                return Poll::Ready(end);
            }
            Poll::Pending => {}
        }
        if this.drained.poll_unpin(cx).is_ready() {
            this.phase = Phase::Ended;
            return Poll::Ready(Some(Ok(Sent::Goodbye(this.cursor))));
        }
        match this.poll_silence(cx) {
            Poll::Ready(sent) => {
                this.sent_since = true;
                // The next look starts the silence anew.
                this.silence.as_mut().reset(Instant::now() + IDLE);
                Poll::Ready(Some(Ok(sent)))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}
