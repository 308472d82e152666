//! One step: the limits in order, then the model call; and the one place where a loop ends.

use std::sync::Arc;

use super::{Draft, budget, cancel, context, control, landing, message};
use crate::{
    budget::{Bound, Dimension, Grant, LOOP_BUDGET, Left},
    event::{BudgetReserved, LoopEnded, ModelCallReserving, ModelCallStarted},
    ids::{Attempt, CallId},
    ledger::OnExhausted,
    message::{clamp, text_of},
    outcome::{AbandonReason, DeadlineKind, EndReason},
    state::LoopRun,
    usage::Totals,
};

/// Most text that an ended loop repeats from its last reply, bytes.
const END_TEXT_BYTES: usize = 64 * 1024;

/// How a loop ends whose time is up.
pub(super) const LATE: EndReason = EndReason::Deadline {
    kind: DeadlineKind::Loop,
};

/// How a loop ends that waited for a person as long as it may.
pub(super) const IDLE: EndReason = EndReason::Deadline {
    kind: DeadlineKind::Idle,
};

/// Goes on to the next model call, or ends the loop where a limit says so. No model call and no
/// tool call may be open.
pub(super) fn next(draft: &mut Draft) {
    let call = CallId(draft.state.next_call);
    let Some(active) = draft.state.active.as_ref().filter(|a| !a.rests()) else {
        return;
    };
    if is_late(draft) {
        return end(draft, LATE);
    }
    if let Some(reason) = budget::out_of_time(draft) {
        return control::exhausted(draft, reason);
    }
    if active.over_tool_budget {
        match draft.state.tool_shortfall_after(0) {
            Some((budget, short)) => return control::exhausted(draft, short.of(budget)),
            None if may_go_on(draft) => {}
            None => {
                let reason = tool_budget_exceeded(draft);
                return landing::land(draft, reason);
            }
        }
    }
    if let Some(reason) = landing::stop(draft) {
        return end(draft, reason);
    }
    landing::remind(draft);
    start_call(draft, call, 1);
}

/// Starts an attempt of a model call: asks named budgets first where there are some. While the loop
/// rests nothing starts.
pub(super) fn start_call(draft: &mut Draft, call: CallId, attempt: Attempt) {
    if rests(draft) {
        return;
    }
    if is_late(draft) {
        return end(draft, LATE);
    }
    if let Some(reason) = budget::out_of_time(draft) {
        return control::exhausted(draft, reason);
    }
    if attempt == 1 && !context::make_room(draft) {
        return;
    }
    match draft.state.own_grant() {
        Err(reason) => control::exhausted(draft, reason),
        Ok(_) if !draft.state.agent.budgets.is_empty() => {
            draft.emit(ModelCallReserving {
                call,
                attempt,
                recap: None,
            });
        }
        Ok(granted) => license(draft, call, attempt, granted, Arc::default()),
    }
}

/// Writes the licence of a model call whose tokens are granted; `left`: what its model is told that shared
/// budgets have left.
pub(super) fn license(
    draft: &mut Draft,
    call: CallId,
    attempt: Attempt,
    granted: Grant,
    left: Arc<[Left]>,
) {
    let own = draft.state.limits.are_budgeted();
    let limited = own || !draft.state.agent.budgets.is_empty();
    if limited {
        draft.emit(BudgetReserved {
            call,
            attempt,
            reserved: granted.reserved,
            tool_calls: granted.tool_calls,
            left,
        });
    }
    let active = draft.state.active.as_ref();
    let index = active.map_or(0, |active| active.model_index);
    let steps = active.map_or(0, |active| active.totals.steps);
    let step = if attempt == 1 {
        steps.saturating_add(1)
    } else {
        steps
    };
    draft.emit(ModelCallStarted {
        call,
        attempt,
        step,
        at: draft.at,
        model: draft.state.model_name(index).to_owned(),
        max_output_tokens: granted.reserved.output,
        bound: if granted.bound == Bound::Configured && draft.state.limits.max_output_asked {
            Bound::Requested
        } else {
            granted.bound
        },
        recap: None,
    });
}

