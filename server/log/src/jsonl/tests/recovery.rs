//! Damage on disk: what is torn, what is rot, whose it was, and what can still be read.

use std::path::Path;

use super::fixture::*;
use super::*;
use crate::LogError;
use crate::disk::sim::SimDisk;
use crate::record::{Record, Timestamp};

#[test]
fn a_clean_end_leaves_nothing_to_recover() {
    let disk = filed(&["s1", "s2", "s1"]);
    let parts = start(&disk).unwrap();
    assert_eq!((parts.report.segments, parts.report.is_clean()), (0, true));
    assert_eq!(disk.content(&file("s1")).map(|c| c.is_empty()), Some(false));
}

#[test]
fn a_tail_torn_anywhere_even_inside_a_character_is_cut_and_swallows_no_next_record() {
    let good = journal_of(&["s1", "s2", "s1", "s1"])
        .content(&segment())
        .unwrap();
    for cut in line(&good, 4) + 1..good.len() {
        let disk = journal_of(&["s1", "s2", "s1", "s1"]);
        disk.put(&segment(), &good[..cut]);
        let mut parts = start(&disk).unwrap();
        assert_eq!(
            (seqs(&disk, "s1"), seqs(&disk, "s2")),
            (vec![1, 2], vec![1]),
            "cut at {cut}"
        );
        assert_eq!(parts.report.corrupt, []);
        let aside = &parts.report.set_aside[0];
        assert_eq!(
            disk.content(&aside.kept_in).unwrap(),
            &good[line(&good, 4)..cut]
        );
        let notes = parts
            .engine
            .stream(&StreamKey::parse("log/system/recovery").unwrap());
        parts.engine.load(&notes).unwrap();
        assert_eq!(notes.live.tail().0, 1, "the log's own stream tells of it");
        assert_eq!(append(&mut parts, "s1"), Ok(3), "cut at {cut}");
        drop(parts);
        disk.kill();
        drop(start(&disk).unwrap());
        assert_eq!(seqs(&disk, "s1"), [1, 2, 3], "cut at {cut}");
    }
}

#[test]
fn padding_after_the_last_record_is_a_torn_tail() {
    let disk = journal_of(&["s1", "s1"]);
    spoil(&disk, &segment(), |content| content.extend([0; 5000]));
    let mut parts = start(&disk).unwrap();
    assert_eq!(
        (seqs(&disk, "s1"), parts.report.set_aside[0].bytes),
        (vec![1, 2], 5000)
    );
    assert_eq!(append(&mut parts, "s1"), Ok(3));
}

/// Every bit of a journal, one at a time: noticed, the damaged record's stream keeps what stands
/// before it, the others keep everything.
#[test]
fn every_flipped_bit_of_the_journal_is_noticed() {
    let ids = ["s1", "s2", "s1", "s2", "s3", "s1"];
    let good = journal_of(&ids).content(&segment()).unwrap();
    let starts: Vec<usize> = (1..=ids.len()).map(|n| line(&good, n)).collect();
    let (mut opened, mut refused) = (0, 0);
    for bit in (0..good.len() * 8).step_by(if full() { 1 } else { 3 }) {
        let disk = journal_of(&ids);
        spoil(&disk, &segment(), |content| {
            content[bit / 8] ^= 1 << (bit % 8)
        });
        let report = match start(&disk) {
            Ok(parts) => parts.report,
            Err(OpenError::Damaged { .. }) => {
                refused += 1;
                continue;
            }
            Err(other) => panic!("bit {bit}: {other}"),
        };
        opened += 1;
        // A barrier belongs to the record after it, and holds no record itself.
        let damaged = starts
            .iter()
            .rposition(|start| start - 2 <= bit / 8)
            .unwrap();
        let torn = damaged == ids.len() - 1;
        let victim = ids[damaged];
        if bit / 8 == starts[damaged] - 2 {
            assert!(!report.is_clean(), "bit {bit} went unnoticed");
            assert_eq!(seqs(&disk, "s1").len(), 3, "bit {bit}");
            continue;
        }
        let condemned = report.corrupt.iter().any(|one| one.stream == key(victim));
        // The name of a stream that has no other record may itself be what was flipped.
        let unnamed = victim == "s3";
        let noticed = condemned || (torn || unnamed) && !report.is_clean();
        assert!(noticed, "bit {bit} went unnoticed: {report:?}");
        for id in ["s1", "s2", "s3"] {
            let end = if id == victim { damaged } else { ids.len() };
            let due = ids[..end].iter().filter(|one| **one == id).count();
            assert_eq!(seqs(&disk, id).len(), due, "bit {bit}: {id}");
        }
    }
    assert!(
        refused * 20 < opened,
        "{refused} starts refused, {opened} not"
    );
}

