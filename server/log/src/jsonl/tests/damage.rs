//! Damage in the files of streams: verification, readers, repair.

use std::path::Path;

use futures_util::StreamExt;

use super::fixture::*;
use super::*;
use crate::disk::sim::SimDisk;
use crate::record::{Record, Timestamp};
use crate::{LogError, ReadItem};

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
        let mut parts = start(&disk).unwrap();
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
    let mut parts = start(&disk).unwrap();
    append(&mut parts, "s1").unwrap();
    parts.engine.file_pass(&mut parts.filer);
    drop(parts);
    disk.kill();
    spoil(&disk, &file("s1"), |content| {
        content.truncate(content.len() - 7)
    });
    let mut parts = start(&disk).unwrap();
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
    let mut parts = start(&disk).unwrap();
    assert_eq!(
        (seqs(&disk, "s1"), parts.report.set_aside.len()),
        (vec![1], 1)
    );
    assert_eq!(append(&mut parts, "s1"), Ok(2));
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
    let nothing = verify_stream(&SimDisk::default(), Path::new("/state"), &key("s1"));
    assert!(matches!(nothing, Err(OpenError::Io { .. })), "{nothing:?}");
    let none = verify_stream(&filed(&[]), Path::new("/state"), &key("s1")).unwrap();
    assert_eq!((none.file_bytes, none.is_good()), (0, true));
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
    let serving = start(&disk).unwrap();
    let busy = repair_stream(&disk, Path::new("/state"), &key("s1")).unwrap_err();
    assert!(matches!(busy, OpenError::Locked { .. }), "{busy}");
    drop(serving);
    let repaired = repair_stream(&disk, Path::new("/state"), &key("s1")).unwrap();
    let aside = repaired.set_aside.unwrap();
    assert_eq!(repaired.tail, 3);
    assert_eq!(disk.content(&aside.kept_in).unwrap(), &bad[line(&bad, 4)..]);
    let mut parts = start(&disk).unwrap();
    assert_eq!(
        (parts.report.is_clean(), seqs(&disk, "s1")),
        (true, vec![1, 2, 3])
    );
    assert_eq!(append(&mut parts, "s1"), Ok(4));
    drop(parts);
    disk.kill();
    // The journal of the killed process must not bring back what repair settles.
    let again = repair_stream(&disk, Path::new("/state"), &key("s1")).unwrap();
    assert_eq!(
        (again.tail, again.set_aside, again.found),
        (4, None, None),
        "nothing to repair"
    );
    let kept = |path: &PathBuf| path.parent() == aside.kept_in.parent() && path != &aside.kept_in;
    let kept: Vec<_> = disk.paths().into_iter().filter(kept).collect();
    assert_eq!(kept, Vec::<PathBuf>::new(), "a good journal is no evidence");
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
    assert_eq!(start(&disk).unwrap().report.corrupt.len(), 1);
    disk.kill();
    let repaired = repair_stream(&disk, Path::new("/state"), &key("s1")).unwrap();
    assert_eq!((repaired.tail, repaired.set_aside), (1, None));
    let mut parts = start(&disk).unwrap();
    assert_eq!(append(&mut parts, "s1"), Ok(2));
}

#[test]
fn what_a_newer_release_has_written_is_not_cut() {
    let covered = "{\"v\":2,\"stream\":\"session/a/s1\",\"prev\":\"00000000\"";
    let crc = crc32c::crc32c(covered.as_bytes());
    let newer = format!("{covered},\"crc\":\"{crc:08x}\"}}\n");
    let disk = filed(&["s1"]);
    spoil(&disk, &file("s1"), |content| {
        content.extend(newer.as_bytes())
    });
    let before = disk.content(&file("s1"));
    let refused = repair_stream(&disk, Path::new("/state"), &key("s1")).unwrap_err();
    assert!(
        matches!(refused, OpenError::NewerVersion { found: 2, .. }),
        "{refused}"
    );
    let parts = start(&disk).unwrap();
    let [corruption] = &parts.report.corrupt[..] else {
        panic!("{:?}", parts.report)
    };
    let reason = "its file has record 2, and no good record 2 before it";
    assert!(corruption.reason.contains(reason), "{corruption:?}");
    assert_eq!(disk.content(&file("s1")), before);
}

