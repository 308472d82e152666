//! The words of the core as enums of the wire: one exhaustive match each, so that a new word of the
//! core does not compile until it has one.

use loopwright_core::{
    agent::{EffectClass, ToolSpec, UnknownPolicy},
    budget::{Bound, Dimension, LOOP_BUDGET, SESSION_BUDGET},
    event::{ApprovalOutcome, ApprovalReason, Origin, RejectReason, UnknownResolution},
    outcome::{
        AbandonReason, DeadlineKind, DoubtCause, EndReason, ModelFailureKind, StopReason,
        ToolFailureKind,
    },
    usage::{Totals, Usage},
};
use loopwright_proto::v1;

use super::duration;

pub(super) fn origin(origin: Origin) -> v1::MessageOrigin {
    match origin {
        Origin::User => v1::MessageOrigin::User,
        Origin::Steer => v1::MessageOrigin::Steer,
        Origin::Queue => v1::MessageOrigin::Queue,
        Origin::Nudge => v1::MessageOrigin::Nudge,
    }
}

pub(super) fn bound(bound: Bound) -> v1::OutputBound {
    match bound {
        Bound::Configured => v1::OutputBound::Config,
        Bound::Requested => v1::OutputBound::Request,
        Bound::Budget(_) | Bound::NamedBudget | Bound::SessionBudget(_) => v1::OutputBound::Budget,
    }
}

pub(super) fn stop(stop: &StopReason) -> v1::StopReason {
    match stop {
        StopReason::EndTurn => v1::StopReason::EndTurn,
        StopReason::ToolUse => v1::StopReason::ToolUse,
        StopReason::MaxTokens => v1::StopReason::MaxTokens,
        StopReason::StopSequence => v1::StopReason::StopSequence,
        StopReason::Refusal => v1::StopReason::Refusal,
        StopReason::ContentFilter => v1::StopReason::ContentFilter,
        StopReason::ContextFull => v1::StopReason::ContextFull,
        StopReason::Pause => v1::StopReason::Pause,
        StopReason::Other(_) => v1::StopReason::Other,
    }
}

pub(super) fn abandoned(reason: AbandonReason) -> v1::AbandonReason {
    match reason {
        AbandonReason::Interrupted => v1::AbandonReason::Interrupted,
        AbandonReason::Cancelled => v1::AbandonReason::Cancelled,
        AbandonReason::DriverLost => v1::AbandonReason::DriverLost,
        AbandonReason::Deadline => v1::AbandonReason::Deadline,
        AbandonReason::Paused => v1::AbandonReason::Paused,
        AbandonReason::NotCovered => v1::AbandonReason::NotCovered,
    }
}

pub(super) fn model_failure(kind: ModelFailureKind) -> v1::ModelFailureKind {
    match kind {
        ModelFailureKind::RateLimited => v1::ModelFailureKind::RateLimited,
        ModelFailureKind::Overloaded => v1::ModelFailureKind::Overloaded,
        ModelFailureKind::Server | ModelFailureKind::TryAgain => v1::ModelFailureKind::ServerError,
        ModelFailureKind::Connect | ModelFailureKind::Cut => v1::ModelFailureKind::Connection,
        ModelFailureKind::Stalled => v1::ModelFailureKind::Timeout,
        ModelFailureKind::Malformed => v1::ModelFailureKind::Malformed,
        ModelFailureKind::TooLarge => v1::ModelFailureKind::TooLarge,
        ModelFailureKind::ContextTooLong => v1::ModelFailureKind::ContextTooLong,
        ModelFailureKind::Quota => v1::ModelFailureKind::QuotaExhausted,
        ModelFailureKind::Auth => v1::ModelFailureKind::Unauthenticated,
        ModelFailureKind::NoSuchModel => v1::ModelFailureKind::NotFound,
        ModelFailureKind::InvalidRequest => v1::ModelFailureKind::InvalidRequest,
    }
}

/// Of an ambiguous failure whose cause is not known, the loss of the sidecar says the least.
pub(super) fn tool_failure(
    kind: ToolFailureKind,
    cause: Option<DoubtCause>,
) -> v1::ToolFailureKind {
    match (kind, cause) {
        (ToolFailureKind::NotExecuted, _) => v1::ToolFailureKind::NotExecuted,
        (ToolFailureKind::Ambiguous, Some(DoubtCause::Timeout)) => v1::ToolFailureKind::Timeout,
        (ToolFailureKind::Ambiguous, Some(DoubtCause::Internal)) => v1::ToolFailureKind::Internal,
        (ToolFailureKind::Ambiguous, Some(DoubtCause::BadReply)) => v1::ToolFailureKind::BadReply,
        (ToolFailureKind::Ambiguous, Some(DoubtCause::Unavailable) | None) => {
            v1::ToolFailureKind::Unavailable
        }
    }
}

pub(super) fn rejected(reason: RejectReason) -> v1::ToolRejectKind {
    match reason {
        RejectReason::UnknownTool => v1::ToolRejectKind::UnknownTool,
        RejectReason::InvalidArguments => v1::ToolRejectKind::InvalidArguments,
        RejectReason::Truncated => v1::ToolRejectKind::Truncated,
        RejectReason::TooManyCalls => v1::ToolRejectKind::CapExceeded,
        RejectReason::Budget => v1::ToolRejectKind::BudgetExceeded,
        RejectReason::Denied => v1::ToolRejectKind::Denied,
        RejectReason::Expired => v1::ToolRejectKind::Expired,
    }
}

pub(super) fn approval_reason(reason: ApprovalReason) -> v1::ApprovalReason {
    match reason {
        ApprovalReason::RepeatsUnknown => v1::ApprovalReason::RepeatsUnknown,
    }
}

