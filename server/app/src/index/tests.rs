#![expect(clippy::unwrap_used, reason = "tests")]

use loopwright_core::{ids::Timestamp, outcome::EndReason};
use loopwright_proto::v1;

use super::*;

mod disk;

use crate::service::{
    convert::summary,
    fixture::{Bench, T0, asks, attached, ended, key, namespace, session, started},
};

#[tokio::test]
async fn a_digest_follows_its_log() {
    let bench = Bench::new();
    let (key, all) = (key("s1"), session("s1"));
    assert!(bench.index.digest(&key).await.unwrap().is_none());
    bench.append(&key, all[..4].to_vec()).await;
    let running = bench.index.digest(&key).await.unwrap().unwrap();
    let running = running.brief();
    let one = running.current().unwrap();
    let summary = summary::of_loop(&key, &running, one, Timestamp(T0 + 12_000));
    assert_eq!((summary.state(), summary.seq), (v1::LoopState::Running, 4));
    assert_eq!(summary.totals.unwrap().wall_time.unwrap().seconds, 10);
    assert_eq!(
        (summary.last_text.as_str(), summary.model.as_str()),
        ("Let me look", "scripted")
    );
    assert_eq!(summary.labels["team"], "blue");
    let pending = v1::PendingCall {
        call: "c2".into(),
        tool: "files__read".into(),
        state: v1::PendingState::Dispatched as i32,
        expires_at: None,
    };
    assert_eq!(summary.pending_calls, [pending]);

    bench.append(&key, vec![attached()]).await;
    bench.append(&key, all[4..].to_vec()).await;
    let digest = bench.index.digest(&key).await.unwrap().unwrap();
    let one = digest.current().unwrap();
    assert_eq!(
        (one.restarts, one.ended.clone()),
        (1, Some((Timestamp(T0 + 9_000), 7, EndReason::Completed)))
    );
    let fresh = Index::new(bench.log.clone())
        .digest(&key)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        summary::of_session(&key, &digest.brief()),
        summary::of_session(&key, &fresh.brief()),
        "folded on, it is what folded anew is"
    );
    let shown = summary::of_session(&key, &digest.brief());
    assert_eq!(
        (shown.title.as_str(), shown.loops, shown.tail_seq),
        ("read a", 1, 7)
    );
    assert_eq!(
        (shown.state(), shown.end_reason()),
        (v1::SessionState::Idle, v1::EndReason::Completed)
    );
}

#[tokio::test]
async fn the_hash_of_a_log_covers_every_entry() {
    let bench = Bench::new();
    let mut hashes = Vec::new();
    for (id, text) in [("s1", "a"), ("s2", "b")] {
        let mut all = session("s1");
        all[2] = started(1, T0, text);
        bench.append(&key(id), all).await;
        let digest = bench.index.digest(&key(id)).await.unwrap().unwrap();
        hashes.push(state_hash(digest.seq, digest.crc));
    }
    assert_ne!(hashes[0], hashes[1]);
}

#[tokio::test]
async fn loops_that_a_digest_no_longer_keeps_are_found_in_the_log() {
    let bench = Bench::new();
    let key = key("s1");
    let mut all = session("s1");
    let loops = u32::try_from(LOOPS_KEPT).unwrap() + 6;
    for n in 2..=loops {
        all.push(started(n, T0 + u64::from(n), "more"));
        all.push(asks(n, 1_000 + n));
        all.push(ended(
            n,
            T0 + u64::from(n),
            EndReason::MaxSteps { limit: n },
        ));
    }
    bench.append(&key, all).await;
    let digest = bench.index.digest(&key).await.unwrap().unwrap();
    assert_eq!(
        (digest.loops.len(), digest.starts.len()),
        (LOOPS_KEPT, loops as usize)
    );
    let brief = digest.brief();
    let find = async |n| {
        bench
            .index
            .find_loop(&key, &brief, LoopId(n))
            .await
            .unwrap()
    };
    let old = find(3).await.unwrap();
    assert_eq!(
        (old.id, old.ended.unwrap().2),
        (LoopId(3), EndReason::MaxSteps { limit: 3 })
    );
    assert_eq!(find(loops).await.unwrap().id, LoopId(loops));
    assert!(find(loops + 1).await.is_none());
    assert!(find(0).await.is_none());
}

#[tokio::test]
async fn lists_see_their_own_namespace_alone() {
    let bench = Bench::new();
    for id in ["s1", "s2"] {
        bench.append(&key(id), session(id)).await;
    }
    bench
        .append(
            &StreamKey::parse("session/other/s3").unwrap(),
            session("s3"),
        )
        .await;
    let scope = Scope::Namespace(namespace());
    let seen = bench
        .index
        .scan(scope, |key, brief| vec![(key.id().to_owned(), brief.seq)]);
    let mut seen = seen.await.unwrap();
    seen.sort();
    assert_eq!(seen, [("s1".to_owned(), 6), ("s2".to_owned(), 6)]);
}

#[test]
fn the_oldest_digests_go_first() {
    let mut kept = Recent::default();
    let digest = Arc::new(Digest::new(1, None));
    for n in 0..MAX_KEPT {
        kept.put(&key(&format!("s{n}")), Arc::clone(&digest));
    }
    assert!(kept.get(&key("s0")).is_some(), "used again");
    kept.put(&key("one-more"), digest);
    assert!(kept.digests.len() < MAX_KEPT);
    assert!(kept.get(&key("s0")).is_some() && kept.get(&key("one-more")).is_some());
    assert!(kept.get(&key("s1")).is_none());
}
