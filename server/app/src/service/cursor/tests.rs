#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use loopwright_log::{JsonlLog, JsonlOptions, MemoryLog, NewRecord};
use tonic::Code;
use tonic_types::StatusExt as _;

use super::*;
use crate::service::fixture::{T0, key};

/// The epochs of the entries of a log whose end was lost once and written anew: 3 was nobody's for long.
const EPOCHS: [u64; 8] = [1, 1, 1, 2, 2, 4, 4, 4];
const TAIL: u64 = EPOCHS.len() as u64;

fn time(seq: Seq) -> Timestamp {
    Timestamp::from_unix_ms(T0 + seq * 1_000)
}

async fn write(log: &dyn Log, epochs: &[u64]) {
    for (before, &epoch) in (0..).zip(epochs) {
        let body = r#"{"cause":"detach","events":[{"DriverDetached":{}}]}"#;
        let record = NewRecord::new(time(before + 1), epoch, body.into());
        log.append(&key("s1"), before, record).await.unwrap();
    }
}

/// The log of [`EPOCHS`]: in memory, in files with its end in memory, and in files alone.
async fn on_each_log(test: impl AsyncFn(&dyn Log)) {
    let memory = MemoryLog::new();
    write(&*memory, &EPOCHS).await;
    test(&*memory).await;
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = JsonlLog::open(JsonlOptions::new(dir.path())).unwrap();
    let log: Arc<dyn Log> = log;
    write(&*log, &EPOCHS).await;
    test(&*log).await;
    log.close().await.unwrap();
    drop(log);
    let (log, _) = JsonlLog::open(JsonlOptions::new(dir.path())).unwrap();
    test(&*log).await;
}

fn seen(epoch: impl Into<Option<u64>>, at: impl Into<Option<Timestamp>>) -> Seen {
    let (epoch, at) = (epoch.into(), at.into());
    Seen { epoch, at }
}

/// `ok SEQ/EPOCH`, or `REASON tail AGREES`.
async fn told(log: &dyn Log, after: Seq, seen: Seen) -> String {
    match check(log, &key("s1"), after, seen, TAIL).await {
        Ok(cursor) => match cursor.mark {
            Some(mark) => format!("ok {}/{}", cursor.seq, mark.epoch),
            None => format!("ok {}", cursor.seq),
        },
        Err(status) => {
            assert_eq!(status.code(), Code::DataLoss);
            let details = status.get_details_error_info().unwrap();
            assert_eq!(details.metadata["tail_seq"], TAIL.to_string());
            let agrees = details.metadata.get("agrees_through");
            let agrees = agrees.map_or("-", String::as_str);
            if agrees != "-" && agrees != "0" {
                let named = format!("after {agrees}");
                assert!(status.message().contains(&named), "{}", status.message());
            } else {
                assert!(status.message().contains("from 0"), "{}", status.message());
            }
            format!("{} {agrees}", details.reason)
        }
    }
}

#[tokio::test]
async fn a_cursor_holds_only_behind_the_very_entry_that_was_seen() {
    on_each_log(async |log| {
        for (after, seen, expected) in [
            (0, seen(None, None), "ok 0"),
            (8, seen(None, None), "ok 8/4"),
            (8, seen(4, None), "ok 8/4"),
            (8, seen(4, time(8)), "ok 8/4"),
            (1, seen(1, time(1)), "ok 1/1"),
            (4, seen(None, time(4)), "ok 4/2"),
            // Its end was lost, and a later attach took the seqs: what came before that may be the same.
            (7, seen(2, None), "CURSOR_DIVERGED 5"),
            (6, seen(1, None), "CURSOR_DIVERGED 3"),
            (6, seen(3, time(6)), "CURSOR_DIVERGED 5"),
            // The attach was lost too, and another one took its epoch.
            (7, seen(4, time(9)), "CURSOR_DIVERGED 5"),
            (5, seen(2, time(4)), "CURSOR_DIVERGED 3"),
            (5, seen(None, time(4)), "CURSOR_DIVERGED 3"),
            // It was attached more than once since, of which nothing is left.
            (5, seen(3, None), "CURSOR_DIVERGED 3"),
            (2, seen(1, time(1)), "CURSOR_DIVERGED 0"),
            (2, seen(9, None), "CURSOR_DIVERGED 0"),
            // What was seen lies past the tail.
            (9, seen(None, None), "CURSOR_PAST_TAIL -"),
            (9, seen(4, time(9)), "CURSOR_PAST_TAIL 8"),
            (9, seen(3, None), "CURSOR_PAST_TAIL 5"),
            (u64::MAX, seen(0, None), "CURSOR_PAST_TAIL 0"),
        ] {
            assert_eq!(
                told(log, after, seen).await,
                expected,
                "after {after}, {seen:?}"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn going_back_to_what_may_agree_comes_to_what_does() {
    // Seen: 1..=10 in epochs 1, 2 and 3. The log lost 4..=10, and went on in epochs 2 and 4.
    let had = |seq: Seq| match seq {
        ..=3 => seen(1, time(seq)),
        4..=6 => seen(2, Timestamp::from_unix_ms(T0 - seq)),
        _ => seen(3, Timestamp::from_unix_ms(T0 - seq)),
    };
    on_each_log(async |log| {
        let (mut at, mut tries) = (7, 0);
        let agreed = loop {
            let Err(status) = check(log, &key("s1"), at, had(at), TAIL).await else {
                break at;
            };
            let details = status.get_details_error_info().unwrap();
            let agrees: Seq = details.metadata["agrees_through"].parse().unwrap();
            assert!(agrees < at, "it goes down");
            (at, tries) = (agrees, tries + 1);
        };
        assert_eq!((agreed, tries), (3, 2));
    })
    .await;
}

#[test]
fn what_is_said_of_no_entry_is_refused_by_field() {
    let refused = |after, epoch, at: Option<well_known::Timestamp>| {
        let mut all = Violations::default();
        Seen::parse(after, epoch, at.as_ref(), &mut all);
        let fields: Vec<_> = all.0.into_iter().map(|one| one.field).collect();
        fields.join(" ")
    };
    let at = |seconds, nanos| Some(well_known::Timestamp { seconds, nanos });
    assert_eq!(refused(0, None, None), "");
    assert_eq!(refused(7, Some(0), at(1_763_800_000, 5_000_000)), "");
    assert_eq!(
        refused(0, Some(1), at(1, 0)),
        "after_epoch after_committed_at"
    );
    for odd in [
        at(-1, 0),
        at(1, -1),
        at(1, 1),
        at(1, 1_000_000_000),
        at(i64::MAX, 0),
    ] {
        assert_eq!(refused(7, None, odd), "after_committed_at", "{odd:?}");
    }
}

#[test]
fn a_cursor_comes_back_from_the_wire_as_it_went() {
    let mark = Mark {
        epoch: 3,
        at: Timestamp::from_unix_ms(T0 + 7),
    };
    let cursor = Cursor {
        seq: 4,
        mark: Some(mark),
    };
    let (epoch, at) = cursor.on_the_wire();
    let mut all = Violations::default();
    let seen = Seen::parse(4, epoch, at.as_ref(), &mut all);
    assert!(all.0.is_empty() && seen.is(mark), "{seen:?}");
    assert_eq!(Cursor::from(4).on_the_wire(), (None, None));
}