pub(super) fn approval_outcome(outcome: ApprovalOutcome) -> v1::ApprovalOutcome {
    match outcome {
        ApprovalOutcome::Allowed => v1::ApprovalOutcome::Allowed,
        ApprovalOutcome::Denied => v1::ApprovalOutcome::Denied,
        ApprovalOutcome::Expired => v1::ApprovalOutcome::Expired,
        ApprovalOutcome::Cancelled => v1::ApprovalOutcome::Cancelled,
    }
}

pub(super) fn unknown_policy(policy: UnknownPolicy) -> v1::UnknownPolicy {
    match policy {
        UnknownPolicy::Ask => v1::UnknownPolicy::Ask,
        UnknownPolicy::TellModel => v1::UnknownPolicy::TellModel,
        UnknownPolicy::End => v1::UnknownPolicy::End,
    }
}

pub(super) fn resolution(resolution: UnknownResolution) -> v1::UnknownResolution {
    match resolution {
        UnknownResolution::Happened => v1::UnknownResolution::Happened,
        UnknownResolution::DidNotHappen => v1::UnknownResolution::DidNotHappen,
        UnknownResolution::RunAgain => v1::UnknownResolution::RunAgain,
        UnknownResolution::TellModel => v1::UnknownResolution::TellModel,
        UnknownResolution::Cancelled => v1::UnknownResolution::Cancelled,
    }
}

pub(super) fn deadline(kind: DeadlineKind) -> v1::DeadlineKind {
    match kind {
        DeadlineKind::Loop => v1::DeadlineKind::Loop,
        DeadlineKind::Idle => v1::DeadlineKind::Idle,
    }
}

/// A dimension on the wire.
#[must_use]
pub fn dimension(dimension: Dimension) -> v1::BudgetDimension {
    match dimension {
        Dimension::InputTokens => v1::BudgetDimension::InputTokens,
        Dimension::OutputTokens => v1::BudgetDimension::OutputTokens,
        Dimension::TotalTokens => v1::BudgetDimension::TotalTokens,
        Dimension::CostMicroUsd => v1::BudgetDimension::CostMicroUsd,
        Dimension::ModelCalls => v1::BudgetDimension::ModelCalls,
        Dimension::ToolCalls => v1::BudgetDimension::ToolCalls,
        Dimension::WallTimeMs => v1::BudgetDimension::WallTimeMs,
    }
}

pub(super) fn end_reason(reason: &EndReason) -> v1::EndReason {
    match reason {
        EndReason::Completed => v1::EndReason::Completed,
        EndReason::MaxSteps { .. } => v1::EndReason::MaxSteps,
        EndReason::MaxOutput { .. } => v1::EndReason::MaxOutput,
        EndReason::BudgetExceeded { .. } => v1::EndReason::BudgetExceeded,
        EndReason::Deadline { .. } => v1::EndReason::Deadline,
        EndReason::NoProgress { .. } => v1::EndReason::NoProgress,
        EndReason::Refused => v1::EndReason::Refused,
        EndReason::ContextExhausted { .. } => v1::EndReason::ContextExhausted,
        EndReason::Cancelled { .. } => v1::EndReason::Cancelled,
        EndReason::ModelFailed { .. } => v1::EndReason::ModelFailed,
        EndReason::UnknownOutcome { .. } => v1::EndReason::UnknownOutcome,
        EndReason::Error { .. } => v1::EndReason::Error,
    }
}

pub(super) fn budget_ref(name: &str) -> v1::BudgetRef {
    let scope = match name {
        LOOP_BUDGET => v1::BudgetScope::Loop,
        SESSION_BUDGET => v1::BudgetScope::Session,
        named => return super::budget::reference(named),
    };
    v1::BudgetRef {
        scope: scope.into(),
        name: String::new(),
    }
}

pub(super) fn usage(usage: &Usage, estimated: bool) -> v1::Usage {
    v1::Usage {
        input_tokens: usage.input,
        output_tokens: usage.output,
        cache_write_tokens: usage.cache_write,
        cache_read_tokens: usage.cache_read,
        estimated,
        cache_write_1h_tokens: usage.cache_write_1h,
    }
}

pub(super) fn totals(totals: &Totals) -> v1::Totals {
    v1::Totals {
        usage: Some(usage(&totals.usage, totals.estimated > 0)),
        cost_micro_usd: Some(totals.cost_micro_usd).filter(|cost| *cost > 0),
        model_calls: totals.model_calls,
        tool_calls: totals.tool_calls,
        steps: totals.steps,
        wall_time: Some(duration(totals.wall_ms)),
    }
}

/// A tool as a model is offered it.
#[must_use]
pub(super) fn offered(spec: &ToolSpec) -> v1::OfferedTool {
    let (sidecar, name) = crate::sidecars::split_tool_name(&spec.name).unwrap_or(("", &spec.name));
    let (effect, retention) = match spec.effect {
        EffectClass::ReadOnly => (v1::EffectClass::ReadOnly, None),
        EffectClass::Idempotent => (v1::EffectClass::Idempotent, None),
        EffectClass::Deduplicated { retention_ms } => {
            (v1::EffectClass::Deduplicated, Some(retention_ms))
        }
        EffectClass::AtMostOnce => (v1::EffectClass::AtMostOnce, None),
    };
    v1::OfferedTool {
        name: spec.name.clone(),
        sidecar: sidecar.to_owned(),
        spec: Some(v1::ToolSpec {
            name: name.to_owned(),
            description: spec.description.clone(),
            input_schema_json: spec.input_schema.clone(),
            effect_class: effect as i32,
            retention: retention.map(duration),
            destructive: spec.destructive,
            timeout: Some(duration(spec.timeout_ms)),
            supports_lookup: spec.lookup,
            ..v1::ToolSpec::default()
        }),
    }
}
