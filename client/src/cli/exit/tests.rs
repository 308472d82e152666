use std::collections::BTreeMap;

use loopwright_proto::v1::{EndReason, LoopEnded};
use tonic::Code;

use super::Exit;
use crate::{Error, Rejection};

/// Scripts rely on these numbers.
const TABLE: [(EndReason, u8); 13] = [
    (EndReason::Unspecified, 1),
    (EndReason::Completed, 0),
    (EndReason::MaxSteps, 4),
    (EndReason::MaxOutput, 4),
    (EndReason::BudgetExceeded, 3),
    (EndReason::Deadline, 4),
    (EndReason::NoProgress, 4),
    (EndReason::Refused, 5),
    (EndReason::ContextExhausted, 4),
    (EndReason::Cancelled, 130),
    (EndReason::ModelFailed, 5),
    (EndReason::UnknownOutcome, 6),
    (EndReason::Error, 1),
];

fn end(reason: i32) -> LoopEnded {
    LoopEnded {
        reason,
        ..LoopEnded::default()
    }
}

#[test]
fn every_reason_on_the_wire_has_the_code_of_the_table() {
    for (at, (reason, code)) in TABLE.into_iter().enumerate() {
        assert_eq!(reason as usize, at, "the table leaves a reason out");
        assert_eq!(Exit::of_end(&end(reason.into())).code(), code, "{reason:?}");
    }
    let next = i32::try_from(TABLE.len()).unwrap_or(i32::MAX);
    assert!(
        EndReason::try_from(next).is_err(),
        "a new reason: give it a code"
    );
}

#[test]
fn a_reason_of_a_newer_server_is_not_a_success() {
    assert_eq!(Exit::of_end(&end(9_999)), Exit::Error);
}

#[test]
fn every_exit_has_a_code_of_its_own() {
    let codes: BTreeMap<u8, Exit> = Exit::ALL
        .into_iter()
        .map(|exit| (exit.code(), exit))
        .collect();
    let expected = [0, 1, 2, 3, 4, 5, 6, 7, 130];
    assert_eq!(codes.into_keys().collect::<Vec<_>>(), expected);
}

#[test]
fn what_the_user_typed_is_a_usage_error_and_nothing_else_is() {
    let refused = |code| {
        Error::Rejected(Box::new(Rejection {
            code,
            reason: String::new(),
            message: String::new(),
            metadata: BTreeMap::new(),
            fields: Vec::new(),
            retry_after: None,
        }))
    };
    assert_eq!(Exit::of_error(&refused(Code::InvalidArgument)), Exit::Usage);
    assert_eq!(
        Exit::of_error(&refused(Code::FailedPrecondition)),
        Exit::Error
    );
    assert_eq!(Exit::of_error(&refused(Code::DataLoss)), Exit::Error);
    let option = Error::Options {
        field: "url",
        value: "x".to_owned(),
        expected: "y".to_owned(),
    };
    assert_eq!(Exit::of_error(&option), Exit::Usage);
}
