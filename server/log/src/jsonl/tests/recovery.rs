//! Damage on disk: what is torn, what is rot, whose it was, and what can still be read.

use std::path::Path;

use futures_util::StreamExt;

use super::*;
use crate::disk::sim::SimDisk;
use crate::record::{Record, Timestamp};
use crate::{LogError, ReadItem};

fn key(id: &str) -> StreamKey {
    StreamKey::parse(&format!("session/a/{id}")).unwrap()
}

fn options() -> JsonlOptions {
    JsonlOptions::new("/state")
}

fn open(disk: &SimDisk) -> Result<Parts, OpenError> {
    Parts::open(Arc::new(disk.clone()), options())
}

/// Appends one record as a batch of its own.
fn append(parts: &mut Parts, id: &str) -> Result<Seq, AppendError> {
    let stream = parts.engine.stream(&key(id));
    parts.engine.load(&stream).unwrap();
    let expected = stream.live.tail().0;
    let body = format!("{{\"events\":[{{\"N\":\"{id}-{expected}\"}}]}}");
    let record = NewRecord::new(Timestamp::default(), 1, body.into());
    let (done, mut answer) = oneshot::channel();
    parts.engine.write_batch(
        &mut parts.writer,
        vec![Pending {
            stream,
            expected,
            record,
            done,
        }],
    );
    answer.try_recv().unwrap()
}

/// A disk whose journal holds the records of these streams, in this order; the process was killed
/// before it filed any.
fn journal_of(ids: &[&str]) -> SimDisk {
    let disk = SimDisk::default();
    let mut parts = open(&disk).unwrap();
    for id in ids {
        append(&mut parts, id).unwrap();
    }
    drop(parts);
    disk.kill();
    disk
}

/// A disk whose files hold the records, checkpointed.
fn filed(ids: &[&str]) -> SimDisk {
    let disk = SimDisk::default();
    let mut parts = open(&disk).unwrap();
    for id in ids {
        append(&mut parts, id).unwrap();
    }
    parts
        .engine
        .filing
        .push_segment(parts.writer.segment().number);
    parts.engine.file_pass(&mut parts.filer);
    assert_eq!(parts.engine.stats().checkpoints, 1);
    drop(parts);
    disk.kill();
    disk
}

fn segment() -> PathBuf {
    path::Layout::new("/state".into()).segment(1)
}

fn file(id: &str) -> PathBuf {
    path::Layout::new("/state".into()).file(&key(id))
}

/// Where the n-th line with a record begins, from 1.
fn line(content: &[u8], n: usize) -> usize {
    let mut starts = (0..content.len()).filter(|at| content[*at..].starts_with(b"{\"v\":1"));
    starts.nth(n - 1).unwrap()
}

fn seqs(disk: &SimDisk, id: &str) -> Vec<Seq> {
    let content = disk.content(&file(id)).unwrap_or_default();
    let mut mark = stream::Mark::default();
    for line in content.split_inclusive(|byte| *byte == b'\n') {
        match session_file::decode(Bytes::copy_from_slice(line), &key(id), mark) {
            Ok(record) => mark = mark.after(&record),
            Err(_) => break,
        }
    }
    (1..=mark.seq).collect()
}

fn spoil(disk: &SimDisk, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut content = disk.content(path).unwrap();
    change(&mut content);
    disk.put(path, &content);
}

#[test]
fn a_clean_end_leaves_nothing_to_recover() {
    let disk = filed(&["s1", "s2", "s1"]);
    let parts = open(&disk).unwrap();
    assert_eq!((parts.report.segments, parts.report.is_clean()), (0, true));
    assert_eq!(disk.content(&file("s1")).map(|c| c.is_empty()), Some(false));
}

#[test]
fn a_journal_cut_anywhere_in_its_last_record_loses_that_one_alone() {
    let good = journal_of(&["s1", "s2", "s1", "s1"])
        .content(&segment())
        .unwrap();
    for cut in line(&good, 4) + 1..good.len() {
        let disk = journal_of(&["s1", "s2", "s1", "s1"]);
        disk.put(&segment(), &good[..cut]);
        let parts = open(&disk).unwrap();
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
        assert_eq!(notes.live.tail().0, 1, "the log's own stream tells of it");
    }
}

