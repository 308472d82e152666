#![expect(clippy::unwrap_used, reason = "tests")]

use loopwright_core::event::DriverAttached;
use loopwright_log::{Id, Log as _, MemoryLog, NewRecord, ReadItem, ReadMode, StreamKey};

use super::*;

fn entry() -> Entry {
    Entry {
        cause: loopwright_core::Cause::Attach,
        events: vec![
            DriverAttached {
                epoch: 1,
                server: String::new(),
            }
            .into(),
        ],
        copied: false,
    }
}

#[tokio::test]
async fn a_record_of_the_log_is_read_with_its_seq_and_time() {
    let log = MemoryLog::new();
    let key = StreamKey::session(&Id::parse("default").unwrap(), &Id::parse("s1").unwrap());
    let at = loopwright_log::Timestamp::from_unix_ms(1_767_225_600_123);
    let body = serde_json::to_vec(&entry()).unwrap();
    let record = NewRecord::new(at, 1, body.into());
    log.append(&key, 0, record).await.unwrap();
    let mut items = log.read(&key, 0, ReadMode::ToTail);
    let Some(Ok(ReadItem::Fact(record))) = items.next().await else {
        panic!()
    };
    let line = parse(record.line()).unwrap().unwrap();
    assert_eq!((line.seq, line.at), (Some(1), Timestamp(1_767_225_600_123)));
    assert_eq!(line.entry, entry());
}

#[test]
fn a_line_of_a_golden_session_is_read() {
    let text = serde_json::json!({ "at": 5, "entry": entry() }).to_string();
    let line = parse(text.as_bytes()).unwrap().unwrap();
    assert_eq!(
        (line.seq, line.at, line.entry),
        (None, Timestamp(5), entry())
    );
}

#[test]
fn what_is_no_entry_is_named_by_its_line() {
    for (text, words) in [
        ("\n{}\n", "line 2: it is neither"),
        ("garbage", "line 1: it is neither"),
        ("{\"seq\":3,\"at\":\"noon\"}", "\"noon\" is not a time"),
        (
            "{\"seq\":3,\"at\":\"2026-01-01T00:00:00.000Z\"}",
            "seq 3 cannot be read",
        ),
    ] {
        let reader = Box::new(BufReader::new(std::io::Cursor::new(text)));
        let mut lines = Lines { reader, at: 0 };
        let error = format!("{:#}", lines.next().unwrap().unwrap_err());
        assert!(error.contains(words), "{text:?}: {error}");
    }
}

#[test]
fn a_file_of_one_endless_line_is_refused_and_not_kept() {
    let endless = std::io::repeat(b'x');
    let reader = Box::new(BufReader::new(endless));
    let mut lines = Lines { reader, at: 0 };
    let error = format!("{:#}", lines.next().unwrap().unwrap_err());
    assert!(error.contains("longer than"), "{error}");
}

#[test]
fn what_an_export_holds_beside_records_is_passed_over() {
    for line in [
        r#"{"v":1,"blob":"ab","bytes":3,"offset":0,"base64":"AAAA"}"#,
        r#"{"v":1,"blob":"ab","bytes":3,"missing":true}"#,
        r#"{"v":1,"export":"session/default/s1","tail_seq":3,"blobs":1}"#,
    ] {
        assert!(parse(line.as_bytes()).unwrap().is_none(), "{line}");
    }
}
