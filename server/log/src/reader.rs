//! Readers: from a cursor through history to the tail, and on.
//!
//! Boundary: history comes from a backend, block by block; the rest is in memory. Invariant (law 7):
//! a reader is woken by a signal and then reads; nothing is queued for it while it is slow.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt};

use crate::error::LogError;
use crate::live::{Live, Presence, Pull};
use crate::progress::Shown;
use crate::record::{Record, Seq};
use crate::{BackStream, ReadItem, ReadMode, ReadStream};

/// Records that are no longer in memory.
pub(crate) trait History: Send {
    /// The records after `after`, at least one, in order. With `ahead`, the caller will ask for what
    /// follows them at once: it may be read meanwhile.
    fn next(
        &mut self,
        after: Seq,
        ahead: bool,
    ) -> BoxFuture<'_, Result<Vec<Arc<Record>>, LogError>>;

    /// The records below `before`, at least one, newest first.
    fn back(&mut self, before: Seq) -> BoxFuture<'_, Result<Vec<Arc<Record>>, LogError>>;
}

/// What a backend hands over when it has found a stream.
pub(crate) struct Opened {
    pub(crate) live: Arc<Live>,
    pub(crate) history: Box<dyn History>,
}

/// For streams that are in memory as a whole.
pub(crate) struct NoHistory;

struct Reader {
    presence: Presence,
    history: Box<dyn History>,
    after: Seq,
    mode: ReadMode,
    shown: Shown,
    ready: VecDeque<ReadItem>,
    caught_up: bool,
}

struct BackReader {
    live: Arc<Live>,
    history: Box<dyn History>,
    before: Seq,
    ready: VecDeque<Arc<Record>>,
}

/// Reads forward from `after`.
pub(crate) fn forward(
    open: impl Future<Output = Result<Opened, LogError>> + Send + 'static,
    after: Seq,
    mode: ReadMode,
) -> ReadStream {
    let reader = async move {
        let opened = open.await?;
        let reader = Reader {
            presence: Presence::new(opened.live),
            history: opened.history,
            after,
            mode,
            shown: Shown::default(),
            ready: VecDeque::new(),
            caught_up: false,
        };
        Ok(stream::unfold(Some(reader), |reader| async move {
            let mut reader = reader?;
            match reader.next().await {
                Ok(Some(item)) => Some((Ok(item), Some(reader))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        }))
    };
    stream::once(reader).flat_map(flatten).boxed()
}

/// Reads backward from below `before`.
pub(crate) fn backward(
    open: impl Future<Output = Result<Opened, LogError>> + Send + 'static,
    before: Seq,
) -> BackStream {
    let reader = async move {
        let Opened { live, history } = open.await?;
        let reader = BackReader {
            live,
            history,
            before,
            ready: VecDeque::new(),
        };
        Ok(stream::unfold(Some(reader), |reader| async move {
            let mut reader = reader?;
            match reader.next().await {
                Ok(Some(item)) => Some((Ok(item), Some(reader))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        }))
    };
    stream::once(reader).flat_map(flatten).boxed()
}

fn flatten<T: Send + 'static>(
    opened: Result<impl stream::Stream<Item = Result<T, LogError>> + Send + 'static, LogError>,
) -> stream::BoxStream<'static, Result<T, LogError>> {
    match opened {
        Ok(items) => items.boxed(),
        Err(error) => stream::iter([Err(error)]).boxed(),
    }
}

impl Reader {
    async fn next(&mut self) -> Result<Option<ReadItem>, LogError> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Ok(Some(item));
            }
            if self.caught_up && self.mode == ReadMode::ToTail {
                return Ok(None);
            }
            let live = self.presence.live();
            // Before the look, so that no move between look and wait is missed.
            let moved = live.moved();
            let facts = match live.pull(self.after, self.caught_up.then_some(&mut self.shown))? {
                Pull::Facts(facts) => facts,
                // Who follows may be slow, and a block is kept for nobody who is.
                Pull::Older => {
                    let ahead = self.mode == ReadMode::ToTail;
                    self.history.next(self.after, ahead).await?
                }
                Pull::Progress(news) => {
                    self.ready.extend(news.into_iter().map(ReadItem::Progress));
                    continue;
                }
                Pull::AtTail if self.caught_up => {
                    moved.await;
                    continue;
                }
                Pull::AtTail => {
                    self.caught_up = true;
                    self.ready.push_back(ReadItem::CompleteThrough(self.after));
                    continue;
                }
            };
            if let Some(last) = facts.last() {
                self.after = last.seq;
            }
            self.ready.extend(facts.into_iter().map(ReadItem::Fact));
        }
    }
}

impl BackReader {
    async fn next(&mut self) -> Result<Option<Arc<Record>>, LogError> {
        if self.ready.is_empty() && self.before > 1 {
            let (mut facts, older) = self.live.pull_back(self.before)?;
            if facts.is_empty() && older {
                facts = self.history.back(self.before).await?;
            }
            self.before = facts.last().map_or(0, |oldest| oldest.seq);
            self.ready.extend(facts);
        }
        Ok(self.ready.pop_front())
    }
}

impl History for NoHistory {
    fn next(
        &mut self,
        _after: Seq,
        _ahead: bool,
    ) -> BoxFuture<'_, Result<Vec<Arc<Record>>, LogError>> {
        Box::pin(async {
            Err(LogError::unavailable(
                "the stream has no history outside memory",
            ))
        })
    }

    fn back(&mut self, _before: Seq) -> BoxFuture<'_, Result<Vec<Arc<Record>>, LogError>> {
        self.next(0, false)
    }
}
