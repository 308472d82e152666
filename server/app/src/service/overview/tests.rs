#![expect(clippy::unwrap_used, reason = "tests")]

use loopwright_core::outcome::EndReason;
use loopwright_log::Seq;
use prost::Message as _;
use tonic::Code;

use super::*;
use crate::{
    drain::Drain,
    index::LOOPS_KEPT,
    service::{
        convert::questions,
        fixture::{self, T0, append, attached, ended, key, namespace, session, started},
        watch::SEATS_OF_NAMESPACE,
    },
};

const NONE: &str = "turns:\n- text: one\n";

struct Board {
    state: ServiceState,
    drain: Drain,
}

type Items = EncodedStream<v1::WatchLoopsResponse>;

impl Board {
    fn new() -> Self {
        let (state, drain) = fixture::state(NONE);
        Self { state, drain }
    }

    async fn watch(&self, request: v1::WatchLoopsRequest) -> Items {
        let filter = questions::watch_loops(request).unwrap();
        open(&self.state, &namespace(), filter).await.unwrap()
    }

    async fn append(&self, session: &str, entries: Vec<loopwright_core::Entry>) -> Seq {
        append(&*self.state.log, &key(session), entries).await
    }

    async fn remove(&self, session: &str) {
        self.state.index.forget(&key(session));
        assert!(self.state.log.remove(&key(session)).await.unwrap());
        self.state.index.forget(&key(session));
    }
}

fn running() -> v1::WatchLoopsRequest {
    v1::WatchLoopsRequest {
        states: vec![v1::LoopState::Running as i32],
        ..Default::default()
    }
}

fn short(one: &v1::LoopSummary) -> String {
    let state = one.state().as_str_name().replace("LOOP_STATE_", "");
    format!("{}/{} {state} @{}", one.session_id, one.loop_id, one.seq)
}

fn item(told: &Told) -> Item {
    let told = v1::WatchLoopsResponse::decode(told.bytes().clone()).unwrap();
    told.item.unwrap()
}

/// What a watcher is told until it is only given a sign of life, or the end: the snapshot in brackets.
async fn told(items: &mut Items) -> Vec<String> {
    let mut words = Vec::new();
    while let Some(next) = items.next().await {
        match item(&next.unwrap()) {
            Item::Snapshot(part) => {
                assert!(!part.loops.is_empty());
                words.extend(part.loops.iter().map(|one| format!("[{}]", short(one))));
            }
            Item::SnapshotEnd(end) => words.push(format!("all {}", end.loops)),
            Item::Changed(one) => words.push(short(&one)),
            Item::DeletedSessionId(id) => words.push(format!("-{id}")),
            Item::Heartbeat(beat) => {
                assert_eq!(beat.complete_through, 0);
                return words;
            }
            Item::Goodbye(goodbye) => words.push(format!("goodbye {}", goodbye.cursor)),
        }
    }
    words.push("end".to_owned());
    words
}

fn open_loop(n: u32) -> Vec<loopwright_core::Entry> {
    vec![started(n, T0 + 1_000 * u64::from(n), "go")]
}

#[tokio::test(start_paused = true)]
async fn first_everything_then_what_changes() {
    let board = Board::new();
    board.append("s1", session("s1")).await;
    board.append("s2", session("s2")[..3].to_vec()).await;
    let elsewhere = StreamKey::parse("session/other/s3").unwrap();
    append(&*board.state.log, &elsewhere, session("s3")).await;
    let mut watch = board.watch(v1::WatchLoopsRequest::default()).await;
    let all = told(&mut watch).await;
    assert_eq!(all, ["[s1/l1 ENDED @6]", "[s2/l1 RUNNING @3]", "all 2"]);

    board.append("s2", session("s2")[3..].to_vec()).await;
    assert_eq!(
        told(&mut watch).await,
        ["s2/l1 ENDED @6"],
        "as it stands now"
    );
    board.append("s1", open_loop(2)).await;
    assert_eq!(told(&mut watch).await, ["s1/l2 RUNNING @7"]);
    board.append("s2", vec![attached()]).await;
    append(&*board.state.log, &elsewhere, open_loop(2)).await;
    assert!(told(&mut watch).await.is_empty(), "no loop of ours went on");
    let mut late = board.watch(v1::WatchLoopsRequest::default()).await;
    let all = told(&mut late).await;
    let expected = [
        "[s1/l2 RUNNING @7]",
        "[s1/l1 ENDED @7]",
        "[s2/l1 ENDED @7]",
        "all 3",
    ];
    assert_eq!(all, expected);
}

