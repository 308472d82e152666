use bytes::Bytes;
use futures_util::stream;
use loopwright_core::{
    event::{self, Event},
    message::{BlobPart, Part},
    outcome::EndReason,
    replay::fold,
};
use loopwright_log::BlobRef;

use super::*;

/// A session that names a payload: its entries, and the payload.
async fn with_payload(log: &dyn Log, session: &str, payload: &[u8]) -> BlobRef {
    let key = fixture::key(session);
    let blob = log
        .put_blob(&key, Bytes::copy_from_slice(payload))
        .await
        .unwrap();
    let mut all = fixture::session(session);
    let part = Part::Blob(BlobPart {
        sha256: blob.sha256.clone(),
        bytes: blob.bytes,
        media_type: "image/png".to_owned(),
    });
    let Some(Event::MessageAdded(message)) = all[2].events.first_mut() else {
        panic!("the third entry has the message");
    };
    *message = event::MessageAdded {
        parts: Arc::new(vec![Part::Text("look".to_owned()), part]),
        ..message.clone()
    };
    fixture::append(log, &key, all).await;
    blob
}

async fn exported(state: &ServiceState, session: &str) -> Result<Vec<u8>, Status> {
    let request = v1::ExportSessionRequest {
        session_id: session.into(),
        unredacted: true,
    };
    let answer = SessionLogs(state.clone())
        .export_session(asked(request))
        .await;
    let mut chunks = answer?.into_inner();
    let mut lines = Vec::new();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk?.chunk;
        assert!(
            !chunk.is_empty() && chunk.len() <= MOST_CHUNK + 1,
            "{}",
            chunk.len()
        );
        lines.extend_from_slice(&chunk);
    }
    Ok(lines)
}

async fn imported(
    state: &ServiceState,
    head: v1::ImportHead,
    lines: &[u8],
    size: usize,
) -> Result<v1::SessionSummary, Status> {
    use v1::import_session_request::Item;
    let chunks = lines.chunks(size);
    let chunks = chunks.map(|chunk| Item::Chunk(Bytes::copy_from_slice(chunk)));
    let items: Vec<_> = std::iter::once(Item::Head(head))
        .chain(chunks)
        .map(|item| Ok(v1::ImportSessionRequest { item: Some(item) }))
        .collect();
    upload::import(state.clone(), Caller::local(), stream::iter(items)).await
}

fn to(session: &str) -> v1::ImportHead {
    v1::ImportHead {
        session_id: session.into(),
        ..Default::default()
    }
}

#[tokio::test]
async fn an_export_comes_back_as_it_was() {
    on_each_log(async |state, _| {
        let payload: Vec<u8> = (0..700_000_u32).map(|at| at.to_le_bytes()[0]).collect();
        let blob = with_payload(&*state.log, "s1", &payload).await;
        let lines = exported(&state, "s1").await.unwrap();
        let text = String::from_utf8(lines.clone()).unwrap();
        let own: Vec<_> = records(&*state.log, "s1").await;
        let own = own
            .iter()
            .map(|record| String::from_utf8_lossy(record.line()));
        let count = own
            .zip(text.lines())
            .filter(|(own, line)| own == line)
            .count();
        assert_eq!(count, 6, "the log's own lines come first");
        assert_eq!(
            text.lines().count(),
            6 + 2 + 1,
            "two pieces of the payload, and the end"
        );
        for (at, size) in [1 << 20, 1_000, 7].into_iter().enumerate() {
            let id = format!("i{at}");
            let made = imported(&state, to(&id), &lines, size).await.unwrap();
            assert_eq!((made.session_id.as_str(), made.tail_seq), (&*id, 7));
            let (before, after) = (
                fold(&entries(&*state.log, "s1").await),
                fold(&entries(&*state.log, &id).await[..6]),
            );
            assert_eq!(before.conversation, after.conversation);
            assert_eq!(before.totals, after.totals);
            assert_eq!(before.ended, after.ended);
            let key = fixture::key(&id);
            assert_eq!(state.log.get_blob(&key, &blob).await.unwrap(), payload);
            assert_eq!(goes_on(&state, &id).await, EndReason::Completed);
        }
        // A copy can be exported and imported again, under its own name too once that is free.
        let lines = exported(&state, "i0").await.unwrap();
        let over = imported(&state, to(""), &lines, 1 << 20).await;
        assert_eq!(reason(over), "AlreadyExists SESSION_EXISTS");
        imported(&state, to("again"), &lines, 1 << 20)
            .await
            .unwrap();
        assert_eq!(listed(&state).await, ["again", "i0", "i1", "i2", "s1"]);
    })
    .await;
}

#[tokio::test]
async fn an_import_is_made_once_under_its_request() {
    on_each_log(async |state, _| {
        fixture::append(&*state.log, &fixture::key("s1"), fixture::session("s1")).await;
        let lines = exported(&state, "s1").await.unwrap();
        let head = v1::ImportHead {
            request_id: "r1".into(),
            ..to("copy")
        };
        let first = imported(&state, head.clone(), &lines, 100).await.unwrap();
        assert_eq!(imported(&state, head, &lines, 100).await.unwrap(), first);
        let fork = v1::ForkSessionRequest {
            request_id: "r1".into(),
            session_id: "s1".into(),
            new_session_id: "copy".into(),
            ..Default::default()
        };
        let fork = SessionLogs(state.clone()).fork_session(asked(fork)).await;
        assert_eq!(reason(fork), "AlreadyExists REQUEST_ID_REUSED");
    })
    .await;
}

