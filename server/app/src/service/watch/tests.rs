#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use loopwright_core::{ids::LoopId, outcome::EndReason};
use loopwright_log::Timestamp;
use loopwright_proto::v1::{self, watch_loop_response::Item};
use prost::Message as _;
use tokio::time::Instant;
use tonic::Code;

use super::{feed::IDLE, *};
use crate::{
    service::{
        convert::{
            fields::Violations,
            kinds::{self, KindSet},
            questions,
        },
        cursor::{Mark, Seen},
        fixture::{Bench, T0, attached, ended, key, namespace, session, started},
    },
    telemetry::Telemetry,
};

fn what(after: u64) -> Watched {
    Watched {
        key: key("s1"),
        after,
        seen: Seen::default(),
        deltas: true,
        kinds: KindSet::ALL,
        until: None,
    }
}

fn item(sent: &Sent) -> Item {
    match sent {
        Sent::Entry(bytes) | Sent::Delta(bytes) => v1::WatchLoopResponse::decode(bytes.clone())
            .unwrap()
            .item
            .unwrap(),
        Sent::Heartbeat(cursor) => Item::Heartbeat(heartbeat(*cursor)),
        Sent::Goodbye(cursor) => Item::Goodbye(goodbye(*cursor)),
        Sent::Deleted(seq) => Item::Goodbye(deleted(*seq)),
    }
}

/// The cursor behind an entry that the bench wrote.
fn behind(seq: Seq) -> Cursor {
    let at = Timestamp::from_unix_ms(T0 + (seq - 1) * 1_000);
    let mark = Some(Mark { epoch: 1, at });
    Cursor { seq, mark }
}

/// What a watcher is sent until it would have to wait, in short: `3` an entry, `h6` a heartbeat,
/// `"text"@5` a delta, `g6` a goodbye, `.` the end.
async fn sent(watch: &mut Watch) -> String {
    let mut words = Vec::new();
    // Twice: the log's reader wakes itself once when it comes to the tail.
    for _ in 0..2 {
        while let Some(next) = watch.next().now_or_never() {
            let Some(next) = next else {
                return words.join(" ") + " .";
            };
            words.push(match item(&next.unwrap()) {
                Item::Entry(entry) => entry.seq.to_string(),
                Item::Heartbeat(beat) => format!("h{}", beat.complete_through),
                Item::Goodbye(goodbye) => format!("g{}", goodbye.cursor),
                Item::Delta(delta) => match delta.content.unwrap() {
                    v1::delta::Content::Text(text) => format!("{text:?}@{}", delta.offset),
                    other => format!("{other:?}"),
                },
            });
        }
        tokio::task::yield_now().await;
    }
    words.join(" ")
}

#[tokio::test]
async fn a_watcher_that_comes_back_at_any_cursor_has_no_gap_and_no_repeat() {
    let bench = Bench::new();
    bench.append(&key("s1"), session("s1")).await;
    for cut in 0..=6u64 {
        let mut watch = bench.watching().open(what(cut)).await.unwrap();
        let rest: Vec<String> = (cut + 1..=6).map(|seq| seq.to_string()).collect();
        let expected = rest
            .into_iter()
            .chain(["h6".to_owned()])
            .collect::<Vec<_>>()
            .join(" ");
        assert_eq!(sent(&mut watch).await, expected, "after {cut}");
        assert_eq!(watch.cursor(), 6);
    }
}

