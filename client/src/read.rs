//! A range of a log, read to its end.
//!
//! Boundary: ReadEntries only. Invariant: the stream ends without an error only where the server said that
//! the answer is whole; where it was cut, the rest is asked for; unfiltered entries follow on.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::{Stream, StreamExt};
use loopwright_proto::v1::{
    Entry, ReadDirection, ReadEntriesRequest, ReadEntriesResponse, read_entries_response::Item,
};

use crate::link::{Link, Opening, Report};
use crate::{Client, Error};

/// A stream of entries. After an error it ends.
pub struct ReadEntries {
    client: Client,
    /// What is still to be read.
    rest: ReadEntriesRequest,
    link: Link<ReadEntriesResponse>,
    /// The seq that was yielded last.
    last: Option<u64>,
    whole: bool,
    done: bool,
}

impl ReadEntries {
    pub(crate) fn new(client: Client, request: ReadEntriesRequest) -> Self {
        Self {
            link: Link::new(client.options()),
            client,
            rest: request,
            last: None,
            whole: false,
            done: false,
        }
    }

    /// The next entry; none at the end of the range. May be dropped while it waits.
    pub async fn next(&mut self) -> Option<Result<Entry, Error>> {
        StreamExt::next(self).await
    }

    fn poll_entry(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Entry>, Error>> {
        while !self.whole {
            let (client, rest) = (&self.client, &self.rest);
            let report = ready!(self.link.poll(cx, &mut || open(client, rest)))?;
            let item = match report {
                Report::Item(response) => response.item,
                Report::Broken { .. } => continue,
                Report::Ended => None,
            };
            match item {
                Some(Item::Entry(entry)) => {
                    self.link.thrives();
                    self.follows_on(entry.seq)?;
                    self.advance(entry.seq);
                    return Poll::Ready(Ok(Some(entry)));
                }
                Some(Item::Heartbeat(_)) => self.whole = true,
                Some(Item::Goodbye(_)) | None => drop(self.link.broken(self.cut())?),
            }
        }
        Poll::Ready(Ok(None))
    }

    fn follows_on(&self, got: u64) -> Result<(), Error> {
        let backward = self.rest.direction() == ReadDirection::Backward;
        let follows = |last: u64| match backward {
            true => got.checked_add(1) == Some(last),
            false => last.checked_add(1) == Some(got),
        };
        match self.last.filter(|_| self.rest.kinds.is_empty()) {
            Some(after) if !follows(after) => Err(Error::Gap {
                session_id: self.rest.session_id.clone(),
                after,
                got,
            }),
            _ => Ok(()),
        }
    }

    fn advance(&mut self, seq: u64) {
        self.last = Some(seq);
        if self.rest.direction() == ReadDirection::Backward {
            self.rest.through_seq = seq.saturating_sub(1);
            self.whole = self.rest.through_seq <= self.rest.after_seq;
        } else {
            self.rest.after_seq = seq;
            self.whole = seq == self.rest.through_seq;
        }
        if self.rest.limit > 0 {
            self.rest.limit -= 1;
            self.whole = self.whole || self.rest.limit == 0;
        }
    }

    fn cut(&self) -> Error {
        Error::Unreachable {
            url: self.client.options().url.clone(),
            cause: "the answer was cut".to_owned(),
        }
    }
}

impl Stream for ReadEntries {
    type Item = Result<Entry, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.done {
            return Poll::Ready(None);
        }
        let entry = ready!(self.poll_entry(cx)).transpose();
        self.done = !matches!(entry, Some(Ok(_)));
        if self.done {
            self.link.close();
        }
        Poll::Ready(entry)
    }
}

fn open(client: &Client, rest: &ReadEntriesRequest) -> Opening<ReadEntriesResponse> {
    let mut logs = client.logs();
    let rest = rest.clone();
    Box::pin(async move { Ok(logs.read_entries(rest).await?.into_inner().boxed()) })
}
