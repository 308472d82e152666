//! Appends that are sent one behind the other, before the first of them is durable.
//!
//! The fence alone does not hold them together: of two records that were sent at once for seqs 7 and
//! 8, somebody else's 7 would let the second one in. So the second names the first. Invariant: a record
//! is taken only if all that it was sent behind were; in any stream of the log, in any state of it that
//! a crash can leave, it does not stand there without them.

use tokio::sync::watch;

use crate::error::AppendError;
use crate::record::NewRecord;

/// Whether an append was taken, as the log keeps it for those that are sent behind it.
#[derive(Clone, Debug)]
pub struct Fate(watch::Receiver<Stage>);

/// How far an append has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Nothing has been sent; a record that is dropped like this never will be.
    Made,
    /// It waits in the log's queue: what is sent now stands behind it.
    Sent,
    Taken,
    Refused,
}

impl Fate {
    fn is_taken(&self) -> bool {
        *self.0.borrow() == Stage::Taken
    }
}

impl NewRecord {
    /// What records are told that are sent behind this one, to this log. They are to be sent once this
    /// one's append was polled: until it has its place, or is given up, they wait.
    pub fn fate(&mut self) -> Fate {
        let stage = self
            .fate
            .get_or_insert_with(|| watch::Sender::new(Stage::Made));
        Fate(stage.subscribe())
    }

    /// Appended only if those were.
    #[must_use]
    pub fn behind(mut self, others: impl IntoIterator<Item = Fate>) -> NewRecord {
        self.behind.extend(others);
        self
    }

    /// Returns once all that it is sent behind have their places in the log's queue, or are given up. An
    /// append whose stream is not in memory is looked at long before it is queued.
    pub(crate) async fn others_are_sent(&self) {
        for Fate(stage) in &self.behind {
            // An error says that it was given up, which `may_follow` answers.
            let _ = stage.clone().wait_for(|stage| *stage != Stage::Made).await;
        }
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

    pub(crate) fn set_stage(&self, stage: Stage) {
        if let Some(fate) = &self.fate {
            fate.send_replace(stage);
        }
    }
}
