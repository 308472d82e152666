//! A watch over one session: its entries after a cursor, then live, across any number of connections.
//!
//! Boundary: WatchLoop only; the connection is [`Link`]'s, what is new is [`Reader`]'s. Invariant: every
//! entry once, in order, without a hole; the stream ends only where it was asked to end.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use loopwright_proto::v1::{
    Delta, Entry, WatchLoopRequest, WatchLoopResponse, event::Kind, watch_loop_response,
};

use crate::link::{Link, Opening, Report};
use crate::reader::{EntryMark, Item, Reader, Taken};
use crate::{Client, Error};

/// What a watch is to bring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchOptions {
    /// Entries after this seq; 0 = from the beginning. Default 0.
    pub after_seq: u64,
    /// What is known of the entry at that seq: the watch fails where the log holds another one there. Later
    /// connections of the watch send that of the last entry by themselves. Default none: not checked.
    pub after_mark: Option<EntryMark>,
    /// Deltas too, while calls run. Default true.
    pub deltas: bool,
    /// Entries with at least one event of these kinds only, named as the fields of `Event.kind`
    /// ("loop_ended"); none = all, and only then is it checked that entries follow on. Default none.
    pub kinds: Vec<String>,
    /// Ends the stream once the entry that ends this loop was passed; empty = it goes on until it is
    /// dropped. Default empty.
    pub loop_id: String,
}

/// Something that a watch brings.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum WatchEvent {
    /// The next entry.
    Entry(Entry),
    /// New progress of a call in flight. Text and thinking hold only what was not yielded before, at
    /// their own offset; an attempt's deltas are void once its ModelCallFailed or ModelCallAbandoned
    /// came.
    Delta(Delta),
    /// A sign of life: everything up to this seq was yielded.
    Heartbeat {
        /// The seq.
        complete_through: u64,
    },
    /// The connection broke and is opened again by cursor; nothing is lost. For people to see.
    Interrupted {
        /// What broke.
        error: Error,
        /// The wait before the next try.
        retry_in: Duration,
    },
}

/// A stream of [`WatchEvent`]s that reconnects by itself. After an error it ends.
pub struct Watch {
    client: Client,
    request: WatchLoopRequest,
    link: Link<Item>,
    reader: Reader,
    /// True once the entry that ends `request.loop_id` was yielded.
    loop_ended: bool,
    /// True where a heartbeat came last: with `request.loop_id`, a server ends with one.
    heartbeat_last: bool,
    done: bool,
}

impl Watch {
    pub(crate) fn new(client: Client, session_id: String, options: WatchOptions) -> Self {
        let dense = options.kinds.is_empty();
        let reader = Reader::new(
            &client.options().url,
            &session_id,
            Some(options.after_seq),
            dense,
        )
        .marked(options.after_mark);
        Self {
            link: Link::new(client.options()),
            client,
            request: WatchLoopRequest {
                session_id,
                after_seq: options.after_seq,
                deltas: options.deltas,
                kinds: options.kinds,
                loop_id: options.loop_id,
                ..WatchLoopRequest::default()
            },
            reader,
            loop_ended: false,
            heartbeat_last: false,
            done: false,
        }
    }

    /// The next event; none once the stream ended. May be dropped while it waits.
    pub async fn next(&mut self) -> Option<Result<WatchEvent, Error>> {
        StreamExt::next(self).await
    }

    /// The last seq that was yielded: the cursor to watch after later.
    #[must_use]
    pub fn cursor(&self) -> u64 {
        self.reader.cursor().unwrap_or(0)
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<WatchEvent>, Error>> {
        loop {
            let (client, request, reader) = (&self.client, &self.request, &self.reader);
            let mut open = || open(client, request, reader);
            let report = ready!(self.link.poll(cx, &mut open))?;
            let broken = match report {
                Report::Broken { error, retry_in } => {
                    return Poll::Ready(Ok(Some(WatchEvent::Interrupted { error, retry_in })));
                }
                Report::Ended if self.may_end() => return Poll::Ready(Ok(None)),
                Report::Ended => self.ended_early(),
                Report::Item(item) => match self.take(item) {
                    Taken::Event(event) => return Poll::Ready(Ok(Some(event))),
                    Taken::Nothing | Taken::Reply(_) => continue,
                    Taken::Broken(error) => error,
                },
            };
            if let Report::Broken { error, retry_in } = self.link.broken(broken)? {
                return Poll::Ready(Ok(Some(WatchEvent::Interrupted { error, retry_in })));
            }
        }
    }

    fn take(&mut self, item: Item) -> Taken {
        self.heartbeat_last = matches!(item, Item::Heartbeat(_));
        let taken = self.reader.take(item);
        if !matches!(taken, Taken::Broken(_)) {
            self.link.thrives();
        }
        self.loop_ended = self.loop_ended || self.ends_loop(&taken);
        taken
    }

    /// Whether the server may end the stream with OK; otherwise it was cut without a word.
    fn may_end(&self) -> bool {
        self.loop_ended || (self.heartbeat_last && !self.request.loop_id.is_empty())
    }

    fn ends_loop(&self, taken: &Taken) -> bool {
        let Taken::Event(WatchEvent::Entry(entry)) = taken else {
            return false;
        };
        if self.request.loop_id.is_empty() {
            return false;
        }
        entry.events.iter().any(|event| {
            matches!(&event.kind, Some(Kind::LoopEnded(end)) if end.loop_id == self.request.loop_id)
        })
    }

    fn ended_early(&self) -> Error {
        Error::Unreachable {
            url: self.client.options().url.clone(),
            cause: "the stream ended without a word".to_owned(),
        }
    }
}

impl Stream for Watch {
    type Item = Result<WatchEvent, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.done {
            return Poll::Ready(None);
        }
        let event = ready!(self.poll_event(cx)).transpose();
        self.done = !matches!(event, Some(Ok(_)));
        if self.done {
            self.link.close();
        }
        Poll::Ready(event)
    }
}

impl Default for WatchOptions {
    fn default() -> Self {
        Self {
            after_seq: 0,
            after_mark: None,
            deltas: true,
            kinds: Vec::new(),
            loop_id: String::new(),
        }
    }
}

fn open(client: &Client, request: &WatchLoopRequest, reader: &Reader) -> Opening<Item> {
    let mut loops = client.loops();
    let mut request = request.clone();
    request.after_seq = reader.cursor().unwrap_or(0);
    (request.after_epoch, request.after_committed_at) = reader.mark();
    Box::pin(async move {
        let items = loops.watch_loop(request).await?.into_inner();
        Ok(items.map(|item| item.map(item_of)).boxed())
    })
}

fn item_of(response: WatchLoopResponse) -> Item {
    use watch_loop_response::Item as Wire;
    match response.item {
        Some(Wire::Entry(entry)) => Item::Entry(entry),
        Some(Wire::Delta(delta)) => Item::Delta(delta),
        Some(Wire::Heartbeat(heartbeat)) => Item::Heartbeat(heartbeat),
        Some(Wire::Goodbye(goodbye)) => Item::Goodbye(goodbye),
        None => Item::Unknown,
    }
}
