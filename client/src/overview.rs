//! A watch over all loops of the namespace: where each stands, then what changes, across any number of
//! connections.
//!
//! Boundary: WatchLoops only; the connection is [`Link`]'s. Invariant: a snapshot is yielded whole or not
//! at all, and after every connection that was lost there is another one, in place of all that was known.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use loopwright_proto::v1::{
    LoopSummary, WatchLoopsRequest, WatchLoopsResponse, watch_loops_response::Item,
};

use crate::link::{Link, Opening, Report};
use crate::{Client, Error};

/// Something that a watch over all loops brings.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum LoopsEvent {
    /// Every loop that passes the filters, in place of all that was known. The first event, and the first
    /// one after each interruption.
    Snapshot(Vec<LoopSummary>),
    /// A loop that began or went on, or that left the filters, as it stands now.
    Changed(Box<LoopSummary>),
    /// A session was deleted, with all of its loops; it need not be one that was told of.
    Deleted {
        /// The session.
        session_id: String,
    },
    /// A sign of life.
    Heartbeat,
    /// The connection broke and is opened again; a snapshot follows. For people to see.
    Interrupted {
        /// What broke.
        error: Error,
        /// The wait before the next try.
        retry_in: Duration,
    },
}

/// A stream of [`LoopsEvent`]s that reconnects by itself. After an error it ends.
pub struct LoopsWatch {
    client: Client,
    request: WatchLoopsRequest,
    link: Link<Option<Item>>,
    /// The snapshot so far; none once it was yielded.
    snapshot: Option<Vec<LoopSummary>>,
    done: bool,
}

impl Client {
    /// Watches all loops of the namespace that pass the filters of the request.
    #[must_use]
    pub fn watch_loops(&self, request: WatchLoopsRequest) -> LoopsWatch {
        LoopsWatch {
            link: Link::new(self.options()),
            client: self.clone(),
            request,
            snapshot: Some(Vec::new()),
            done: false,
        }
    }
}

impl LoopsWatch {
    /// The next event; none once the stream ended. May be dropped while it waits.
    pub async fn next(&mut self) -> Option<Result<LoopsEvent, Error>> {
        StreamExt::next(self).await
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<LoopsEvent, Error>> {
        loop {
            let (client, request) = (&self.client, &self.request);
            let mut open = || open(client, request);
            let report = match ready!(self.link.poll(cx, &mut open))? {
                Report::Item(item) => match self.take(item) {
                    Ok(Some(event)) => return Poll::Ready(Ok(event)),
                    Ok(None) => continue,
                    Err(error) => self.link.broken(error)?,
                },
                Report::Ended => {
                    let error = Error::Unreachable {
                        url: self.client.options().url.clone(),
                        cause: "the stream ended without a word".to_owned(),
                    };
                    self.link.broken(error)?
                }
                broken @ Report::Broken { .. } => broken,
            };
            if let Report::Broken { error, retry_in } = report {
                self.snapshot = Some(Vec::new());
                return Poll::Ready(Ok(LoopsEvent::Interrupted { error, retry_in }));
            }
        }
    }

    fn take(&mut self, item: Option<Item>) -> Result<Option<LoopsEvent>, Error> {
        if !matches!(item, Some(Item::Goodbye(_))) {
            self.link.thrives();
        }
        Ok(match item {
            Some(Item::Snapshot(part)) => {
                self.snapshot.get_or_insert_default().extend(part.loops);
                None
            }
            Some(Item::SnapshotEnd(_)) => Some(LoopsEvent::Snapshot(
                self.snapshot.take().unwrap_or_default(),
            )),
            Some(Item::Changed(one)) => Some(LoopsEvent::Changed(Box::new(one))),
            Some(Item::DeletedSessionId(session_id)) => Some(LoopsEvent::Deleted { session_id }),
            Some(Item::Heartbeat(_)) => Some(LoopsEvent::Heartbeat),
            Some(Item::Goodbye(_)) => {
                return Err(Error::Draining {
                    url: self.client.options().url.clone(),
                });
            }
            // A kind that this version does not know.
            None => None,
        })
    }
}

impl Stream for LoopsWatch {
    type Item = Result<LoopsEvent, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.done {
            return Poll::Ready(None);
        }
        let event = ready!(self.poll_event(cx));
        if event.is_err() {
            self.done = true;
            self.link.close();
        }
        Poll::Ready(Some(event))
    }
}

fn open(client: &Client, request: &WatchLoopsRequest) -> Opening<Option<Item>> {
    let mut loops = client.loops();
    let request = request.clone();
    Box::pin(async move {
        let items = loops.watch_loops(request).await?.into_inner();
        let item = |told: WatchLoopsResponse| told.item;
        Ok(items.map(move |told| told.map(item)).boxed())
    })
}
