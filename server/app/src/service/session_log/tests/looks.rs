use std::{
    fs,
    io::{Read as _, Seek as _, SeekFrom, Write as _},
};

use loopwright_log::StreamKey;

use super::*;

async fn verified(state: &ServiceState, session: &str) -> Result<v1::IntegrityReport, Status> {
    let request = v1::VerifySessionRequest {
        session_id: session.into(),
    };
    let answer = SessionLogs(state.clone())
        .verify_session(asked(request))
        .await;
    answer.map(|answer| answer.into_inner().report.unwrap())
}

async fn sent(
    state: &ServiceState,
    call: &str,
    attempt: u32,
) -> Result<(v1::ModelRequestHead, String), Status> {
    use v1::get_model_request_response::Item;
    let request = v1::GetModelRequestRequest {
        session_id: "s1".into(),
        call: call.into(),
        attempt,
    };
    let answer = SessionLogs(state.clone())
        .get_model_request(asked(request))
        .await;
    let items: Vec<_> = answer?.into_inner().map(Result::unwrap).collect().await;
    let mut items = items.into_iter().filter_map(|item| item.item);
    let Some(Item::Head(head)) = items.next() else {
        panic!("the head comes first");
    };
    let mut body = Vec::new();
    for item in items {
        let Item::Body(piece) = item else {
            panic!("one head");
        };
        body.extend_from_slice(&piece);
    }
    assert_eq!(head.bytes, body.len() as u64);
    assert_eq!(head.body_crc32c, format!("{:08x}", crc32c::crc32c(&body)));
    Ok((head, String::from_utf8(body).unwrap()))
}

/// Flips one bit of a file.
fn flip(path: &Path, at: u64) {
    let mut file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.seek(SeekFrom::Start(at)).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(&[byte[0] ^ 1]).unwrap();
}

/// A closed folder with one session, and where the lines of its file begin.
async fn on_disk(dir: &Path) -> Vec<u64> {
    let (log, _) = JsonlLog::open(JsonlOptions::new(dir)).unwrap();
    fixture::append(&*log, &fixture::key("s1"), session("s1")).await;
    log.close().await.unwrap();
    let text = fs::read(dir.join("default/session/s1/log.jsonl")).unwrap();
    let ends = text.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    std::iter::once(0)
        .chain(ends.map(|(at, _)| at as u64 + 1))
        .collect()
}

#[tokio::test]
async fn a_good_session_is_good() {
    on_each_log(async |state, _| {
        fixture::append(&*state.log, &fixture::key("s1"), session("s1")).await;
        let report = verified(&state, "s1").await.unwrap();
        assert_eq!(
            (report.verdict(), report.good_through),
            (v1::Verdict::Good, 6)
        );
        assert_eq!(
            (report.problem.as_str(), report.place.clone()),
            ("", None),
            "{report:?}"
        );
        assert!(report.good_bytes > 1_000 && report.ways_out.is_empty());
        let nobody = verified(&state, "nope").await;
        assert_eq!(reason(nobody), "NotFound SESSION_NOT_FOUND");
    })
    .await;
}

#[tokio::test]
async fn damage_is_told_with_its_place_and_what_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let starts = on_disk(dir.path()).await;
    let file = dir.path().join("default/session/s1/log.jsonl");
    // In the fourth of six lines.
    flip(&file, starts[3] + 100);
    let (log, _) = JsonlLog::open(JsonlOptions::new(dir.path())).unwrap();
    let config = crate::config::Config::default();
    let (state, _drain) = fixture::state_over(log, QUICK, config);
    let report = verified(&state, "s1").await.unwrap();
    assert_eq!(
        (report.verdict(), report.good_through),
        (v1::Verdict::Corrupt, 3),
        "{report:?}"
    );
    let place = report.place.clone().unwrap();
    assert_eq!(place.file, "default/session/s1/log.jsonl");
    assert_eq!((place.line, place.byte), (4, starts[3]));
    assert_eq!((report.entries_after, report.last_seq_after), (2, 6));
    assert_eq!(report.good_bytes, starts[3]);
    assert!(report.problem.contains("checksum"), "{report:?}");
    assert!(
        report
            .ways_out
            .iter()
            .any(|way| way.contains("log fork s1")),
        "{report:?}"
    );
    // What can be read can be forked.
    let request = v1::ForkSessionRequest {
        session_id: "s1".into(),
        new_session_id: "saved".into(),
        ..Default::default()
    };
    let saved = SessionLogs(state.clone())
        .fork_session(asked(request))
        .await;
    assert_eq!(saved.unwrap().into_inner().session.unwrap().tail_seq, 4);
    goes_on(&state, "saved").await;
}

#[tokio::test]
async fn a_payload_that_is_lost_is_told_and_the_session_goes_on() {
    let (state, _drain) = fixture::state(QUICK);
    let key: StreamKey = fixture::key("s1");
    let mut all = session("s1");
    let lost = loopwright_core::message::ToolOutput {
        full: Some(loopwright_core::message::BlobPart {
            sha256: "ab".repeat(32),
            bytes: 9,
            media_type: "text/plain".to_owned(),
        }),
        ..Default::default()
    };
    let Some(loopwright_core::Event::ToolCallCompleted(done)) = all[4].events.first_mut() else {
        panic!("the fifth entry has the result");
    };
    done.output = Arc::new(lost);
    fixture::append(&*state.log, &key, all).await;
    let report = verified(&state, "s1").await.unwrap();
    assert_eq!(report.verdict(), v1::Verdict::BlobsMissing);
    assert_eq!((report.blobs, report.good_through), (1, 6));
    assert_eq!(report.blob_problems[0].seq, 5);
}

#[tokio::test]
async fn what_a_model_was_sent_is_rendered_from_the_log_as_it_stood_then() {
    let (state, _drain) = fixture::state(QUICK);
    goes_on(&state, "s1").await;
    goes_on(&state, "s1").await;
    let (first, body) = sent(&state, "c1", 1).await.unwrap();
    assert_eq!(
        (first.call.as_str(), first.attempt, first.exact),
        ("c1", 1, false),
        "{first:?}"
    );
    assert_eq!(
        (first.provider.as_str(), first.model.as_str()),
        ("scripted", "m")
    );
    assert_eq!(first.sent_crc32c, "", "a script is sent nothing");
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["messages"].as_array().unwrap().len(), 1, "{body}");
    let (last, body) = sent(&state, "", 0).await.unwrap();
    assert_eq!(last.call, "c2");
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["messages"].as_array().unwrap().len(), 3, "{body}");
    for (call, attempt) in [("c3", 0), ("c1", 2), ("c9", 1)] {
        let refused = sent(&state, call, attempt).await;
        assert_eq!(
            reason(refused),
            "NotFound CALL_NOT_FOUND",
            "{call} {attempt}"
        );
    }
    assert_eq!(
        reason(sent(&state, "x1", 0).await),
        "InvalidArgument INVALID_FIELDS"
    );
}
