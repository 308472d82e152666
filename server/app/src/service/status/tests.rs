#![expect(clippy::unwrap_used, reason = "tests")]

use loopwright_core::ids::LoopId;
use loopwright_log::StreamKey;

use super::*;

fn damage() -> Corruption {
    Corruption {
        stream: StreamKey::parse("session/default/s1").unwrap(),
        good_through: 7,
        reason: "a flipped bit".into(),
    }
}

/// `CODE REASON key=value retry`, as a client reads it from the wire.
fn told(status: &Status) -> String {
    let details = status.get_error_details();
    let reason = details.error_info().unwrap();
    assert_eq!(reason.domain, DOMAIN);
    assert!(!status.message().is_empty());
    let mut words = vec![format!("{:?}", status.code()), reason.reason.clone()];
    let mut metadata: Vec<_> = reason
        .metadata
        .iter()
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    metadata.sort();
    words.extend(metadata);
    words.extend(details.retry_info().map(|_| "retry".to_owned()));
    words.join(" ")
}

#[test]
fn every_refusal_has_its_code_its_reason_and_what_a_program_needs() {
    let rejected = |rejection| command(&CommandError::Rejected(rejection), "s1");
    let (named, running) = (LoopId(1), LoopId(2));
    let unavailable = |ambiguous| AppendError::Unavailable {
        reason: "disk".into(),
        ambiguous,
    };
    let append = |error| command(&CommandError::Log(error), "s1");
    let table = [
        (
            rejected(Rejection::SessionNotFound),
            "NotFound SESSION_NOT_FOUND session_id=s1",
        ),
        (
            rejected(Rejection::SessionExists {
                session: "s1".into(),
            }),
            "AlreadyExists SESSION_EXISTS",
        ),
        (
            rejected(Rejection::LoopRunning { running }),
            "FailedPrecondition LOOP_RUNNING loop_id=l2",
        ),
        (
            rejected(Rejection::NoLoopRunning),
            "FailedPrecondition NO_LOOP",
        ),
        (
            rejected(Rejection::LoopMismatch { named, running }),
            "FailedPrecondition LOOP_MISMATCH loop_id=l2",
        ),
        (
            rejected(Rejection::TooManyMessages { limit: 9 }),
            "ResourceExhausted QUEUE_FULL limit=9 retry",
        ),
        (
            rejected(Rejection::StaleEpoch {
                epoch: 1,
                current: 2,
            }),
            "Aborted STALE_EPOCH",
        ),
        (
            command(&CommandError::NotFound, "s1"),
            "NotFound SESSION_NOT_FOUND session_id=s1",
        ),
        (
            command(&CommandError::Draining, "s1"),
            "Unavailable DRAINING retry",
        ),
        (
            command(&CommandError::TooManySessions { limit: 5 }, "s1"),
            "ResourceExhausted TOO_MANY_SESSIONS limit=5 retry",
        ),
        (
            command(
                &CommandError::Newer {
                    kind: "Later".into(),
                },
                "s1",
            ),
            "FailedPrecondition SESSION_NEWER",
        ),
        (
            append(AppendError::Conflict { tail: 4 }),
            "Unavailable LOG_UNAVAILABLE retry",
        ),
        (
            append(unavailable(true)),
            "Unavailable LOG_UNAVAILABLE retry",
        ),
        (
            append(AppendError::TooLarge { size: 10, limit: 9 }),
            "ResourceExhausted ENTRY_TOO_LARGE limit=9 size=10",
        ),
        (
            append(AppendError::Malformed { reason: "odd" }),
            "Internal ENTRY_MALFORMED",
        ),
        (
            append(AppendError::Corrupt(damage())),
            "DataLoss SESSION_CORRUPT tail_seq=7",
        ),
        (
            append(AppendError::Trimmed { oldest: 5 }),
            "OutOfRange CURSOR_TRIMMED oldest_seq=5",
        ),
        (
            log(&LogError::Corrupt(damage())),
            "DataLoss SESSION_CORRUPT tail_seq=7",
        ),
        (
            log(&LogError::Trimmed { oldest: 5 }),
            "OutOfRange CURSOR_TRIMMED oldest_seq=5",
        ),
        (
            log(&LogError::PastTail { after: 9, tail: 8 }),
            "DataLoss CURSOR_PAST_TAIL tail_seq=8",
        ),
        (
            log(&LogError::Unavailable {
                reason: "disk".into(),
            }),
            "Unavailable LOG_UNAVAILABLE retry",
        ),
        (
            log(&LogError::NewerVersion {
                found: 2,
                supported: 1,
            }),
            "FailedPrecondition SESSION_NEWER",
        ),
        (
            loop_not_found("s1", "l9"),
            "NotFound LOOP_NOT_FOUND loop_id=l9",
        ),
        (
            no_credential("the call has no credential"),
            "Unauthenticated NO_CREDENTIAL",
        ),
        (
            role_not_allowed("viewer", "/x"),
            "PermissionDenied ROLE_NOT_ALLOWED role=viewer",
        ),
        (no_model("none"), "FailedPrecondition NO_MODEL"),
        (
            tools_not_found(&["a__b".into(), "c__d".into()], 3),
            "FailedPrecondition TOOL_NOT_FOUND tools=a__b,c__d",
        ),
        (request_id_reused("r1"), "AlreadyExists REQUEST_ID_REUSED"),
        (
            too_many_watchers(3, "server"),
            "ResourceExhausted TOO_MANY_WATCHERS limit=3 retry",
        ),
        (not_attached(), "FailedPrecondition NOT_ATTACHED"),
        (
            already_attached("s1"),
            "FailedPrecondition ALREADY_ATTACHED",
        ),
        (
            session_mismatch("s2", "s1"),
            "FailedPrecondition SESSION_MISMATCH",
        ),
        (unimplemented("/x"), "Unimplemented NO_SUCH_RPC"),
    ];
    for (status, expected) in table {
        assert_eq!(told(&status), expected);
    }
}

#[test]
fn field_errors_come_all_at_once() {
    let mut all = Violations::default();
    all.add("a.b", "is empty; name one");
    all.add("c", "is 7");
    let status = invalid(&all);
    assert_eq!(told(&status), "InvalidArgument INVALID_FIELDS");
    assert_eq!(
        status.message(),
        "the request cannot be taken: a.b: is empty; name one; c: is 7",
        "a person reads it without a library for details"
    );
    let fields = status.get_details_bad_request().unwrap().field_violations;
    let fields: Vec<_> = fields
        .into_iter()
        .map(|one| (one.field, one.description))
        .collect();
    assert_eq!(
        fields,
        [
            ("a.b".into(), "is empty; name one".into()),
            ("c".to_owned(), "is 7".to_owned())
        ]
    );
}

#[test]
fn a_reply_carries_the_whole_status() {
    let status = draining();
    let reply = in_reply(&status);
    let read = tonic_types::pb::Status::decode(reply.encode_to_vec().as_slice()).unwrap();
    assert_eq!((read.code, read.message.as_str()), (14, status.message()));
    let urls: Vec<_> = read
        .details
        .iter()
        .map(|any| any.type_url.as_str())
        .collect();
    assert_eq!(
        urls,
        [
            "type.googleapis.com/google.rpc.RetryInfo",
            "type.googleapis.com/google.rpc.ErrorInfo"
        ]
    );
}
