//! When a call is given up: after too long a silence, or after too long in all.

use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// When to give up.
pub(super) struct Deadline {
    patience: Duration,
    whole: Duration,
    ends: Instant,
    alive: bool,
    sleep: Pin<Box<Sleep>>,
}

/// Which wait was too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Silence {
    /// The one between two messages.
    Longest(Duration),
    /// The one in all.
    Whole(Duration),
}

impl Deadline {
    /// From now on: `patience` for the next message, `whole` for all of them.
    pub(super) fn starting_now(patience: Duration, whole: Duration) -> Self {
        Self::until(Instant::now() + whole, patience, whole)
    }

    /// From now on `patience` for the next message, and no longer than to `ends`, which is where the
    /// `whole` time ends that began earlier.
    pub(super) fn until(ends: Instant, patience: Duration, whole: Duration) -> Self {
        let sleep = tokio::time::sleep_until(ends.min(Instant::now() + patience));
        Self {
            patience,
            whole,
            ends,
            alive: false,
            sleep: Box::pin(sleep),
        }
    }

    /// Whether there was a sign of life.
    pub(super) fn was_alive(&self) -> bool {
        self.alive
    }

    /// Ends when the wait has been too long.
    pub(super) async fn passed(&mut self) -> Silence {
        self.sleep.as_mut().await;
        if Instant::now() >= self.ends {
            Silence::Whole(self.whole)
        } else {
            Silence::Longest(self.patience)
        }
    }

    /// Whether the wait has been too long.
    pub(super) fn has_passed(&self) -> bool {
        self.sleep.is_elapsed()
    }

    /// There was a sign of life. Says so where it came after the end all the same.
    pub(super) fn start_anew(&mut self) -> Result<(), Silence> {
        self.alive = true;
        let now = Instant::now();
        if now >= self.ends {
            return Err(Silence::Whole(self.whole));
        }
        self.sleep
            .as_mut()
            .reset(self.ends.min(now + self.patience));
        Ok(())
    }
}
