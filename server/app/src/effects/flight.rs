//! How far an effect is, for a driver that no longer wants it.
//!
//! Invariant: it only goes forward, from `Begun` by `Sent` to `Answered`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// How far an effect is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Stage {
    /// Nothing has left this server: given up now, it has done nothing.
    Begun,
    /// It was sent: an answer may be on its way, or here and not looked at.
    Sent,
    /// The answer is here; what is left of the effect is to keep it.
    Answered,
}

/// The stage of one effect. Clones are the same effect.
#[derive(Clone, Debug, Default)]
pub struct Flight(Arc<AtomicU8>);

impl Flight {
    /// From now on something is on its way.
    pub fn sent(&self) {
        self.reach(Stage::Sent);
    }

    /// From now on the answer is here.
    pub fn answered(&self) {
        self.reach(Stage::Answered);
    }

    /// How far it is.
    #[must_use]
    pub fn stage(&self) -> Stage {
        match self.0.load(Ordering::Relaxed) {
            stage if stage == Stage::Begun as u8 => Stage::Begun,
            stage if stage == Stage::Sent as u8 => Stage::Sent,
            _ => Stage::Answered,
        }
    }

    fn reach(&self, stage: Stage) {
        self.0.fetch_max(stage as u8, Ordering::Relaxed);
    }
}
