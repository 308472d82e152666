//! Reading: cursors, both directions, following, slow readers.

use futures_util::StreamExt;

use super::{Subject, fill, key, next, next_seq, quiet, read_all};
use crate::{Log, LogError, ReadItem, ReadMode};

pub(super) async fn run(subject: &Subject) {
    every_cursor_reads_on(&*subject.log).await;
    a_cursor_past_the_tail_is_told(&*subject.log).await;
    an_empty_stream_reads_as_empty(&*subject.log).await;
    backward_is_forward_reversed(&*subject.log).await;
    a_follower_gets_each_fact_once(subject).await;
    a_slow_reader_loses_nothing(&*subject.log).await;
}

async fn every_cursor_reads_on(log: &dyn Log) {
    let key = key("reads", "cursors");
    fill(log, &key, 150).await;
    for after in 0..=150 {
        let (facts, complete) = read_all(log, &key, after).await;
        let seqs: Vec<_> = facts.iter().map(|fact| fact.seq).collect();
        assert_eq!(seqs, (after + 1..=150).collect::<Vec<_>>(), "after {after}");
        assert_eq!(complete, 150);
    }
}

async fn a_cursor_past_the_tail_is_told(log: &dyn Log) {
    let key = key("reads", "past");
    fill(log, &key, 2).await;
    for mode in [ReadMode::ToTail, ReadMode::Follow] {
        let mut reader = log.read(&key, 3, mode);
        let told = reader.next().await.map(|item| item.map(|_| ()));
        assert_eq!(told, Some(Err(LogError::PastTail { after: 3, tail: 2 })));
        assert!(reader.next().await.is_none(), "an error is the end");
    }
}

async fn an_empty_stream_reads_as_empty(log: &dyn Log) {
    let key = key("reads", "empty");
    assert_eq!(read_all(log, &key, 0).await, (vec![], 0));
    assert!(log.read_back(&key, u64::MAX).next().await.is_none());
    let mut follower = log.read(&key, 0, ReadMode::Follow);
    assert!(matches!(
        next(&mut follower).await,
        Ok(ReadItem::CompleteThrough(0))
    ));
    quiet(&mut follower);
    fill(log, &key, 1).await;
    assert_eq!(next_seq(&mut follower).await, 1);
}

async fn backward_is_forward_reversed(log: &dyn Log) {
    let key = key("reads", "back");
    fill(log, &key, 150).await;
    for before in [1, 2, 3, 75, 150, 151, 152, u64::MAX] {
        let facts: Vec<_> = log
            .read_back(&key, before)
            .map(|fact| fact.expect("good"))
            .collect()
            .await;
        let seqs: Vec<_> = facts.iter().map(|fact| fact.seq).collect();
        let due: Vec<_> = (1..before.min(151)).rev().collect();
        assert_eq!(seqs, due, "before {before}");
    }
}

async fn a_follower_gets_each_fact_once(subject: &Subject) {
    let key = key("reads", "follow");
    fill(&*subject.log, &key, 10).await;
    let mut follower = subject.log.read(&key, 4, ReadMode::Follow);
    for seq in 5..=10 {
        assert_eq!(next_seq(&mut follower).await, seq);
    }
    assert!(matches!(
        next(&mut follower).await,
        Ok(ReadItem::CompleteThrough(10))
    ));
    quiet(&mut follower);
    let writer = {
        let (log, key) = (subject.log.clone(), key.clone());
        tokio::spawn(async move { fill(&*log, &key, 300).await })
    };
    for seq in 11..=310 {
        assert_eq!(next_seq(&mut follower).await, seq);
    }
    writer.await.expect("no panic");
    quiet(&mut follower);
}

async fn a_slow_reader_loses_nothing(log: &dyn Log) {
    let key = key("reads", "slow");
    fill(log, &key, 1).await;
    let mut slow = log.read(&key, 0, ReadMode::Follow);
    assert_eq!(next_seq(&mut slow).await, 1);
    fill(log, &key, 1500).await;
    for seq in 2..=1501 {
        match next(&mut slow).await {
            Ok(ReadItem::Fact(fact)) => assert_eq!(fact.seq, seq),
            other => panic!("fact {seq} was due, got {other:?}"),
        }
    }
}
