//! Events of the core as events of the wire.
//!
//! Some of what the wire says of one event stands in another event of the same entry: the entry is
//! the atom, so that is always at hand.

mod control;
mod tool;

use loopwright_core::{
    event::{self as core, Event},
    outcome::{EndReason, StopReason},
};
use loopwright_proto::v1::{self, event::Kind, loop_ended::Detail};

use super::{agent, context as compaction, duration, message, timestamp, words};

/// What an event's neighbours and its record tell of it.
pub(super) struct Context<'a> {
    /// All events of the entry.
    pub(super) events: &'a [Event],
    /// Its seq.
    pub(super) seq: u64,
    /// Generation of the driver that wrote it.
    pub(super) epoch: u64,
}

/// The forms of one event: none for a kind that the wire does not have, two for an overrun in both
/// dimensions, else one.
pub(super) fn kinds(event: &Event, context: &Context<'_>) -> Vec<Kind> {
    let kind = match event {
        Event::SessionCreated(_)
        | Event::SessionForked(_)
        | Event::SessionImported(_)
        | Event::DriverAttached(_)
        | Event::DriverDetached(_)
        | Event::LogRecovered(_)
        | Event::ToolsChanged(_) => return session_kind(event, context).into_iter().collect(),
        Event::MessageAdded(e) => Kind::MessageAdded(v1::MessageAdded {
            origin: words::origin(e.origin) as i32,
            message: Some(v1::Message {
                role: v1::Role::User as i32,
                parts: e
                    .parts
                    .iter()
                    .map(|part| message::part(part, None))
                    .collect(),
            }),
        }),
        Event::LoopStarted(e) => Kind::LoopStarted(loop_started(e)),
        Event::ModelCallReserving(e) => Kind::ModelCallReserving(v1::ModelCallReserving {
            call: e.call.to_string(),
            attempt: e.attempt,
            purpose: purpose(e.recap.is_some()) as i32,
        }),
        Event::ContextCompacted(e) => Kind::ContextCompacted(compaction::compacted(e)),
        Event::ModelCallStarted(e) => Kind::ModelCallStarted(model_started(e, context)),
        Event::ModelCallCompleted(e) => Kind::ModelCallCompleted(model_completed(e, context)),
        Event::ModelCallFailed(e) => Kind::ModelCallFailed(model_failed(e)),
        Event::ModelCallAbandoned(e) => Kind::ModelCallAbandoned(v1::ModelCallAbandoned {
            call: e.call.to_string(),
            attempt: e.attempt,
            reason: words::abandoned(e.reason) as i32,
        }),
        Event::BudgetReserved(_)
        | Event::BudgetSettled(_)
        | Event::BudgetWarning(_)
        | Event::BudgetOverrun(_)
        | Event::SettlementAcknowledged(_) => return budget_kinds(event),
        Event::ToolCallRequested(_)
        | Event::ToolCallRejected(_)
        | Event::ApprovalRequested(_)
        | Event::ApprovalResolved(_)
        | Event::ToolCallStarted(_)
        | Event::ToolCallCompleted(_)
        | Event::ToolCallFailed(_)
        | Event::ToolCallInDoubt(_)
        | Event::ToolCallUnknown(_)
        | Event::UnknownResolved(_)
        | Event::ToolCallResultLate(_)
        | Event::ToolCallCancelled(_) => return tool::kind(event, context).into_iter().collect(),
        Event::LimitsUpdated(_) | Event::LoopPaused(_) | Event::LoopResumed(_) => {
            return control::kind(event).into_iter().collect();
        }
        Event::LoopEnded(e) => Kind::LoopEnded(loop_ended(e, context)),
        Event::Unknown(_) => return Vec::new(),
    };
    vec![kind]
}

/// The form of an event of the session as a whole; `None` for any other.
fn session_kind(event: &Event, context: &Context<'_>) -> Option<Kind> {
    Some(match event {
        Event::SessionCreated(e) => Kind::SessionCreated(v1::SessionCreated {
            session_id: e.session.clone(),
            namespace: e.namespace.clone(),
            agent: Some(agent::to_wire(&e.agent, Some(&e.limits))),
            labels: e.labels.clone(),
        }),
        Event::SessionForked(e) => Kind::SessionForked(v1::SessionForked {
            from_session_id: e.from.clone(),
            from_seq: e.from_seq,
            session_id: e.session.clone(),
            namespace: e.namespace.clone(),
            labels: e.labels.clone(),
        }),
        Event::SessionImported(e) => Kind::SessionImported(v1::SessionImported {
            session_id: e.session.clone(),
            namespace: e.namespace.clone(),
            from: e.from.clone(),
            from_seq: e.from_seq,
        }),
        Event::DriverAttached(e) => Kind::DriverAttached(v1::DriverAttached {
            epoch: e.epoch,
            server_version: e.server.clone(),
        }),
        Event::DriverDetached(_) => Kind::DriverDetached(v1::DriverDetached {
            epoch: context.epoch,
        }),
        Event::LogRecovered(e) => Kind::LogRecovered(v1::LogRecovered {
            cut_bytes: e.cut_bytes,
            tail_seq: context.seq.saturating_sub(1),
        }),
        Event::ToolsChanged(e) => Kind::ToolsChanged(v1::ToolsChanged {
            tools: e.tools.iter().map(words::offered).collect(),
        }),
        _ => return None,
    })
}

