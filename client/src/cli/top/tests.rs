use loopwright_proto::v1::{EndReason, Totals, Usage};
use loopwright_proto::well_known::Timestamp;

use super::*;

fn one(session: &str, state: LoopState, started: i64) -> LoopSummary {
    LoopSummary {
        session_id: session.to_owned(),
        loop_id: "l1".to_owned(),
        state: state.into(),
        steps: 3,
        totals: Some(Totals {
            usage: Some(Usage {
                input_tokens: 1_200,
                output_tokens: 34,
                ..Usage::default()
            }),
            cost_micro_usd: Some(12_300),
            ..Totals::default()
        }),
        started_at: Some(Timestamp {
            seconds: started,
            nanos: 0,
        }),
        last_text: "reading".to_owned(),
        ..LoopSummary::default()
    }
}

fn sessions(board: &Board) -> Vec<&str> {
    let loops = board.sorted();
    loops.iter().map(|one| one.session_id.as_str()).collect()
}

#[tokio::test(start_paused = true)]
async fn the_table_shows_what_waits_first_and_lets_ended_loops_go() {
    let mut board = Board::default();
    board.take(LoopsEvent::Snapshot(vec![
        one("old", LoopState::Running, 100),
        one("new", LoopState::Running, 190),
        one("asks", LoopState::Waiting, 50),
    ]));
    assert_eq!(sessions(&board), ["asks", "new", "old"]);
    let lines = board.lines(Duration::from_secs(200), "http://here");
    assert_eq!(
        lines[0],
        "http://here  2 running, 1 waiting, 0 paused  (Ctrl-C ends)"
    );
    assert_eq!(
        lines[2..4],
        [
            "SESSION  LOOP  STATE    STEP  TOKENS  COST     AGE    DOING".to_owned(),
            "asks     l1    waiting  3     1,234   $0.0123  2 min  reading".to_owned(),
        ]
    );

    let ended = LoopSummary {
        end_reason: EndReason::MaxSteps.into(),
        ..one("new", LoopState::Ended, 190)
    };
    assert!(board.is_new(&ended));
    board.take(LoopsEvent::Changed(Box::new(ended.clone())));
    assert!(!board.is_new(&ended), "told twice, it is shown once");
    assert_eq!(
        sessions(&board),
        ["asks", "old", "new"],
        "last, and still there"
    );
    tokio::time::advance(FAREWELL).await;
    board.forget_gone();
    assert_eq!(sessions(&board), ["asks", "old"]);
    board.take(LoopsEvent::Deleted {
        session_id: "old".to_owned(),
    });
    assert_eq!(sessions(&board), ["asks"]);
    board.take(LoopsEvent::Snapshot(Vec::new()));
    assert!(
        sessions(&board).is_empty(),
        "in place of all that was known"
    );
}

#[tokio::test(start_paused = true)]
async fn ended_loops_stay_where_they_are_asked_for() {
    let mut board = Board {
        keeps_ended: true,
        ..Board::default()
    };
    board.take(LoopsEvent::Changed(Box::new(one(
        "s1",
        LoopState::Ended,
        1,
    ))));
    tokio::time::advance(FAREWELL * 2).await;
    board.forget_gone();
    assert_eq!(sessions(&board), ["s1"]);
}

#[test]
fn a_change_is_one_line() {
    assert_eq!(
        change_line(&one("s1", LoopState::Running, 1)),
        "s1/l1  running  step 3, 1,234 tokens, $0.0123  reading"
    );
}
