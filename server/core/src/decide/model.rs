//! What follows from a model call's end.

use std::sync::Arc;

use super::{Draft, budget, context, control, landing, recap, step, tool};
use crate::{
    budget::{Amount, Bound, Dimension, LOOP_BUDGET, SESSION_BUDGET},
    event::{MessageAdded, ModelCallCompleted, ModelCallFailed, Origin, RejectReason},
    ids::{Attempt, CallId},
    ledger::OnExhausted,
    message::Part,
    outcome::{EndReason, ModelFailure, ModelFailureKind, ModelReply, StopReason},
    retry::Failed,
    state::{ModelCall, ModelPhase},
};

pub(super) fn completed(draft: &mut Draft, call: CallId, attempt: Attempt, reply: ModelReply) {
    let Some(model) = running(draft, call, attempt) else {
        return;
    };
    if let Some(ask) = model.recap {
        return recap::completed(draft, &model, ask, reply);
    }
    let bound = match model.phase {
        ModelPhase::Running { bound, .. } => bound,
        ModelPhase::Reserving | ModelPhase::Backoff { .. } | ModelPhase::Abandoned => return,
    };
    let verdicts = reply.verdicts.clone();
    let (parts, stop) = (Arc::clone(&reply.parts), reply.stop.clone());
    let asks = parts.iter().any(|part| matches!(part, Part::ToolCall(_)));
    let checked = write_down(draft, call, attempt, reply);
    tool::request(draft, &parts, &verdicts);
    if draft.state.concludes() {
        let text = "No tool can be called any more: this was the last reply.";
        tool::reject_all(draft, RejectReason::Budget, text);
        return step::end(draft, EndReason::Completed);
    }
    let asks = asks.then_some(checked);
    go_on_after(draft, stop, bound, asks);
}

/// What follows from why a reply stopped; `asked`: what was found of the tool calls in it, if there
/// are any.
fn go_on_after(
    draft: &mut Draft,
    stop: StopReason,
    bound: Bound,
    asked: Option<Vec<Option<tool::Refused>>>,
) {
    match stop {
        StopReason::MaxTokens => cut(draft, bound, asked.is_some()),
        StopReason::Refusal | StopReason::ContentFilter => {
            tool::reject_all(draft, RejectReason::Truncated, "The reply was refused.");
            step::end(draft, EndReason::Refused);
        }
        StopReason::ContextFull => window_full(draft, asked.is_some()),
        StopReason::EndTurn
        | StopReason::ToolUse
        | StopReason::StopSequence
        | StopReason::Pause
        | StopReason::Other(_)
            if asked.is_some() =>
        {
            tool::refuse_and_dispatch(draft, asked.unwrap_or_default());
        }
        StopReason::EndTurn | StopReason::ToolUse | StopReason::StopSequence => {
            if draft.state.pending.is_empty() {
                step::end(draft, EndReason::Completed);
            } else {
                step::next(draft);
            }
        }
        StopReason::Pause => step::next(draft),
        StopReason::Other(word) => {
            let message = format!("the model stopped for a reason that is not known: `{word}`");
            step::end(draft, EndReason::Error { message });
        }
    }
}

/// Writes a reply down and settles it; before anything runs, what is let through of its tool calls is
/// charged. Why each of them may not run, where it may not.
fn write_down(
    draft: &mut Draft,
    call: CallId,
    attempt: Attempt,
    reply: ModelReply,
) -> Vec<Option<tool::Refused>> {
    let ModelReply {
        parts,
        stop,
        usage,
        verdicts,
        ..
    } = reply;
    draft.emit(ModelCallCompleted {
        call,
        attempt,
        parts: Arc::clone(&parts),
        stop: stop.clone(),
        usage,
        response_id: reply.response_id,
        body_crc: reply.body_crc,
        latency_ms: reply.latency_ms,
        first_token_ms: reply.first_token_ms,
        cost_micro_usd: reply.cost_micro_usd,
        recap: false,
    });
    let checked = if stop.lets_tools_run() && !draft.state.concludes() {
        tool::check(draft, &parts, &verdicts)
    } else {
        Vec::new()
    };
    let ended = budget::Ended::replied(usage, reply.cost_micro_usd, &checked);
    budget::settle(draft, call, attempt, ended);
    checked
}