fn loop_started(e: &core::LoopStarted) -> v1::LoopStarted {
    v1::LoopStarted {
        loop_id: e.id.to_string(),
        agent: e
            .agent
            .as_ref()
            .map(|agent| agent::to_wire(agent, e.limits.as_deref())),
        labels: Default::default(),
    }
}

fn model_started(e: &core::ModelCallStarted, context: &Context<'_>) -> v1::ModelCallStarted {
    let reserved = context.events.iter().find_map(|event| match event {
        Event::BudgetReserved(r) if r.call == e.call => Some(r.reserved.input),
        _ => None,
    });
    v1::ModelCallStarted {
        call: e.call.to_string(),
        attempt: e.attempt,
        model: e.model.clone(),
        purpose: purpose(e.recap.is_some()) as i32,
        max_output_tokens: e.max_output_tokens,
        output_bound: words::bound(e.bound) as i32,
        estimated_input_tokens: reserved.unwrap_or_default(),
        step: e.step,
    }
}

fn model_completed(e: &core::ModelCallCompleted, context: &Context<'_>) -> v1::ModelCallCompleted {
    let call_of = |index: usize| {
        context.events.iter().find_map(|event| match event {
            Event::ToolCallRequested(r) if r.index as usize == index => Some(r.call),
            _ => None,
        })
    };
    let parts = e.parts.iter().enumerate();
    v1::ModelCallCompleted {
        call: e.call.to_string(),
        attempt: e.attempt,
        message: Some(v1::Message {
            role: v1::Role::Assistant as i32,
            parts: parts
                .map(|(index, part)| message::part(part, call_of(index)))
                .collect(),
        }),
        stop_reason: words::stop(&e.stop) as i32,
        provider_stop_reason: match &e.stop {
            StopReason::Other(word) => word.clone(),
            _ => String::new(),
        },
        usage: e.usage.map(|usage| words::usage(&usage, false)),
        cost_micro_usd: e.cost_micro_usd,
        provider_request_id: e.response_id.clone().unwrap_or_default(),
        request_crc32c: crc(&e.body_crc).unwrap_or_default(),
        latency: Some(duration(e.latency_ms)),
        time_to_first_token: e.first_token_ms.map(duration),
        purpose: purpose(e.recap) as i32,
    }
}

fn purpose(is_recap: bool) -> v1::ModelCallPurpose {
    match is_recap {
        true => v1::ModelCallPurpose::Recap,
        false => v1::ModelCallPurpose::Step,
    }
}

fn model_failed(e: &core::ModelCallFailed) -> v1::ModelCallFailed {
    v1::ModelCallFailed {
        call: e.call.to_string(),
        attempt: e.attempt,
        kind: words::model_failure(e.kind) as i32,
        message: e.message.clone(),
        http_status: e.http_status.into(),
        retry_at: e.retry_at.map(timestamp),
        request_crc32c: crc(&e.body_crc),
        usage: e.usage.map(|usage| words::usage(&usage, false)),
    }
}

