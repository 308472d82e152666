//! Closing, and what is there afterwards.

use super::{Subject, fill, key, read_all, record, text, topic};
use crate::{AppendError, ReadItem, ReadMode};

pub(super) async fn run(subject: Subject) {
    let Subject { log, reopen } = subject;
    let streams: Vec<_> = (0..20).map(|n| key("restart", &format!("s{n}"))).collect();
    for (stream, n) in streams.iter().zip(1..) {
        fill(&*log, stream, n * 3).await;
    }
    log.publish(&streams[0], text(topic(1, 1), 0, "in flight"));
    let blob = log
        .put_blob(&streams[0], "payload".into())
        .await
        .expect("kept");
    let before = read_all(&*log, &streams[19], 0).await.0;
    assert_eq!(log.stats().appends, (1..=20).map(|n| n * 3).sum::<u64>());
    log.close().await.expect("close");
    log.close().await.expect("close twice");
    let refused = log.append(&streams[0], 3, record(4)).await;
    assert!(
        matches!(refused, Err(AppendError::Unavailable { .. })),
        "{refused:?}"
    );
    drop(log);
    let Some(reopen) = reopen else { return };

    let log = reopen().await;
    for (stream, n) in streams.iter().zip(1..) {
        assert_eq!(log.tail(stream).await, Ok(Some(n * 3)));
        assert_eq!(read_all(&*log, stream, 0).await.1, n * 3);
    }
    assert_eq!(
        read_all(&*log, &streams[19], 0).await.0,
        before,
        "the bytes are the same"
    );
    assert_eq!(log.get_blob(&streams[0], &blob).await, Ok("payload".into()));
    let mut reader = log.read(&streams[0], 3, ReadMode::Follow);
    assert!(matches!(
        super::next(&mut reader).await,
        Ok(ReadItem::CompleteThrough(3))
    ));
    super::quiet(&mut reader);
    let refused = log.append(&streams[0], 2, record(4)).await;
    assert_eq!(
        refused,
        Err(AppendError::Conflict { tail: 3 }),
        "the fence outlives the process"
    );
    fill(&*log, &streams[0], 5).await;
    assert_eq!(read_all(&*log, &streams[0], 0).await.1, 8);
    log.close().await.expect("close");
}
