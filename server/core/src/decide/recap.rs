//! The call of a model that writes a recap: reserved for, made, and what follows from its end.
//!
//! Invariants: it reserves for itself before it is made, and leaves enough of the loop's own budget for
//! the step that waits for it; it is never repeated but for a driver that was lost; whatever becomes of
//! it, the conversation is compacted in the same entry and the loop goes on.

use std::sync::Arc;

use super::{Draft, budget, cancel, context, control, step};
use crate::{
    budget::{Bound, Reservation},
    context::{RecapAsk, RecapFallback},
    event::{
        BudgetReserved, ModelCallCompleted, ModelCallFailed, ModelCallReserving, ModelCallStarted,
    },
    ids::{Attempt, CallId},
    message::Part,
    outcome::{AbandonReason, ModelFailure, ModelReply},
    state::{LoopRun, ModelCall},
};

/// Asks a model for the recap of `ask`.
///
/// # Errors
/// A budget does not cover it.
pub(super) fn start(draft: &mut Draft, ask: RecapAsk) -> Result<(), RecapFallback> {
    let call = CallId(draft.state.next_call);
    attempt_it(draft, call, 1, ask)
}

/// The driver that made the call was lost, and the call is given up: it is made once more.
pub(super) fn again(draft: &mut Draft, call: CallId, attempt: Attempt, ask: RecapAsk) {
    if draft.state.active.as_ref().is_some_and(LoopRun::rests) {
        return;
    }
    if step::is_late(draft) {
        return step::end(draft, step::LATE);
    }
    if let Some(reason) = budget::out_of_time(draft) {
        return control::exhausted(draft, reason);
    }
    if let Err(why) = attempt_it(draft, call, attempt, ask) {
        follow_the_rule(draft, ask, why);
    }
}

/// The call was interrupted, or a budget does not cover it: it is given up, and the rule holds.
pub(super) fn give_up(draft: &mut Draft, ask: RecapAsk, why: RecapFallback) {
    let reason = match why {
        RecapFallback::Budget => AbandonReason::NotCovered,
        RecapFallback::Failed
        | RecapFallback::Cut
        | RecapFallback::Empty
        | RecapFallback::TooLarge
        | RecapFallback::Interrupted => AbandonReason::Interrupted,
    };
    cancel::abandon_model(draft, reason);
    follow_the_rule(draft, ask, why);
}

/// Named budgets said yes.
pub(super) fn granted(draft: &mut Draft, call: CallId, attempt: Attempt, ask: RecapAsk) {
    match draft.state.recap_grant(ask) {
        Some(reserved) => license(draft, call, attempt, ask, reserved),
        None => give_up(draft, ask, RecapFallback::Budget),
    }
}

pub(super) fn completed(draft: &mut Draft, model: &ModelCall, ask: RecapAsk, reply: ModelReply) {
    let (call, attempt) = (model.call, model.attempt);
    let written = ask.written(&reply);
    // Whatever it asks for, none of it is dispatched: only what it says is kept.
    let parts: Vec<Part> = reply
        .parts
        .iter()
        .filter(|part| is_said(part))
        .cloned()
        .collect();
    let (usage, cost) = (reply.usage, reply.cost_micro_usd);
    draft.emit(ModelCallCompleted {
        call,
        attempt,
        recap: true,
        parts: Arc::new(parts),
        stop: reply.stop,
        usage,
        response_id: reply.response_id,
        body_crc: reply.body_crc,
        latency_ms: reply.latency_ms,
        first_token_ms: reply.first_token_ms,
        cost_micro_usd: cost,
    });
    let ended = budget::Ended {
        usage,
        cost,
        may_have_run: true,
        price: draft.state.recap_price(),
        ..budget::Ended::default()
    };
    budget::settle(draft, call, attempt, ended);
    match written {
        Ok(text) => {
            context::compact_by_model(draft, ask, text);
            step::next(draft);
        }
        Err(why) => follow_the_rule(draft, ask, why),
    }
}

pub(super) fn failed(draft: &mut Draft, model: &ModelCall, ask: RecapAsk, failure: ModelFailure) {
    let (call, attempt, usage) = (model.call, model.attempt, failure.usage);
    let ended = budget::Ended {
        usage,
        cost: failure.cost_micro_usd,
        may_have_run: failure.kind.may_have_run(),
        price: draft.state.recap_price(),
        ..budget::Ended::default()
    };
    draft.emit(ModelCallFailed {
        call,
        attempt,
        kind: failure.kind,
        message: failure.message,
        retry_at: None,
        fallback: None,
        http_status: failure.http_status,
        usage,
        cost_micro_usd: budget::unreserved(draft, failure.cost_micro_usd),
        body_crc: failure.body_crc,
    });
    budget::settle(draft, call, attempt, ended);
    follow_the_rule(draft, ask, RecapFallback::Failed);
}

/// The recap that the model call which is under way is to write, where it is one.
pub(super) fn open(draft: &Draft) -> Option<RecapAsk> {
    let active = draft.state.active.as_ref()?;
    active.model.as_ref()?.recap
}

/// Whether it is of a recap: what the model thought or asked for besides is of no use.
fn is_said(part: &Part) -> bool {
    match part {
        Part::Text(_) => true,
        Part::ToolCall(_) | Part::Thinking(_) | Part::Opaque(_) | Part::Blob(_) => false,
    }
}

fn follow_the_rule(draft: &mut Draft, ask: RecapAsk, why: RecapFallback) {
    context::compact_by_rule(draft, ask, why);
    step::next(draft);
}

fn attempt_it(
    draft: &mut Draft,
    call: CallId,
    attempt: Attempt,
    ask: RecapAsk,
) -> Result<(), RecapFallback> {
    let granted = draft.state.recap_grant(ask);
    let reserved = granted.ok_or(RecapFallback::Budget)?;
    if draft.state.agent.budgets.is_empty() {
        license(draft, call, attempt, ask, reserved);
    } else {
        draft.emit(ModelCallReserving {
            call,
            attempt,
            recap: Some(ask),
        });
    }
    Ok(())
}

fn license(
    draft: &mut Draft,
    call: CallId,
    attempt: Attempt,
    ask: RecapAsk,
    reserved: Reservation,
) {
    let limited = draft.state.limits.are_budgeted() || !draft.state.agent.budgets.is_empty();
    if limited {
        draft.emit(BudgetReserved {
            call,
            attempt,
            reserved,
            tool_calls: None,
            left: Arc::default(),
        });
    }
    let steps = draft
        .state
        .active
        .as_ref()
        .map_or(0, |active| active.totals.steps);
    draft.emit(ModelCallStarted {
        call,
        attempt,
        step: steps.saturating_add(1),
        at: draft.at,
        model: draft.state.recap_model().to_owned(),
        max_output_tokens: reserved.output,
        bound: Bound::Configured,
        recap: Some(ask),
    });
}
