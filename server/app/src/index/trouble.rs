//! Sessions whose drivers were lost, one after the other, and those that no driver can have: what lists
//! say of them.
//!
//! Boundary: in memory alone, for a start tries every session anew; drivers tell it, briefs show it.
//! Invariant: a session is in here from the loss of a driver until one of its drivers has written
//! something of its own, or ended in order.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use loopwright_log::StreamKey;

/// Drivers of a session that are lost in a row, none of which wrote anything but that it attached,
/// before the session is given up: then it waits for a command, or for the next start.
pub const MAX_LOSSES: u32 = 5;

/// A session whose last driver was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Drivers lost in a row; 0 where none can even begin, as its log cannot be folded.
    pub losses: u32,
    /// Nobody tries again by himself.
    pub given_up: bool,
    /// What the last one met, for people.
    pub reason: Arc<str>,
}

/// The register of them; usually empty.
#[derive(Debug, Default)]
pub struct Troubles(Mutex<HashMap<StreamKey, Trouble>>);

impl Troubles {
    /// A driver was lost: how it stands now. One that `progressed` begins a new row; a loss that is
    /// not `bounded` never makes a session given up.
    pub fn lost(&self, key: &StreamKey, reason: &str, progressed: bool, bounded: bool) -> Trouble {
        let mut all = self.lock();
        let before = all.get(key).filter(|_| !progressed);
        let losses = before.map_or(0, |before| before.losses).saturating_add(1);
        let trouble = Trouble {
            losses,
            given_up: bounded && losses >= MAX_LOSSES,
            reason: reason.into(),
        };
        all.insert(key.clone(), trouble.clone());
        trouble
    }

    /// No driver can have the session, whatever is tried: its log is damaged, or of a newer version.
    pub fn undrivable(&self, key: &StreamKey, reason: &str) {
        let trouble = Trouble {
            losses: 0,
            given_up: true,
            reason: reason.into(),
        };
        self.lock().insert(key.clone(), trouble);
    }

    /// A driver got somewhere, or the session is gone.
    pub fn over(&self, key: &StreamKey) {
        self.lock().remove(key);
    }

    /// How a session stands; `None` for one that is well.
    #[must_use]
    pub fn of(&self, key: &StreamKey) -> Option<Trouble> {
        self.lock().get(key).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<StreamKey, Trouble>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
