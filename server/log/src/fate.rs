//! Appends that are sent one behind the other, before the first of them is durable.
//!
//! The fence alone does not hold them together: of two records that were sent at once for seqs 7 and
//! 8, somebody else's 7 would let the second one in. So the second names the first. Invariant: a record
//! is taken only if all that it was sent behind were; in any stream of the log, in any state of it that
//! a crash can leave, it does not stand there without them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::AppendError;
use crate::record::NewRecord;

/// Whether an append was taken, as the log keeps it for those that are sent behind it.
#[derive(Clone, Debug, Default)]
pub struct Fate(Arc<AtomicBool>);

impl Fate {
    fn set(&self, taken: bool) {
        self.0.store(taken, Ordering::Release);
    }

    fn is_taken(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl NewRecord {
    /// What records are told that are sent behind this one, to this log. They are to be sent once this
    /// one's append was polled.
    pub fn fate(&mut self) -> Fate {
        self.fate.get_or_insert_default().clone()
    }

    /// Appended only if those were.
    #[must_use]
    pub fn behind(mut self, others: impl IntoIterator<Item = Fate>) -> NewRecord {
        self.behind.extend(others);
        self
    }

    /// Whether all that it was sent behind were taken.
    pub(crate) fn may_follow(&self) -> Result<(), AppendError> {
        match self.behind.iter().all(Fate::is_taken) {
            true => Ok(()),
            false => Err(AppendError::unavailable(
                "a record that it was sent behind was not taken",
            )),
        }
    }

    /// It is taken, or is not after all.
    pub(crate) fn set_fate(&self, taken: bool) {
        if let Some(fate) = &self.fate {
            fate.set(taken);
        }
    }
}
