//! The whole rig, and its line.

use anyhow::{Result, bail};
use loopwright_tests::rig::{self, Chance, Outcome, history::COUNTS};

use super::cut::World;

/// Cuts, in CI and in full.
const CUTS: [u64; 2] = [6, 60];
/// Cuts of one image.
const ON_ONE: u64 = 6;
/// Images without syncs until a loss must have shown.
const TRIES: u64 = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_that_clients_were_told_is_missing_after_a_power_cut() -> Result<()> {
    let seed = rig::seed()?;
    let mut outcome = Outcome::new("powercut", seed);
    if let Err(why) = World::can_be() {
        // Loop devices are not everywhere, and no test can make one: the one rig that may be skipped.
        rig::say(&format!("rig powercut skipped: {why:#}"));
        return Ok(());
    }
    for count in COUNTS {
        outcome.count(count, 0);
    }
    let cuts = CUTS[usize::from(rig::is_full())];
    let mut chance = Chance::new(seed, 0);
    for _ in 0..cuts / ON_ONE {
        let done = cut_often("always", &mut chance, ON_ONE, &mut outcome).await;
        outcome.take("the run", done);
    }
    outcome.finish(cuts)
}

/// The rig would see it, if not at once: a cut may come before anything is answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_log_that_is_not_synced_is_caught() -> Result<()> {
    let mut outcome = Outcome::new("powercut", rig::seed()?);
    if World::can_be().is_err() {
        return Ok(());
    }
    let mut chance = Chance::new(outcome.seed(), 1);
    for _ in 0..TRIES {
        let done = cut_often("none", &mut chance, 2, &mut outcome).await;
        if !outcome.is_ok() || done.is_err() {
            return Ok(());
        }
    }
    bail!("nothing was lost without a sync: the cut cuts nothing")
}

async fn cut_often(
    sync: &str,
    chance: &mut Chance,
    cuts: u64,
    outcome: &mut Outcome,
) -> Result<()> {
    let mut world = World::start(sync).await?;
    for _ in 0..cuts {
        world.cut(chance, outcome).await?;
    }
    world.end(outcome).await
}
