use loopwright_core::outcome::EndReason;

use super::*;
use crate::service::convert::questions::Watched;

async fn delete(state: &ServiceState, request_id: &str, session: &str) -> Result<(), Status> {
    let request = v1::DeleteSessionRequest {
        request_id: request_id.into(),
        session_id: session.into(),
    };
    let answer = SessionLogs(state.clone())
        .delete_session(asked(request))
        .await;
    answer.map(drop)
}

#[tokio::test]
async fn what_is_deleted_is_gone_and_its_id_is_free() {
    on_each_log(async |state, dir| {
        let key = fixture::key("s1");
        fixture::append(&*state.log, &key, fixture::session("s1")).await;
        let what = Watched::everything(key.clone(), 0, true);
        let mut watch = state.watching().open(what).await.unwrap();
        // A watcher that has caught up.
        while !matches!(watch.next().await, Some(Ok(Sent::Heartbeat(_)))) {}
        delete(&state, "r1", "s1").await.unwrap();
        let sent: Vec<_> = watch.map(Result::unwrap).collect().await;
        assert!(
            matches!(sent.last(), Some(Sent::Deleted(_))),
            "watchers hear of it: {sent:?}"
        );
        assert_eq!(listed(&state).await, Vec::<String>::new());
        let read = v1::ReadEntriesRequest {
            session_id: "s1".into(),
            ..Default::default()
        };
        let logs = SessionLogs(state.clone());
        let read = logs.read_entries(asked(read)).await;
        assert_eq!(reason(read.map(drop)), "NotFound SESSION_NOT_FOUND");
        if let Some(dir) = dir {
            assert!(
                !dir.join("default/session/s1").exists(),
                "nothing is left on disk"
            );
        }
        assert_eq!(goes_on(&state, "s1").await, EndReason::Completed);
        let again = entries(&*state.log, "s1").await;
        let created = matches!(again[0].cause, loopwright_core::Cause::Create(_));
        assert!(created, "from its beginning");
        assert_eq!(listed(&state).await, ["s1"]);
    })
    .await;
}

#[tokio::test]
async fn who_has_not_begun_to_read_is_told_too() {
    on_each_log(async |state, _| {
        let key = fixture::key("s1");
        fixture::append(&*state.log, &key, fixture::session("s1")).await;
        let mut watches = Vec::new();
        for after in [0, 3, 6] {
            let what = Watched::everything(key.clone(), after, true);
            watches.push((after, state.watching().open(what).await.unwrap()));
        }
        let mut readings = Vec::new();
        for direction in [v1::ReadDirection::Unspecified, v1::ReadDirection::Backward] {
            let request = v1::ReadEntriesRequest {
                session_id: "s1".into(),
                direction: direction.into(),
                ..Default::default()
            };
            let reading = range::open(&state.watching(), &namespace(), &request).await;
            readings.push(reading.unwrap());
        }
        delete(&state, "r1", "s1").await.unwrap();
        // What takes the id is nothing of theirs.
        fixture::append(&*state.log, &key, fixture::session("s1")).await;
        for (after, watch) in watches {
            let sent: Vec<_> = watch.map(Result::unwrap).collect().await;
            assert_eq!(sent, [Sent::Deleted(after)]);
        }
        for reading in readings {
            let sent: Vec<_> = reading.map(Result::unwrap).collect().await;
            assert_eq!(sent, [Sent::Deleted(0)]);
        }
    })
    .await;
}

#[tokio::test]
async fn a_repeat_is_done_already_and_touches_no_session_that_took_the_id() {
    on_each_log(async |state, _| {
        let key = fixture::key("s1");
        fixture::append(&*state.log, &key, fixture::session("s1")).await;
        delete(&state, "r1", "s1").await.unwrap();
        delete(&state, "r1", "s1").await.unwrap();
        assert_eq!(
            reason(delete(&state, "r2", "s1").await),
            "NotFound SESSION_NOT_FOUND"
        );
        goes_on(&state, "s1").await;
        delete(&state, "r1", "s1").await.unwrap();
        assert_eq!(listed(&state).await, ["s1"], "the new one stays");
        let reused = delete(&state, "r1", "s2").await;
        assert_eq!(reason(reused), "AlreadyExists REQUEST_ID_REUSED");
        delete(&state, "r3", "s1").await.unwrap();
        assert_eq!(listed(&state).await, Vec::<String>::new());
    })
    .await;
}

#[tokio::test]
async fn a_deletion_that_was_cut_short_is_finished_by_its_repeat() {
    on_each_log(async |state, _| {
        let key = fixture::key("s1");
        fixture::append(&*state.log, &key, fixture::session("s1")).await;
        let last = records(&*state.log, "s1").await.pop().unwrap();
        // What stands there when the process dies between the note and the removal.
        let note = format!(
            r#"{{"deletion":{{"by":{{"request_id":"r1"}},"session":"s1","seq":{},"crc":{}}}}}"#,
            last.seq, last.crc
        );
        let book = loopwright_log::StreamKey::parse("log/default/deletions").unwrap();
        let at = loopwright_log::Timestamp::from_unix_ms(fixture::T0);
        let record = loopwright_log::NewRecord::new(at, 0, note.into());
        state.log.append(&book, 0, record).await.unwrap();
        delete(&state, "r1", "s1").await.unwrap();
        assert_eq!(state.log.tail(&key).await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn a_session_with_an_open_loop_is_not_deleted() {
    on_each_log(async |state, _| {
        let open = fixture::session("s1").into_iter().take(4).collect();
        fixture::append(&*state.log, &fixture::key("s1"), open).await;
        assert_eq!(
            reason(delete(&state, "r1", "s1").await),
            "FailedPrecondition LOOP_RUNNING"
        );
        assert_eq!(records(&*state.log, "s1").await.len(), 4);
        assert_eq!(
            reason(delete(&state, "r1", "..").await),
            "InvalidArgument INVALID_FIELDS"
        );
    })
    .await;
}
