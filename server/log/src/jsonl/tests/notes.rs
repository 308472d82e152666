//! What a start has cut is owed to the streams that lost it, however many starts later.

use std::path::Path;

use super::fixture::*;
use super::*;
use crate::disk::sim::{Dice, Plan, SimDisk};

/// The last record, of s2, is torn.
fn torn() -> SimDisk {
    let disk = journal_of(&["s1", "s2", "s2"]);
    spoil(&disk, &segment(), |content| {
        content.truncate(content.len() - 9)
    });
    disk
}

#[test]
fn a_cut_is_owed_at_every_start_until_the_stream_goes_on() {
    let disk = torn();
    let parts = start(&disk).unwrap();
    let cut = parts.report.cut_bytes(&key("s2")).unwrap();
    let owed = vec![(key("s2"), cut)];
    assert_eq!(parts.report.owed, owed);
    drop(parts);
    disk.kill();
    for _ in 0..2 {
        let mut parts = start(&disk).unwrap();
        assert!(parts.report.is_clean(), "{:?}", parts.report);
        assert_eq!(parts.report.owed, owed);
        append(&mut parts, "s1").unwrap();
        drop(parts);
        disk.kill();
    }
    append(&mut start(&disk).unwrap(), "s2").unwrap();
    disk.kill();
    assert_eq!(start(&disk).unwrap().report.owed, []);
}

#[test]
fn what_a_repair_has_cut_is_owed_too() {
    let disk = torn();
    let repaired = repair_journal(&disk, Path::new("/state")).unwrap();
    assert_eq!(
        (repaired.recovery.owed.len(), repaired.condemned),
        (1, vec![])
    );
    assert_eq!(start(&disk).unwrap().report.owed, repaired.recovery.owed);
}

#[test]
fn a_stream_that_is_removed_is_owed_nothing() {
    let disk = torn();
    let mut parts = start(&disk).unwrap();
    let stream = parts.engine.stream(&key("s2"));
    parts.engine.load(&stream).unwrap();
    let (done, mut answer) = oneshot::channel();
    let removal = vec![Removal { stream, done }];
    parts.engine.write_tombstones(&mut parts.writer, removal);
    parts.engine.file_pass(&mut parts.filer);
    assert_eq!(answer.try_recv().unwrap(), Ok(true));
    drop(parts);
    disk.kill();
    assert_eq!(start(&disk).unwrap().report.owed, []);
}

#[test]
fn no_loss_of_power_takes_the_word_away() {
    for cut in 1.. {
        let disk = torn();
        let power_cut_at = Some(cut);
        disk.plan(Plan {
            power_cut_at,
            ..Plan::default()
        });
        let opened = start(&disk).is_ok();
        disk.power_cycle(&mut Dice::new(cut));
        disk.plan(Plan::default());
        let parts = start(&disk).unwrap();
        let owed = &parts.report.owed;
        assert_eq!(owed.len(), 1, "power lost at operation {cut}: {owed:?}");
        assert_eq!(owed[0].0, key("s2"));
        if opened {
            assert!(cut > 10, "{cut}");
            return;
        }
    }
}
