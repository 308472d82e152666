//! How large a run is, and where its chance comes from.

use anyhow::Result;
use loopwright_tests::rig::{self, Chance};

/// What a run is made from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// Where all chance comes from.
    pub(super) seed: u64,
    /// Times that the server is killed.
    pub(super) kills: u32,
}

impl Plan {
    /// As `LOOPWRIGHT_RIG` and `LOOPWRIGHT_RIG_SEED` say.
    pub(super) fn from_env() -> Result<Self> {
        let kills = if rig::is_full() { 1_000 } else { 100 };
        let seed = rig::seed()?;
        Ok(Self { seed, kills })
    }

    /// The chance of one part of the rig.
    pub(super) fn chance(&self, part: u64) -> Chance {
        Chance::new(self.seed, part)
    }
}
