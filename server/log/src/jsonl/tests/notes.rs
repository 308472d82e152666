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

/// What a failed sync leaves behind reads as good, and another sync of it proves nothing: the next start
/// writes it anew before a checkpoint names it.
#[test]
fn a_sync_that_failed_takes_no_note_away() {
    let mut failed = 0;
    for sync in 1.. {
        let disk = torn();
        disk.plan(Plan {
            failing_sync: Some(sync),
            ..Plan::default()
        });
        let opened = start(&disk).is_ok();
        disk.kill();
        disk.plan(Plan::default());
        drop(start(&disk).unwrap());
        disk.kill();
        disk.power_cycle(&mut Dice::new(sync));
        let parts = start(&disk).unwrap();
        assert_eq!(parts.report.corrupt, [], "sync {sync} had failed");
        assert_eq!(parts.report.owed.len(), 1, "sync {sync} had failed");
        if opened {
            break;
        }
        failed += 1;
    }
    assert!(failed > 5, "{failed}");
}

/// A disk without room for the note: the start serves, and the next one finds nothing that is not there.
#[test]
fn a_note_that_has_no_room_is_not_in_the_checkpoint() {
    let used: usize = {
        let disk = torn();
        let paths = disk.paths();
        paths
            .iter()
            .filter_map(|path| Some(disk.content(path)?.len()))
            .sum()
    };
    let notes = StreamKey::parse("log/system/recovery").unwrap();
    let notes = path::Layout::new("/state".into()).file(&notes);
    let mut without_note = 0;
    for room in 0..2_000 {
        let disk = torn();
        disk.plan(Plan {
            capacity: Some((used + room) as u64),
            ..Plan::default()
        });
        let opened = start(&disk).is_ok();
        let noted = disk.content(&notes).is_some_and(|notes| !notes.is_empty());
        without_note += usize::from(opened && !noted);
        disk.kill();
        disk.plan(Plan::default());
        let parts = start(&disk).unwrap();
        assert_eq!(parts.report.corrupt, [], "{room} bytes of room");
    }
    assert!(without_note > 0);
}
