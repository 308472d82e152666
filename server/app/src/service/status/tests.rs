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

fn is(status: Status, expected: &str) {
    assert_eq!(told(&status), expected);
}

#[test]
fn rejected_commands_name_their_reason_and_what_a_program_needs() {
    let rejected = |rejection| command(&CommandError::Rejected(rejection), "s1");
    let (named, running) = (LoopId(1), LoopId(2));
    let session = "s1".to_owned();
    let not_found = "NotFound SESSION_NOT_FOUND session_id=s1";
    is(rejected(Rejection::SessionNotFound), not_found);
    let exists = rejected(Rejection::SessionExists { session });
    is(exists, "AlreadyExists SESSION_EXISTS");
    let is_running = rejected(Rejection::LoopRunning { running });
    is(is_running, "FailedPrecondition LOOP_RUNNING loop_id=l2");
    is(
        rejected(Rejection::NoLoopRunning),
        "FailedPrecondition NO_LOOP",
    );
    let mismatch = rejected(Rejection::LoopMismatch { named, running });
    is(mismatch, "FailedPrecondition LOOP_MISMATCH loop_id=l2");
    let full = rejected(Rejection::TooManyMessages { limit: 9 });
    is(full, "ResourceExhausted QUEUE_FULL limit=9 retry");
    let (epoch, current) = (1, 2);
    let stale = rejected(Rejection::StaleEpoch { epoch, current });
    is(stale, "Aborted STALE_EPOCH");

    is(command(&CommandError::NotFound, "s1"), not_found);
    is(
        command(&CommandError::Draining, "s1"),
        "Unavailable DRAINING retry",
    );
    let busy = command(&CommandError::TooManySessions { limit: 5 }, "s1");
    is(busy, "ResourceExhausted TOO_MANY_SESSIONS limit=5 retry");
    let kind = "Later".to_owned();
    let newer = command(&CommandError::Newer { kind }, "s1");
    is(newer, "FailedPrecondition SESSION_NEWER");
}

#[test]
fn failures_of_the_log_say_whether_to_try_again_and_from_where() {
    let append = |error| command(&CommandError::Log(error), "s1");
    let again = "Unavailable LOG_UNAVAILABLE retry";
    let reason = || "disk".to_owned();
    let ambiguous = true;
    is(append(AppendError::Conflict { tail: 4 }), again);
    is(
        append(AppendError::Unavailable {
            reason: reason(),
            ambiguous,
        }),
        again,
    );
    is(log(&LogError::Unavailable { reason: reason() }), again);
    let too_large = append(AppendError::TooLarge { size: 10, limit: 9 });
    is(
        too_large,
        "ResourceExhausted ENTRY_TOO_LARGE limit=9 size=10",
    );
    let malformed = append(AppendError::Malformed { reason: "odd" });
    is(malformed, "Internal ENTRY_MALFORMED");
    let corrupt = "DataLoss SESSION_CORRUPT tail_seq=7";
    is(append(AppendError::Corrupt(damage())), corrupt);
    is(log(&LogError::Corrupt(damage())), corrupt);
    let trimmed = "OutOfRange CURSOR_TRIMMED oldest_seq=5";
    is(append(AppendError::Trimmed { oldest: 5 }), trimmed);
    is(log(&LogError::Trimmed { oldest: 5 }), trimmed);
    let past = log(&LogError::PastTail { after: 9, tail: 8 });
    is(past, "DataLoss CURSOR_PAST_TAIL tail_seq=8");
    is(
        cursor_past_tail(9, 8, Some(6)),
        "DataLoss CURSOR_PAST_TAIL agrees_through=6 tail_seq=8",
    );
    is(
        cursor_diverged(7, 8, Some(6)),
        "DataLoss CURSOR_DIVERGED agrees_through=6 tail_seq=8",
    );
    let (found, supported) = (2, 1);
    let newer = log(&LogError::NewerVersion { found, supported });
    is(newer, "FailedPrecondition SESSION_NEWER");
}

#[test]
fn refusals_of_the_service_itself_have_their_reasons() {
    is(
        loop_not_found("s1", "l9"),
        "NotFound LOOP_NOT_FOUND loop_id=l9",
    );
    is(no_credential("none"), "Unauthenticated NO_CREDENTIAL");
    let role = role_not_allowed("viewer", "/x");
    is(role, "PermissionDenied ROLE_NOT_ALLOWED role=viewer");
    is(no_model("none"), "FailedPrecondition NO_MODEL");
    let tools = tools_not_found(&["a__b".into(), "c__d".into()], 3);
    is(tools, "FailedPrecondition TOOL_NOT_FOUND tools=a__b,c__d");
    is(request_id_reused("r1"), "AlreadyExists REQUEST_ID_REUSED");
    let watchers = too_many_watchers(3, "server");
    is(
        watchers,
        "ResourceExhausted TOO_MANY_WATCHERS limit=3 retry",
    );
    is(not_attached(), "FailedPrecondition NOT_ATTACHED");
    is(
        already_attached("s1"),
        "FailedPrecondition ALREADY_ATTACHED",
    );
    is(
        session_mismatch("s2", "s1"),
        "FailedPrecondition SESSION_MISMATCH",
    );
    is(unimplemented("/x"), "Unimplemented NO_SUCH_RPC");
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