fn budget_kinds(event: &Event) -> Vec<Kind> {
    let own = || vec![words::budget_ref(loopwright_core::budget::LOOP_BUDGET)];
    let amount = |input, output| v1::BudgetAmount {
        input_tokens: input,
        output_tokens: output,
        model_calls: 1,
        ..v1::BudgetAmount::default()
    };
    match event {
        Event::BudgetReserved(e) => vec![Kind::BudgetReserved(v1::BudgetReserved {
            call: e.call.to_string(),
            attempt: e.attempt,
            budgets: own(),
            amount: Some(v1::BudgetAmount {
                tool_calls: e.tool_calls.unwrap_or(0),
                ..amount(e.reserved.input, e.reserved.output)
            }),
        })],
        Event::BudgetSettled(e) => vec![Kind::BudgetSettled(v1::BudgetSettled {
            call: e.call.to_string(),
            attempt: e.attempt,
            budgets: own(),
            amount: Some(v1::BudgetAmount {
                cost_micro_usd: (e.cost_micro_usd > 0).then_some(e.cost_micro_usd),
                tool_calls: e.tool_calls,
                wall_time_ms: e.wall_ms,
                // The time of a loop alone is of no call.
                model_calls: u64::from(e.attempt > 0),
                ..amount(e.usage.prompt(), e.usage.output)
            }),
            estimated: e.estimated,
        })],
        Event::BudgetWarning(e) => vec![Kind::BudgetWarning(v1::BudgetWarning {
            budget: Some(words::budget_ref(&e.budget)),
            dimension: words::dimension(e.dimension) as i32,
            limit: e.limit,
            used: e.used,
        })],
        Event::BudgetOverrun(e) => overruns(e),
        _ => Vec::new(),
    }
}

fn overruns(e: &core::BudgetOverrun) -> Vec<Kind> {
    let dimensions = [
        (
            v1::BudgetDimension::InputTokens,
            e.reserved.input,
            e.usage.prompt(),
        ),
        (
            v1::BudgetDimension::OutputTokens,
            e.reserved.output,
            e.usage.output,
        ),
        (
            v1::BudgetDimension::CostMicroUsd,
            e.reserved_micro_usd,
            e.cost_micro_usd,
        ),
    ];
    let over = dimensions
        .into_iter()
        .filter(|(_, reserved, used)| used > reserved);
    over.map(|(dimension, reserved, used)| {
        Kind::BudgetOverrun(v1::BudgetOverrun {
            call: e.call.to_string(),
            attempt: e.attempt,
            dimension: dimension as i32,
            reserved,
            used,
        })
    })
    .collect()
}

fn loop_ended(e: &core::LoopEnded, context: &Context<'_>) -> v1::LoopEnded {
    v1::LoopEnded {
        loop_id: e.id.to_string(),
        reason: words::end_reason(&e.reason) as i32,
        result_text: e.text.clone(),
        result_json: String::new(),
        totals: Some(words::totals(&e.totals)),
        detail: detail(&e.reason, context),
    }
}

fn detail(reason: &EndReason, context: &Context<'_>) -> Option<Detail> {
    Some(match reason {
        EndReason::Completed => return None,
        &EndReason::MaxSteps { limit } => Detail::MaxSteps(v1::MaxStepsDetail { limit }),
        &EndReason::MaxOutput {
            retries,
            max_output_tokens,
        } => Detail::MaxOutput(v1::MaxOutputDetail {
            max_output_tokens,
            retries,
        }),
        EndReason::BudgetExceeded {
            budget,
            dimension,
            limit,
            used,
            requested,
        } => Detail::BudgetExceeded(v1::BudgetExceededDetail {
            budget: Some(words::budget_ref(budget)),
            dimension: words::dimension(*dimension) as i32,
            limit: *limit,
            used: *used,
            requested: *requested,
        }),
        EndReason::Deadline { kind } => Detail::Deadline(v1::DeadlineDetail {
            kind: words::deadline(*kind) as i32,
        }),
        &EndReason::NoProgress { steps } => Detail::NoProgress(v1::NoProgressDetail { steps }),
        EndReason::Refused => Detail::Refused(v1::RefusedDetail {
            stop_reason: refusal(context) as i32,
        }),
        &EndReason::ContextExhausted { tokens, limit } => {
            Detail::ContextExhausted(v1::ContextExhaustedDetail { tokens, limit })
        }
        EndReason::Cancelled { by, reason } => Detail::Cancelled(v1::CancelledDetail {
            by: by.clone(),
            reason: reason.clone(),
        }),
        EndReason::ModelFailed { kind, message } => Detail::ModelFailed(v1::ModelFailedDetail {
            kind: words::model_failure(*kind) as i32,
            message: message.clone(),
        }),
        EndReason::UnknownOutcome { call } => Detail::UnknownOutcome(v1::UnknownOutcomeDetail {
            call: call.to_string(),
        }),
        EndReason::Error { message } => Detail::Error(v1::ErrorDetail {
            message: message.clone(),
        }),
    })
}

fn refusal(context: &Context<'_>) -> v1::StopReason {
    let stop = context.events.iter().find_map(|event| match event {
        Event::ModelCallCompleted(reply) => Some(words::stop(&reply.stop)),
        _ => None,
    });
    stop.unwrap_or(v1::StopReason::Refusal)
}

fn crc(text: &str) -> Option<u32> {
    u32::from_str_radix(text, 16).ok()
}
