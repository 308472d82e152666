use super::*;

fn every_reason() -> Vec<EndReason> {
    let all = vec![
        EndReason::Completed,
        EndReason::MaxSteps { limit: 75 },
        EndReason::MaxOutput {
            retries: 2,
            max_output_tokens: 4_096,
        },
        EndReason::BudgetExceeded {
            budget: "loop".to_owned(),
            dimension: Dimension::TotalTokens,
            limit: 1000,
            used: 900,
            requested: 300,
        },
        EndReason::Deadline {
            kind: DeadlineKind::Loop,
        },
        EndReason::NoProgress { steps: 15 },
        EndReason::Refused,
        EndReason::ContextExhausted {
            tokens: 9,
            limit: 8,
        },
        EndReason::Cancelled {
            by: "ann".to_owned(),
            reason: String::new(),
        },
        EndReason::ModelFailed {
            kind: ModelFailureKind::Auth,
            message: "bad key".to_owned(),
        },
        EndReason::UnknownOutcome { call: CallId(4) },
        EndReason::Error {
            message: "odd".to_owned(),
        },
    ];
    // A reason that is added must be added here: the match has no wildcard.
    for reason in &all {
        match reason {
            EndReason::Completed
            | EndReason::MaxSteps { .. }
            | EndReason::MaxOutput { .. }
            | EndReason::BudgetExceeded { .. }
            | EndReason::Deadline { .. }
            | EndReason::NoProgress { .. }
            | EndReason::Refused
            | EndReason::ContextExhausted { .. }
            | EndReason::Cancelled { .. }
            | EndReason::ModelFailed { .. }
            | EndReason::UnknownOutcome { .. }
            | EndReason::Error { .. } => {}
        }
    }
    all
}

#[test]
fn every_reason_has_its_own_label_and_one_line() {
    let all = every_reason();
    let mut labels: Vec<_> = all.iter().map(EndReason::label).collect();
    labels.sort_unstable();
    labels.dedup();
    assert_eq!(labels.len(), all.len(), "two reasons share a label");
    for reason in &all {
        let line = reason.describe();
        assert!(
            !line.is_empty() && !line.contains('\n'),
            "{reason:?} reads {line:?}"
        );
    }
}

#[test]
fn the_label_is_the_tag_in_the_log() {
    for reason in every_reason() {
        let json = serde_json::to_value(&reason).expect("a reason is JSON");
        let tag = if let serde_json::Value::String(tag) = &json {
            tag.clone()
        } else {
            let members = json.as_object().expect("tagged");
            members.keys().next().expect("one tag").clone()
        };
        assert_eq!(tag, reason.label());
        assert_eq!(
            serde_json::from_value::<EndReason>(json).expect("reads back"),
            reason
        );
    }
}

#[test]
fn what_was_refused_whole_costs_nothing_and_what_may_have_run_does() {
    assert!(!ModelFailureKind::RateLimited.may_have_run());
    assert!(ModelFailureKind::Cut.may_have_run());
    assert!(ModelFailureKind::Stalled.is_retryable());
    assert!(!ModelFailureKind::Quota.is_retryable());
}