/// Whether the running loop's time is up: its timer will end it, and until then nothing begins.
pub(super) fn is_late(draft: &Draft) -> bool {
    let deadline = draft.state.active.as_ref().and_then(|a| a.deadline_at);
    deadline.is_some_and(|deadline| draft.at >= deadline)
}

/// Whether nothing of the running loop starts.
pub(super) fn rests(draft: &Draft) -> bool {
    draft.state.active.as_ref().is_some_and(LoopRun::rests)
}

/// Whether a loop that had tool calls refused by its own budget has room by now, since calls that were
/// let through never ran, and would wait for it where it had not.
fn may_go_on(draft: &Draft) -> bool {
    let shared = !draft.state.agent.budgets.is_empty();
    !shared && draft.state.limits.on_exhausted == OnExhausted::Pause
}

/// How a loop ends that asked for more tool calls than a budget allows that is not short by now: its
/// own, or a shared one, whose limit only the ledger knows.
fn tool_budget_exceeded(draft: &Draft) -> EndReason {
    let used = draft
        .state
        .active
        .as_ref()
        .map_or(0, |active| active.totals.tool_calls);
    let own = draft.state.limits.budget.tool_calls;
    let shared = draft.state.agent.budgets.join(", ");
    let (budget, limit) = match own.filter(|_| shared.is_empty()) {
        Some(limit) => (LOOP_BUDGET.to_owned(), limit),
        None => (shared, used),
    };
    EndReason::BudgetExceeded {
        budget,
        dimension: Dimension::ToolCalls,
        limit,
        used,
        requested: 1,
    }
}

/// Ends the running loop: gives up what is open, says why, and starts what is queued.
pub(super) fn end(draft: &mut Draft, reason: EndReason) {
    let reason = as_landed(draft, reason);
    let abandon = match &reason {
        EndReason::Deadline { .. }
        | EndReason::BudgetExceeded {
            dimension: Dimension::WallTimeMs,
            ..
        } => AbandonReason::Deadline,
        EndReason::Completed
        | EndReason::MaxSteps { .. }
        | EndReason::MaxOutput { .. }
        | EndReason::BudgetExceeded { .. }
        | EndReason::NoProgress { .. }
        | EndReason::Refused
        | EndReason::ContextExhausted { .. }
        | EndReason::Cancelled { .. }
        | EndReason::ModelFailed { .. }
        | EndReason::UnknownOutcome { .. }
        | EndReason::Error { .. } => AbandonReason::Cancelled,
    };
    cancel::abandon_model(draft, abandon);
    cancel::cancel_tools(draft);
    budget::charge_time(draft);
    let Some(active) = &draft.state.active else {
        return;
    };
    let completed = reason == EndReason::Completed;
    let paused = active.paused.clone();
    let text = text_of(&active.said);
    let wall_ms = active.ran_ms(draft.at);
    draft.emit(LoopEnded {
        id: active.id,
        at: draft.at,
        reason,
        text: clamp(&text, END_TEXT_BYTES).to_owned(),
        totals: Totals {
            wall_ms,
            ..active.totals
        },
    });
    if completed {
        message::start_queued(draft, paused);
    }
}

/// Why a loop really ends that made its last call: a person or the clock comes first, and whatever
/// else became of that call, the budget is the reason.
fn as_landed(draft: &Draft, reason: EndReason) -> EndReason {
    let landing = draft.state.active.as_ref().and_then(|a| a.landing.clone());
    match reason {
        EndReason::Cancelled { .. } | EndReason::Deadline { .. } => reason,
        EndReason::Completed
        | EndReason::MaxSteps { .. }
        | EndReason::MaxOutput { .. }
        | EndReason::BudgetExceeded { .. }
        | EndReason::NoProgress { .. }
        | EndReason::Refused
        | EndReason::ContextExhausted { .. }
        | EndReason::ModelFailed { .. }
        | EndReason::UnknownOutcome { .. }
        | EndReason::Error { .. } => landing.unwrap_or(reason),
    }
}
