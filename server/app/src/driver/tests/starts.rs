//! What a start takes up, in which order, and what it tells a session whose end was cut.

use loopwright_log::{JsonlLog, JsonlOptions, Seq};

use super::*;
use crate::driver::drivers::tests::waits;

async fn append(log: &Arc<dyn Log>, key: &StreamKey, entry: Entry) -> Seq {
    let tail = log.tail(key).await.unwrap().unwrap_or(0);
    let at = loopwright_log::Timestamp::from_unix_ms(1);
    let record = NewRecord::new(at, 1, serde_json::to_vec(&entry).unwrap().into());
    log.append(key, tail, record).await.unwrap()
}

/// Sessions whose loops were going on when their server went down.
async fn left_behind(log: &Arc<dyn Log>, ids: &[&str]) {
    let first = rig_with(Arc::clone(log), SLOW, |world| world.max_active = ids.len());
    for id in ids {
        first.begin(id, "r1").await;
    }
    first.drain.begin();
    first.drivers.drained().await;
}

#[tokio::test]
async fn no_more_sessions_are_taken_up_than_have_room_and_each_has_its_turn() {
    let log: Arc<dyn Log> = MemoryLog::new();
    let ids = ["a", "b", "c", "d", "e"];
    left_behind(&log, &ids).await;
    let next = rig_on(Arc::clone(&log), SLOW);
    assert_eq!(next.drivers.recover().await.unwrap(), 5);
    assert_eq!(next.drivers.active(), 2, "as many as have room");
    for n in 0..ids.len() {
        let open: Vec<_> = ids
            .iter()
            .filter(|id| next.drivers.is_driven(&key(id)))
            .collect();
        assert_eq!(open.len(), 2.min(ids.len() - n), "{open:?}");
        let key = key(open[0]);
        next.drivers.command(&key, cancel("r2")).await.unwrap();
        drop(next.drivers.release(&key).await.unwrap());
    }
    assert_eq!(next.drivers.active(), 0);
}

#[tokio::test]
async fn a_session_that_only_waits_gets_an_alarm_and_no_driver() {
    let log: Arc<dyn Log> = MemoryLog::new();
    let first = rig_on(
        Arc::clone(&log),
        "turns:\n- fail: { kind: rate_limited, retry_after_ms: 300000, times: 1 }\n  text: one\n",
    );
    let a = key("a");
    let started = first.drivers.start_loop(&a, create("a"), start("r1")).await;
    started.unwrap();
    let mut items = log.read(&a, 0, ReadMode::Follow);
    loop {
        if let ReadItem::Fact(record) = items.next().await.unwrap().unwrap() {
            let entry: Entry = serde_json::from_slice(&record.body()).unwrap();
            let failed = |event: &Event| matches!(event, Event::ModelCallFailed(_));
            if entry.events.iter().any(failed) {
                break;
            }
        }
    }
    first.drain.begin();
    first.drivers.drained().await;
    let tail = log.tail(&a).await.unwrap();
    for known in [true, false] {
        // With a file, the index knows it; without, its end is read back.
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index.redb");
        let before = Index::open(Arc::clone(&log), &path).await;
        if known {
            before.refresh(&a);
        }
        before.close().await;
        let index = Index::open(Arc::clone(&log), &path).await;
        let next = rig_with(Arc::clone(&log), SLOW, |world| world.index = index);
        let found = next.drivers.recover().await.unwrap();
        assert_eq!(found, usize::from(!known));
        while next.drivers.active() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(waits(&next.drivers), 1);
        assert_eq!(log.tail(&a).await.unwrap(), tail, "nothing was written");
    }
}

#[tokio::test]
async fn a_copy_that_nobody_finished_is_removed_and_never_listed() {
    let log: Arc<dyn Log> = MemoryLog::new();
    left_behind(&log, &["a", "b"]).await;
    let copy = key("copy");
    let mut items = log.read(&key("a"), 0, ReadMode::ToTail);
    while let Some(item) = items.next().await {
        if let ReadItem::Fact(record) = item.unwrap() {
            let entry: Entry = serde_json::from_slice(&record.body()).unwrap();
            append(
                &log,
                &copy,
                Entry {
                    copied: true,
                    ..entry
                },
            )
            .await;
        }
    }
    let next = rig_on(Arc::clone(&log), SLOW);
    assert!(next.index.digest(&copy).await.unwrap().is_none());
    let scope = crate::index::Scope::Namespace("default".parse().unwrap());
    let names = next
        .index
        .scan(scope, |key, _| vec![key.clone()])
        .await
        .unwrap();
    assert!(!names.contains(&copy), "{names:?}");
    assert_eq!(next.drivers.recover().await.unwrap(), 2);
    assert_eq!(log.tail(&copy).await.unwrap(), None);
    assert!(log.tail(&key("a")).await.unwrap().is_some());
}

#[tokio::test]
async fn a_session_whose_end_was_torn_is_told_at_its_next_attach_and_once() {
    let dir = tempfile::tempdir().unwrap();
    let open = || JsonlLog::open(JsonlOptions::new(dir.path())).unwrap();
    {
        let (log, _) = open();
        let log: Arc<dyn Log> = log;
        left_behind(&log, &["a"]).await;
        append(
            &log,
            &key("a"),
            Entry::new(loopwright_core::Cause::Detach, vec![]),
        )
        .await;
    }
    // The last write is cut in its middle.
    let journal = std::fs::read_dir(dir.path().join("journal")).unwrap();
    let last = journal.map(|file| file.unwrap().path()).max().unwrap();
    let size = std::fs::metadata(&last).unwrap().len();
    let file = std::fs::OpenOptions::new().write(true).open(&last).unwrap();
    file.set_len(size - 20).unwrap();
    // What was cut may have been copied already: then nothing would be lost.
    let _ = std::fs::remove_dir_all(dir.path().join("default/session/a"));
    let cut = {
        let (_log, report) = open();
        report.cut_bytes(&key("a")).unwrap()
    };
    // Who recovered did not come to tell it: the next start does.
    let (log, report) = open();
    assert_eq!(report.cut_bytes(&key("a")), None);
    let next = rig_with(log, SLOW, |world| world.cut = CutTails::of(&report));
    next.drivers.recover().await.unwrap();
    next.drivers.command(&key("a"), cancel("r2")).await.unwrap();
    let told = |events: &[Event]| {
        let cut = |event: &Event| match event {
            Event::LogRecovered(recovered) => Some(recovered.cut_bytes),
            _ => None,
        };
        events.iter().filter_map(cut).collect::<Vec<_>>()
    };
    assert_eq!(told(&until_ended(&next.log, &key("a"), 1).await), [cut]);
    drop(next.drivers.release(&key("a")).await.unwrap());
    next.begin("a", "r3").await;
    next.drivers.command(&key("a"), cancel("r4")).await.unwrap();
    let events = until_ended(&next.log, &key("a"), 2).await;
    assert_eq!(told(&events), [cut], "once");
    assert_eq!(epochs(&events), [1, 2, 3]);
}
