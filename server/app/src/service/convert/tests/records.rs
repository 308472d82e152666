//! Records as entries, and progress as deltas.

use std::sync::Arc;

use futures_util::StreamExt as _;
use loopwright_core::{
    entry::{Cause, Entry},
    event::{self, Event, Unknown},
    input::TimerWhy,
};
use loopwright_log::{Keep, Log as _, Progress, ProgressTopic, ReadItem, ReadMode, Record};
use loopwright_proto::v1;
use prost::Message as _;

use super::events::{CALL, samples};
use crate::redaction::Fields;
use crate::service::convert::{delta, entry, kinds::KindSet};
use crate::service::fixture::{Bench, T0, by, created, entry as made, key, started};

#[tokio::test]
async fn an_entry_is_told_with_its_record() {
    let record = record(vec![created("s1"), started(1, T0, "go")]).await;
    let entry = entry::to_wire(&record, &entry::parse(&record).unwrap());
    let cause = entry.cause.unwrap();
    assert_eq!(
        (
            entry.seq,
            entry.session_id.as_str(),
            entry.epoch,
            entry.events.len()
        ),
        (2, "s1", 1, 3)
    );
    assert_eq!(
        entry.committed_at.unwrap().seconds,
        i64::try_from(T0 / 1_000).unwrap() + 1
    );
    assert_eq!(
        (
            cause.kind.as_str(),
            cause.request_id.as_str(),
            cause.principal.as_str()
        ),
        ("start_loop", "start-1", "ada")
    );
    assert!(entry.traceparent.starts_with("00-0af7651916cd43dd"));

    let ready = entry::ready(&record, &Fields::default()).unwrap();
    let other = v1::ReadEntriesResponse::decode(ready.message).unwrap();
    assert!(matches!(other.item, Some(v1::read_entries_response::Item::Entry(e)) if e.seq == 2));
    assert!(
        KindSet(1 << 5).wants(ready.kinds),
        "loop_started is among its kinds"
    );
    assert!(!KindSet::LOOP_ENDED.wants(ready.kinds));
}

#[tokio::test]
async fn causes_have_the_words_of_the_wire() {
    let failed = samples()
        .into_iter()
        .find(|e| e.kind() == "ModelCallFailed")
        .unwrap();
    let doubt = samples()
        .into_iter()
        .find(|e| e.kind() == "ToolCallInDoubt")
        .unwrap();
    let model = Cause::Model {
        call: CALL,
        attempt: 1,
        jitter: 0,
        retry_after_ms: None,
    };
    let tool = Cause::Tool {
        retry_after_ms: None,
        call: CALL,
        attempt: 1,
        jitter: 0,
        retryable: false,
    };
    let detached = || -> Event { event::DriverDetached {}.into() };
    for (entry, kind) in [
        (made(Cause::Create(by("r")), [detached()]), "create_session"),
        (made(Cause::Attach, [detached()]), "attached"),
        (made(Cause::Tools, [detached()]), "tools_changed"),
        (made(model.clone(), [failed]), "model_failed"),
        (made(model, [detached()]), "model_completed"),
        (made(tool.clone(), [doubt]), "tool_failed"),
        (made(tool, [detached()]), "tool_completed"),
        (
            made(Cause::Timer(TimerWhy::RetryModel(CALL)), [detached()]),
            "timer_fired",
        ),
    ] {
        let record = record(vec![entry]).await;
        let entry = entry::to_wire(&record, &entry::parse(&record).unwrap());
        assert_eq!(entry.cause.unwrap().kind, kind);
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_said_and_what_is_new_is_skipped() {
    let later = Unknown {
        kind: "Later".into(),
        json: r#"{"a":1}"#.into(),
    };
    let newer = record(vec![made(Cause::Attach, [Event::Unknown(later)])]).await;
    let ready = entry::ready(&newer, &Fields::default()).unwrap();
    let entry = v1::WatchLoopResponse::decode(ready.message).unwrap();
    let Some(v1::watch_loop_response::Item::Entry(entry)) = entry.item else {
        panic!()
    };
    assert_eq!(
        (entry.seq, entry.events),
        (1, vec![]),
        "the entry stays, its event has no form"
    );

    let bench = Bench::new();
    let at = loopwright_log::Timestamp::from_unix_ms(T0);
    let odd = loopwright_log::NewRecord::new(at, 1, r#"{"cause":"moon"}"#.into());
    bench.log.append(&key("s1"), 0, odd).await.unwrap();
    let odd = last(&bench).await;
    let unreadable = entry::ready(&odd, &Fields::default())
        .unwrap_err()
        .to_string();
    assert!(
        unreadable.starts_with("entry 1 of session/default/s1 cannot be read"),
        "{unreadable}"
    );
}

#[test]
fn progress_becomes_deltas_by_its_channel() {
    let made = |channel, payload: &str| {
        let topic = ProgressTopic {
            anchor: 3,
            call: 2,
            attempt: 1,
            channel,
        };
        let payload = bytes::Bytes::copy_from_slice(payload.as_bytes());
        delta::to_wire(&Progress::new(topic, 9, payload, Keep::Append))
    };
    let expected = |offset, content| v1::Delta {
        anchor_seq: 3,
        call: "c2".into(),
        attempt: 1,
        offset,
        content: Some(content),
    };
    use v1::delta::Content;
    assert_eq!(made(0, "hi"), Some(expected(9, Content::Text("hi".into()))));
    assert_eq!(
        made(1, "hm"),
        Some(expected(9, Content::Thinking("hm".into())))
    );
    let half = v1::ToolProgress {
        fraction: Some(0.5),
        message: "half".into(),
    };
    assert_eq!(
        made(2, r#"{"fraction":0.5,"message":"half"}"#),
        Some(expected(0, Content::ToolProgress(half)))
    );
    assert_eq!(made(2, "not json"), None);
    assert_eq!(made(3, "later"), None);
}

async fn record(entries: Vec<Entry>) -> Arc<Record> {
    let bench = Bench::new();
    bench.append(&key("s1"), entries).await;
    last(&bench).await
}

async fn last(bench: &Bench) -> Arc<Record> {
    let items = bench.log.read(&key("s1"), 0, ReadMode::ToTail);
    let facts = items.filter_map(async |item| match item.unwrap() {
        ReadItem::Fact(record) => Some(record),
        _ => None,
    });
    let all: Vec<_> = facts.collect().await;
    all.into_iter().last().unwrap()
}
