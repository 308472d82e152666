//! What follows when a driver is lost: another one after a while, or none any more.
//!
//! Invariant: the loss of one driver touches no other session. The wait before the next one is 1 s
//! and doubles with each loss in a row, up to 60 s; after [`MAX_LOSSES`] in a row the session is given
//! up, but for a log that does nothing now, which is waited for without end.
//!
//! [`MAX_LOSSES`]: crate::index::MAX_LOSSES

use std::{sync::Arc, time::Duration};

use loopwright_log::StreamKey;

use super::{super::name_of, Drivers};

/// How long a session waits for another driver after a first loss; it doubles with each one that
/// follows, up to a minute.
pub const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// How a driver was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// It panicked: an invariant does not hold.
    Panicked,
    /// It lost the fence, or the log refused what must not be refused.
    Lost,
    /// The log does nothing now.
    Unavailable,
}

impl Loss {
    fn label(self) -> &'static str {
        match self {
            Self::Panicked => "panicked",
            Self::Lost => "lost",
            Self::Unavailable => "unavailable",
        }
    }
}

impl Drivers {
    /// Has the session looked at again after a while, unless it is given up.
    pub(super) fn replace(
        self: &Arc<Self>,
        key: &StreamKey,
        loss: Loss,
        reason: &str,
        progressed: bool,
    ) {
        self.world.telemetry.metrics().driver_lost(loss.label());
        let troubles = self.world.index.troubles();
        let bounded = loss != Loss::Unavailable;
        let trouble = troubles.lost(key, reason, progressed, bounded);
        let (session, losses) = (name_of(key), trouble.losses);
        if self.world.log.failed().is_some() {
            tracing::warn!(session, %reason, losses, "a driver was lost with the log");
        } else if trouble.given_up {
            tracing::error!(
                session, namespace = key.namespace(), %reason, losses,
                "the session's drivers are lost again and again: it is FAILED, and waits for a \
                 command or the next start"
            );
        } else {
            let wait = wait_after(self.world.first_wait, losses);
            if loss == Loss::Panicked {
                tracing::error!(session, namespace = key.namespace(), %reason, losses, ?wait,
                    "a driver panicked; another one follows");
            } else {
                tracing::warn!(session, %reason, losses, ?wait, "a driver was lost");
            }
            let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            let at = self.world.clock.now().plus(wait);
            self.wake.set(key.clone(), at);
        }
    }
}

fn wait_after(first: Duration, losses: u32) -> Duration {
    let doubled = first.saturating_mul(1 << losses.saturating_sub(1).min(16));
    doubled.min(LONGEST_WAIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_from_one_second_to_a_minute() {
        let waits = [1, 2, 3, 4, 5, 6, 7, 8, u32::MAX].map(|n| wait_after(FIRST_WAIT, n).as_secs());
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    }
}
