//! A range of a log, read to its end.
//!
//! Boundary: ReadEntries only. Invariant: the stream ends without an error only where the server said that
//! the answer is whole; where it was cut, the rest is asked for; unfiltered entries follow on. What comes after
//! a cut is of the log that was read before it: forward the server is told which entry came last, backward that
//! entry is read again and compared.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::{Stream, StreamExt};
use loopwright_proto::v1::{
    Entry, ReadDirection, ReadEntriesRequest, ReadEntriesResponse, read_entries_response::Item,
};

use crate::link::{Link, Opening, Report};
use crate::reader::EntryMark;
use crate::{Client, Error};

/// A stream of entries. After an error it ends.
pub struct ReadEntries {
    client: Client,
    /// What is still to be read.
    rest: ReadEntriesRequest,
    link: Link<ReadEntriesResponse>,
    /// The entry that was yielded last.
    last: Option<(u64, EntryMark)>,
    /// True while a backward reading waits for the last entry again.
    recalls: bool,
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
            recalls: false,
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
            let (client, rest, last) = (&self.client, &self.rest, self.last);
            let recalls = &mut self.recalls;
            let mut open = || {
                let again = last.filter(|_| rest.direction() == ReadDirection::Backward);
                *recalls = again.is_some();
                open(client, with_last(rest, again.map(|(seq, _)| seq)))
            };
            let report = ready!(self.link.poll(cx, &mut open))?;
            let item = match report {
                Report::Item(response) => response.item,
                Report::Broken { .. } => continue,
                Report::Ended => None,
            };
            match item {
                Some(Item::Entry(entry)) => {
                    self.link.thrives();
                    if std::mem::take(&mut self.recalls) {
                        self.recall(&entry)?;
                        continue;
                    }
                    self.follows_on(entry.seq)?;
                    self.advance(&entry);
                    return Poll::Ready(Ok(Some(entry)));
                }
                Some(Item::Heartbeat(_)) => {
                    self.check_recalled()?;
                    self.whole = true;
                }
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
        let last = self.last.map(|(seq, _)| seq);
        match last.filter(|_| self.rest.kinds.is_empty()) {
            Some(after) if !follows(after) => Err(Error::Gap {
                session_id: self.rest.session_id.clone(),
                after,
                got,
            }),
            _ => Ok(()),
        }
    }

    /// The first entry of a backward reading that goes on: the one that came last before.
    fn recall(&self, entry: &Entry) -> Result<(), Error> {
        match self.last {
            Some(last) if last != (entry.seq, EntryMark::from(entry)) => Err(self.diverged(last.0)),
            _ => Ok(()),
        }
    }

    /// At the end of an answer: one that is whole has brought that entry.
    fn check_recalled(&self) -> Result<(), Error> {
        match self.last.filter(|_| self.recalls) {
            Some((seq, _)) => Err(self.diverged(seq)),
            None => Ok(()),
        }
    }

    fn diverged(&self, seq: u64) -> Error {
        Error::Diverged {
            session_id: self.rest.session_id.clone(),
            seq,
        }
    }

    fn advance(&mut self, entry: &Entry) {
        let (seq, mark) = (entry.seq, EntryMark::from(entry));
        self.last = Some((seq, mark));
        if self.rest.direction() == ReadDirection::Backward {
            self.rest.through_seq = seq.saturating_sub(1);
            self.whole = self.rest.through_seq <= self.rest.after_seq;
        } else {
            self.rest.after_seq = seq;
            self.rest.after_epoch = Some(mark.epoch);
            self.rest.after_committed_at = mark.committed_at;
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

/// What a connection asks for: the rest, and before it the entry `last` again.
fn with_last(rest: &ReadEntriesRequest, last: Option<u64>) -> ReadEntriesRequest {
    let mut request = rest.clone();
    if let Some(last) = last {
        request.through_seq = last;
        request.limit += u64::from(request.limit > 0);
    }
    request
}

fn open(client: &Client, rest: ReadEntriesRequest) -> Opening<ReadEntriesResponse> {
    let mut logs = client.logs();
    Box::pin(async move { Ok(logs.read_entries(rest).await?.into_inner().boxed()) })
}
