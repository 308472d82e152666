//! Appending: dense seqs, the fence, limits, many writers.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;

use super::{Subject, fill, key, read_all, record};
use crate::{AppendError, Log, MAX_RECORD_BYTES, NewRecord, Timestamp};

pub(super) async fn run(subject: &Subject) {
    numbers_are_dense_and_chained(&*subject.log).await;
    the_fence_holds(&*subject.log).await;
    limits_hold(&*subject.log).await;
    one_of_many_wins_each_seq(&subject.log).await;
    what_is_sent_behind_shares_a_fate(&*subject.log).await;
    streams_do_not_mix(&subject.log).await;
    bodies_come_back(&*subject.log).await;
}

async fn numbers_are_dense_and_chained(log: &dyn Log) {
    let key = key("append", "dense");
    assert_eq!(log.tail(&key).await, Ok(None));
    fill(log, &key, 200).await;
    assert_eq!(log.tail(&key).await, Ok(Some(200)));
    let (facts, complete) = read_all(log, &key, 0).await;
    assert_eq!((facts.len(), complete), (200, 200));
    let mut prev = 0;
    for (fact, seq) in facts.iter().zip(1..) {
        assert_eq!((fact.seq, fact.prev, &fact.key), (seq, prev, &key));
        prev = fact.crc;
    }
}

async fn the_fence_holds(log: &dyn Log) {
    let key = key("append", "fence");
    for wrong in [1, 7, u64::MAX] {
        let refused = log.append(&key, wrong, record(1)).await;
        assert_eq!(
            refused,
            Err(AppendError::Conflict { tail: 0 }),
            "expected {wrong}"
        );
    }
    fill(log, &key, 3).await;
    for wrong in [0, 2, 4] {
        let refused = log.append(&key, wrong, record(9)).await;
        assert_eq!(
            refused,
            Err(AppendError::Conflict { tail: 3 }),
            "expected {wrong}"
        );
    }
    assert_eq!(
        read_all(log, &key, 0).await.0.len(),
        3,
        "a refused append leaves nothing"
    );
}

async fn what_is_sent_behind_shares_a_fate(log: &dyn Log) {
    let (one, other) = (key("append", "first"), key("append", "second"));
    fill(log, &one, 1).await;
    fill(log, &other, 1).await;
    let mut first = record(2);
    let fate = first.fate();
    let (second, third) = (record(3).behind([fate.clone()]), record(2).behind([fate]));
    let sent = futures_util::future::join3(
        log.append(&one, 1, first),
        log.append(&one, 2, second),
        log.append(&other, 1, third),
    );
    assert_eq!(sent.await, (Ok(2), Ok(3), Ok(2)), "all at once");

    // Somebody else was faster: the fence of the second one alone would let it in.
    let mut late = record(9);
    let fate = late.fate();
    assert_eq!(log.append(&one, 3, record(4)).await, Ok(4));
    let sent = futures_util::future::join3(
        log.append(&one, 3, late),
        log.append(&one, 4, record(5).behind([fate.clone()])),
        log.append(&other, 2, record(3).behind([fate])),
    );
    let (late, second, third) = sent.await;
    assert_eq!(late, Err(AppendError::Conflict { tail: 4 }));
    for refused in [second, third] {
        assert!(
            matches!(
                refused,
                Err(AppendError::Unavailable {
                    ambiguous: false,
                    ..
                })
            ),
            "{refused:?}"
        );
    }
    // One that nobody sends is never taken.
    let never = record(9).fate();
    let refused = log.append(&one, 4, record(5).behind([never])).await;
    assert!(refused.is_err(), "{refused:?}");
    assert_eq!(log.tail(&one).await, Ok(Some(4)));
    assert_eq!(log.tail(&other).await, Ok(Some(2)));
}

async fn limits_hold(log: &dyn Log) {
    let key = key("append", "limits");
    let huge = format!("{{\"x\":\"{}\"}}", "x".repeat(MAX_RECORD_BYTES));
    let new = |body: String| NewRecord::new(Timestamp::default(), 1, body.into());
    let refused = log.append(&key, 0, new(huge)).await;
    assert!(
        matches!(refused, Err(AppendError::TooLarge { .. })),
        "{refused:?}"
    );
    let refused = log.append(&key, 0, new("{\n}".into())).await;
    assert!(
        matches!(refused, Err(AppendError::Malformed { .. })),
        "{refused:?}"
    );
    let large = format!("{{\"x\":\"{}\"}}", "x".repeat(MAX_RECORD_BYTES - 1000));
    for seq in 0..4 {
        assert_eq!(log.append(&key, seq, new(large.clone())).await, Ok(seq + 1));
    }
    let (facts, _) = read_all(log, &key, 1).await;
    assert!(
        facts.iter().all(|fact| fact.body() == large),
        "large records come back whole"
    );
}

async fn one_of_many_wins_each_seq(log: &Arc<dyn Log>) {
    let key = key("append", "race");
    let writers = (0..16).map(|_| {
        let (log, key) = (log.clone(), key.clone());
        tokio::spawn(async move {
            let (mut expected, mut won) = (0, Vec::new());
            while won.len() < 10 {
                match log.append(&key, expected, record(expected)).await {
                    Ok(seq) => {
                        won.push(seq);
                        expected = seq;
                    }
                    Err(AppendError::Conflict { tail }) => {
                        expected = tail;
                        tokio::task::yield_now().await;
                    }
                    Err(other) => panic!("{other}"),
                }
            }
            won
        })
    });
    let mut won: Vec<_> = join_all(writers)
        .await
        .into_iter()
        .flat_map(|w| w.expect("no panic"))
        .collect();
    won.sort_unstable();
    assert_eq!(
        won,
        (1..=160).collect::<Vec<_>>(),
        "each seq was given once"
    );
    assert_eq!(read_all(&**log, &key, 0).await.1, 160);
}

async fn streams_do_not_mix(log: &Arc<dyn Log>) {
    let writers = (0..40).map(|n| {
        let (log, key) = (log.clone(), key("append", &format!("many-{n}")));
        tokio::spawn(async move { fill(&*log, &key, 20).await })
    });
    for done in join_all(writers).await {
        done.expect("no panic");
    }
    for n in 0..40 {
        let key = key("append", &format!("many-{n}"));
        let (facts, _) = read_all(&**log, &key, 0).await;
        assert!(facts.iter().all(|fact| fact.key == key));
        assert_eq!(facts.len(), 20);
    }
}

async fn bodies_come_back(log: &dyn Log) {
    let key = key("append", "bodies");
    let bodies = [
        "{}",
        r#"{"a":1.50,"b":"\u0000é\n"}"#,
        r#"{"crc":"00000000","seq":"mine"}"#,
    ];
    for (body, seq) in bodies.iter().zip(0..) {
        let new = NewRecord::new(
            Timestamp::from_unix_ms(seq),
            seq,
            Bytes::from_static(body.as_bytes()),
        );
        assert_eq!(log.append(&key, seq, new).await, Ok(seq + 1));
    }
    let (facts, _) = read_all(log, &key, 0).await;
    for ((fact, body), n) in facts.iter().zip(bodies).zip(0..) {
        assert_eq!(
            (fact.body().as_ref(), fact.epoch, fact.at.unix_ms()),
            (body.as_bytes(), n, n)
        );
    }
}