/// A reply that the output cap cut: what it said is kept and continued, but no tool call of it is
/// dispatched, since the last one may be half of what the model meant.
fn cut(draft: &mut Draft, bound: Bound, asks: bool) {
    if asks {
        let text = "The reply was cut at the output limit, so this call was not made. Make it \
                    again if it is still needed, with shorter arguments.";
        tool::reject_all(draft, RejectReason::Truncated, text);
    }
    if bound.is_of_budget() {
        // The next call would need more than the budget had left for this one.
        let own = draft.state.own_grant().err();
        if own.is_none() && bound == Bound::NamedBudget {
            // Which of them it was, how it stands, and whether it is to be waited for, the ledger knows.
            if !asks {
                go_on_where_cut(draft);
            }
            return step::next(draft);
        }
        let reason = own.unwrap_or_else(|| by_bound(draft, bound));
        if !asks && draft.state.limits.on_exhausted == OnExhausted::Pause {
            go_on_where_cut(draft);
        }
        return control::exhausted(draft, reason);
    }
    let retries = draft.state.limits.max_output_retries;
    let cuts = draft.state.active.as_ref().map_or(0, |active| active.cuts);
    if cuts > retries {
        let max_output_tokens = draft.state.limits.max_output_tokens;
        let reason = EndReason::MaxOutput {
            retries,
            max_output_tokens,
        };
        return step::end(draft, reason);
    }
    if !asks {
        go_on_where_cut(draft);
    }
    step::next(draft);
}

/// A reply that the end of the model's window cut: what it said is kept and continued in a smaller
/// conversation, once in a row.
fn window_full(draft: &mut Draft, asks: bool) {
    if asks {
        let text = "The reply was cut at the end of the context window, so this call was not made. \
                    Make it again if it is still needed.";
        tool::reject_all(draft, RejectReason::Truncated, text);
    }
    let fills = draft.state.active.as_ref().map_or(0, |active| active.fills);
    if fills > 1 || !context::make_more_room(draft) {
        let reason = context::exhausted(draft);
        return step::end(draft, reason);
    }
    if !asks {
        go_on(draft, landing::GO_ON);
    }
    step::next(draft);
}

fn go_on_where_cut(draft: &mut Draft) {
    go_on(draft, landing::CONTINUE);
}

fn go_on(draft: &mut Draft, nudge: &str) {
    let parts = Arc::new(vec![Part::Text(nudge.to_owned())]);
    draft.emit(MessageAdded {
        origin: Origin::Nudge,
        parts,
        nudge: None,
    });
}

/// Why a loop ends whose reply was cut by what a budget had left.
fn by_bound(draft: &Draft, bound: Bound) -> EndReason {
    let limits = &draft.state.limits.budget;
    let session = &draft.state.limits.session_budget;
    let totals = draft.state.active.as_ref().map(|active| active.totals);
    let totals = match bound {
        Bound::SessionBudget(_) => Some(draft.state.totals),
        Bound::Budget(_) | Bound::NamedBudget | Bound::Configured | Bound::Requested => totals,
    };
    let gone = Amount::from(&totals.unwrap_or_default());
    let (budget, dimension, limit) = match bound {
        Bound::Budget(dimension) => (LOOP_BUDGET.to_owned(), dimension, limits.of(dimension)),
        Bound::SessionBudget(dimension) => {
            let name = SESSION_BUDGET.to_owned();
            (name, dimension, session.of(dimension))
        }
        Bound::NamedBudget | Bound::Configured | Bound::Requested => {
            let total = Dimension::TotalTokens;
            (LOOP_BUDGET.to_owned(), total, limits.of(total))
        }
    };
    let used = gone.of(dimension);
    EndReason::BudgetExceeded {
        budget,
        dimension,
        limit: limit.unwrap_or(used),
        used,
        requested: 0,
    }
}

