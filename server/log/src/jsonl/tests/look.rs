//! Logs that are open for reading only: what they show, what they say, what they leave alone.

use std::path::Path;

use futures_util::StreamExt;

use super::fixture::*;
use super::*;
use crate::disk::sim::SimDisk;
use crate::record::{Record, Timestamp};
use crate::{BlobError, LogError, ReadItem};

fn look(disk: &SimDisk) -> (Arc<JsonlLog>, RecoveryReport) {
    JsonlLog::open_read_only_on(Arc::new(disk.clone()), Path::new("/state")).unwrap()
}

fn contents(disk: &SimDisk) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    let paths = disk.paths().into_iter();
    paths
        .map(|path| (path.clone(), disk.content(&path)))
        .collect()
}

async fn read(log: &dyn Log, id: &str) -> (Vec<Arc<Record>>, Option<LogError>) {
    let mut reader = log.read(&key(id), 0, ReadMode::ToTail);
    let mut facts = Vec::new();
    while let Some(item) = reader.next().await {
        match item {
            Ok(ReadItem::Fact(fact)) => facts.push(fact),
            Ok(_) => {}
            Err(error) => return (facts, Some(error)),
        }
    }
    (facts, None)
}

#[tokio::test]
async fn records_of_the_journal_show_and_nothing_changes() {
    let disk = filed(&["s1", "s1"]);
    let mut parts = start(&disk).unwrap();
    append(&mut parts, "s1").unwrap();
    append(&mut parts, "s3").unwrap();
    let before = contents(&disk);
    // The server still runs, and holds the lock.
    let (log, report) = look(&disk);
    assert!(report.is_clean(), "{report:?}");
    for (id, count, in_journal) in [("s1", 3, 1), ("s3", 1, 1), ("s2", 0, 0)] {
        let (facts, error) = read(&*log, id).await;
        assert_eq!((facts.len(), error), (count, None), "{id}");
        let verdict = log.verify(&key(id)).unwrap();
        assert!(verdict.is_good(), "{id}: {verdict}");
        assert_eq!(verdict.good_through, count as u64, "{id}: {verdict}");
        assert_eq!(verdict.in_journal, in_journal, "{id}: {verdict}");
    }
    let verdict = verify_stream(&disk, Path::new("/state"), &key("s3")).unwrap();
    assert_eq!((verdict.good_through, verdict.in_journal), (1, 1));
    assert_eq!(
        verdict.to_string(),
        "seq 1 to 1 can be read, 1 of them from the journal only"
    );
    let new = NewRecord::new(Timestamp::default(), 1, Bytes::from_static(b"{}"));
    let refused = log.append(&key("s1"), 3, new).await;
    assert!(matches!(refused, Err(AppendError::Unavailable { .. })));
    let refused = log.remove(&key("s1")).await;
    assert!(matches!(refused, Err(LogError::Unavailable { .. })));
    let refused = log.put_blob(&key("s1"), Bytes::from_static(b"x")).await;
    assert!(matches!(refused, Err(BlobError::Unavailable { .. })));
    log.close().await.unwrap();
    assert_eq!(contents(&disk), before);
    assert_eq!(append(&mut parts, "s1"), Ok(4), "the server goes on");
}

#[tokio::test]
async fn what_a_start_would_do_is_told_and_not_done() {
    let disk = journal_of(&["s1", "s2", "s1", "s2", "s1"]);
    spoil(&disk, &segment(), |content| {
        let at = line(content, 2) + 100;
        content[at] ^= 1;
        content.truncate(content.len() - 9);
    });
    let before = contents(&disk);
    let (log, report) = look(&disk);
    assert_eq!(contents(&disk), before);
    assert_eq!(report.corrupt.len(), 1, "{report:?}");
    let (facts, error) = read(&*log, "s2").await;
    assert_eq!(facts.len(), 0);
    assert!(matches!(error, Some(LogError::Corrupt(_))), "{error:?}");
    let verdict = log.verify(&key("s2")).unwrap();
    let condemned = verdict.condemned.as_deref().unwrap_or_default();
    assert!(condemned.contains("0000000001.jsonl"), "{verdict}");
    let verdict = log.verify(&key("s1")).unwrap();
    assert_eq!(
        (verdict.good_through, verdict.torn.len()),
        (2, 1),
        "{verdict}"
    );
    assert!(
        verdict.to_string().contains("never acknowledged"),
        "{verdict}"
    );
    let cut = report.cut_bytes(&key("s1"));
    assert_eq!(cut, Some(verdict.torn[0].bytes));
    assert_eq!(report.cut_bytes(&key("s3")), None);
    // The start says the same.
    let started = start(&disk).unwrap();
    assert_eq!(started.report.corrupt, report.corrupt);
    assert_eq!(started.report.cut_bytes(&key("s1")), cut);
}

#[test]
fn a_verdict_names_the_place() {
    let disk = filed(&["s1"; 5]);
    spoil(&disk, &file("s1"), |content| {
        let at = line(content, 3) + 100;
        content[at] ^= 1;
    });
    let offset = line(&disk.content(&file("s1")).unwrap(), 3) as u64;
    let verdict = verify_stream(&disk, Path::new("/state"), &key("s1")).unwrap();
    let found = verdict.fault.clone().unwrap();
    assert_eq!((found.offset, found.line, found.seq), (offset, 3, 3));
    assert_eq!(
        (
            verdict.good_through,
            verdict.good_after_fault,
            verdict.last_after_fault
        ),
        (2, 2, 5)
    );
    let told = verdict.to_string();
    for part in [
        "log.jsonl, line 3",
        "seq 3 was due",
        "2 good records",
        "seq 1 to 2 can be read",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
}

#[tokio::test]
async fn a_removed_stream_does_not_show() {
    let disk = journal_of(&["s1", "s1", "s2"]);
    let mut parts = start(&disk).unwrap();
    let stream = parts.engine.stream(&key("s1"));
    parts.engine.load(&stream).unwrap();
    let (done, _answer) = oneshot::channel();
    let removal = Removal { stream, done };
    parts
        .engine
        .write_tombstones(&mut parts.writer, vec![removal]);
    let (log, report) = look(&disk);
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(log.tail(&key("s1")).await, Ok(None));
    assert_eq!(log.tail(&key("s2")).await, Ok(Some(1)));
    assert!(
        disk.content(&file("s1")).is_some(),
        "a look removes nothing"
    );
}
