//! The simulated disk: promises kept through thousands of lives, and the few that want a scene of
//! their own.

use std::path::Path;

use super::*;
use crate::disk::Disk;
use crate::disk::sim::{Dice, SimDisk};

/// The rig of the whole repository runs more.
#[test]
fn nothing_acknowledged_is_lost() {
    let seeds = if fixture::full() { 20_000 } else { 900 };
    let tally = simulation::run(0..seeds);
    let enough = tally.acked > 30_000
        && tally.power_cuts > 1000
        && tally.unsynced > 100
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

#[test]
fn a_data_directory_survives_wherever_it_is() {
    for root in ["/srv/loopwright/state", "state", "loops/state"] {
        for seed in 0..20 {
            let disk = SimDisk::default();
            let open = || Parts::open(Arc::new(disk.clone()), JsonlOptions::new(root));
            let mut parts = open().unwrap();
            assert_eq!(fixture::append(&mut parts, "s"), Ok(1), "{root}");
            drop(parts);
            disk.power_cycle(&mut Dice::new(seed));
            let mut parts = open().unwrap();
            assert_eq!(
                fixture::append(&mut parts, "s"),
                Ok(2),
                "{root}, seed {seed}"
            );
        }
    }
}

#[test]
fn only_a_directory_that_was_there_may_be_one_that_is_not_ours_to_sync() {
    let open_in = |made: bool, kind| {
        let disk = SimDisk::default();
        for dir in [Path::new("/srv"), Path::new("/srv/state")] {
            assert!(!made || disk.create_dir(dir).unwrap());
        }
        disk.refuse(Path::new("/srv"), kind);
        Parts::open(Arc::new(disk.clone()), JsonlOptions::new("/srv/state")).map(drop)
    };
    // Who has made it has synced it: a volume that was mounted, a home that was set up.
    assert!(open_in(true, io::ErrorKind::PermissionDenied).is_ok());
    // A name that we made and that may not last carries no promise.
    assert!(open_in(false, io::ErrorKind::PermissionDenied).is_err());
    assert!(open_in(true, io::ErrorKind::StorageFull).is_err());
}

#[test]
fn what_cannot_be_read_is_not_what_is_missing() {
    let layout = path::Layout::new("/state".into());
    let key = fixture::key("s");
    for name in [layout.checkpoint(), layout.damage(&key)] {
        let disk = fixture::filed(&["s"]);
        disk.refuse(&name, io::ErrorKind::Other);
        let loaded = fixture::start(&disk).map(|parts| {
            let stream = parts.engine.stream(&key);
            parts.engine.load(&stream)
        });
        assert!(!matches!(loaded, Ok(Ok(()))), "{}", name.display());
    }
}
