//! Server-sent events from a body that may be cut anywhere.
//!
//! Boundary: byte chunks in, events out. Invariants: the parser is given whole events only, so that
//! a long one is not scanned again with each chunk; an event that is larger than the limit ends the
//! stream before it is kept.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf as _, Bytes, BytesMut};
use eventsource_stream::{Event, EventStream, EventStreamError};
use futures_util::{Stream, StreamExt};

/// Largest event, bytes: a whole reply may come in one, escaped.
pub(super) const MAX_EVENT_BYTES: usize = 4 * 1024 * 1024;

/// What some servers put before UTF-8 text.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Why there is no further event.
#[derive(Debug)]
pub(super) enum Broken<E> {
    /// The connection failed.
    Transport(E),
    /// An event is larger than [`MAX_EVENT_BYTES`].
    TooLarge,
    /// These are no events.
    Malformed(String),
}

/// The events of a body.
pub(super) struct Events<S, E> {
    events: EventStream<Frames<S, E>>,
}

/// Cuts a body into pieces that each end where an event does.
struct Frames<S, E> {
    body: S,
    waiting: BytesMut,
    /// Bytes of `waiting` that hold no end of an event.
    scanned: usize,
    /// Whether a piece was given on.
    begun: bool,
    ended: bool,
    error: std::marker::PhantomData<fn() -> E>,
}

impl<S: Stream<Item = Result<Bytes, E>> + Unpin, E> Events<S, E> {
    pub(super) fn new(body: S) -> Self {
        let (waiting, error) = (BytesMut::new(), std::marker::PhantomData);
        let frames = Frames {
            body,
            waiting,
            scanned: 0,
            begun: false,
            ended: false,
            error,
        };
        Self {
            events: EventStream::new(frames),
        }
    }

    /// The next event; `None` once the body has ended. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Result<Option<Event>, Broken<E>> {
        match self.events.next().await {
            None => Ok(None),
            Some(Ok(event)) => Ok(Some(event)),
            Some(Err(EventStreamError::Transport(broken))) => Err(broken),
            Some(Err(EventStreamError::Utf8(e))) => Err(Broken::Malformed(e.to_string())),
            Some(Err(EventStreamError::Parser(e))) => {
                Err(Broken::Malformed(format!("{:?}", e.code)))
            }
        }
    }
}

impl<S: Stream<Item = Result<Bytes, E>> + Unpin, E> Stream for Frames<S, E> {
    type Item = Result<Bytes, Broken<E>>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if let Some(frame) = this.frame() {
                return Poll::Ready(Some(Ok(frame)));
            }
            if this.ended {
                return Poll::Ready(this.rest().map(Ok));
            }
            if this.waiting.len() > MAX_EVENT_BYTES {
                this.ended = true;
                this.waiting.clear();
                return Poll::Ready(Some(Err(Broken::TooLarge)));
            }
            match std::task::ready!(this.body.poll_next_unpin(cx)) {
                Some(Ok(chunk)) => this.waiting.extend_from_slice(&chunk),
                Some(Err(e)) => {
                    this.ended = true;
                    this.waiting.clear();
                    return Poll::Ready(Some(Err(Broken::Transport(e))));
                }
                None => this.ended = true,
            }
        }
    }
}

impl<S, E> Frames<S, E> {
    /// Everything up to the first blank line.
    fn frame(&mut self) -> Option<Bytes> {
        let bytes = &self.waiting[..];
        // The line end before may be two bytes back: look at them again.
        let mut at = self.scanned.saturating_sub(2);
        while let Some(found) = bytes[at..].iter().position(|&b| b == b'\n') {
            at += found + 1;
            let line_end = match &bytes[at..] {
                [b'\n', ..] => 1,
                [b'\r', b'\n', ..] => 2,
                _ => continue,
            };
            self.scanned = 0;
            let frame = self.waiting.split_to(at + line_end);
            return Some(self.without_mark(frame));
        }
        self.scanned = bytes.len();
        None
    }

    /// What is left at the end of the body: an event that lacks only its blank line counts, one
    /// that was cut inside a line does not.
    fn rest(&mut self) -> Option<Bytes> {
        let mut rest = std::mem::take(&mut self.waiting);
        self.scanned = 0;
        let whole = rest.ends_with(b"\n") || rest.trim_ascii_end().ends_with(b"data: [DONE]");
        if !whole {
            return None;
        }
        rest.extend_from_slice(b"\n\n");
        Some(self.without_mark(rest))
    }

    /// The piece; the first one without the byte order mark that a body may begin with, of which the
    /// parser takes one byte only, and panics.
    fn without_mark(&mut self, mut frame: BytesMut) -> Bytes {
        if !std::mem::replace(&mut self.begun, true) {
            while frame.starts_with(BYTE_ORDER_MARK) {
                frame.advance(BYTE_ORDER_MARK.len());
            }
        }
        frame.freeze()
    }
}

#[cfg(test)]
mod tests;