#[test]
fn damage_that_names_the_wrong_owner_is_nobodys() {
    let lies = [
        // A stream that is not there, and not at its first record.
        "{\"v\":1,\"stream\":\"session/a/ghost\",\"seq\":2,\"prev\":\"1234abcd\",\"crc\":\"0\"}",
        // A record that its stream has, and the last one that it has.
        "{\"v\":1,\"stream\":\"session/a/s2\",\"seq\":1,\"prev\":\"1234abcd\",\"crc\":\"0\"}",
        "{\"v\":1,\"stream\":\"session/a/s2\",\"seq\":3,\"prev\":\"1234abcd\",\"crc\":\"0\"}",
        // A stream is condemned, but this is not what it misses.
        "#########################,\"prev\":\"1234abcd\",\"crc\":\"00000000\"}",
    ];
    for lie in lies {
        let disk = journal_of(&["s1", "s1", "s1", "s2", "s2", "s2"]);
        spoil(&disk, &segment(), |content| {
            let at = line(content, 6);
            content.splice(at..at, format!("{lie}\n\n").bytes());
            let second = line(content, 2) + 100;
            content[second] ^= 1;
        });
        let refused = start(&disk).map(|parts| parts.report);
        assert!(
            matches!(refused, Err(OpenError::Damaged { .. })),
            "{lie}: {refused:?}"
        );
    }
}

#[test]
fn damage_of_a_removed_stream_is_explained_by_what_was_filed_of_it() {
    let disk = filed(&["s1", "s1"]);
    let mut parts = start(&disk).unwrap();
    append(&mut parts, "s1").unwrap();
    append(&mut parts, "s2").unwrap();
    let stream = parts.engine.stream(&key("s1"));
    let (done, _answer) = oneshot::channel();
    let removal = Removal { stream, done };
    parts
        .engine
        .write_tombstones(&mut parts.writer, vec![removal]);
    drop(parts);
    disk.kill();
    let journal = disk.paths().into_iter().find(|path| {
        let content = disk.content(path).unwrap_or_default();
        path.starts_with("/state/journal") && content.windows(4).any(|at| at == b"s2-0")
    });
    spoil(&disk, &journal.unwrap(), |content| {
        // Only the checksum of the record before still tells whose it was.
        let head = line(content, 1);
        content[head..head + 60].fill(b'#');
    });
    let parts = start(&disk).unwrap();
    assert_eq!(parts.report.corrupt, []);
    assert_eq!((seqs(&disk, "s1"), seqs(&disk, "s2")), (vec![], vec![1]));
}

#[test]
fn what_was_set_aside_of_a_stream_alone_goes_with_it() {
    let disk = filed(&["s1", "s1", "s2", "s2"]);
    for id in ["s1", "s2"] {
        spoil(&disk, &file(id), |content| {
            let at = line(content, 2) + 100;
            content[at] ^= 1;
        });
        repair_stream(&disk, Path::new("/state"), &key(id)).unwrap();
        spoil(&disk, &file(id), |content| content.extend(b"{\"half a rec"));
    }
    // The manifest names neither of them after its repair: a record does.
    let mut parts = start(&disk).unwrap();
    append(&mut parts, "s2").ok();
    let of = |id: &str| {
        let name = format!(".a.{id}");
        let paths = disk.paths().into_iter();
        paths
            .filter(|path| {
                path.starts_with("/state/quarantine") && path.to_string_lossy().contains(&name)
            })
            .count()
    };
    assert!(of("s1") >= 1 && of("s2") >= 1, "{:?}", disk.paths());
    let before = of("s2");
    let stream = parts.engine.stream(&key("s1"));
    parts.engine.load(&stream).unwrap();
    let (done, mut answer) = oneshot::channel();
    let removal = vec![Removal { stream, done }];
    parts.engine.write_tombstones(&mut parts.writer, removal);
    parts.engine.file_pass(&mut parts.filer);
    assert_eq!(answer.try_recv().unwrap(), Ok(true));
    assert_eq!((of("s1"), of("s2")), (0, before));
}

#[test]
fn a_name_in_quarantine_is_of_one_stream() {
    let layout = path::Layout::new("/state".into());
    for id in ["s1", "s-1", "at-1", "before-at-7"] {
        let torn = layout.torn_of(&key(id), 7, 42);
        let cut = layout.cut_of(&key(id), 7, 3);
        let cut = cut.file_name().unwrap().to_str().unwrap();
        for name in [&*torn, cut] {
            assert!(layout.is_aside_of(name, &key(id)), "{name}");
            for other in ["s", "1", "s1", "s-1", "7", "at-1"] {
                assert!(
                    other == id || !layout.is_aside_of(name, &key(other)),
                    "{name}, {other}"
                );
            }
        }
    }
    for shared in ["segment-0000000001.jsonl", "segment-0000000001-at-7.torn"] {
        assert!(!layout.is_aside_of(shared, &key("s1")));
    }
}