/// What is done to the lines of an export, and what an import says of it.
/// An export with something done to it: what, how it is refused, and at which line.
type Spoiled = (&'static str, Vec<String>, &'static str, u64);

fn spoiled(lines: &[&str]) -> Vec<Spoiled> {
    let mut all = damaged(lines);
    all.extend(no_exports(lines));
    all
}

fn changed(lines: &[&str], change: impl Fn(&mut Vec<String>)) -> Vec<String> {
    let mut lines = lines.iter().map(|line| (*line).to_owned()).collect();
    change(&mut lines);
    lines
}

fn damaged(lines: &[&str]) -> Vec<Spoiled> {
    let with = |what, line, change: &dyn Fn(&mut Vec<String>)| {
        (
            what,
            changed(lines, change),
            "DataLoss EXPORT_DAMAGED",
            line,
        )
    };
    let flip = |l: &mut Vec<String>| l[2] = l[2].replacen("look", "loot", 1);
    let foreign = |l: &mut Vec<String>| l.insert(3, l[3].replace("/s1\"", "/s2\""));
    vec![
        with("a byte changed", 3, &flip),
        with("a line lost", 4, &|l| drop(l.remove(3))),
        with("a line twice", 5, &|l| l.insert(3, l[3].clone())),
        with("two lines swapped", 3, &|l| l.swap(2, 3)),
        with("the first line lost", 1, &|l| drop(l.remove(0))),
        with("another session's line", 4, &foreign),
        with("a payload's piece lost", 7, &|l| drop(l.remove(6))),
        with("pieces swapped", 7, &|l| l.swap(6, 7)),
        with("a piece twice", 8, &|l| l.insert(6, l[6].clone())),
        with("no last line", 8, &|l| drop(l.pop())),
        with("cut after the records", 6, &|l| l.truncate(6)),
        with("cut in the records", 4, &|l| l.truncate(4)),
        with("an unnamed payload", 3, &|l| l.remove(2).clear()),
    ]
}

fn no_exports(lines: &[&str]) -> Vec<Spoiled> {
    let with = |what, line, change: &dyn Fn(&mut Vec<String>)| {
        (
            what,
            changed(lines, change),
            "InvalidArgument NOT_AN_EXPORT",
            line,
        )
    };
    vec![
        with("nothing", 0, &|l| l.clear()),
        with("another text", 1, &|l| *l = vec!["hello".to_owned()]),
        with("text in between", 4, &|l| l.insert(3, "{}".to_owned())),
        with("more behind it", 10, &|l| l.push(l[0].clone())),
        with("a record behind a payload", 7, &|l| l.swap(5, 6)),
    ]
}

#[tokio::test]
async fn what_is_not_as_it_was_exported_is_refused_by_its_line_and_leaves_nothing() {
    on_each_log(async |state, _| {
        with_payload(&*state.log, "s1", &[7; 700_000]).await;
        let lines = exported(&state, "s1").await.unwrap();
        let text = String::from_utf8(lines).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for (what, lines, expected, line) in spoiled(&lines) {
            let text = lines
                .iter()
                .map(|line| format!("{line}\n"))
                .collect::<String>();
            let refused = imported(&state, to("copy"), text.as_bytes(), 1 << 20).await;
            let status = refused.as_ref().unwrap_err().clone();
            assert_eq!(reason(refused), expected, "{what}");
            let details = tonic_types::StatusExt::get_details_error_info(&status).unwrap();
            assert_eq!(
                details.metadata["line"],
                line.to_string(),
                "{what}: {status}"
            );
            let left = state.log.tail(&fixture::key("copy")).await.unwrap();
            assert_eq!(left, None, "{what}");
        }
        assert_eq!(listed(&state).await, ["s1"]);
    })
    .await;
}

#[tokio::test]
async fn a_file_as_it_lies_on_disk_is_taken_where_that_is_said() {
    on_each_log(async |state, _| {
        with_payload(&*state.log, "s1", b"a picture").await;
        let lines = exported(&state, "s1").await.unwrap();
        let text = String::from_utf8(lines).unwrap();
        let records: String = text.split_inclusive('\n').take(6).collect();
        let head = v1::ImportHead {
            allow_cut: true,
            ..to("copy")
        };
        let made = imported(&state, head.clone(), records.as_bytes(), 100).await;
        assert_eq!(made.unwrap().tail_seq, 7);
        let torn = imported(&state, head, &records.as_bytes()[..records.len() - 9], 100).await;
        assert_eq!(reason(torn), "AlreadyExists SESSION_EXISTS");
        let head = v1::ImportHead {
            allow_cut: true,
            ..to("torn")
        };
        let torn = imported(&state, head, &records.as_bytes()[..records.len() - 9], 100).await;
        assert_eq!(reason(torn), "InvalidArgument NOT_AN_EXPORT");
    })
    .await;
}

#[tokio::test]
async fn a_payload_that_is_lost_is_named_as_lost() {
    let (state, _drain) = fixture::state(QUICK);
    with_payload(&*state.log, "s1", b"a picture").await;
    // The copy has the entries and not the payload.
    let all = entries(&*state.log, "s1").await;
    fixture::append(&*state.log, &fixture::key("bare"), all).await;
    let lines = exported(&state, "bare").await.unwrap();
    let text = String::from_utf8(lines.clone()).unwrap();
    assert!(text.contains("\"missing\":true"), "{text}");
    imported(&state, to("copy"), &lines, 100).await.unwrap();
}
