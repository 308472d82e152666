#![expect(clippy::unwrap_used, reason = "tests")]

use loopwright_core::event::{DriverAttached, LogRecovered};

use super::*;

fn attached(epoch: u64) -> Event {
    DriverAttached {
        epoch,
        server: String::new(),
    }
    .into()
}

fn parted(logged: Vec<Event>, decided: Result<Vec<Event>, String>) -> Divergence {
    Divergence {
        seq: 2,
        logged,
        decided,
    }
}

#[test]
fn a_changed_field_stands_once_on_each_side() {
    let lines = render(&parted(vec![attached(2)], Ok(vec![attached(3)]))).join("\n");
    let signs: Vec<&str> = lines
        .lines()
        .filter(|line| line.starts_with("  -  ") || line.starts_with("  +  "))
        .map(str::trim)
        .collect();
    assert_eq!(
        signs,
        ["-       \"epoch\": 2", "+       \"epoch\": 3"],
        "{lines}"
    );
    assert!(lines.contains("\"DriverAttached\""), "{lines}");
}

#[test]
fn an_event_that_is_missing_is_not_mixed_with_those_that_stay() {
    let recovered: Event = LogRecovered { cut_bytes: 7 }.into();
    let logged = vec![recovered.clone(), attached(2)];
    let lines = render(&parted(logged, Ok(vec![attached(2)])));
    let minus = lines
        .iter()
        .filter(|line| line.starts_with("  -  "))
        .count();
    let plus = lines
        .iter()
        .filter(|line| line.starts_with("  +  "))
        .count();
    assert_eq!((minus, plus), (5, 0), "{lines:#?}");
}

#[test]
fn a_refusal_is_told_in_its_words() {
    let lines = render(&parted(vec![attached(3)], Err("too soon".into())));
    assert!(lines[0].ends_with("refuses it: too soon"), "{lines:#?}");
    assert!(lines[1..].iter().all(|line| line.starts_with("  - ")));
    let lines = render(&parted(vec![attached(3)], Ok(vec![])));
    assert!(lines[0].ends_with("decides nothing"), "{lines:#?}");
}

#[test]
fn long_lines_are_cut_round_the_place_that_differs() {
    let same = "é".repeat(5_000);
    let (a, b) = (format!("{same}A{same}"), format!("{same}B{same}"));
    let shown = clamp(&a, Some(&b));
    assert!(shown.contains('A') && shown.chars().count() < MAX_CHARS + 40);
    assert!(shown.starts_with(".."), "{shown}");
    assert!(clamp(&a, None).starts_with('é'));
}

#[test]
fn what_is_shown_is_bounded() {
    let many = |epochs: std::ops::Range<u64>| epochs.map(attached).collect::<Vec<_>>();
    for count in [300, 3_000] {
        let lines = render(&parted(many(0..count), Ok(many(count..2 * count))));
        assert_eq!(lines.len(), MAX_LINES + 1);
        assert!(lines.last().unwrap().contains("more lines"));
    }
}
