//! Every way in which a loop ends, with its detail.

use loopwright_core::{
    budget::Dimension,
    event::{self, Event},
    ids::{LoopId, Timestamp},
    outcome::{DeadlineKind, EndReason, ModelFailureKind, StopReason},
    usage::Totals,
};
use loopwright_proto::v1::{self, event::Kind, loop_ended::Detail};

use super::events::{CALL, kinds};
use crate::service::fixture::{T0, asks};

pub(super) fn end(reason: EndReason) -> Event {
    let (id, at, text) = (LoopId(1), Timestamp(T0), "so far".to_owned());
    let totals = Totals::default();
    event::LoopEnded {
        id,
        at,
        reason,
        text,
        totals,
    }
    .into()
}

fn is(reason: EndReason, expected: Option<Detail>) {
    let label = reason.label().to_uppercase();
    let Kind::LoopEnded(ended) = kinds(&end(reason), &[]).remove(0) else {
        panic!("another kind");
    };
    assert_eq!(ended.reason().as_str_name(), format!("END_REASON_{label}"));
    assert_eq!(ended.detail, expected, "{label}");
    assert_eq!(ended.result_text, "so far");
}

#[test]
fn every_end_has_its_reason_and_its_detail() {
    is(EndReason::Completed, None);
    let limit = 3;
    let detail = Detail::MaxSteps(v1::MaxStepsDetail { limit });
    is(EndReason::MaxSteps { limit }, Some(detail));
    let (retries, max_output_tokens) = (2, 4_096);
    let detail = v1::MaxOutputDetail {
        max_output_tokens,
        retries,
    };
    is(
        EndReason::MaxOutput {
            retries,
            max_output_tokens,
        },
        Some(Detail::MaxOutput(detail)),
    );
    let detail = Detail::Deadline(v1::DeadlineDetail { kind: 1 });
    let kind = DeadlineKind::Loop;
    is(EndReason::Deadline { kind }, Some(detail));
    let (tokens, limit) = (9_000, 8_000);
    let detail = v1::ContextExhaustedDetail { tokens, limit };
    is(
        EndReason::ContextExhausted { tokens, limit },
        Some(Detail::ContextExhausted(detail)),
    );
    let (by, reason) = ("ada".to_owned(), "enough".to_owned());
    let detail = v1::CancelledDetail {
        by: by.clone(),
        reason: reason.clone(),
    };
    is(
        EndReason::Cancelled { by, reason },
        Some(Detail::Cancelled(detail)),
    );
    let (kind, message) = (
        v1::ModelFailureKind::QuotaExhausted as i32,
        "no money".to_owned(),
    );
    let detail = v1::ModelFailedDetail {
        kind,
        message: message.clone(),
    };
    let kind = ModelFailureKind::Quota;
    is(
        EndReason::ModelFailed { kind, message },
        Some(Detail::ModelFailed(detail)),
    );
    let detail = v1::UnknownOutcomeDetail { call: "c7".into() };
    is(
        EndReason::UnknownOutcome { call: CALL },
        Some(Detail::UnknownOutcome(detail)),
    );
    let message = "odd".to_owned();
    let detail = Detail::Error(v1::ErrorDetail {
        message: message.clone(),
    });
    is(EndReason::Error { message }, Some(detail));
}

#[test]
fn a_budget_that_ended_a_loop_is_named_with_its_numbers() {
    let (limit, used, requested) = (4, 3, 2);
    for (name, scope) in [
        ("loop", v1::BudgetScope::Loop),
        ("team", v1::BudgetScope::Named),
        ("namespace", v1::BudgetScope::Namespace),
    ] {
        let (budget, dimension) = (name.to_owned(), Dimension::ModelCalls);
        let reason = EndReason::BudgetExceeded {
            budget,
            dimension,
            limit,
            used,
            requested,
        };
        let name = if name == "loop" { "" } else { name };
        let budget = v1::BudgetRef {
            scope: scope as i32,
            name: name.to_owned(),
        };
        let detail = v1::BudgetExceededDetail {
            budget: Some(budget),
            dimension: v1::BudgetDimension::ModelCalls as i32,
            limit,
            used,
            requested,
        };
        is(reason, Some(Detail::BudgetExceeded(detail)));
    }
}

#[test]
fn a_refusal_says_who_refused() {
    let refused = |stop| {
        let Event::ModelCallCompleted(mut reply) = asks(1, 2).events.remove(0) else {
            panic!("the fixture's reply");
        };
        reply.stop = stop;
        let Kind::LoopEnded(ended) = kinds(&end(EndReason::Refused), &[reply.into()]).remove(0)
        else {
            panic!("another kind");
        };
        ended.detail
    };
    let detail = |stop: v1::StopReason| {
        let stop_reason = stop as i32;
        Some(Detail::Refused(v1::RefusedDetail { stop_reason }))
    };
    assert_eq!(
        refused(StopReason::Refusal),
        detail(v1::StopReason::Refusal)
    );
    assert_eq!(
        refused(StopReason::ContentFilter),
        detail(v1::StopReason::ContentFilter)
    );
}
