//! One stream of the server that is opened again as often as it breaks.
//!
//! ```text
//! Opening --ok--> Open --item--> Open
//!    |             |
//!    +--broken-----+--> Waiting(backoff) --> Opening        while the error may pass and time is left
//!                  +--> Closed                              otherwise
//! ```
//!
//! Boundary: knows connections, silence and backoff; which cursor a stream is opened after, and what its
//! items mean, is its owner's. All state is held between polls, so a reader may be dropped in mid-wait.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use futures_util::Stream;
use tokio::time::{Instant, Sleep};
use tonic::Status;

use crate::{ClientOptions, Error};

/// The items of one open stream.
pub(crate) type Items<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
/// The request for a stream.
pub(crate) type Opening<T> = Pin<Box<dyn Future<Output = Result<Items<T>, Status>> + Send>>;

/// What a link reports.
#[derive(Debug)]
pub(crate) enum Report<T> {
    /// An item came.
    Item(T),
    /// The stream ended with OK.
    Ended,
    /// The stream broke, and is opened again after a while.
    Broken { error: Error, retry_in: Duration },
}

pub(crate) struct Link<T> {
    phase: Phase<T>,
    silence: Pin<Box<Sleep>>,
    options: ClientOptions,
    backoff: <ExponentialBuilder as backon::BackoffBuilder>::Backoff,
    failures: usize,
    failing_since: Option<Instant>,
    was_open: bool,
}

enum Phase<T> {
    Idle,
    Waiting(Pin<Box<Sleep>>),
    Opening(Opening<T>),
    Open(Items<T>),
    Closed,
}

impl<T> Link<T> {
    pub(crate) fn new(options: &ClientOptions) -> Self {
        Self {
            phase: Phase::Idle,
            silence: Box::pin(tokio::time::sleep(options.silence_timeout)),
            backoff: backoff(options),
            options: options.clone(),
            failures: 0,
            failing_since: None,
            was_open: false,
        }
    }

    /// The next report; `open` is asked for a new stream whenever one is needed. An error is final.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        open: &mut dyn FnMut() -> Opening<T>,
    ) -> Poll<Result<Report<T>, Error>> {
        loop {
            let failure = match &mut self.phase {
                Phase::Closed => return Poll::Ready(Ok(Report::Ended)),
                Phase::Idle => {
                    self.start(open());
                    continue;
                }
                Phase::Waiting(sleep) => {
                    ready!(sleep.as_mut().poll(cx));
                    self.start(open());
                    continue;
                }
                Phase::Opening(opening) => match opening.as_mut().poll(cx) {
                    Poll::Ready(Ok(items)) => {
                        self.phase = Phase::Open(items);
                        self.listen();
                        continue;
                    }
                    Poll::Ready(Err(status)) => Error::from_status(&status, &self.options.url),
                    Poll::Pending => ready!(self.poll_silence(cx)),
                },
                Phase::Open(items) => match items.as_mut().poll_next(cx) {
                    Poll::Ready(Some(Ok(item))) => {
                        self.listen();
                        return Poll::Ready(Ok(Report::Item(item)));
                    }
                    Poll::Ready(Some(Err(status))) => {
                        Error::from_status(&status, &self.options.url)
                    }
                    Poll::Ready(None) => return Poll::Ready(Ok(Report::Ended)),
                    Poll::Pending => ready!(self.poll_silence(cx)),
                },
            };
            return Poll::Ready(self.broken(failure));
        }
    }

    /// The stream did some good: the next failure is a first one.
    pub(crate) fn thrives(&mut self) {
        self.was_open = true;
        if self.failures > 0 {
            self.failures = 0;
            self.failing_since = None;
            self.backoff = backoff(&self.options);
        }
    }

    /// Gives the stream up for this error, and opens another one after a while if that may help.
    pub(crate) fn broken(&mut self, error: Error) -> Result<Report<T>, Error> {
        self.failures += 1;
        let since = *self.failing_since.get_or_insert_with(Instant::now);
        let spent = if self.was_open {
            since.elapsed() >= self.options.reconnect_for
        } else {
            self.failures > self.options.retries
        };
        if spent || !error.is_transient() {
            self.phase = Phase::Closed;
            return Err(error);
        }
        let delay = self.backoff.next().unwrap_or(MAX_DELAY);
        let retry_in = delay.max(error.retry_after().min(self.options.reconnect_for));
        self.phase = Phase::Waiting(Box::pin(tokio::time::sleep(retry_in)));
        Ok(Report::Broken { error, retry_in })
    }

    /// Ends for good.
    pub(crate) fn close(&mut self) {
        self.phase = Phase::Closed;
    }

    fn start(&mut self, opening: Opening<T>) {
        self.phase = Phase::Opening(opening);
        self.listen();
    }

    fn listen(&mut self) {
        let until = Instant::now() + self.options.silence_timeout;
        self.silence.as_mut().reset(until);
    }

    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        ready!(self.silence.as_mut().poll(cx));
        Poll::Ready(Error::Unreachable {
            url: self.options.url.clone(),
            cause: format!(
                "not even a heartbeat for {} s",
                self.options.silence_timeout.as_secs_f64()
            ),
        })
    }
}

const MAX_DELAY: Duration = Duration::from_secs(5);

/// The waits between one try and the next, without end; who waits decides when it is enough.
pub(crate) fn backoff(
    options: &ClientOptions,
) -> <ExponentialBuilder as backon::BackoffBuilder>::Backoff {
    ExponentialBuilder::default()
        .with_min_delay(options.retry_delay)
        .with_max_delay(MAX_DELAY)
        .with_jitter()
        .without_max_times()
        .build()
}
