//! One effect under way, and how it is given up.
//!
//! Invariants: an effect that is no longer wanted starts nothing; an answer that is here already is
//! not thrown away, so that the core may write it down as late.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use futures_util::{future::BoxFuture, task::AtomicWaker};
use loopwright_core::{What, effect::EffectKey, ids::Attempt};

use crate::effects::flight::{Flight, Stage};

/// What an effect does: resolves to the input that reports its end.
pub(super) struct Work {
    pub(super) future: BoxFuture<'static, What>,
    /// How far it is.
    pub(super) flight: Flight,
    /// The attempt that it is about; 0 where it has none.
    pub(super) attempt: Attempt,
}

/// An effect under way; resolves to `None` once it is given up.
pub(super) struct Effect {
    key: EffectKey,
    work: Work,
    control: Arc<Control>,
}

/// A handle of an effect under way. Dropping it gives the effect up.
pub(super) struct Running(Arc<Control>);

/// How an effect ended.
pub(super) struct Done {
    pub(super) key: EffectKey,
    pub(super) attempt: Attempt,
    pub(super) what: What,
    /// Whether it was given up before its answer was looked at.
    pub(super) late: bool,
}

#[derive(Default)]
struct Control {
    unwanted: AtomicBool,
    waker: AtomicWaker,
}

impl Work {
    /// Work that has no answer before its end.
    pub(super) fn new(future: BoxFuture<'static, What>) -> Self {
        Self {
            future,
            flight: Flight::default(),
            attempt: 0,
        }
    }

    /// Work of which only the end is left to say.
    pub(super) fn done(what: What) -> Self {
        Self::new(Box::pin(std::future::ready(what)))
    }
}

impl Effect {
    /// Runs for as long as the handle lives.
    pub(super) fn new(key: EffectKey, work: Work) -> (Self, Running) {
        let control = Arc::new(Control::default());
        let effect = Self {
            key,
            work,
            control: Arc::clone(&control),
        };
        (effect, Running(control))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.unwanted.store(true, Ordering::Release);
        self.0.waker.wake();
    }
}

impl Future for Effect {
    type Output = Option<Done>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.control.waker.register(cx.waker());
        let late = self.control.unwanted.load(Ordering::Acquire);
        // Looked at once more, it could go and send.
        if late && self.work.flight.stage() == Stage::Begun {
            return Poll::Ready(None);
        }
        match self.work.future.as_mut().poll(cx) {
            Poll::Ready(what) => Poll::Ready(Some(Done {
                key: self.key,
                attempt: self.work.attempt,
                what,
                late,
            })),
            Poll::Pending if late && self.work.flight.stage() < Stage::Answered => {
                Poll::Ready(None)
            }
            Poll::Pending => Poll::Pending,
        }
    }
}
#[cfg(test)]
mod tests;