#[tokio::test]
async fn entries_come_live_and_deltas_between_them() {
    let bench = Bench::new();
    let all = session("s1");
    bench.append(&key("s1"), all[..3].to_vec()).await;
    let mut watch = bench.watching().open(what(0)).await.unwrap();
    let mut plain = bench
        .watching()
        .open(Watched {
            deltas: false,
            ..what(2)
        })
        .await
        .unwrap();
    assert_eq!(sent(&mut watch).await, "1 2 3 h3");
    assert_eq!(sent(&mut plain).await, "3 h3");

    bench.say(&key("s1"), 3, 0, "Let ");
    bench.say(&key("s1"), 3, 4, "me");
    assert_eq!(sent(&mut watch).await, r#""Let me"@0"#);
    bench.say(&key("s1"), 3, 6, " look");
    let mut late = bench.watching().open(what(3)).await.unwrap();
    assert_eq!(
        sent(&mut late).await,
        r#"h3 "Let me look"@0"#,
        "the text so far, from 0"
    );
    assert_eq!(sent(&mut watch).await, r#"" look"@6"#, "only what is new");

    bench.append(&key("s1"), all[3..].to_vec()).await;
    assert_eq!(sent(&mut watch).await, "4 5 6");
    assert_eq!(
        sent(&mut plain).await,
        "4 5 6",
        "no deltas where none were asked for"
    );
}

#[tokio::test]
async fn a_filter_holds_entries_back_and_heartbeats_pass_them() {
    let bench = Bench::new();
    bench.append(&key("s1"), session("s1")).await;
    let mut all = Violations::default();
    let kinds = kinds::filter(&["loop_started".into(), "loop_ended".into()], &mut all);
    let mut watch = bench
        .watching()
        .open(Watched { kinds, ..what(0) })
        .await
        .unwrap();
    assert_eq!(sent(&mut watch).await, "3 6 h6");
}

#[tokio::test]
async fn a_watch_of_one_loop_ends_with_it() {
    let bench = Bench::new();
    bench.append(&key("s1"), session("s1")).await;
    bench
        .append(&key("s1"), vec![started(2, T0 + 10_000, "again")])
        .await;
    let until = |n, after| Watched {
        until: Some(LoopId(n)),
        ..what(after)
    };

    let mut first = bench.watching().open(until(1, 3)).await.unwrap();
    assert_eq!(sent(&mut first).await, "4 5 6 h6 .");
    let mut past = bench.watching().open(until(1, 6)).await.unwrap();
    assert_eq!(
        sent(&mut past).await,
        "h6 .",
        "it had ended before the cursor"
    );
    let kinds = KindSet::of(&v1::event::Kind::SessionForked(v1::SessionForked::default()));
    let mut filtered = bench
        .watching()
        .open(Watched {
            kinds,
            ..until(1, 0)
        })
        .await
        .unwrap();
    assert_eq!(sent(&mut filtered).await, "h6 .", "its end was filtered");

    let mut second = bench.watching().open(until(2, 6)).await.unwrap();
    assert_eq!(sent(&mut second).await, "7 h7");
    bench
        .append(
            &key("s1"),
            vec![ended(2, T0 + 11_000, EndReason::Completed), attached()],
        )
        .await;
    assert_eq!(sent(&mut second).await, "8 h8 .", "nothing after the end");

    let missing = bench.watching().open(until(9, 0)).await.err().unwrap();
    assert_eq!(
        (missing.code(), reason(&missing)),
        (Code::NotFound, "LOOP_NOT_FOUND".into())
    );
}

#[tokio::test(start_paused = true)]
async fn silence_is_broken_by_heartbeats() {
    let bench = Bench::new();
    bench.append(&key("s1"), session("s1")).await;
    let mut watch = bench.watching().open(what(6)).await.unwrap();
    assert_eq!(sent(&mut watch).await, "h6");
    for _ in 0..3 {
        let before = Instant::now();
        let beat = watch.next().await.unwrap().unwrap();
        assert_eq!((beat, before.elapsed()), (Sent::Heartbeat(behind(6)), IDLE));
    }
    tokio::time::advance(Duration::from_secs(10)).await;
    bench.append(&key("s1"), vec![attached()]).await;
    assert_eq!(sent(&mut watch).await, "7");
    let before = Instant::now();
    assert_eq!(
        watch.next().await.unwrap().unwrap(),
        Sent::Heartbeat(behind(7))
    );
    assert_eq!(
        before.elapsed(),
        IDLE,
        "counted from the last item, not from the last heartbeat"
    );
}

#[tokio::test]
async fn a_drain_says_goodbye_with_the_cursor_to_idle_and_busy_watchers() {
    let bench = Bench::new();
    bench.append(&key("s1"), session("s1")).await;
    let mut idle = bench.watching().open(what(0)).await.unwrap();
    assert_eq!(sent(&mut idle).await, "1 2 3 4 5 6 h6");
    let mut busy = bench.watching().open(what(0)).await.unwrap();
    assert!(matches!(
        busy.next().await.unwrap().unwrap(),
        Sent::Entry(_)
    ));

    let waiting = tokio::spawn(async move { idle.next().await.unwrap().unwrap() });
    tokio::task::yield_now().await;
    bench.drain.begin();
    assert_eq!(waiting.await.unwrap(), Sent::Goodbye(behind(6)));
    assert_eq!(
        sent(&mut busy).await,
        "g1 .",
        "after what was sent, not after the tail"
    );
}

#[tokio::test]
async fn what_cannot_be_watched_is_refused_by_reason() {
    let bench = Bench::new();
    let refused = bench.watching().open(what(0)).await.err().unwrap();
    assert_eq!(
        (refused.code(), reason(&refused)),
        (Code::NotFound, "SESSION_NOT_FOUND".into())
    );
    bench.append(&key("s1"), session("s1")).await;
    let refused = bench.watching().open(what(7)).await.err().unwrap();
    assert_eq!(
        (refused.code(), reason(&refused)),
        (Code::DataLoss, "CURSOR_PAST_TAIL".into())
    );
    let seen = Seen {
        epoch: Some(2),
        at: None,
    };
    let other = Watched { seen, ..what(3) };
    let refused = bench.watching().open(other).await.err().unwrap();
    assert_eq!(
        (refused.code(), reason(&refused)),
        (Code::DataLoss, "CURSOR_DIVERGED".into())
    );

    let request = v1::WatchLoopRequest {
        session_id: "No".into(),
        loop_id: "7".into(),
        kinds: vec!["loop_end".into()],
        ..Default::default()
    };
    let refused = questions::watch(&request, &namespace()).unwrap_err();
    let fields: Vec<_> = refused.0.into_iter().map(|one| one.field).collect();
    assert_eq!(fields, ["session_id", "loop_id", "kinds"]);
}

#[tokio::test]
async fn a_cursor_that_was_sent_is_one_to_come_back_with() {
    let bench = Bench::new();
    bench.append(&key("s1"), session("s1")).await;
    let mut all = Violations::default();
    let kinds = kinds::filter(&["loop_started".into()], &mut all);
    // The entry at the cursor is filtered in one case, and before the cursor in the other.
    for after in [0, 6] {
        let asked = Watched {
            kinds,
            ..what(after)
        };
        let mut watch = bench.watching().open(asked).await.unwrap();
        let mut beat = None;
        while let Some(Some(Ok(sent))) = watch.next().now_or_never() {
            if let Item::Heartbeat(sent) = item(&sent) {
                beat = Some(sent);
            }
        }
        let beat = beat.unwrap();
        let request = v1::WatchLoopRequest {
            session_id: "s1".into(),
            after_seq: beat.complete_through,
            after_epoch: beat.epoch,
            after_committed_at: beat.committed_at,
            ..Default::default()
        };
        assert_eq!((request.after_seq, request.after_epoch), (6, Some(1)));
        let again = questions::watch(&request, &namespace()).unwrap();
        assert!(again.seen.at.is_some());
        bench.watching().open(again).await.unwrap();
    }
}

#[tokio::test]
async fn seats_are_counted_and_given_back() {
    let telemetry = Telemetry::off();
    let shown = |line: &str| telemetry.metrics().render().lines().any(|l| l == line);
    let seats = Seats::new(2, telemetry.clone());
    let first = seats.take(&key("s1")).unwrap();
    let _second = seats.take(&key("s2")).unwrap();
    let refused = seats.take(&key("s3")).unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(reason(&refused), "TOO_MANY_WATCHERS");
    assert!(shown("loopwright_watchers 2"));
    drop(first);
    assert!(shown("loopwright_watchers 1"));
    assert!(
        seats.take(&key("s3")).is_ok(),
        "the room of the one that left"
    );

    let seats = Seats::new(SEATS_OF_SESSION * 2, Telemetry::off());
    let _all: Vec<_> = (0..SEATS_OF_SESSION)
        .map(|_| seats.take(&key("s1")).unwrap())
        .collect();
    assert!(
        seats.take(&key("s1")).is_err(),
        "one session has its own limit"
    );
    assert!(seats.take(&key("s2")).is_ok());
}

#[tokio::test]
async fn all_watchers_share_one_encoding() {
    let bench = Bench::new();
    bench.append(&key("s1"), session("s1")).await;
    let mut addresses = Vec::new();
    for _ in 0..2 {
        let mut watch = bench.watching().open(what(0)).await.unwrap();
        let Sent::Entry(bytes) = watch.next().await.unwrap().unwrap() else {
            panic!()
        };
        addresses.push(bytes.as_ptr());
    }
    assert_eq!(addresses[0], addresses[1]);
}

fn reason(status: &Status) -> String {
    tonic_types::StatusExt::get_details_error_info(status)
        .unwrap()
        .reason
}
