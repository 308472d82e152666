//! At the tail: shared records, progress in its place, and its end.

use std::sync::Arc;

use bytes::Bytes;

use super::{Subject, fill, key, next, next_seq, next_text, quiet, read_all, record, text, topic};
use crate::{Log, NewRecord, ReadItem, ReadMode, ReadStream, StreamKey};

pub(super) async fn run(subject: &Subject) {
    let log = &*subject.log;
    readers_at_the_tail_share_a_record(log).await;
    progress_comes_between_facts(log).await;
    a_late_reader_gets_the_text_so_far(log).await;
    an_end_retires_progress(log).await;
    a_new_epoch_retires_all_progress(log).await;
    progress_changes_no_fact(log).await;
}

/// A follower that has caught up.
async fn follower(log: &dyn Log, key: &StreamKey) -> ReadStream {
    let tail = log.tail(key).await.expect("tail").unwrap_or(0);
    let mut reader = log.read(key, tail, ReadMode::Follow);
    assert!(matches!(next(&mut reader).await, Ok(ReadItem::CompleteThrough(seq)) if seq == tail));
    reader
}

async fn readers_at_the_tail_share_a_record(log: &dyn Log) {
    let key = key("live", "shared");
    let (mut one, mut two) = (follower(log, &key).await, follower(log, &key).await);
    fill(log, &key, 1).await;
    match (next(&mut one).await, next(&mut two).await) {
        (Ok(ReadItem::Fact(a)), Ok(ReadItem::Fact(b))) => {
            assert!(Arc::ptr_eq(&a, &b));
            assert_eq!(a.memo(|| Bytes::from_static(b"once")), "once");
            assert_eq!(b.memo(|| unreachable!("the encoding is shared")), "once");
        }
        other => panic!("two facts were due, got {other:?}"),
    }
}

async fn progress_comes_between_facts(log: &dyn Log) {
    let key = key("live", "between");
    fill(log, &key, 1).await;
    let mut reader = follower(log, &key).await;
    log.publish(&key, text(topic(1, 1), 0, "Let me"));
    assert_eq!(
        next_text(&mut reader).await,
        (0, Bytes::from_static(b"Let me"))
    );
    log.publish(&key, text(topic(1, 1), 6, " look"));
    log.publish(&key, text(topic(1, 1), 11, " at it"));
    assert_eq!(
        next_text(&mut reader).await,
        (6, Bytes::from_static(b" look at it"))
    );
    fill(log, &key, 1).await;
    assert_eq!(next_seq(&mut reader).await, 2);
    log.publish(&key, text(topic(1, 1), 17, "."));
    assert_eq!(next_text(&mut reader).await, (17, Bytes::from_static(b".")));
    quiet(&mut reader);
}

async fn a_late_reader_gets_the_text_so_far(log: &dyn Log) {
    let key = key("live", "late");
    fill(log, &key, 3).await;
    for (offset, part) in [(0, "Let "), (4, "me "), (7, "look")] {
        log.publish(&key, text(topic(3, 1), offset, part));
    }
    log.publish(&key, text(topic(3, 2), 0, "other"));
    let mut late = log.read(&key, 0, ReadMode::Follow);
    for seq in 1..=3 {
        assert_eq!(next_seq(&mut late).await, seq);
    }
    assert!(matches!(
        next(&mut late).await,
        Ok(ReadItem::CompleteThrough(3))
    ));
    assert_eq!(
        next_text(&mut late).await,
        (0, Bytes::from_static(b"Let me look"))
    );
    assert_eq!(
        next_text(&mut late).await,
        (0, Bytes::from_static(b"other"))
    );
    quiet(&mut late);
}

async fn an_end_retires_progress(log: &dyn Log) {
    let key = key("live", "ends");
    fill(log, &key, 1).await;
    let mut reader = follower(log, &key).await;
    log.publish(&key, text(topic(1, 1), 0, "gone"));
    log.publish(&key, text(topic(1, 2), 0, "stays"));
    let ends = NewRecord {
        ends: vec![topic(1, 1)],
        ..record(2)
    };
    assert_eq!(log.append(&key, 1, ends).await, Ok(2));
    assert_eq!(next_seq(&mut reader).await, 2);
    assert_eq!(
        next_text(&mut reader).await,
        (0, Bytes::from_static(b"stays"))
    );
    log.publish(&key, text(topic(1, 1), 4, " late"));
    quiet(&mut reader);
}

async fn a_new_epoch_retires_all_progress(log: &dyn Log) {
    let key = key("live", "epoch");
    fill(log, &key, 1).await;
    log.publish(&key, text(topic(1, 1), 0, "of a dead driver"));
    let attached = NewRecord {
        epoch: 2,
        ..record(2)
    };
    assert_eq!(log.append(&key, 1, attached).await, Ok(2));
    let mut reader = follower(log, &key).await;
    quiet(&mut reader);
}

async fn progress_changes_no_fact(log: &dyn Log) {
    let (with, without) = (key("live", "with"), key("live", "without"));
    for seq in 0..20 {
        log.publish(&with, text(topic(seq, 1), 0, "noise"));
        for key in [&with, &without] {
            assert_eq!(log.append(key, seq, record(seq)).await, Ok(seq + 1));
        }
    }
    let bodies = async |key| {
        let (facts, complete) = read_all(log, key, 0).await;
        (
            facts.iter().map(|fact| fact.body()).collect::<Vec<_>>(),
            complete,
        )
    };
    assert_eq!(bodies(&with).await, bodies(&without).await);
}
