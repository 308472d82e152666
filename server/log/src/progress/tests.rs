//! Late readers, coalescing, bounds and ends of progress.
#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;

const TOPIC: ProgressTopic = ProgressTopic {
    anchor: 3,
    call: 1,
    attempt: 1,
    channel: 0,
};

fn text(offset: u64, text: &str) -> Progress {
    Progress::new(
        TOPIC,
        offset,
        Bytes::copy_from_slice(text.as_bytes()),
        Keep::Append,
    )
}

fn show(board: &Board, shown: &mut Shown) -> Vec<(u64, String)> {
    let fresh = board.unseen(shown, 3);
    fresh
        .iter()
        .map(|p| (p.offset, String::from_utf8(p.payload.to_vec()).unwrap()))
        .collect()
}

#[test]
fn a_late_reader_gets_the_text_so_far_at_once() {
    let mut board = Board::default();
    let mut early = Shown::default();
    assert!(board.publish(text(0, "Let ")));
    assert_eq!(show(&board, &mut early), [(0, "Let ".into())]);
    assert!(board.publish(text(4, "me ")));
    assert!(board.publish(text(7, "look")));
    assert_eq!(show(&board, &mut early), [(4, "me look".into())]);
    assert_eq!(show(&board, &mut early), []);
    assert_eq!(
        show(&board, &mut Shown::default()),
        [(0, "Let me look".into())]
    );
}

#[test]
fn a_single_piece_and_its_encoding_are_shared() {
    let mut board = Board::default();
    board.publish(text(0, "x"));
    let first = board.unseen(&mut Shown::default(), 3).remove(0);
    let second = board.unseen(&mut Shown::default(), 3).remove(0);
    assert!(Arc::ptr_eq(&first, &second));
    assert_eq!(first.memo(|| Bytes::from_static(b"made")), "made");
    assert_eq!(second.memo(|| Bytes::from_static(b"again")), "made");
}

#[test]
fn an_ended_topic_stays_ended() {
    let mut board = Board::default();
    board.publish(text(0, "x"));
    board.end(&[TOPIC]);
    assert!(board.is_empty());
    assert!(!board.publish(text(1, "y")));
    assert_eq!(show(&board, &mut Shown::default()), []);
}

#[test]
fn repeats_are_dropped_and_holes_restart_at_their_offset() {
    let mut board = Board::default();
    board.publish(text(0, "abc"));
    assert!(!board.publish(text(1, "bc")));
    assert!(board.publish(text(2, "cd")));
    assert_eq!(show(&board, &mut Shown::default()), [(0, "abcd".into())]);
    board.publish(text(10, "z"));
    assert_eq!(show(&board, &mut Shown::default()), [(10, "z".into())]);
}

#[test]
fn a_state_shows_only_its_last_value() {
    let mut board = Board::default();
    let mut shown = Shown::default();
    let state = |word: &'static str| {
        Progress::new(TOPIC, 0, Bytes::from_static(word.as_bytes()), Keep::Latest)
    };
    board.publish(state("10 %"));
    board.publish(state("50 %"));
    assert_eq!(show(&board, &mut shown), [(0, "50 %".into())]);
    assert_eq!(show(&board, &mut shown), []);
    board.publish(state("50 %"));
    assert_eq!(show(&board, &mut shown), [(0, "50 %".into())]);
}

#[test]
fn a_topic_is_not_shown_before_the_record_that_started_it() {
    let mut board = Board::default();
    board.publish(text(0, "early"));
    assert!(board.unseen(&mut Shown::default(), 2).is_empty());
}

#[test]
fn memory_is_bounded_and_text_is_cut_between_characters() {
    let mut board = Board::default();
    let piece = "é".repeat(5_000);
    for i in 0..100u64 {
        board.publish(text(i * 10_000, &piece));
        assert!(board.topics[&TOPIC].bytes <= TOPIC_BYTES + 10_000);
    }
    let (offset, rest) = show(&board, &mut Shown::default()).remove(0);
    assert_eq!(offset + rest.len() as u64, 1_000_000);
    for call in 0..(TOPICS as u32 + 10) {
        board.publish(Progress::new(
            ProgressTopic { call, ..TOPIC },
            0,
            Bytes::new(),
            Keep::Append,
        ));
    }
    assert!(board.topics.len() <= TOPICS);
    let huge = Bytes::from(vec![b'x'; TOPIC_BYTES + 1]);
    assert!(!board.publish(Progress::new(
        ProgressTopic {
            attempt: 9,
            ..TOPIC
        },
        0,
        huge,
        Keep::Append
    )));
}

proptest! {
    /// Whatever the sizes of pieces and the moments of looking, a reader that began at the start
    /// gets every byte once, in order.
    #[test]
    fn pieces_add_up(pieces in prop::collection::vec(("[a-zé]{0,9}", any::<bool>()), 0..200)) {
        let (mut board, mut shown) = (Board::default(), Shown::default());
        let (mut sent, mut got) = (String::new(), String::new());
        for (piece, look) in pieces {
            board.publish(text(sent.len() as u64, &piece));
            sent.push_str(&piece);
            if look {
                for (offset, part) in show(&board, &mut shown) {
                    prop_assert_eq!(offset, got.len() as u64);
                    got.push_str(&part);
                }
            }
        }
        for (_, part) in show(&board, &mut shown) {
            got.push_str(&part);
        }
        prop_assert_eq!(got, sent);
    }
}
