//! Handles and ranges, good and bad, over a log in memory.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use bytes::Bytes;
use loopwright_core::entry::Cause;
use loopwright_core::event::{ToolCallCompleted, ToolCallFailed};
use loopwright_core::message::BlobPart;
use loopwright_core::outcome::ToolFailureKind;
use loopwright_log::{MemoryLog, NewRecord, Timestamp};

use super::*;
use crate::sidecars::schema::Schemas;

fn session() -> SessionRef {
    SessionRef {
        namespace: "default".into(),
        session: "s".into(),
        born_at: loopwright_core::ids::Timestamp(1),
    }
}

/// A log in which calls gave back these texts, `c1` first; the second one's is kept beside it.
async fn log(texts: [&str; 3]) -> Arc<MemoryLog> {
    let (log, key) = (MemoryLog::new(), key_of(&session()).unwrap());
    for (at, text) in (0..).zip(texts) {
        let call = CallId(at + 1);
        let mut output = ToolOutput {
            text: text.to_owned(),
            ..ToolOutput::default()
        };
        if call.0 == 2 {
            let kept = log.put_blob(&key, Bytes::copy_from_slice(text.as_bytes()));
            let BlobRef { sha256, bytes } = kept.await.unwrap();
            output.text = "cut".to_owned();
            output.full_bytes = Some(bytes);
            output.full = Some(BlobPart {
                sha256,
                bytes,
                media_type: "text/plain".to_owned(),
            });
        }
        let completed = ToolCallCompleted {
            call,
            attempt: 1,
            output: Arc::new(output),
        };
        append(&log, at.into(), completed).await;
    }
    log
}

async fn append(log: &MemoryLog, after: Seq, event: impl Into<Event>) {
    let entry = Entry::new(Cause::Attach, vec![event.into()]);
    let body = serde_json::to_vec(&entry).unwrap();
    let record = NewRecord::new(Timestamp::from_unix_ms(1), 1, body.into());
    let key = key_of(&session()).unwrap();
    log.append(&key, after, record).await.unwrap();
}

async fn read(log: &MemoryLog, arguments: &str, most: usize) -> ToolOutput {
    run(log, &session(), arguments, most).await.unwrap()
}

#[tokio::test]
async fn a_range_of_what_was_kept_beside_the_log_is_given_to_the_byte() {
    let long: String = (0..30_000).map(|at| format!("{at:06}\n")).collect();
    let log = log(["short", &long, "last"]).await;
    let read = async |arguments: &str| read(&log, arguments, 30_000).await.text;
    let range = r#"{"handle":"c2","range":{"start":100000,"end":103000}}"#;
    let head = "[c2: bytes 100000 to 103000 of 210000]\n";
    assert_eq!(
        read(range).await,
        format!("{head}{}", &long[100_000..103_000])
    );
    let whole = read(r#"{"handle":"c2"}"#).await;
    let (head, piece) = whole.split_once('\n').unwrap();
    let stop = piece.len();
    assert_eq!(
        head,
        format!("[c2: bytes 0 to {stop} of 210000; cut here, go on with start {stop}]")
    );
    assert!(whole.len() <= 30_000 && stop > 29_000 && long.starts_with(piece));
    let tail = read(r#"{"handle":"c2","range":{"start":209993,"end":999999999}}"#).await;
    assert!(tail.ends_with("]\n029999\n"), "{tail}");
    let short = read(r#"{"handle":"c1"}"#).await;
    assert_eq!(short, "[c1: bytes 0 to 5 of 5]\nshort");
}

#[tokio::test]
async fn a_range_never_parts_a_character_and_always_gets_somewhere() {
    let log = log(["äöü", "", ""]).await;
    for (start, end, head, piece) in [
        (1, 3, "bytes 0 to 4 of 6", "äö"),
        (0, 1, "bytes 0 to 2 of 6", "ä"),
        (2, 2, "bytes 2 to 2 of 6", ""),
        (5, 9, "bytes 4 to 6 of 6", "ü"),
    ] {
        let range = format!(r#"{{"handle":"c1","range":{{"start":{start},"end":{end}}}}}"#);
        let text = read(&log, &range, 30_000).await.text;
        assert_eq!(text, format!("[c1: {head}]\n{piece}"));
    }
    let one = read(&log, r#"{"handle":"c1"}"#, 0).await.text;
    assert_eq!(
        one,
        "[c1: bytes 0 to 2 of 6; cut here, go on with start 2]\nä"
    );
    assert_eq!(
        read(&log, r#"{"handle":"c3"}"#, 99).await.text,
        "[c3: bytes 0 to 0 of 0]\n"
    );
}

#[tokio::test]
async fn what_is_no_handle_or_no_range_is_told_with_the_way_out() {
    let log = log(["one", "two", "three"]).await;
    for (arguments, words) in [
        (r#"{"handle":"c9"}"#, "no result of c9"),
        (r#"{"handle":"files"}"#, "`files` is no handle"),
        (r#"{"handle":"c1","range":{"start":3}}"#, "c1 has 3 bytes"),
        (
            r#"{"handle":"c1","range":{"start":2,"end":1}}"#,
            "a start below 3",
        ),
        (r#"{"range":{"start":2}}"#, "missing field `handle`"),
        (
            r#"{"handle":"c1","range":{"start":18446744073709551615}}"#,
            "none of them",
        ),
    ] {
        let output = read(&log, arguments, 30_000).await;
        assert!(
            output.is_error && output.text.contains(words),
            "{}",
            output.text
        );
    }
}

#[tokio::test]
async fn a_failure_is_a_result_and_a_payload_that_is_gone_is_said() {
    let log = log(["one", "two", "three"]).await;
    let failed = ToolCallFailed {
        call: CallId(4),
        attempt: 1,
        kind: ToolFailureKind::NotExecuted,
        message: "no such sidecar".to_owned(),
        retry_at: None,
        cause: None,
    };
    append(&log, 3, failed).await;
    let text = read(&log, r#"{"handle":"c4"}"#, 30_000).await.text;
    assert!(text.ends_with("no such sidecar"), "{text}");
    let gone = ToolCallCompleted {
        call: CallId(5),
        attempt: 1,
        output: Arc::new(ToolOutput {
            text: "what is left".to_owned(),
            full_bytes: Some(99),
            full: Some(BlobPart {
                sha256: "0".repeat(64),
                bytes: 99,
                media_type: String::new(),
            }),
            ..ToolOutput::default()
        }),
    };
    append(&log, 4, gone).await;
    let text = read(&log, r#"{"handle":"c5"}"#, 30_000).await.text;
    assert!(
        text.contains("was not kept") && text.ends_with("what is left"),
        "{text}"
    );
}

#[test]
fn its_own_schema_is_one_that_a_sidecar_might_have() {
    assert_eq!(Schemas::default().check(&spec().input_schema), Ok(()));
}