#[test]
fn rot_in_the_middle_condemns_the_stream_and_no_other() {
    let disk = journal_of(&["s1", "s2", "s1", "s2", "s1", "s2"]);
    spoil(&disk, &segment(), |content| {
        let at = line(content, 3) + 100;
        content[at] ^= 1;
    });
    let mut parts = start(&disk).unwrap();
    let [corruption] = &parts.report.corrupt[..] else {
        panic!("{:?}", parts.report)
    };
    assert_eq!(
        (corruption.stream.clone(), corruption.good_through),
        (key("s1"), 1)
    );
    let reason = "the journal has record 3 and no record 2 that it follows";
    assert!(corruption.reason.contains(reason), "{corruption:?}");
    assert_eq!(
        (seqs(&disk, "s1"), seqs(&disk, "s2")),
        (vec![1], vec![1, 2, 3])
    );
    let refused = append(&mut parts, "s1");
    assert!(
        matches!(refused, Err(AppendError::Corrupt(_))),
        "{refused:?}"
    );
    assert_eq!(append(&mut parts, "s2"), Ok(4));
    let kept = |name: &str| disk.paths().iter().any(|path| path.ends_with(name));
    assert!(
        kept("quarantine/segment-0000000001.jsonl"),
        "the evidence is kept"
    );
    drop(parts);
    disk.kill();
    let mut parts = start(&disk).unwrap();
    let refused = append(&mut parts, "s1");
    assert!(
        matches!(refused, Err(AppendError::Corrupt(_))),
        "a restart forgets nothing"
    );
}

#[test]
fn a_lost_last_record_is_missed_by_its_stream() {
    // Nothing of s1 comes after it: only the bad bytes themselves tell.
    let disk = journal_of(&["s1", "s1", "s2", "s2"]);
    spoil(&disk, &segment(), |content| {
        let at = line(content, 2) + 100;
        content[at] ^= 1;
    });
    let parts = start(&disk).unwrap();
    let [corruption] = &parts.report.corrupt[..] else {
        panic!("{:?}", parts.report)
    };
    assert_eq!(
        (corruption.stream.clone(), corruption.good_through),
        (key("s1"), 1)
    );
}

#[test]
fn damage_that_is_nobodys_stops_the_start_until_it_is_accepted() {
    let disk = journal_of(&["s1", "s1", "s2", "s2"]);
    spoil(&disk, &segment(), |content| {
        let (from, to) = (line(content, 2), line(content, 3) - 2);
        content[from..to].fill(b'#');
    });
    let refused = start(&disk).map(|_| ()).unwrap_err();
    assert!(matches!(refused, OpenError::Damaged { .. }), "{refused}");
    let way_out = "`loopwright log repair --dir /state`";
    assert!(refused.to_string().contains(way_out), "{refused}");
    disk.kill();
    let (_, seen) =
        JsonlLog::open_read_only_on(Arc::new(disk.clone()), Path::new("/state")).unwrap();
    assert_eq!(seen.nobodys().count(), 1, "a look tells: {seen:?}");
    let accepting = JsonlOptions {
        accept_damage: true,
        ..options()
    };
    let parts = Parts::open(Arc::new(disk.clone()), accepting).unwrap();
    assert_eq!(
        (seqs(&disk, "s1"), seqs(&disk, "s2")),
        (vec![1], vec![1, 2])
    );
    assert!(!parts.report.is_clean());
}

