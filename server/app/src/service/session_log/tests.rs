#![expect(clippy::unwrap_used, reason = "tests")]

mod copies;
mod deletions;
mod looks;
mod moves;

use std::path::Path;

use loopwright_log::{JsonlLog, JsonlOptions, MemoryLog};
use prost::Message as _;
use tonic::Code;

use loopwright_log::{ReadItem, ReadMode, Record};

use super::*;
use crate::service::{
    convert::entry,
    fixture::{self, Bench, attached, namespace, session},
    loops::Loops,
};
use loopwright_proto::v1::loop_service_server::LoopService as _;

/// Answers at once, and ends.
const QUICK: &str = "at_end: repeat\nturns:\n- text: one\n";

/// Runs a test over each kind of log; of one with files it is given the folder.
async fn on_each_log(test: impl AsyncFn(ServiceState, Option<&Path>)) {
    let config = crate::config::Config::default();
    let (state, _drain) = fixture::state_over(MemoryLog::new(), QUICK, config.clone());
    test(state, None).await;
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = JsonlLog::open(JsonlOptions::new(dir.path())).unwrap();
    let (state, _drain) = fixture::state_over(log, QUICK, config);
    test(state, Some(dir.path())).await;
}

fn asked<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.extensions_mut().insert(Caller::local());
    request
}

fn reason<T: std::fmt::Debug>(result: Result<T, Status>) -> String {
    let status = result.unwrap_err();
    let details = tonic_types::StatusExt::get_details_error_info(&status).unwrap();
    format!("{:?} {}", status.code(), details.reason)
}

/// All entries of a session, as the core reads them.
async fn entries(log: &dyn Log, session: &str) -> Vec<loopwright_core::Entry> {
    let records = records(log, session).await;
    let entries = records.iter().map(|record| entry::parse(record).unwrap());
    entries.collect()
}

async fn records(log: &dyn Log, session: &str) -> Vec<std::sync::Arc<Record>> {
    let items = log.read(&fixture::key(session), 0, ReadMode::ToTail);
    let facts = items.filter_map(async |item| match item.unwrap() {
        ReadItem::Fact(record) => Some(record),
        ReadItem::Progress(_) | ReadItem::CompleteThrough(_) => None,
    });
    facts.collect().await
}

/// Starts a loop over a session and waits for its end: how it ended.
async fn goes_on(state: &ServiceState, session: &str) -> loopwright_core::outcome::EndReason {
    let loops = Loops(state.clone());
    let request = v1::StartLoopRequest {
        session_id: session.into(),
        agent: Some(v1::Agent {
            model: "m".into(),
            ..Default::default()
        }),
        input: Some(v1::start_loop_request::Input::Text("go on".into())),
        ..Default::default()
    };
    let started = loops.start_loop(asked(request)).await.unwrap().into_inner();
    let request = v1::WatchLoopRequest {
        session_id: session.into(),
        loop_id: started.loop_id,
        ..Default::default()
    };
    let items = loops.watch_loop(asked(request)).await.unwrap().into_inner();
    items.for_each(async |item| drop(item.unwrap())).await;
    let digest = state.index.digest(&fixture::key(session)).await.unwrap();
    digest.unwrap().state.ended.back().unwrap().reason.clone()
}

async fn listed(state: &ServiceState) -> Vec<String> {
    let request = asked(v1::ListSessionsRequest::default());
    let page = SessionLogs(state.clone()).list_sessions(request).await;
    let sessions = page.unwrap().into_inner().sessions;
    let mut ids: Vec<_> = sessions.into_iter().map(|one| one.session_id).collect();
    ids.sort();
    ids
}

async fn read(bench: &Bench, request: v1::ReadEntriesRequest) -> Result<String, Status> {
    let request = v1::ReadEntriesRequest {
        session_id: "s1".into(),
        ..request
    };
    let items = range::open(&bench.watching(), &namespace(), &request).await?;
    let words = items.map(|sent| match sent.unwrap() {
        Sent::Entry(bytes) => {
            match v1::ReadEntriesResponse::decode(bytes)
                .unwrap()
                .item
                .unwrap()
            {
                Item::Entry(entry) => entry.seq.to_string(),
                other => format!("{other:?}"),
            }
        }
        Sent::Heartbeat(cursor) => format!("h{}", cursor.seq),
        other => format!("{other:?}"),
    });
    Ok(words.collect::<Vec<_>>().await.join(" "))
}

