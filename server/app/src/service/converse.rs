//! Converse: commands up, and down what the commands answer and what the session's log says.
//!
//! A thin composition: each command is the one of LoopService, what is watched is a [`Watch`].
//! Invariant: one command is under way at a time, and no further one is read before it is answered,
//! so that commands keep their order and a client cannot pile them up. A rejected one never ends
//! the stream.

mod commands;

#[cfg(test)]
mod tests;

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::{FutureExt as _, Stream, StreamExt as _, future::BoxFuture, stream::BoxStream};
use loopwright_log::StreamKey;
use loopwright_proto::v1::{self, converse_response::Item};
use tonic::{Request, Response, Status, Streaming};

use super::{
    ServiceState,
    loops::Order,
    watch::{Sent, Watch, deleted, goodbye, heartbeat},
    wire::{Encoded, EncodedStream},
};
use crate::drain::DrainSignal;
use commands::{Answered, answer};

/// What a client sends.
type Up = BoxStream<'static, Result<v1::ConverseRequest, Status>>;

/// One Converse stream.
struct Conversation {
    state: ServiceState,
    order: Order,
    /// What the client sends; `None` once it has closed its half.
    up: Option<Up>,
    /// The command under way.
    under_way: Option<BoxFuture<'static, Answered>>,
    /// The session, once it is fixed, and what it says.
    watched: Option<(StreamKey, Watch)>,
    drain: DrainSignal,
    drained: BoxFuture<'static, ()>,
    ended: bool,
}

/// Converse, encoded.
///
/// # Errors
/// UNAUTHENTICATED alone; all else comes on the stream.
pub(super) async fn converse(
    state: ServiceState,
    request: Request<Streaming<v1::ConverseRequest>>,
) -> Result<Response<EncodedStream<v1::ConverseResponse>>, Status> {
    let order = Order::of(&request)?;
    Ok(Response::new(over(
        state,
        order,
        request.into_inner().boxed(),
    )))
}

/// A conversation over these commands.
fn over(state: ServiceState, order: Order, up: Up) -> EncodedStream<v1::ConverseResponse> {
    let drain = state.drain.clone();
    let mut hears = drain.clone();
    Conversation {
        state,
        order,
        up: Some(up),
        under_way: None,
        watched: None,
        drain,
        drained: async move { hears.wait().await }.boxed(),
        ended: false,
    }
    .boxed()
}

impl Conversation {
    /// Takes commands as far as they go without waiting; a reply, where there is one.
    fn poll_commands(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Item, Status>>> {
        loop {
            if let Some(under_way) = &mut self.under_way {
                let Poll::Ready(answered) = under_way.poll_unpin(cx) else {
                    return Poll::Pending;
                };
                self.under_way = None;
                if let Some(watched) = answered.watched {
                    self.watched = Some(watched);
                }
                return Poll::Ready(Some(Ok(Item::Reply(answered.reply))));
            }
            let Some(up) = &mut self.up else {
                return Poll::Pending;
            };
            match up.poll_next_unpin(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(request))) => {
                    let fixed = self.watched.as_ref().map(|(key, _)| key.clone());
                    let (state, order) = (self.state.clone(), self.order.clone());
                    self.under_way = Some(answer(state, order, fixed, request).boxed());
                }
                Poll::Ready(Some(Err(status))) => return Poll::Ready(Some(Err(status))),
                Poll::Ready(None) => {
                    self.up = None;
                    // Nothing to watch, and nobody who could ask for it any more.
                    return if self.watched.is_none() {
                        Poll::Ready(None)
                    } else {
                        Poll::Pending
                    };
                }
            }
        }
    }

    fn poll_watch(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Sent, Status>>> {
        match &mut self.watched {
            Some((_, watch)) => watch.poll_next_unpin(cx),
            // A goodbye without a session to come back to still says that it is the server's doing.
            None if self.drain.is_draining() || self.drained.poll_unpin(cx).is_ready() => {
                Poll::Ready(Some(Ok(Sent::Goodbye(0.into()))))
            }
            None => Poll::Pending,
        }
    }
}

impl Stream for Conversation {
    type Item = Result<Encoded<v1::ConverseResponse>, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(None);
        }
        match this.poll_commands(cx) {
            Poll::Ready(Some(Ok(item))) => return Poll::Ready(Some(Ok(encode(item)))),
            Poll::Ready(end) => {
                this.ended = true;
                return Poll::Ready(end.map(|end| end.map(encode)));
            }
            Poll::Pending => {}
        }
        let Poll::Ready(sent) = this.poll_watch(cx) else {
            return Poll::Pending;
        };
        this.ended = !matches!(
            sent,
            Some(Ok(Sent::Entry(_) | Sent::Delta(_) | Sent::Heartbeat(_)))
        );
        Poll::Ready(sent.map(|sent| {
            Ok(match sent? {
                Sent::Entry(bytes) | Sent::Delta(bytes) => Encoded::raw(bytes),
                Sent::Heartbeat(through) => encode(Item::Heartbeat(heartbeat(through))),
                Sent::Goodbye(cursor) => encode(Item::Goodbye(goodbye(cursor))),
                Sent::Deleted(cursor) => encode(Item::Goodbye(deleted(cursor))),
            })
        }))
    }
}

fn encode(item: Item) -> Encoded<v1::ConverseResponse> {
    Encoded::new(&v1::ConverseResponse { item: Some(item) })
}
