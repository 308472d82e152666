use loopwright_core::{
    event::Event,
    outcome::EndReason,
    replay::fold,
    state::{State, Turn},
};

use super::*;

fn fork(request_id: &str, from: &str, seq: u64, to: &str) -> v1::ForkSessionRequest {
    v1::ForkSessionRequest {
        request_id: request_id.into(),
        session_id: from.into(),
        seq,
        new_session_id: to.into(),
        ..Default::default()
    }
}

async fn forked(
    state: &ServiceState,
    request: v1::ForkSessionRequest,
) -> Result<v1::SessionSummary, Status> {
    let answer = SessionLogs(state.clone())
        .fork_session(asked(request))
        .await;
    answer.map(|answer| answer.into_inner().session.unwrap())
}

fn turns(state: &State) -> Vec<std::sync::Arc<Turn>> {
    state.conversation.turns()
}

#[tokio::test]
async fn a_fork_at_every_seq_is_at_rest_dispatches_nothing_and_goes_on() {
    on_each_log(async |state, _| {
        let original = fixture::session("s1");
        fixture::append(&*state.log, &fixture::key("s1"), original.clone()).await;
        let before = records(&*state.log, "s1").await;
        for seq in 1..=original.len() {
            let id = format!("f{seq}");
            let summary = forked(&state, fork("", "s1", seq as u64, &id))
                .await
                .unwrap();
            assert_eq!(
                (summary.session_id.as_str(), summary.tail_seq),
                (&*id, seq as u64 + 1)
            );
            assert_eq!(summary.state(), v1::SessionState::Idle, "at {seq}");
            assert_eq!(summary.labels.get("team").map(String::as_str), Some("blue"));
            let copy = entries(&*state.log, &id).await;
            let (copied, closing) = copy.split_at(seq);
            assert!(copied.iter().all(|entry| entry.copied));
            assert_eq!(
                turns(&fold(copied)),
                turns(&fold(&original[..seq])),
                "what was copied says the same"
            );
            let [closing] = closing else {
                panic!("one closing entry: {closing:?}");
            };
            let Event::SessionForked(event) = &closing.events[0] else {
                panic!("{closing:?}");
            };
            assert_eq!((event.from.as_str(), event.from_seq), ("s1", seq as u64));
            let starts = |event: &Event| {
                matches!(
                    event,
                    Event::ToolCallStarted(_) | Event::ModelCallStarted(_)
                )
            };
            assert!(!closing.events.iter().any(starts), "{closing:?}");
            assert_eq!(goes_on(&state, &id).await, EndReason::Completed, "at {seq}");
            let all = entries(&*state.log, &id).await;
            let after = all[seq..].iter().flat_map(|entry| &entry.events);
            let tools = after.filter(|event| matches!(event, Event::ToolCallStarted(_)));
            assert_eq!(tools.count(), 0, "no tool of the original is called again");
        }
        assert_eq!(
            records(&*state.log, "s1").await,
            before,
            "the original is only read"
        );
    })
    .await;
}

#[tokio::test]
async fn a_fork_is_made_once_under_its_request_and_never_over_a_session() {
    on_each_log(async |state, _| {
        let s1 = fixture::key("s1");
        fixture::append(&*state.log, &s1, fixture::session("s1")).await;
        let first = forked(&state, fork("r1", "s1", 0, "")).await.unwrap();
        assert!(first.session_id.starts_with("s-"), "{first:?}");
        assert_eq!(
            forked(&state, fork("r1", "s1", 0, "")).await.unwrap(),
            first
        );
        goes_on(&state, &first.session_id).await;
        let again = forked(&state, fork("r1", "s1", 0, "")).await.unwrap();
        assert!(again.tail_seq > first.tail_seq, "as it stands now");
        let other = forked(&state, fork("r1", "s1", 3, "")).await;
        assert_eq!(reason(other), "AlreadyExists REQUEST_ID_REUSED");
        for taken in ["s1", first.session_id.as_str()] {
            let over = forked(&state, fork("r2", "s1", 0, taken)).await;
            assert_eq!(reason(over), "AlreadyExists SESSION_EXISTS", "{taken}");
        }
        let refused = [
            (fork("", "nope", 0, "x"), "NotFound SESSION_NOT_FOUND"),
            (fork("", "s1", 7, "x"), "OutOfRange SEQ_PAST_TAIL"),
            (fork("", "..", 0, "../x"), "InvalidArgument INVALID_FIELDS"),
        ];
        for (request, expected) in refused {
            assert_eq!(
                reason(forked(&state, request.clone()).await),
                expected,
                "{request:?}"
            );
        }
        assert_eq!(listed(&state).await, [first.session_id.as_str(), "s1"]);
    })
    .await;
}

