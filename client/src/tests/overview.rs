use loopwright_proto::v1::watch_loops_response::Item;
use loopwright_proto::v1::{
    Goodbye, LoopState, LoopSummary, LoopsPart, SnapshotEnd, WatchLoopsRequest,
};

use super::fake::Fake;
use crate::{LoopsEvent, LoopsWatch};

pub(super) fn one(session: &str, state: LoopState) -> LoopSummary {
    LoopSummary {
        session_id: session.to_owned(),
        loop_id: "l1".to_owned(),
        state: state.into(),
        ..LoopSummary::default()
    }
}

pub(super) fn part(sessions: &[&str]) -> Item {
    let loops = sessions.iter().map(|id| one(id, LoopState::Running));
    Item::Snapshot(LoopsPart {
        loops: loops.collect(),
    })
}

pub(super) fn end(loops: u64) -> Item {
    Item::SnapshotEnd(SnapshotEnd { loops })
}

async fn next(watch: &mut LoopsWatch) -> String {
    let names = |loops: &[LoopSummary]| {
        let names: Vec<_> = loops.iter().map(|one| one.session_id.as_str()).collect();
        names.join(" ")
    };
    match watch.next().await.unwrap().unwrap() {
        LoopsEvent::Snapshot(loops) => format!("[{}]", names(&loops)),
        LoopsEvent::Changed(one) => names(&[*one]),
        LoopsEvent::Deleted { session_id } => format!("-{session_id}"),
        LoopsEvent::Heartbeat => "heartbeat".to_owned(),
        LoopsEvent::Interrupted { .. } => "lost".to_owned(),
    }
}

#[tokio::test]
async fn a_snapshot_comes_whole_and_again_after_every_cut() {
    let (fake, client) = Fake::serve(Vec::new()).await;
    let goodbye = Item::Goodbye(Goodbye::default());
    fake.state().overviews.extend([
        // Cut in the midst of the snapshot: nothing of it is yielded.
        vec![part(&["half"])],
        vec![
            part(&["s1", "s2"]),
            part(&["s3"]),
            end(3),
            Item::Changed(one("s2", LoopState::Ended)),
            Item::DeletedSessionId("s1".to_owned()),
            goodbye,
        ],
        vec![part(&["s4"]), end(1)],
    ]);
    let mut watch = client.watch_loops(WatchLoopsRequest::default());
    let mut seen = Vec::new();
    while seen.last().is_none_or(|last| last != "[s4]") {
        seen.push(next(&mut watch).await);
    }
    assert_eq!(seen, ["lost", "[s1 s2 s3]", "s2", "-s1", "lost", "[s4]"]);
}

#[tokio::test]
async fn what_cannot_be_watched_ends_it() {
    let (fake, client) = Fake::serve(Vec::new()).await;
    let refused = tonic::Status::invalid_argument("no");
    fake.state().refusals.push_back(refused);
    let mut watch = client.watch_loops(WatchLoopsRequest::default());
    assert!(watch.next().await.unwrap().is_err());
    assert!(watch.next().await.is_none());
}
