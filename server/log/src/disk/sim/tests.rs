//! The simulated disk itself must not be kinder than a real one.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::disk::append_all;

fn file(disk: &SimDisk, name: &str) -> Arc<dyn DiskFile> {
    disk.open(Path::new(name), OpenAs::Append).unwrap()
}

fn disk() -> SimDisk {
    let disk = SimDisk::default();
    disk.create_dir(Path::new("/d")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    disk
}

fn append(file: &Arc<dyn DiskFile>, text: &'static str) -> io::Result<()> {
    append_all(&**file, &[text.as_bytes()])
}

#[test]
fn synced_bytes_survive_and_others_may_not() {
    let mut lost = 0;
    for seed in 0..100 {
        let disk = disk();
        let log = file(&disk, "/d/log");
        append(&log, "kept").unwrap();
        log.sync().unwrap();
        disk.sync_dir(Path::new("/d")).unwrap();
        append(&log, "perhaps").unwrap();
        disk.power_cycle(&mut Dice::new(seed));
        let content = disk.content(Path::new("/d/log")).unwrap();
        assert!(content.starts_with(b"kept"));
        lost += usize::from(content != b"keptperhaps");
    }
    assert!(lost > 50);
}

#[test]
fn a_name_that_was_not_synced_may_be_lost() {
    let mut lost = 0;
    for seed in 0..100 {
        let disk = disk();
        let log = file(&disk, "/d/log");
        append(&log, "x").unwrap();
        log.sync().unwrap();
        disk.power_cycle(&mut Dice::new(seed));
        lost += usize::from(disk.content(Path::new("/d/log")).is_none());
    }
    assert!(lost > 10);
}

#[test]
fn a_sync_after_a_failed_one_proves_nothing() {
    let disk = disk();
    let log = file(&disk, "/d/log");
    disk.sync_dir(Path::new("/d")).unwrap();
    disk.plan(Plan {
        failing_sync: Some(1),
        ..Plan::default()
    });
    append(&log, "ghost").unwrap();
    log.sync().unwrap_err();
    log.sync().unwrap();
    assert_eq!(disk.content(Path::new("/d/log")).unwrap(), b"ghost");
    disk.power_cycle(&mut Dice::new(1));
    assert_ne!(disk.content(Path::new("/d/log")).unwrap(), b"ghost");
}

#[test]
fn a_full_disk_takes_a_part() {
    let disk = disk();
    let log = file(&disk, "/d/log");
    disk.plan(Plan {
        capacity: Some(3),
        ..Plan::default()
    });
    assert_eq!(
        append(&log, "four").unwrap_err().kind(),
        io::ErrorKind::StorageFull
    );
    assert_eq!(log.size().unwrap(), 3);
}

#[test]
fn after_the_power_cut_nothing_works() {
    let disk = disk();
    let log = file(&disk, "/d/log");
    disk.plan(Plan {
        power_cut_at: Some(2),
        ..Plan::default()
    });
    append(&log, "a").unwrap();
    append(&log, "bb").unwrap_err();
    log.sync().unwrap_err();
    assert!(disk.list(Path::new("/d")).is_err());
    assert_eq!(disk.operations(), 4);
}
