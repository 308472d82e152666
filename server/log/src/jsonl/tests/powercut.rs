//! The simulated disk: promises kept through thousands of lives, and the few that want a scene of
//! their own.

use super::*;
use crate::disk::sim::{Dice, SimDisk};

/// The rig of the whole repository runs more.
#[test]
fn nothing_acknowledged_is_lost() {
    let seeds = if fixture::full() { 20_000 } else { 900 };
    let tally = simulation::run(0..seeds);
    let enough = tally.acked > 30_000
        && tally.power_cuts > 1000
        && tally.in_recovery > 100
        && tally.failed > 150
        && tally.refused > 100
        && tally.torn > 100
        && tally.checkpoints > 300
        && tally.removed > 200
        && tally.removals_in_doubt > 50
        && tally.blobs > 500
        && tally.flips > 200
        && tally.told > 20;
    assert!(enough, "{tally}");
}

#[test]
fn a_seed_is_one_world() {
    assert_eq!(simulation::run(40..60), simulation::run(40..60));
}

#[test]
fn a_blob_that_was_kept_survives_a_power_cut() {
    for seed in 0..100 {
        let disk = SimDisk::default();
        let options = JsonlOptions::new("/state");
        let key = StreamKey::parse("session/a/s").unwrap();
        let payload = Bytes::from("large".repeat(100));
        // The second process finds what the first one may have left half done.
        for _ in 0..2 {
            let parts = Parts::open(Arc::new(disk.clone()), options.clone()).unwrap();
            parts.engine.put_blob(&key, payload.clone()).unwrap();
            disk.kill();
        }
        disk.power_cycle(&mut Dice::new(seed));
        let parts = Parts::open(Arc::new(disk.clone()), options).unwrap();
        let blob = BlobRef::of(&payload).unwrap();
        let found = parts.engine.get_blob(&key, &blob);
        assert_eq!(found, Ok(payload), "seed {seed}");
    }
}