#[test]
fn a_repair_of_the_journal_accepts_what_is_nobodys_and_names_who_is_damaged() {
    let disk = journal_of(&["s1", "s2", "s3", "s1", "s2", "s3"]);
    spoil(&disk, &segment(), |content| {
        let nobodys = line(content, 3)..line(content, 4) - 2;
        content[nobodys].fill(b'#');
        let of_s1 = line(content, 3) + 100;
        content[of_s1] ^= 1;
    });
    assert!(matches!(start(&disk), Err(OpenError::Damaged { .. })));
    disk.kill();
    let dir = Path::new("/state");
    let repaired = repair_journal(&disk, dir).unwrap();
    let [nobodys] = &repaired.recovery.nobodys().collect::<Vec<_>>()[..] else {
        panic!("{repaired:?}")
    };
    let kept = disk.content(&nobodys.kept_in).unwrap();
    assert_eq!(kept.len() as u64, nobodys.bytes);
    assert_eq!(repaired.recovery.corrupt, repaired.condemned);
    let damaged: Vec<_> = repaired
        .condemned
        .iter()
        .map(|one| one.stream.id())
        .collect();
    assert_eq!(damaged, ["s1", "s3"]);
    let parts = start(&disk).unwrap();
    assert!(parts.report.is_clean(), "{:?}", parts.report);
    drop(parts);
    disk.kill();
    // What is damaged stays so until it is repaired by name.
    let again = repair_journal(&disk, dir).unwrap();
    assert!(again.recovery.is_clean());
    assert_eq!(again.condemned, repaired.condemned);
}

#[test]
fn what_the_journal_has_lost_the_file_may_have() {
    let disk = journal_of(&["s1", "s1", "s1"]);
    let lines = disk.content(&segment()).unwrap();
    let image: Vec<u8> = lines
        .split_inclusive(|b| *b == b'\n')
        .filter(|l| l.len() > 1)
        .flatten()
        .copied()
        .collect();
    drop(start(&disk).unwrap());
    disk.kill();
    // As after a kill between filing and the checkpoint.
    disk.put(&segment(), &lines);
    disk.put(&file("s1"), &image);
    disk.put(Path::new("/state/checkpoint.json"), b"");
    spoil(&disk, &segment(), |content| {
        let at = line(content, 2) + 100;
        content[at] ^= 1;
    });
    let parts = start(&disk).unwrap();
    assert_eq!(
        (
            seqs(&disk, "s1"),
            parts.report.refiled,
            parts.report.corrupt
        ),
        (vec![1, 2, 3], 1, vec![]),
        "the file keeps the second record, and the third is written again"
    );
    assert!(parts.report.manifest_damaged && !parts.report.set_aside.is_empty());
}

#[test]
fn a_record_that_neither_the_journal_nor_the_file_has_is_named() {
    let disk = journal_of(&["s1", "s1", "s1", "s1"]);
    let journal = disk.content(&segment()).unwrap();
    drop(start(&disk).unwrap());
    disk.kill();
    // As after a kill between filing and the checkpoint.
    disk.put(&segment(), &journal);
    disk.put(Path::new("/state/checkpoint.json"), b"");
    for path in [segment(), file("s1")] {
        spoil(&disk, &path, |content| {
            let at = line(content, 3) + 100;
            content[at] ^= 1;
        });
    }
    let parts = start(&disk).unwrap();
    let [corruption] = &parts.report.corrupt[..] else {
        panic!("{:?}", parts.report)
    };
    assert_eq!(corruption.good_through, 2);
    let reason = "its file has record 4, and no good record 3 before it";
    assert!(corruption.reason.contains(reason), "{corruption:?}");
}

/// What the journal has in place of a bad line does not make the lines after it good.
#[test]
fn a_bad_line_of_a_file_is_not_passed_over() {
    let disk = journal_of(&["s1", "s1", "s1"]);
    let journal = disk.content(&segment()).unwrap();
    drop(start(&disk).unwrap());
    disk.kill();
    disk.put(&segment(), &journal[..line(&journal, 3) - 1]);
    disk.put(Path::new("/state/checkpoint.json"), b"");
    spoil(&disk, &file("s1"), |content| {
        let at = line(content, 2) + 100;
        content[at] ^= 1;
    });
    let parts = start(&disk).unwrap();
    let [corruption] = &parts.report.corrupt[..] else {
        panic!("{:?}", parts.report)
    };
    assert_eq!(corruption.good_through, 1);
    let reason = "its file has record 3, and no good record 2 before it";
    assert!(corruption.reason.contains(reason), "{corruption:?}");
}

