#![expect(clippy::unwrap_used, reason = "tests")]

use loopwright_proto::v1::{Delta, EndReason, Entry, delta::Content, event::Kind};

use super::TextAssembler;
use crate::tests::session::{Step, abandoned, attached, ended, entry, failed, model, text};

fn fact(seq: u64, kinds: Vec<Kind>) -> Entry {
    match entry(seq, kinds) {
        Step::Entry(entry) => entry,
        other => panic!("{other:?}"),
    }
}

fn came(anchor: u64, attempt: u32, offset: u64, words: &str) -> Delta {
    match text(anchor, "c1", attempt, offset, words) {
        Step::Delta(delta) => delta,
        other => panic!("{other:?}"),
    }
}

fn new_text(delta: Option<Delta>) -> Option<(u64, String)> {
    let delta = delta?;
    match delta.content.unwrap() {
        Content::Text(text) => Some((delta.offset, text)),
        other => panic!("{other:?}"),
    }
}

fn started() -> TextAssembler {
    let mut text = TextAssembler::new(0);
    text.entry(&fact(3, vec![model(1, "c1", 1)]));
    text
}

#[test]
fn an_overlap_is_cut_and_the_rest_is_appended() {
    let mut text = started();
    assert_eq!(
        new_text(text.delta(came(3, 1, 0, "wör"))),
        Some((0, "wör".into()))
    );
    assert_eq!(
        new_text(text.delta(came(3, 1, 0, "wörld"))),
        Some((4, "ld".into()))
    );
    assert_eq!(text.delta(came(3, 1, 1, "ör")), None);
    assert_eq!(text.text("c1"), Some("wörld"));
}

#[test]
fn a_hole_is_held_back_until_it_is_filled() {
    let mut text = started();
    text.delta(came(3, 1, 0, "ab"));
    assert_eq!(text.delta(came(3, 1, 4, "ef")), None);
    assert_eq!(
        new_text(text.delta(came(3, 1, 0, "abcdef"))),
        Some((2, "cdef".into()))
    );
}

#[test]
fn an_overlap_that_ends_inside_a_character_is_not_shown() {
    let mut text = started();
    text.delta(came(3, 1, 0, "a"));
    assert_eq!(text.delta(came(3, 1, 0, "öx")), None);
    assert_eq!(text.text("c1"), Some("a"));
}

#[test]
fn text_and_thinking_are_counted_apart() {
    let mut text = started();
    text.delta(came(3, 1, 0, "abc"));
    let mut thought = came(3, 1, 0, "");
    thought.content = Some(Content::Thinking("hm".into()));
    assert!(text.delta(thought).is_some());
    assert_eq!(
        (text.text("c1"), text.thinking("c1")),
        (Some("abc"), Some("hm"))
    );
}

#[test]
fn deltas_of_an_attempt_that_is_over_are_void() {
    for over in [failed("c1", 1), abandoned("c1", 1)] {
        let mut text = started();
        text.delta(came(3, 1, 0, "abc"));
        text.entry(&fact(4, vec![over]));
        assert_eq!(text.text("c1"), None);
        assert_eq!(text.delta(came(3, 1, 3, "late")), None);
        assert_eq!(text.delta(came(3, 1, 0, "late")), None);

        text.entry(&fact(5, vec![model(1, "c1", 2)]));
        assert_eq!(text.delta(came(3, 1, 0, "later")), None);
        let new = text.delta(came(5, 2, 0, "new"));
        assert_eq!(new_text(new), Some((0, "new".into())));
    }
}

#[test]
fn a_call_that_started_before_the_cursor_is_taken_up_by_its_deltas() {
    let mut text = TextAssembler::new(7);
    text.entry(&fact(8, vec![attached(2)]));
    assert_eq!(
        new_text(text.delta(came(7, 1, 0, "ab"))),
        Some((0, "ab".into()))
    );
    text.entry(&fact(9, vec![failed("c1", 1)]));
    assert_eq!(text.delta(came(7, 1, 0, "ab")), None);
}

#[test]
fn a_delta_that_runs_ahead_of_its_calls_start_is_not_shown() {
    let mut text = TextAssembler::new(2);
    assert_eq!(text.delta(came(3, 1, 0, "early")), None);
}

#[test]
fn nothing_is_in_flight_after_the_loop_ended() {
    let mut text = TextAssembler::new(7);
    text.delta(came(7, 1, 0, "ab"));
    text.entry(&fact(8, vec![ended(EndReason::Error)]));
    assert_eq!(text.text("c1"), None);
    assert_eq!(text.delta(came(7, 1, 0, "ab")), None);
}
