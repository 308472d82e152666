//! How a body leaves the mock: in pieces, cut, or stalled.

use std::{convert::Infallible, sync::Arc};

use axum::{
    body::Body,
    http::header,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;

use super::{Shared, answer::Shape};

/// Counts a stream as open for as long as it lives.
#[derive(Debug)]
pub(super) struct Open(Arc<Shared>);

enum Step {
    Send(Bytes),
    Break,
    Stall,
}

impl Open {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        shared.counts.send_modify(|counts| counts.1 += 1);
        Self(shared)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.counts.send_modify(|counts| counts.1 -= 1);
    }
}

/// An event stream of `body`, sent in this shape.
pub(super) fn response(mut shape: Shape, body: Vec<u8>, open: Open) -> Response {
    if let Some(text) = shape.stall_before {
        let place = body.windows(text.len()).rposition(|w| w == text.as_bytes());
        shape.stall = Some(place.expect("the text is in the reply"));
    }
    let stops = [shape.cut, shape.end, shape.stall];
    let end = stops
        .into_iter()
        .flatten()
        .min()
        .map_or(body.len(), |at| at.min(body.len()));
    let sent = Bytes::from(body).slice(..end);
    let piece = shape.piece.unwrap_or(usize::MAX).max(1);
    let mut steps: Vec<Step> = Vec::new();
    let mut from = 0;
    while from < sent.len() {
        let to = from.saturating_add(piece).min(sent.len());
        steps.push(Step::Send(sent.slice(from..to)));
        from = to;
    }
    if shape.cut.is_some() {
        steps.push(Step::Break);
    } else if shape.stall.is_some() {
        steps.push(Step::Stall);
    }
    let body = Body::from_stream(stream::unfold((steps.into_iter(), open), next));
    ([(header::CONTENT_TYPE, "text/event-stream")], body).into_response()
}

type Steps = (std::vec::IntoIter<Step>, Open);

async fn next((mut steps, open): Steps) -> Option<(Result<Bytes, std::io::Error>, Steps)> {
    // Let hyper write what it has, so that each piece is a write of its own.
    tokio::task::yield_now().await;
    let item = match steps.next()? {
        Step::Send(bytes) => Ok(bytes),
        Step::Break => Err(std::io::Error::other("the mock breaks off")),
        Step::Stall => match std::future::pending::<Infallible>().await {},
    };
    Some((item, (steps, open)))
}