pub(super) fn failed(
    draft: &mut Draft,
    call: CallId,
    attempt: Attempt,
    failure: ModelFailure,
    jitter: u32,
) {
    let Some(model) = running(draft, call, attempt) else {
        return;
    };
    if let Some(ask) = model.recap {
        return recap::failed(draft, &model, ask, failure);
    }
    let due = draft.state.limits.retry.next(Failed {
        failures: model.failures.saturating_add(1),
        first_at: model.first_at.unwrap_or(draft.at),
        at: draft.at,
        retry_after_ms: failure.retry_after_ms,
        jitter,
    });
    let mut retry_at = due.filter(|_| failure.kind.is_retryable());
    let next_model = draft
        .state
        .active
        .as_ref()
        .map_or(0, |active| active.model_index)
        + 1;
    // What is asked then is another question, so that no attempt needs to be left: once a call.
    let overflows = failure.kind == ModelFailureKind::ContextTooLong;
    let smaller = overflows && !model.overflowed && draft.state.limits.context.is_some();
    if smaller {
        retry_at = Some(draft.at);
    }
    // A fallback has a price of its own.
    let price = draft.state.price();
    let mut fallback = None;
    if retry_at.is_none() && (next_model as usize) <= draft.state.agent.fallbacks.len() {
        retry_at = Some(draft.at);
        fallback = Some(next_model);
    }
    draft.emit(ModelCallFailed {
        call,
        attempt,
        kind: failure.kind,
        message: failure.message.clone(),
        retry_at,
        fallback,
        http_status: failure.http_status,
        usage: failure.usage,
        cost_micro_usd: budget::unreserved(draft, failure.cost_micro_usd),
        body_crc: failure.body_crc,
    });
    let ended = budget::Ended {
        usage: failure.usage,
        cost: failure.cost_micro_usd,
        may_have_run: failure.kind.may_have_run(),
        price,
        ..budget::Ended::default()
    };
    budget::settle(draft, call, attempt, ended);
    if smaller && !context::make_more_room(draft) {
        let reason = context::exhausted(draft);
        return step::end(draft, reason);
    }
    if smaller || fallback.is_some() {
        return step::start_call(draft, call, attempt.saturating_add(1));
    }
    if retry_at.is_none() {
        let reason = no_model(draft, failure.kind, failure.message);
        step::end(draft, reason);
    }
}

/// Why a loop ends whose model call is not tried again.
fn no_model(draft: &Draft, kind: ModelFailureKind, message: String) -> EndReason {
    match kind {
        ModelFailureKind::ContextTooLong => context::exhausted(draft),
        ModelFailureKind::RateLimited
        | ModelFailureKind::Overloaded
        | ModelFailureKind::Server
        | ModelFailureKind::TryAgain
        | ModelFailureKind::Connect
        | ModelFailureKind::Cut
        | ModelFailureKind::Stalled
        | ModelFailureKind::Malformed
        | ModelFailureKind::TooLarge
        | ModelFailureKind::Quota
        | ModelFailureKind::Auth
        | ModelFailureKind::NoSuchModel
        | ModelFailureKind::InvalidRequest => EndReason::ModelFailed { kind, message },
    }
}

/// The model call, if exactly this attempt of it is licensed to run.
fn running(draft: &Draft, call: CallId, attempt: Attempt) -> Option<ModelCall> {
    let model = draft.state.active.as_ref()?.model.as_ref()?;
    let is_it = model.call == call && model.attempt == attempt;
    (is_it && matches!(model.phase, ModelPhase::Running { .. })).then(|| model.clone())
}
