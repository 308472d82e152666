//! What of a stream is new to a reader: the cursor, and the text of calls in flight.
//!
//! Boundary: no connection, no time. Invariant: entries are admitted in order and once; after a first one,
//! a reader of all kinds admits no entry that does not follow on.

use loopwright_proto::v1::{Delta, Entry, Goodbye, GoodbyeReason, Heartbeat, Reply};
use loopwright_proto::well_known::Timestamp;

use crate::{Error, TextAssembler, WatchEvent};

/// Holes in a row after which a reader gives up; before that it reads again from its cursor.
const MAX_GAPS: u32 = 3;

/// What tells an entry from another one that took its seq after the log had lost it. A server that is given it
/// refuses a cursor behind an entry that is gone, as DATA_LOSS (CURSOR_DIVERGED).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryMark {
    /// The entry's epoch.
    pub epoch: u64,
    /// The entry's `committed_at`; absent = not checked.
    pub committed_at: Option<Timestamp>,
}

/// An item of any of the streams that carry entries.
#[derive(Debug)]
pub(crate) enum Item {
    Entry(Entry),
    Delta(Delta),
    Reply(Reply),
    Heartbeat(Heartbeat),
    Goodbye(Goodbye),
    /// A kind that this version does not know.
    Unknown,
}

/// What an item comes to.
pub(crate) enum Taken {
    /// Something new.
    Event(WatchEvent),
    /// Nothing new.
    Nothing,
    /// The answer to a command.
    Reply(Reply),
    /// The stream cannot go on as it is; the error is final unless it is transient.
    Broken(Error),
}

#[derive(Debug)]
pub(crate) struct Reader {
    url: String,
    session_id: String,
    /// The last seq that was yielded; none before a start's first entry.
    cursor: Option<u64>,
    /// Of the entry at the cursor, where it is known.
    mark: Option<EntryMark>,
    /// False where a filter leaves entries out.
    dense: bool,
    text: TextAssembler,
    gaps: u32,
}

impl Reader {
    pub(crate) fn new(url: &str, session_id: &str, cursor: Option<u64>, dense: bool) -> Self {
        let unseen = if dense { cursor.unwrap_or(0) } else { u64::MAX };
        Self {
            url: url.to_owned(),
            session_id: session_id.to_owned(),
            cursor,
            mark: None,
            dense,
            text: TextAssembler::new(unseen),
            gaps: 0,
        }
    }

    /// The same with what is known of the entry at the cursor.
    pub(crate) fn marked(self, mark: Option<EntryMark>) -> Self {
        Self { mark, ..self }
    }

    pub(crate) fn cursor(&self) -> Option<u64> {
        self.cursor
    }

    /// `after_epoch` and `after_committed_at` of a request that goes on at the cursor.
    pub(crate) fn mark(&self) -> (Option<u64>, Option<Timestamp>) {
        fields(self.mark.as_ref())
    }

    pub(crate) fn session_id(&self) -> &str {
        &self.session_id
    }

    pub(crate) fn name_session(&mut self, session_id: &str) {
        session_id.clone_into(&mut self.session_id);
    }

    pub(crate) fn take(&mut self, item: Item) -> Taken {
        match item {
            Item::Entry(entry) => self.entry(entry),
            Item::Delta(delta) => match self.text.delta(delta) {
                Some(delta) => Taken::Event(WatchEvent::Delta(delta)),
                None => Taken::Nothing,
            },
            Item::Heartbeat(heartbeat) => self.heartbeat(&heartbeat),
            Item::Goodbye(goodbye) => Taken::Broken(self.goodbye(goodbye.reason())),
            Item::Reply(reply) => Taken::Reply(reply),
            Item::Unknown => Taken::Nothing,
        }
    }

    fn entry(&mut self, entry: Entry) -> Taken {
        let after = self.cursor.unwrap_or(0);
        if entry.seq <= after {
            return Taken::Nothing;
        }
        if self.dense && self.cursor.is_some_and(|cursor| entry.seq != cursor + 1) {
            return self.gap(after, entry.seq);
        }
        self.cursor = Some(entry.seq);
        self.mark = Some(EntryMark::from(&entry));
        self.gaps = 0;
        if self.session_id.is_empty() {
            self.name_session(&entry.session_id);
        }
        self.text.entry(&entry);
        Taken::Event(WatchEvent::Entry(entry))
    }

    fn heartbeat(&mut self, heartbeat: &Heartbeat) -> Taken {
        let complete_through = heartbeat.complete_through;
        match self.cursor {
            Some(cursor) if complete_through > cursor => {
                if self.dense {
                    return self.gap(cursor, complete_through);
                }
                self.cursor = Some(complete_through);
                self.mark = mark_of(heartbeat);
            }
            // Who began at a bare seq learns here what stands there.
            Some(cursor) if complete_through == cursor && self.mark.is_none() => {
                self.mark = mark_of(heartbeat);
            }
            _ => {}
        }
        Taken::Event(WatchEvent::Heartbeat { complete_through })
    }

    /// A hole is read again from the cursor; the owner is told when that did not help.
    fn gap(&mut self, after: u64, got: u64) -> Taken {
        self.gaps += 1;
        let error = if self.gaps < MAX_GAPS {
            Error::Unreachable {
                url: self.url.clone(),
                cause: format!("after seq {after} came seq {got}; reading again from {after}"),
            }
        } else {
            Error::Gap {
                session_id: self.session_id.clone(),
                after,
                got,
            }
        };
        Taken::Broken(error)
    }

    fn goodbye(&self, reason: GoodbyeReason) -> Error {
        match reason {
            GoodbyeReason::SessionDeleted => Error::SessionDeleted {
                session_id: self.session_id.clone(),
            },
            GoodbyeReason::Draining | GoodbyeReason::Unspecified => Error::Draining {
                url: self.url.clone(),
            },
        }
    }
}

impl From<&Entry> for EntryMark {
    fn from(entry: &Entry) -> Self {
        Self {
            epoch: entry.epoch,
            committed_at: entry.committed_at,
        }
    }
}

/// A mark as the fields of a request.
pub(crate) fn fields(mark: Option<&EntryMark>) -> (Option<u64>, Option<Timestamp>) {
    let committed_at = mark.and_then(|mark| mark.committed_at);
    (mark.map(|mark| mark.epoch), committed_at)
}

fn mark_of(heartbeat: &Heartbeat) -> Option<EntryMark> {
    heartbeat.epoch.map(|epoch| EntryMark {
        epoch,
        committed_at: heartbeat.committed_at,
    })
}
