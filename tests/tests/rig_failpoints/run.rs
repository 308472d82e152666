//! The whole rig, and its line.

use anyhow::Result;
use loopwright_tests::rig::{self, Chance, Outcome};

use super::round::World;

/// Runs of each lane, in CI and in full.
const RUNS: [u32; 2] = [5, 250];
/// Runs on one data directory.
const ON_ONE: u32 = 25;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_tool_call_is_what_its_class_says_wherever_the_server_dies() -> Result<()> {
    let seed = rig::seed()?;
    let mut outcome = Outcome::new("failpoints", seed);
    let done = rounds(seed, &mut outcome).await;
    outcome.take("the run", done);
    let runs = outcome.take_count("runs");
    outcome.finish(runs)
}

async fn rounds(seed: u64, outcome: &mut Outcome) -> Result<()> {
    let runs = RUNS[usize::from(rig::is_full())];
    let mut chance = Chance::new(seed, 0);
    for first in (1..=runs).step_by(ON_ONE as usize) {
        let temp = tempfile::tempdir()?;
        let mut world = World::start(temp.path(), &mut chance).await?;
        for round in first..(first + ON_ONE).min(runs + 1) {
            outcome.count("kills", 1);
            world.round(round, &mut chance, outcome).await?;
        }
    }
    Ok(())
}