#[test]
fn padding_after_the_last_record_is_a_torn_tail() {
    let disk = journal_of(&["s1", "s1"]);
    spoil(&disk, &segment(), |content| content.extend([0; 5000]));
    let mut parts = open(&disk).unwrap();
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
        let report = match open(&disk) {
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

fn full() -> bool {
    std::env::var("LOOPWRIGHT_RIG").is_ok_and(|size| size == "full")
}

#[test]
fn rot_in_the_middle_condemns_the_stream_and_no_other() {
    let disk = journal_of(&["s1", "s2", "s1", "s2", "s1", "s2"]);
    spoil(&disk, &segment(), |content| {
        let at = line(content, 3) + 100;
        content[at] ^= 1;
    });
    let mut parts = open(&disk).unwrap();
    let [corruption] = &parts.report.corrupt[..] else {
        panic!("{:?}", parts.report)
    };
    assert_eq!(
        (corruption.stream.clone(), corruption.good_through),
        (key("s1"), 1)
    );
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
    let mut parts = open(&disk).unwrap();
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
    let parts = open(&disk).unwrap();
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
    let refused = open(&disk).map(|_| ()).unwrap_err();
    assert!(matches!(refused, OpenError::Damaged { .. }), "{refused}");
    assert!(refused.to_string().contains("repair"), "{refused}");
    disk.kill();
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
fn what_the_journal_has_lost_the_file_may_have() {
    let disk = journal_of(&["s1", "s1", "s1"]);
    let lines = disk.content(&segment()).unwrap();
    let image: Vec<u8> = lines
        .split_inclusive(|b| *b == b'\n')
        .filter(|l| l.len() > 1)
        .flatten()
        .copied()
        .collect();
    drop(open(&disk).unwrap());
    disk.kill();
    // As after a kill between filing and the checkpoint.
    disk.put(&segment(), &lines);
    disk.put(&file("s1"), &image);
    disk.put(Path::new("/state/checkpoint.json"), b"");
    spoil(&disk, &segment(), |content| {
        let at = line(content, 2) + 100;
        content[at] ^= 1;
    });
    let parts = open(&disk).unwrap();
    assert_eq!(
        (seqs(&disk, "s1"), parts.report.corrupt),
        (vec![1, 2, 3], vec![])
    );
    assert!(parts.report.manifest_damaged && !parts.report.set_aside.is_empty());
}

#[test]
fn a_file_below_its_checkpoint_condemns_the_stream() {
    type Spoil = fn(&mut Vec<u8>);
    let spoils: [(&str, Spoil); 3] = [
        ("shorter", |content| content.truncate(content.len() - 10)),
        ("rotten", |content| {
            let at = content.len() - 30;
            content[at] ^= 1;
        }),
        ("gone", Vec::clear),
    ];
    for (name, change) in spoils {
        let disk = filed(&["s1", "s1", "s2"]);
        spoil(&disk, &file("s1"), change);
        let mut parts = open(&disk).unwrap();
        assert_eq!(parts.report.corrupt.len(), 1, "{name}");
        assert_eq!(parts.report.corrupt[0].stream, key("s1"), "{name}");
        assert!(
            matches!(append(&mut parts, "s1"), Err(AppendError::Corrupt(_))),
            "{name}"
        );
        assert_eq!(append(&mut parts, "s2"), Ok(2), "{name}");
    }
}

#[test]
fn what_lies_above_the_checkpoint_is_written_again_from_the_journal() {
    let disk = filed(&["s1", "s1"]);
    let mut parts = open(&disk).unwrap();
    append(&mut parts, "s1").unwrap();
    parts.engine.file_pass(&mut parts.filer);
    drop(parts);
    disk.kill();
    spoil(&disk, &file("s1"), |content| {
        content.truncate(content.len() - 7)
    });
    let mut parts = open(&disk).unwrap();
    assert_eq!(
        (parts.report.is_clean(), seqs(&disk, "s1")),
        (true, vec![1, 2, 3])
    );
    assert_eq!(append(&mut parts, "s1"), Ok(4));
}

#[test]
fn bytes_at_the_end_of_a_file_that_no_journal_explains_are_set_aside() {
    let disk = filed(&["s1"]);
    spoil(&disk, &file("s1"), |content| {
        content.extend(b"{\"half a rec")
    });
    let mut parts = open(&disk).unwrap();
    assert_eq!(
        (seqs(&disk, "s1"), parts.report.set_aside.len()),
        (vec![1], 1)
    );
    assert_eq!(append(&mut parts, "s1"), Ok(2));
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
    let refused = open(&disk).map(|_| ()).unwrap_err();
    assert!(
        matches!(refused, OpenError::NewerVersion { found: 2, .. }),
        "{refused}"
    );

    let disk = filed(&["s1"]);
    disk.put(Path::new("/state/checkpoint.json"), b"");
    disk.put(&file("s1"), newer("").as_bytes());
    let parts = open(&disk).unwrap();
    let refused = parts.engine.load(&parts.engine.stream(&key("s1")));
    assert_eq!(
        refused,
        Err(LogError::NewerVersion {
            found: 2,
            supported: 1
        })
    );
}

/// Every bit of a stream's file: verification names the line, a reader gets the good prefix.
#[tokio::test]
async fn every_flipped_bit_of_a_file_is_noticed() {
    let ids = ["s1"; 6];
    let good = filed(&ids).content(&file("s1")).unwrap();
    let starts: Vec<usize> = (1..=6).map(|n| line(&good, n)).collect();
    for bit in (0..good.len() * 8).step_by(if full() { 1 } else { 5 }) {
        let disk = filed(&[]);
        disk.create_dir(Path::new("/state/a")).unwrap();
        disk.create_dir(Path::new("/state/a/session")).unwrap();
        disk.create_dir(Path::new("/state/a/session/s1")).unwrap();
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        disk.put(&file("s1"), &bad);
        let verdict = verify_stream(&disk, Path::new("/state"), &key("s1")).unwrap();
        let place = starts.iter().rposition(|start| *start <= bit / 8).unwrap();
        assert_eq!(verdict.good_through, place as u64, "bit {bit}");
        assert_eq!(
            verdict.fault.unwrap().offset,
            starts[place] as u64,
            "bit {bit}"
        );
        let (log, _) = JsonlLog::open_on(Arc::new(disk), options()).unwrap();
        let mut reader = log.read(&key("s1"), 0, ReadMode::ToTail);
        let mut read = 0;
        let end = loop {
            match reader.next().await {
                Some(Ok(ReadItem::Fact(fact))) => read = fact.seq,
                other => break other,
            }
        };
        assert_eq!(read, place as u64, "bit {bit}");
        let told = matches!(&end, Some(Err(LogError::Corrupt(it))) if it.good_through == read);
        assert!(told, "bit {bit}: {end:?}");
    }
}

#[tokio::test]
async fn a_reader_backward_and_a_cursor_meet_the_damage_too() {
    let disk = filed(&["s1"; 9]);
    spoil(&disk, &file("s1"), |content| {
        let at = line(content, 4) + 100;
        content[at] ^= 1;
    });
    let (log, report) = JsonlLog::open_on(Arc::new(disk), options()).unwrap();
    assert!(report.is_clean(), "only the end is looked at");
    let back: Vec<_> = log.read_back(&key("s1"), 9).collect().await;
    let seqs: Vec<_> = back.iter().flatten().map(|fact| fact.seq).collect();
    assert_eq!(seqs, [8, 7, 6, 5]);
    let Some(Err(LogError::Corrupt(told))) = back.last() else {
        panic!("{back:?}")
    };
    assert_eq!(told.good_through, 3);
    let mut reader = log.read(&key("s1"), 4, ReadMode::ToTail);
    assert!(matches!(
        reader.next().await,
        Some(Err(LogError::Corrupt(_)))
    ));
    let new = NewRecord::new(Timestamp::default(), 1, Bytes::from_static(b"{}"));
    let refused = log.append(&key("s1"), 9, new).await;
    assert!(
        matches!(refused, Err(AppendError::Corrupt(_))),
        "{refused:?}"
    );
    let verdict = log.verify(&key("s1")).unwrap();
    assert_eq!(
        (
            verdict.good_through,
            verdict.good_after_fault,
            verdict.last_after_fault
        ),
        (3, 5, 9)
    );
}

#[test]
fn deleted_doubled_and_swapped_lines_are_found() {
    let good = filed(&["s1"; 5]).content(&file("s1")).unwrap();
    let lines: Vec<&[u8]> = good.split_inclusive(|byte| *byte == b'\n').collect();
    let cases = [
        ("deleted", vec![0, 1, 3, 4], 2),
        ("doubled", vec![0, 1, 1, 2, 3, 4], 2),
        ("swapped", vec![0, 2, 1, 3, 4], 1),
    ];
    for (name, order, good_through) in cases {
        let disk = filed(&["s1"]);
        let content: Vec<u8> = order
            .iter()
            .flat_map(|n| lines[*n].iter().copied())
            .collect();
        disk.put(&file("s1"), &content);
        let verdict = verify_stream(&disk, Path::new("/state"), &key("s1")).unwrap();
        assert_eq!(verdict.good_through, good_through, "{name}");
        assert!(
            verdict.fault.is_some() && verdict.good_after_fault > 0,
            "{name}"
        );
    }
    let nothing = verify_stream(&SimDisk::default(), Path::new("/state"), &key("s1")).unwrap();
    assert_eq!((nothing.file_bytes, nothing.fault), (0, None));
}

#[test]
fn records_of_another_stream_in_a_file_are_found() {
    let disk = filed(&["s1", "s2"]);
    let other = disk.content(&file("s2")).unwrap();
    disk.put(&file("s1"), &other);
    let verdict = verify_stream(&disk, Path::new("/state"), &key("s1")).unwrap();
    assert!(matches!(
        verdict.fault.unwrap().fault,
        crate::Fault::Stream { .. }
    ));
    assert!(Record::decode(Bytes::from(other)).is_err() || verdict.good_through == 0);
}

#[test]
fn a_repaired_stream_goes_on_after_its_good_prefix() {
    let disk = filed(&["s1"; 5]);
    spoil(&disk, &file("s1"), |content| {
        let at = line(content, 4) + 100;
        content[at] ^= 1;
    });
    let bad = disk.content(&file("s1")).unwrap();
    let serving = open(&disk).unwrap();
    let busy = repair_stream(&disk, Path::new("/state"), &key("s1")).unwrap_err();
    assert!(matches!(busy, OpenError::Locked { .. }), "{busy}");
    drop(serving);
    let repaired = repair_stream(&disk, Path::new("/state"), &key("s1")).unwrap();
    let aside = repaired.set_aside.unwrap();
    assert_eq!(repaired.tail, 3);
    assert_eq!(disk.content(&aside.kept_in).unwrap(), &bad[line(&bad, 4)..]);
    let mut parts = open(&disk).unwrap();
    assert_eq!(
        (parts.report.is_clean(), seqs(&disk, "s1")),
        (true, vec![1, 2, 3])
    );
    assert_eq!(append(&mut parts, "s1"), Ok(4));
    drop(parts);
    disk.kill();
    let again = repair_stream(&disk, Path::new("/state"), &key("s1")).unwrap();
    assert_eq!(
        again,
        crate::Repaired {
            tail: 4,
            set_aside: None
        },
        "nothing to repair"
    );
    let none = repair_stream(&disk, Path::new("/state"), &key("none")).unwrap();
    assert_eq!(none.tail, 0);
}

#[test]
fn repair_lifts_what_a_damaged_journal_has_condemned() {
    let disk = journal_of(&["s1", "s1", "s2", "s1"]);
    spoil(&disk, &segment(), |content| {
        let at = line(content, 2) + 100;
        content[at] ^= 1;
    });
    assert_eq!(open(&disk).unwrap().report.corrupt.len(), 1);
    disk.kill();
    let repaired = repair_stream(&disk, Path::new("/state"), &key("s1")).unwrap();
    assert_eq!((repaired.tail, repaired.set_aside), (1, None));
    let mut parts = open(&disk).unwrap();
    assert_eq!(append(&mut parts, "s1"), Ok(2));
}