/// A disk without a checkpoint: two records in a stream's file, and the journal goes on with the third.
fn goes_on_in_the_journal() -> SimDisk {
    let disk = filed(&["s1", "s1"]);
    let mut parts = start(&disk).unwrap();
    append(&mut parts, "s1").unwrap();
    drop(parts);
    disk.kill();
    disk.put(Path::new("/state/checkpoint.json"), b"");
    disk
}

#[test]
fn a_start_reads_of_a_file_what_the_journal_goes_on_from() {
    let disk = goes_on_in_the_journal();
    spoil(&disk, &file("s1"), |content| content[100] ^= 1);
    let parts = start(&disk).unwrap();
    assert_eq!(parts.report.corrupt, [], "a reader meets it");
}

#[test]
fn a_file_without_the_record_that_the_journal_follows_is_damaged() {
    let disk = goes_on_in_the_journal();
    spoil(&disk, &file("s1"), |content| {
        let second = line(content, 2);
        let first = Record::decode(Bytes::copy_from_slice(&content[..second])).unwrap();
        let other = NewRecord::new(
            Timestamp::default(),
            1,
            Bytes::from_static(b"{\"other\":1}"),
        );
        let other = Record::encode(&key("s1"), 2, &other, first.crc);
        content.truncate(second);
        content.extend(other.raw());
    });
    let parts = start(&disk).unwrap();
    let [corruption] = &parts.report.corrupt[..] else {
        panic!("{:?}", parts.report)
    };
    let reason = "the journal goes on at record 3, the file lacks 2";
    assert!(corruption.reason.contains(reason), "{corruption:?}");
}

#[test]
fn a_newer_version_is_refused_everywhere() {
    let newer = |prefix: &str| {
        let covered = "{\"v\":2,\"stream\":\"session/a/s1\",\"prev\":\"00000000\"";
        format!(
            "{prefix}{covered},\"crc\":\"{:08x}\"}}\n",
            crc32c::crc32c(covered.as_bytes())
        )
    };
    let disk = journal_of(&["s1"]);
    disk.put(&segment(), newer("\n").as_bytes());
    let refused = start(&disk).map(|_| ()).unwrap_err();
    assert!(
        matches!(refused, OpenError::NewerVersion { found: 2, .. }),
        "{refused}"
    );

    let disk = filed(&["s1"]);
    let covered = "{\"v\":2,\"next_segment\":9,\"streams\":[]";
    let crc = crc32c::crc32c(covered.as_bytes());
    let checkpoint = format!("{covered},\"crc\":\"{crc:08x}\"}}\n");
    disk.put(Path::new("/state/checkpoint.json"), checkpoint.as_bytes());
    let refused = start(&disk).map(|_| ()).unwrap_err();
    assert!(
        matches!(refused, OpenError::NewerVersion { found: 2, .. }),
        "{refused}"
    );

    let disk = filed(&["s1"]);
    disk.put(Path::new("/state/checkpoint.json"), b"");
    disk.put(&file("s1"), newer("").as_bytes());
    let parts = start(&disk).unwrap();
    let refused = parts.engine.load(&parts.engine.stream(&key("s1")));
    assert_eq!(
        refused,
        Err(LogError::NewerVersion {
            found: 2,
            supported: 1
        })
    );
}

#[test]
fn a_server_that_crashes_again_and_again_keeps_eight_segments_and_no_more() {
    let disk = SimDisk::default();
    let mut found = Vec::new();
    for round in 0..12 {
        let mut parts = start(&disk).unwrap();
        assert_eq!(parts.report.streams, usize::from(round > 0));
        let records = usize::try_from(parts.report.records).unwrap();
        assert_eq!(records, parts.report.segments, "one in each");
        found.push(parts.report.segments);
        assert_eq!(append(&mut parts, "s").unwrap(), round + 1);
        drop(parts);
        disk.kill();
    }
    assert_eq!(found, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2]);
}