#[tokio::test]
async fn forks_of_one_request_at_once_make_one_session() {
    on_each_log(async |state, _| {
        fixture::append(&*state.log, &fixture::key("s1"), fixture::session("s1")).await;
        let same = || forked(&state, fork("r1", "s1", 0, "copy"));
        let (one, two, three) = tokio::join!(same(), same(), same());
        assert_eq!(one.unwrap(), two.unwrap());
        three.unwrap();
        assert_eq!(records(&*state.log, "copy").await.len(), 7);
    })
    .await;
}

/// What a crash in mid-copy leaves behind.
async fn half_a_copy(log: &dyn Log, session: &str) {
    let copied = fixture::session(session).into_iter().take(4);
    let copied = copied.map(|mut entry| {
        entry.copied = true;
        entry
    });
    fixture::append(log, &fixture::key(session), copied.collect()).await;
}

#[tokio::test]
async fn half_a_copy_is_no_session_and_gives_way() {
    on_each_log(async |state, _| {
        fixture::append(&*state.log, &fixture::key("s1"), fixture::session("s1")).await;
        half_a_copy(&*state.log, "half").await;
        assert_eq!(listed(&state).await, ["s1"]);
        let logs = SessionLogs(state.clone());
        let session_id = || "half".to_owned();
        let get = v1::GetSessionRequest {
            session_id: session_id(),
        };
        let missing = "NotFound SESSION_NOT_FOUND";
        assert_eq!(reason(logs.get_session(asked(get)).await), missing);
        let read = v1::ReadEntriesRequest {
            session_id: session_id(),
            ..Default::default()
        };
        assert_eq!(
            reason(logs.read_entries(asked(read)).await.map(drop)),
            missing
        );
        let watch = v1::WatchLoopRequest {
            session_id: session_id(),
            ..Default::default()
        };
        let watched = Loops(state.clone()).watch_loop(asked(watch)).await;
        assert_eq!(reason(watched.map(drop)), missing);
        let from_half = forked(&state, fork("", "half", 0, "x")).await;
        assert_eq!(reason(from_half), missing);
        assert_eq!(state.drivers.active(), 0, "nobody drives it");
        let made = forked(&state, fork("r1", "s1", 0, "half")).await.unwrap();
        assert_eq!(made.tail_seq, 7, "the copy stands where the half one was");
        assert_eq!(goes_on(&state, "half").await, EndReason::Completed);
    })
    .await;
}

#[tokio::test]
async fn a_copy_over_the_limit_leaves_nothing() {
    let mut config = crate::config::Config::default();
    config.limits.session_bytes = toml::Value::try_from("1KiB").unwrap().try_into().unwrap();
    let (state, _drain) = fixture::state_over(MemoryLog::new(), QUICK, config);
    fixture::append(&*state.log, &fixture::key("s1"), fixture::session("s1")).await;
    let over = forked(&state, fork("", "s1", 0, "copy")).await;
    assert_eq!(reason(over), "ResourceExhausted SESSION_TOO_LARGE");
    assert_eq!(state.log.tail(&fixture::key("copy")).await.unwrap(), None);
}