#[tokio::test]
async fn ranges_are_read_either_way_and_end_with_a_heartbeat() {
    let bench = Bench::new();
    bench
        .append(&crate::service::fixture::key("s1"), session("s1"))
        .await;
    let request = |after_seq, through_seq, limit| v1::ReadEntriesRequest {
        after_seq,
        through_seq,
        limit,
        ..Default::default()
    };
    let back = |request| v1::ReadEntriesRequest {
        direction: v1::ReadDirection::Backward as i32,
        ..request
    };
    let only = |request, kind: &str| v1::ReadEntriesRequest {
        kinds: vec![kind.into()],
        ..request
    };
    for (request, expected) in [
        (request(0, 0, 0), "1 2 3 4 5 6 h6"),
        (request(2, 4, 0), "3 4 h4"),
        (request(2, 0, 2), "3 4 h4"),
        (request(6, 0, 0), "h6"),
        (request(0, 99, 0), "1 2 3 4 5 6 h6"),
        (only(request(0, 5, 0), "loop_started"), "3 h5"),
        (only(request(0, 0, 1), "loop_started"), "3 h3"),
        (back(request(0, 0, 0)), "6 5 4 3 2 1 h6"),
        (back(request(2, 5, 0)), "5 4 3 h6"),
        (back(request(0, 0, 2)), "6 5 h6"),
        (only(back(request(0, 0, 0)), "loop_started"), "3 h6"),
    ] {
        assert_eq!(
            read(&bench, request.clone()).await.unwrap(),
            expected,
            "{request:?}"
        );
    }
}

#[tokio::test]
async fn what_comes_after_the_call_began_is_not_sent() {
    let bench = Bench::new();
    let key = crate::service::fixture::key("s1");
    bench.append(&key, session("s1")).await;
    let request = v1::ReadEntriesRequest {
        session_id: "s1".into(),
        ..Default::default()
    };
    let items = range::open(&bench.watching(), &namespace(), &request)
        .await
        .unwrap();
    bench.append(&key, vec![attached()]).await;
    let all: Vec<_> = items.map(Result::unwrap).collect().await;
    assert_eq!(all.len(), 7);
    assert!(matches!(all.last(), Some(Sent::Heartbeat(cursor)) if cursor.seq == 6));
}

#[tokio::test]
async fn a_drain_ends_a_reading_with_goodbye() {
    let bench = Bench::new();
    bench
        .append(&crate::service::fixture::key("s1"), session("s1"))
        .await;
    let request = v1::ReadEntriesRequest {
        session_id: "s1".into(),
        ..Default::default()
    };
    let items = range::open(&bench.watching(), &namespace(), &request)
        .await
        .unwrap();
    let mut items = Box::pin(items);
    items.next().await.unwrap().unwrap();
    bench.drain.begin();
    let last = items.next().await.unwrap().unwrap();
    assert!(matches!(last, Sent::Goodbye(cursor) if cursor.seq == 1));
    assert!(items.next().await.is_none());
}

#[tokio::test]
async fn what_cannot_be_read_is_refused() {
    let bench = Bench::new();
    let code = |result: Result<String, Status>| result.unwrap_err().code();
    assert_eq!(
        code(read(&bench, v1::ReadEntriesRequest::default()).await),
        Code::NotFound
    );
    bench
        .append(&crate::service::fixture::key("s1"), session("s1"))
        .await;
    let past = v1::ReadEntriesRequest {
        after_seq: 7,
        ..Default::default()
    };
    assert_eq!(code(read(&bench, past).await), Code::DataLoss);
    for direction in [v1::ReadDirection::Forward, v1::ReadDirection::Backward] {
        let seen = |after_epoch| v1::ReadEntriesRequest {
            after_seq: 3,
            after_epoch: Some(after_epoch),
            direction: direction.into(),
            ..Default::default()
        };
        let of_another = read(&bench, seen(2)).await;
        assert_eq!(reason(of_another), "DataLoss CURSOR_DIVERGED");
        assert!(read(&bench, seen(1)).await.unwrap().ends_with("h6"));
    }
    let odd = v1::ReadEntriesRequest {
        after_seq: 3,
        through_seq: 2,
        direction: 9,
        after_committed_at: Some(loopwright_proto::well_known::Timestamp {
            seconds: 1,
            nanos: 1,
        }),
        ..Default::default()
    };
    let refused = read(&bench, odd).await.unwrap_err();
    let fields = tonic_types::StatusExt::get_details_bad_request(&refused).unwrap();
    let fields: Vec<_> = fields
        .field_violations
        .into_iter()
        .map(|one| one.field)
        .collect();
    assert_eq!(fields, ["direction", "through_seq", "after_committed_at"]);
}
