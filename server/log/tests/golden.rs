//! A log of the first release, byte for byte: every later release reads it, goes on with it, and
//! writes the same bytes for the same records.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use loopwright_log::disk::RealDisk;
use loopwright_log::{
    BlobRef, JsonlLog, JsonlOptions, Log, MemoryLog, NewRecord, ReadItem, ReadMode, Record,
    StreamKey, Timestamp, verify_stream,
};

const SESSION: &[u8] = include_bytes!("golden/session-v1.jsonl");
const JOURNAL: &[u8] = include_bytes!("golden/journal-v1.jsonl");

fn key() -> StreamKey {
    StreamKey::parse("session/acme/golden-1").unwrap()
}

async fn read(log: &dyn Log) -> Vec<Arc<Record>> {
    let items = log.read(&key(), 0, ReadMode::ToTail);
    let facts = items.filter_map(async |item| match item.unwrap() {
        ReadItem::Fact(fact) => Some(fact),
        ReadItem::Progress(_) | ReadItem::CompleteThrough(_) => None,
    });
    facts.collect().await
}

fn lines(facts: &[Arc<Record>]) -> Vec<u8> {
    facts
        .iter()
        .flat_map(|fact| [fact.line(), b"\n"].concat())
        .collect()
}

/// What the golden log says, checked by the text itself and not by our own reader.
fn meaning(fact: &Record) {
    let json: serde_json::Value = serde_json::from_slice(fact.line()).unwrap();
    assert_eq!(
        (&json["v"], &json["stream"]),
        (&1.into(), &key().as_str().into())
    );
    assert_eq!(json["at"], fact.at.to_string());
    assert_eq!(json["epoch"], fact.epoch);
    let body: serde_json::Value = serde_json::from_slice(&fact.body()).unwrap();
    assert_eq!(
        json["events"],
        body.get("events").cloned().unwrap_or_default()
    );
}

#[tokio::test]
async fn the_file_of_a_session_is_read_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("acme/session/golden-1");
    fs::create_dir_all(&home).unwrap();
    fs::write(home.join("log.jsonl"), SESSION).unwrap();
    fs::create_dir(dir.path().join("journal")).unwrap();
    let verdict = verify_stream(&RealDisk, dir.path(), &key()).unwrap();
    assert_eq!((verdict.good_through, verdict.fault), (8, None));
    let (log, report) = JsonlLog::open(JsonlOptions::new(dir.path())).unwrap();
    assert!(report.is_clean());
    let facts = read(&*log).await;
    assert_eq!(lines(&facts), SESSION);
    facts.iter().for_each(|fact| meaning(fact));
    assert_eq!(
        facts.iter().map(|fact| fact.epoch).collect::<Vec<_>>(),
        [1, 1, 1, 1, 1, 1, 2, 3]
    );
    let unknown = String::from_utf8(facts[4].body().to_vec()).unwrap();
    assert!(unknown.contains("AnEventOfALaterRelease") && unknown.contains("\"kept\":true"));
    let new = NewRecord::new(
        Timestamp::default(),
        3,
        Bytes::from_static(b"{\"events\":[]}"),
    );
    assert_eq!(log.append(&key(), 8, new).await, Ok(9));
    log.close().await.unwrap();
    let after = fs::read(home.join("log.jsonl")).unwrap();
    assert!(after.starts_with(SESSION) && after.len() > SESSION.len());
}

#[tokio::test]
async fn the_journal_of_a_killed_process_is_recovered() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("journal")).unwrap();
    fs::write(dir.path().join("journal/0000000001.jsonl"), JOURNAL).unwrap();
    let (log, report) = JsonlLog::open(JsonlOptions::new(dir.path())).unwrap();
    assert_eq!(
        (report.segments, report.records, report.is_clean()),
        (1, 8, true)
    );
    assert_eq!(lines(&read(&*log).await), SESSION);
    log.close().await.unwrap();
    assert!(!Path::new(&dir.path().join("journal/0000000001.jsonl")).exists());
}

#[tokio::test]
async fn the_same_records_make_the_same_bytes() {
    let log = MemoryLog::new();
    for line in SESSION.split_inclusive(|byte| *byte == b'\n') {
        let old = Record::decode(Bytes::copy_from_slice(line)).unwrap();
        let new = NewRecord::new(old.at, old.epoch, old.body());
        assert_eq!(log.append(&old.key, old.seq - 1, new).await, Ok(old.seq));
    }
    assert_eq!(lines(&read(&*log).await), SESSION);
}

#[test]
fn a_reference_to_a_blob_is_read() {
    let line = SESSION.split(|byte| *byte == b'\n').nth(3).unwrap();
    let json: serde_json::Value = serde_json::from_slice(line).unwrap();
    let blob = json["events"][0]["ToolCallCompleted"]["blob"].clone();
    let blob: BlobRef = serde_json::from_value(blob).unwrap();
    assert_eq!(
        blob,
        BlobRef::of(b"a payload that lies beside the log").unwrap()
    );
}
