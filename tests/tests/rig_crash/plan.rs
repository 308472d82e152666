//! How large a run is, and its one source of chance.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};

/// What a run is made from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// Where all chance comes from.
    pub(super) seed: u64,
    /// Times that the server is killed.
    pub(super) kills: u32,
}

/// Chance from a seed (splitmix64): what each part of the rig draws does not depend on the others.
#[derive(Clone, Debug)]
pub(super) struct Chance(u64);

impl Plan {
    /// `LOOPWRIGHT_RIG` = `full` or nothing, `LOOPWRIGHT_RIG_SEED` = a number or nothing.
    pub(super) fn from_env() -> Result<Self> {
        let full = std::env::var("LOOPWRIGHT_RIG").is_ok_and(|size| size == "full");
        let seed = match std::env::var("LOOPWRIGHT_RIG_SEED") {
            Ok(seed) => seed
                .parse()
                .with_context(|| format!("LOOPWRIGHT_RIG_SEED is `{seed}`, not a number"))?,
            Err(_) => SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
        };
        let kills = if full { 1_000 } else { 100 };
        Ok(Self { seed, kills })
    }

    /// The chance of one part of the rig.
    pub(super) fn chance(&self, part: u64) -> Chance {
        Chance(self.seed ^ part.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }
}

impl Chance {
    /// A number below `limit`, which is not 0.
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}
