//! The record format: what is written is read, and what has changed is seen.
#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;

fn key() -> StreamKey {
    StreamKey::parse("session/acme/s1").unwrap()
}

fn new(body: &str) -> NewRecord {
    let at = Timestamp::from_unix_ms(1_795_345_899_123);
    NewRecord::new(at, 3, Bytes::copy_from_slice(body.as_bytes()))
}

#[test]
fn the_format_is_what_the_design_says() {
    let record = Record::encode(
        &key(),
        42,
        &new(r#"{"cause":{"c":1},"events":[]}"#),
        0x7a01_c3de,
    );
    let text = std::str::from_utf8(record.line()).unwrap();
    let (covered, tail) = text.split_at(text.len() - 18);
    assert_eq!(
        covered,
        "{\"v\":1,\"stream\":\"session/acme/s1\",\"seq\":42,\"at\":\"2026-11-22T11:11:39.123Z\",\
         \"epoch\":3,\"cause\":{\"c\":1},\"events\":[],\"prev\":\"7a01c3de\""
    );
    assert_eq!(
        tail,
        format!(",\"crc\":\"{:08x}\"}}", crc32c::crc32c(covered.as_bytes()))
    );
    assert!(record.raw().ends_with(b"\"}\n"));
    assert_eq!(record.body(), r#"{"cause":{"c":1},"events":[]}"#);
    assert_eq!(peek_head(record.line()), Some(("session/acme/s1", 42)));
    let parsed: serde_json::Value = serde_json::from_slice(record.line()).unwrap();
    assert_eq!(parsed["prev"], "7a01c3de");
}

#[test]
fn an_empty_body_makes_a_record_too() {
    for body in ["{}", "{ }"] {
        let record = Record::encode(&key(), 1, &new(body), 0);
        assert!(serde_json::from_slice::<serde_json::Value>(record.line()).is_ok());
        let again = Record::decode(Bytes::copy_from_slice(record.raw())).unwrap();
        assert_eq!((again.body().as_ref(), &again), (&b"{}"[..], &record));
    }
}

#[test]
fn bodies_that_would_break_the_line_are_refused() {
    for bad in ["", "{", "[]", "{\n}", "x{}", "{} "] {
        let refused = new(bad).check(&key());
        assert!(
            matches!(refused, Err(AppendError::Malformed { .. })),
            "{bad:?}"
        );
    }
    let body = format!("{{\"a\":\"{}\"}}", "x".repeat(MAX_RECORD_BYTES));
    assert!(matches!(
        new(&body).check(&key()),
        Err(AppendError::TooLarge { .. })
    ));
}

#[test]
fn a_newer_version_is_told_from_damage() {
    let covered = "{\"v\":2,\"surprise\":true,\"prev\":\"00000000\"";
    let line = format!(
        "{covered},\"crc\":\"{:08x}\"}}",
        crc32c::crc32c(covered.as_bytes())
    );
    assert_eq!(
        Record::decode(line.into()),
        Err(Fault::Version { found: 2 })
    );
}

#[test]
fn fields_of_a_later_release_are_kept() {
    let covered = "{\"v\":1,\"stream\":\"session/acme/s1\",\"seq\":1,\
        \"at\":\"2026-11-22T11:11:39.123Z\",\"epoch\":1,\"novel\":[1],\"events\":[{\"Odd\":{}}],\
        \"prev\":\"00000000\"";
    let line = format!(
        "{covered},\"crc\":\"{:08x}\"}}",
        crc32c::crc32c(covered.as_bytes())
    );
    let record = Record::decode(line.into()).unwrap();
    assert_eq!(record.body(), r#"{"novel":[1],"events":[{"Odd":{}}]}"#);
}

#[test]
fn a_record_of_another_stream_or_place_is_refused() {
    let other = StreamKey::parse("session/acme/s2").unwrap();
    let record = Record::encode(&key(), 2, &new("{}"), 7);
    let found = Record::decode_of(Bytes::copy_from_slice(record.raw()), &other);
    assert_eq!(
        found,
        Err(Fault::Stream {
            found: "session/acme/s1".into()
        })
    );
    assert_eq!(record.follows(1, 7), Ok(()));
    assert_eq!(
        record.follows(1, 8),
        Err(Fault::Chain {
            found: 7,
            expected: 8
        })
    );
    assert_eq!(
        record.follows(2, 7),
        Err(Fault::Gap {
            found: 2,
            expected: 3
        })
    );
}

#[test]
fn every_flipped_bit_and_every_cut_is_seen() {
    let record = Record::encode(&key(), 9, &new(r#"{"cause":"c","events":[1,2]}"#), 77);
    let line = record.line().to_vec();
    for bit in 0..line.len() * 8 {
        let mut bad = line.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(Record::decode(bad.into()).is_err(), "bit {bit}");
    }
    for len in 0..line.len() {
        assert!(
            Record::decode(Bytes::copy_from_slice(&line[..len])).is_err(),
            "cut at {len}"
        );
    }
}

#[test]
fn times_are_written_as_the_calendar_says() {
    for (ms, text) in [
        (0, "1970-01-01T00:00:00.000Z"),
        (951_782_400_000, "2000-02-29T00:00:00.000Z"),
        (1_709_251_199_999, "2024-02-29T23:59:59.999Z"),
        (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        (u64::MAX, "9999-12-31T23:59:59.999Z"),
    ] {
        assert_eq!(Timestamp::from_unix_ms(ms).to_string(), text);
    }
    for bad in [
        "2023-02-29T00:00:00.000Z",
        "2024-01-01T24:00:00.000Z",
        "1969-12-31T23:59:59.999Z",
    ] {
        assert_eq!(Timestamp::parse(bad.as_bytes()), None, "{bad}");
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        seq in 1u64.., epoch: u64, prev: u32, ms in 0u64..253_402_300_800_000, text in ".*",
    ) {
        let body = serde_json::json!({ "events": [text] }).to_string();
        let new = NewRecord::new(Timestamp::from_unix_ms(ms), epoch, body.clone().into());
        let record = Record::encode(&key(), seq, &new, prev);
        let again = Record::decode_of(Bytes::copy_from_slice(record.raw()), &key()).unwrap();
        prop_assert_eq!((again.seq, again.epoch, again.prev, again.at.unix_ms()), (seq, epoch, prev, ms));
        prop_assert_eq!((again.crc, again.body()), (record.crc, Bytes::from(body)));
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = peek_head(&bytes);
        prop_assert!(Record::decode(bytes.into()).is_err());
    }

    #[test]
    fn no_head_makes_the_reader_panic(head in "\\{\"v\":1,\"stream\":\"[a-z/0]{0,20}\",\"seq\":[0-9]{0,21},\"at\":\".{0,24}\"(,\"epoch\":[0-9]{0,21})?(,|x|)(,\"prev\":\"[0-9a-f]{8}\")?") {
        let line = format!("{head},\"crc\":\"{:08x}\"}}", crc32c::crc32c(head.as_bytes()));
        let _ = Record::decode(line.into());
    }
}
