//! Removing a stream: what goes, who is told, and that no restart brings it back.

use bytes::Bytes;
use futures_util::StreamExt;

use super::{Subject, fill, key, next, next_seq, quiet, read_all, record, text, topic};
use crate::{AppendError, BlobError, KeyQuery, Log, LogError, ReadItem, ReadMode, Seq, StreamKind};

pub(super) async fn run(subject: Subject) {
    let log = &*subject.log;
    nothing_to_remove(log).await;
    readers_are_told(log).await;
    readers_that_have_not_begun_are_told(log).await;
    the_key_begins_anew(log).await;
    many_at_once(log).await;
    no_restart_brings_it_back(subject).await;
}

async fn nothing_to_remove(log: &dyn Log) {
    let none = key("remove", "none");
    assert_eq!(log.remove(&none).await, Ok(false));
    fill(log, &none, 1).await;
    assert_eq!(log.remove(&none).await, Ok(true));
    assert_eq!(log.remove(&none).await, Ok(false), "twice is once");
    let own = crate::NewRecord::new(
        crate::Timestamp::default(),
        1,
        Bytes::from_static(b"{\"removed\":true}"),
    );
    let refused = log.append(&none, 0, own).await;
    assert!(
        matches!(refused, Err(AppendError::Malformed { .. })),
        "no caller writes a tombstone: {refused:?}"
    );
}

async fn readers_are_told(log: &dyn Log) {
    let key = key("remove", "read");
    fill(log, &key, 3).await;
    let mut at_tail = log.read(&key, 3, ReadMode::Follow);
    assert!(matches!(
        next(&mut at_tail).await,
        Ok(ReadItem::CompleteThrough(3))
    ));
    quiet(&mut at_tail);
    let mut slow = log.read(&key, 0, ReadMode::Follow);
    assert_eq!(next_seq(&mut slow).await, 1);
    assert_eq!(log.remove(&key).await, Ok(true));
    assert!(matches!(next(&mut at_tail).await, Err(LogError::Removed)));
    assert!(at_tail.next().await.is_none(), "it ends there");
    // A slow reader may have taken the rest already; then it is told.
    let end = loop {
        match next(&mut slow).await {
            Ok(ReadItem::Fact(fact)) => assert!(fact.seq <= 3),
            Ok(other) => panic!("a fact or the end was due, got {other:?}"),
            Err(error) => break error,
        }
    };
    assert_eq!(end, LogError::Removed);
    log.publish(&key, text(topic(3, 1), 0, "to nobody"));
}

async fn readers_that_have_not_begun_are_told(log: &dyn Log) {
    let key = key("remove", "early");
    fill(log, &key, 3).await;
    let mut followers = [0, 2, 3].map(|after| log.read(&key, after, ReadMode::Follow));
    let mut to_tail = log.read(&key, 0, ReadMode::ToTail);
    let mut back = log.read_back(&key, Seq::MAX);
    assert_eq!(log.remove(&key).await, Ok(true));
    let mut late = log.read(&key, 0, ReadMode::Follow);
    // What takes the key is nothing of theirs.
    fill(log, &key, 2).await;
    for reader in followers.iter_mut().chain([&mut to_tail]) {
        assert!(matches!(next(reader).await, Err(LogError::Removed)));
        assert!(reader.next().await.is_none(), "it ends there");
    }
    assert!(matches!(back.next().await, Some(Err(LogError::Removed))));
    assert_eq!(
        next_seq(&mut late).await,
        1,
        "the new one is the late one's"
    );
    assert_eq!(log.remove(&key).await, Ok(true));
}

async fn the_key_begins_anew(log: &dyn Log) {
    let key = key("remove", "anew");
    fill(log, &key, 4).await;
    let payload = Bytes::from_static(b"a payload that goes, too");
    let blob = log.put_blob(&key, payload.clone()).await.expect("kept");
    assert_eq!(log.remove(&key).await, Ok(true));
    assert_eq!(log.tail(&key).await, Ok(None));
    assert_eq!(listed(log, "remove").await, [] as [String; 0]);
    let missing = log.get_blob(&key, &blob).await;
    assert!(
        matches!(missing, Err(BlobError::Missing { .. })),
        "{missing:?}"
    );
    let fenced = log.append(&key, 4, record(5)).await;
    assert_eq!(fenced, Err(AppendError::Conflict { tail: 0 }));
    let blob = log.put_blob(&key, payload.clone()).await.expect("kept");
    fill(log, &key, 2).await;
    let (facts, complete) = read_all(log, &key, 0).await;
    assert_eq!((facts.len(), complete), (2, 2));
    assert_eq!(log.get_blob(&key, &blob).await, Ok(payload));
    let back: Vec<Seq> = log
        .read_back(&key, Seq::MAX)
        .map(|fact| fact.expect("a good stream").seq)
        .collect()
        .await;
    assert_eq!(back, [2, 1]);
    assert_eq!(log.remove(&key).await, Ok(true));
}

async fn many_at_once(log: &dyn Log) {
    let keys: Vec<_> = (0..20)
        .map(|n| key("remove-many", &format!("s{n:02}")))
        .collect();
    for key in &keys {
        fill(log, key, 2).await;
    }
    let (go, stay) = keys.split_at(15);
    let removed = futures_util::future::join_all(go.iter().map(|key| log.remove(key))).await;
    assert!(
        removed.iter().all(|one| *one == Ok(true)),
        "each was there: {removed:?}"
    );
    let left: Vec<String> = stay.iter().map(|key| key.id().to_owned()).collect();
    assert_eq!(listed(log, "remove-many").await, left);
}

async fn no_restart_brings_it_back(subject: Subject) {
    let Subject { log, reopen } = subject;
    let (gone, anew) = (key("remove-end", "gone"), key("remove-end", "anew"));
    for key in [&gone, &anew] {
        fill(&*log, key, 5).await;
        assert_eq!(log.remove(key).await, Ok(true));
    }
    fill(&*log, &anew, 1).await;
    log.close().await.expect("close");
    assert!(
        log.remove(&anew).await.is_err(),
        "a closed log removes nothing"
    );
    drop(log);
    let Some(reopen) = reopen else { return };
    let log = reopen().await;
    assert_eq!(log.tail(&gone).await, Ok(None));
    assert_eq!(log.tail(&anew).await, Ok(Some(1)));
    assert_eq!(listed(&*log, "remove-end").await, ["anew"]);
    log.close().await.expect("close");
}

async fn listed(log: &dyn Log, namespace: &str) -> Vec<String> {
    let query = KeyQuery {
        namespace: crate::Id::parse(namespace).ok(),
        kind: StreamKind::Session,
        after: None,
        limit: 100,
    };
    let page = log.keys(query).await.expect("keys");
    page.keys.iter().map(|key| key.id().to_owned()).collect()
}
