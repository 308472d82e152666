//! Which streams moved: told to whoever follows many of them.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::FutureExt;

use super::{Subject, fill, key};
use crate::{Id, Log, Move, Moves, StreamKey, StreamKind};

pub(super) async fn run(subject: &Subject) {
    let log = &*subject.log;
    what_moved_is_told_once(log).await;
    a_removal_is_told_with_what_follows_it(log).await;
    other_kinds_are_not_told(log).await;
}

async fn what_moved_is_told_once(log: &dyn Log) {
    let (one, two) = (key("moves", "one"), key("moves", "two"));
    fill(log, &one, 2).await;
    let mut moves = log.moves(StreamKind::Session);
    assert!(moves.next().now_or_never().is_none(), "that was before");
    fill(log, &one, 3).await;
    fill(log, &two, 1).await;
    let told = next(&mut moves).await;
    let expected = [(one.clone(), moved(2)), (two, moved(0))];
    assert_eq!(told, HashMap::from(expected), "three appends are one move");
    assert!(moves.next().now_or_never().is_none(), "and told once");
    let mut second = log.moves(StreamKind::Session);
    fill(log, &one, 1).await;
    for moves in [&mut moves, &mut second] {
        assert_eq!(next(moves).await, HashMap::from([(one.clone(), moved(5))]));
    }
}

async fn a_removal_is_told_with_what_follows_it(log: &dyn Log) {
    let key = key("moves", "gone");
    fill(log, &key, 4).await;
    let mut moves = log.moves(StreamKind::Session);
    fill(log, &key, 1).await;
    assert_eq!(log.remove(&key).await, Ok(true));
    let removed = Move {
        after: 0,
        removed: true,
    };
    assert_eq!(
        next(&mut moves).await,
        HashMap::from([(key.clone(), removed)])
    );
    assert_eq!(log.remove(&key).await, Ok(false));
    assert!(moves.next().now_or_never().is_none(), "nothing was removed");
    fill(log, &key, 2).await;
    assert_eq!(log.remove(&key).await, Ok(true));
    fill(log, &key, 2).await;
    assert_eq!(next(&mut moves).await, HashMap::from([(key, removed)]));
}

async fn other_kinds_are_not_told(log: &dyn Log) {
    let parse = |text| Id::parse(text).expect("the suite uses good ids");
    let ledger = StreamKey::new(StreamKind::Ledger, &parse("moves"), &parse("budgets"));
    let mut sessions = log.moves(StreamKind::Session);
    let mut ledgers = log.moves(StreamKind::Ledger);
    fill(log, &ledger, 1).await;
    assert_eq!(
        next(&mut ledgers).await,
        HashMap::from([(ledger, moved(0))])
    );
    assert!(sessions.next().now_or_never().is_none());
}

fn moved(after: u64) -> Move {
    Move {
        after,
        removed: false,
    }
}

async fn next(moves: &mut Moves) -> HashMap<StreamKey, Move> {
    tokio::time::timeout(Duration::from_secs(60), moves.next())
        .await
        .expect("the listener was not woken")
}