#[tokio::test(start_paused = true)]
async fn nothing_falls_between_the_snapshot_and_the_changes() {
    let board = Board::new();
    board.append("s1", session("s1")[..3].to_vec()).await;
    board.append("s2", session("s2")[..3].to_vec()).await;
    let mut watch = board.watch(running()).await;
    // After the look, before anything was read.
    board.append("s1", session("s1")[3..].to_vec()).await;
    board.append("s3", session("s3")[..3].to_vec()).await;
    let all = told(&mut watch).await;
    let expected = ["[s2/l1 RUNNING @3]", "all 1", "s3/l1 RUNNING @3"];
    assert_eq!(
        all, expected,
        "s1 was never told of, and has nothing to leave"
    );

    let mut everything = board.watch(v1::WatchLoopsRequest::default()).await;
    board.append("s1", open_loop(2)).await;
    let ends = ended(2, T0 + 9_000, EndReason::Completed);
    board.append("s1", vec![ends]).await;
    let all = told(&mut everything).await;
    let old = |word: &String| word.starts_with("[s1/l1 ENDED @");
    assert!(all.iter().any(old), "{all:?}");
    assert_eq!(all.last().unwrap(), "s1/l2 ENDED @8", "{all:?}");
}

#[tokio::test(start_paused = true)]
async fn a_loop_that_leaves_the_filter_is_told_once_more() {
    let board = Board::new();
    board.append("s1", session("s1")[..3].to_vec()).await;
    let mut watch = board.watch(running()).await;
    assert_eq!(told(&mut watch).await, ["[s1/l1 RUNNING @3]", "all 1"]);
    board.append("s1", session("s1")[3..].to_vec()).await;
    assert_eq!(told(&mut watch).await, ["s1/l1 ENDED @6"]);
    board.append("s1", open_loop(2)).await;
    assert_eq!(told(&mut watch).await, ["s1/l2 RUNNING @7"]);
    // One ends and the next begins before anybody looks.
    let ends = ended(2, T0 + 9_000, EndReason::Completed);
    board.append("s1", vec![ends, open_loop(3).remove(0)]).await;
    let changes = told(&mut watch).await;
    assert_eq!(changes, ["s1/l2 ENDED @9", "s1/l3 RUNNING @9"]);

    let by = |labels: [(&str, &str); 1], agent: &str| v1::WatchLoopsRequest {
        labels: labels.map(|(key, value)| (key.into(), value.into())).into(),
        agent: agent.into(),
        ..Default::default()
    };
    let mut blue = board.watch(by([("team", "blue")], "")).await;
    assert_eq!(told(&mut blue).await.last().unwrap(), "all 3");
    let mut red = board.watch(by([("team", "red")], "")).await;
    let mut other = board.watch(by([("team", "blue")], "somebody")).await;
    for nothing in [&mut red, &mut other] {
        assert_eq!(told(nothing).await, ["all 0"]);
    }
    let ends = ended(3, T0 + 9_000, EndReason::Completed);
    board.append("s1", vec![ends]).await;
    assert_eq!(told(&mut blue).await, ["s1/l3 ENDED @10"]);
    assert!(told(&mut red).await.is_empty() && told(&mut other).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_watcher_that_does_not_read_costs_a_note_a_session_and_hears_every_end() {
    const SESSIONS: usize = 50;
    let board = Board::new();
    let mut slow = board.watch(v1::WatchLoopsRequest::default()).await;
    let mut quick = board.watch(v1::WatchLoopsRequest::default()).await;
    let name = |n: usize| format!("s{n:02}");
    for n in 0..SESSIONS {
        board.append(&name(n), session("s")[..2].to_vec()).await;
    }
    for id in 1..=4 {
        for n in 0..SESSIONS {
            let ends = ended(id, T0 + 9_000, EndReason::Completed);
            board
                .append(&name(n), vec![open_loop(id).remove(0), ends])
                .await;
        }
        let changes = told(&mut quick).await;
        let changes: Vec<_> = changes
            .iter()
            .filter(|word| word.contains("ENDED"))
            .collect();
        assert_eq!(changes.len(), SESSIONS, "each round is told at once");
    }
    assert_eq!(
        board.state.overview.notes(),
        SESSIONS,
        "of the slow one alone"
    );
    let all = told(&mut slow).await;
    let mut ends: Vec<_> = all.iter().filter(|word| word.contains("ENDED")).collect();
    assert_eq!(ends.len(), SESSIONS * 4, "no end is left out");
    ends.sort();
    ends.dedup();
    assert_eq!(ends.len(), SESSIONS * 4, "and none is told twice");
    assert_eq!(board.state.overview.notes(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_deletion_is_told_before_what_takes_the_id() {
    let board = Board::new();
    board.append("s1", session("s1")).await;
    let mut watch = board.watch(v1::WatchLoopsRequest::default()).await;
    assert_eq!(told(&mut watch).await, ["[s1/l1 ENDED @6]", "all 1"]);
    board.remove("s1").await;
    assert_eq!(told(&mut watch).await, ["-s1"]);
    board.append("s1", session("s1")).await;
    assert_eq!(
        told(&mut watch).await,
        ["s1/l1 ENDED @6"],
        "seqs begin anew"
    );
    board.remove("s1").await;
    board.append("s1", session("s1")[..3].to_vec()).await;
    assert_eq!(told(&mut watch).await, ["-s1", "s1/l1 RUNNING @3"]);
}

#[tokio::test(start_paused = true)]
async fn a_copy_is_told_of_when_it_is_a_session() {
    let board = Board::new();
    let marked = |entries: Vec<loopwright_core::Entry>| {
        let copied = |mut entry: loopwright_core::Entry| {
            entry.copied = true;
            entry
        };
        entries.into_iter().map(copied).collect::<Vec<_>>()
    };
    board
        .append("c1", marked(session("c1")[..6].to_vec()))
        .await;
    // A watcher that comes in the midst of it.
    let mut watch = board.watch(v1::WatchLoopsRequest::default()).await;
    assert_eq!(told(&mut watch).await, ["all 0"]);
    board.append("c1", marked(vec![attached()])).await;
    assert!(told(&mut watch).await.is_empty(), "no session yet");
    let forked = loopwright_core::event::SessionForked {
        session: "c1".into(),
        namespace: "default".into(),
        at: loopwright_core::ids::Timestamp(T0 + 20_000),
        from: "s1".into(),
        from_seq: 7,
        labels: [("team".to_owned(), "blue".to_owned())].into(),
    };
    let cause = loopwright_core::Cause::Adopt(fixture::by("f1"));
    board
        .append("c1", vec![fixture::entry(cause, [forked.into()])])
        .await;
    assert_eq!(
        told(&mut watch).await,
        ["c1/l1 ENDED @8"],
        "its old loops too"
    );
}

#[tokio::test(start_paused = true)]
async fn loops_that_a_brief_does_not_keep_are_told_too() {
    let board = Board::new();
    let loops = u32::try_from(LOOPS_KEPT).unwrap() + 6;
    let mut watch = board.watch(v1::WatchLoopsRequest::default()).await;
    let mut all = session("s1");
    for n in 2..=loops {
        all.extend(open_loop(n));
        all.push(ended(n, T0 + 9_000, EndReason::Completed));
    }
    board.append("s1", all).await;
    let changes = told(&mut watch).await;
    assert_eq!(
        changes.len(),
        loops as usize + 1,
        "and the end of the snapshot"
    );
    assert!(changes[1].starts_with("s1/l1 ENDED"));
    let mut late = board.watch(v1::WatchLoopsRequest::default()).await;
    let all = told(&mut late).await;
    assert_eq!(all.last().unwrap(), &format!("all {loops}"));
    assert!(all[0].starts_with(&format!("[s1/l{loops} ")), "{}", all[0]);
}

#[tokio::test(start_paused = true)]
async fn large_snapshots_come_in_parts() {
    let board = Board::new();
    for n in 0..600 {
        board.append(&format!("s{n}"), session("s")).await;
    }
    let watch = board.watch(v1::WatchLoopsRequest::default()).await;
    let parts = watch.map(|told| item(&told.unwrap()));
    let parts: Vec<_> = parts
        .take_while(|item| std::future::ready(matches!(item, Item::Snapshot(_))))
        .collect()
        .await;
    let sizes = parts.iter().map(|part| match part {
        Item::Snapshot(part) => {
            assert!(part.encoded_len() <= (256 << 10) + 500 * 8);
            part.loops.len()
        }
        other => panic!("{other:?}"),
    });
    assert_eq!(sizes.collect::<Vec<_>>(), [500, 100]);
}

#[tokio::test(start_paused = true)]
async fn all_watchers_share_one_encoding_and_one_task_that_ends_with_them() {
    let board = Board::new();
    let mut watches = Vec::new();
    for _ in 0..2 {
        let mut watch = board.watch(v1::WatchLoopsRequest::default()).await;
        assert_eq!(told(&mut watch).await, ["all 0"]);
        watches.push(watch);
    }
    board.append("s1", session("s1")[..3].to_vec()).await;
    let folds = board.state.index.folds();
    let mut addresses = Vec::new();
    for watch in &mut watches {
        let told = watch.next().await.unwrap().unwrap();
        addresses.push(told.bytes().as_ptr());
    }
    assert_eq!(addresses[0], addresses[1]);
    assert_eq!(board.state.index.folds() - folds, 1, "folded once");
    assert!(board.state.overview.runs());
    drop(watches);
    while board.state.overview.runs() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut again = board.watch(v1::WatchLoopsRequest::default()).await;
    assert_eq!(told(&mut again).await, ["[s1/l1 RUNNING @3]", "all 1"]);
    board.append("s1", session("s1")[3..].to_vec()).await;
    assert_eq!(told(&mut again).await, ["s1/l1 ENDED @6"]);
}

#[tokio::test(start_paused = true)]
async fn silence_drain_and_limit() {
    let board = Board::new();
    board.append("s1", session("s1")).await;
    let mut watch = board.watch(v1::WatchLoopsRequest::default()).await;
    assert_eq!(told(&mut watch).await, ["[s1/l1 ENDED @6]", "all 1"]);
    let before = Instant::now();
    assert!(told(&mut watch).await.is_empty());
    assert_eq!(before.elapsed(), IDLE);

    let mut all = vec![watch];
    while all.len() < SEATS_OF_NAMESPACE as usize {
        all.push(board.watch(v1::WatchLoopsRequest::default()).await);
    }
    let refused = open(&board.state, &namespace(), LoopFilter::default()).await;
    let refused = refused.err().unwrap();
    let details = tonic_types::StatusExt::get_details_error_info(&refused).unwrap();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(details.reason, "TOO_MANY_WATCHERS");
    let elsewhere = Id::parse("other").unwrap();
    assert!(
        open(&board.state, &elsewhere, LoopFilter::default())
            .await
            .is_ok()
    );
    all.pop();
    let mut fresh = board.watch(v1::WatchLoopsRequest::default()).await;

    let mut idle = all.swap_remove(0);
    let waiting = tokio::spawn(async move { told(&mut idle).await });
    tokio::task::yield_now().await;
    board.drain.begin();
    assert_eq!(waiting.await.unwrap(), ["goodbye 0", "end"]);
    assert_eq!(
        told(&mut fresh).await,
        ["goodbye 0", "end"],
        "in the midst of the snapshot"
    );
}

#[test]
fn what_cannot_be_filtered_by_is_refused() {
    let request = v1::WatchLoopsRequest {
        states: vec![77],
        labels: [("Bad Key".to_owned(), String::new())].into(),
        agent: "No".into(),
    };
    let refused = questions::watch_loops(request).unwrap_err();
    let fields: Vec<_> = refused.0.into_iter().map(|one| one.field).collect();
    assert_eq!(fields, ["states", "labels", "agent"]);
}
