#![expect(clippy::unwrap_used, reason = "tests")]

use futures_util::{FutureExt, stream};
use proptest::prelude::*;

use super::*;

fn events(chunks: &[&[u8]]) -> Result<Vec<(String, String)>, String> {
    let chunks: Vec<Result<Bytes, String>> = chunks
        .iter()
        .map(|chunk| Ok(Bytes::copy_from_slice(chunk)))
        .collect();
    collect(chunks)
}

fn collect(chunks: Vec<Result<Bytes, String>>) -> Result<Vec<(String, String)>, String> {
    let mut events = Events::new(stream::iter(chunks));
    let mut all = Vec::new();
    loop {
        match events.next().now_or_never().unwrap() {
            Ok(Some(event)) => all.push((event.event, event.data)),
            Ok(None) => return Ok(all),
            Err(broken) => return Err(format!("{broken:?}")),
        }
    }
}

const TEXT: &str = ": hello\n\nevent: one\ndata: {\"a\":\"ä€😀\"}\n\nid: 7\r\ndata: x\r\ndata: y\r\n\r\n\
                    retry: 5\n\ndata: \n\ndata:last\n\n";

fn whole() -> Vec<(String, String)> {
    [
        ("one", "{\"a\":\"ä€😀\"}"),
        ("message", "x\ny"),
        ("message", ""),
        ("message", "last"),
    ]
    .map(|(event, data)| (event.to_owned(), data.to_owned()))
    .to_vec()
}

#[test]
fn a_cut_at_any_byte_changes_nothing() {
    let bytes = TEXT.as_bytes();
    assert_eq!(events(&[bytes]).unwrap(), whole());
    for at in 0..bytes.len() {
        assert_eq!(
            events(&[&bytes[..at], &bytes[at..]]).unwrap(),
            whole(),
            "cut at {at}"
        );
    }
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(events(&single).unwrap(), whole());
}

#[test]
fn a_byte_order_mark_is_no_part_of_the_first_event_and_ends_nobody() {
    let last = |data: &str| vec![("message".to_owned(), data.to_owned())];
    for marks in 1..3 {
        for (body, data) in [("data: x\n\n", "x"), ("data: [DONE]", "[DONE]")] {
            let text = "\u{feff}".repeat(marks) + body;
            for at in 0..=text.len() {
                let (head, tail) = text.as_bytes().split_at(at);
                assert_eq!(
                    events(&[head, tail]).unwrap(),
                    last(data),
                    "{text:?} cut at {at}"
                );
            }
        }
    }
    assert_eq!(events(&["\u{feff}".as_bytes()]).unwrap(), vec![]);
    assert_eq!(events(&["\u{feff}\n\n".as_bytes()]).unwrap(), vec![]);
}

proptest! {
    #[test]
    fn any_chunking_gives_the_same_events(mut cuts in prop::collection::vec(0..TEXT.len(), 0..12)) {
        cuts.sort_unstable();
        let mut chunks = Vec::new();
        let mut from = 0;
        for at in cuts.into_iter().chain([TEXT.len()]) {
            chunks.push(&TEXT.as_bytes()[from..at]);
            from = at;
        }
        prop_assert_eq!(events(&chunks).unwrap(), whole());
    }

    #[test]
    fn no_bytes_are_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = events(&[&bytes]);
    }
}

#[test]
fn an_event_without_its_blank_line_counts_and_a_torn_line_does_not() {
    let data = |text: &str| {
        events(&[text.as_bytes()])
            .unwrap()
            .pop()
            .map(|(_, data)| data)
    };
    assert_eq!(data("data: a\n").as_deref(), Some("a"));
    assert_eq!(data("data: [DONE]").as_deref(), Some("[DONE]"));
    assert_eq!(data("data: {\"half"), None);
}

#[test]
fn an_event_without_end_is_given_up() {
    let chunk = Bytes::from(vec![b'x'; 1 << 20]);
    let got = collect(vec![Ok(chunk); 8]);
    assert_eq!(got, Err("TooLarge".to_owned()));
}

#[test]
fn a_broken_connection_and_bytes_that_are_no_text_are_told_apart() {
    let chunks = vec![
        Ok(Bytes::from_static(b"data: a\n\nda")),
        Err("reset".to_owned()),
    ];
    assert_eq!(collect(chunks), Err("Transport(\"reset\")".to_owned()));
    assert!(
        events(&[b"data: \xff\xfe\n\n"])
            .unwrap_err()
            .starts_with("Malformed")
    );
}
