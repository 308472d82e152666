//! Reservations and settlements, of the loop's own budget and of named ones.

use super::{Draft, step};
use crate::{
    budget::{Bound, Grant, Reservation},
    event::{BudgetOverrun, BudgetSettled, LoopPaused, LoopResumed, SettlementAcknowledged},
    ids::{Attempt, CallId},
    outcome::{EndReason, WaitsFor},
    state::ModelPhase,
    usage::Usage,
};

/// Named budgets said yes: the call may start, if the loop's own budget still covers it.
pub(super) fn granted(draft: &mut Draft, call: CallId, attempt: Attempt, cap: u64) {
    if !is_reserving(draft, call, attempt) {
        return;
    }
    if let Some(active) = draft.state.active.as_ref().filter(|a| a.paused.is_some()) {
        draft.emit(LoopResumed { id: active.id });
    }
    match draft.state.own_grant() {
        Err(reason) => step::end(draft, reason),
        Ok(own) if cap < own.reserved.output => {
            let reserved = Reservation {
                output: cap,
                ..own.reserved
            };
            step::license(
                draft,
                call,
                attempt,
                Grant {
                    reserved,
                    bound: Bound::NamedBudget,
                },
            );
        }
        Ok(own) => step::license(draft, call, attempt, own),
    }
}

/// Named budgets say no for now: the loop waits, and says so once.
pub(super) fn waits(draft: &mut Draft, call: CallId, attempt: Attempt, waits_for: WaitsFor) {
    if !is_reserving(draft, call, attempt) {
        return;
    }
    if let Some(active) = draft.state.active.as_ref().filter(|a| a.paused.is_none()) {
        draft.emit(LoopPaused {
            id: active.id,
            waits_for,
        });
    }
}

/// Named budgets said no.
pub(super) fn refused(draft: &mut Draft, call: CallId, attempt: Attempt, reason: EndReason) {
    if is_reserving(draft, call, attempt) {
        step::end(draft, reason);
    }
}

pub(super) fn settled(draft: &mut Draft, call: CallId, attempt: Attempt) {
    if draft.state.settling.contains_key(&(call, attempt)) {
        draft.emit(SettlementAcknowledged { call, attempt });
    }
}

/// Settles what was reserved for an attempt that ended: with what the provider counted, else with
/// the whole reservation where the call may have run, else with nothing.
pub(super) fn settle(
    draft: &mut Draft,
    call: CallId,
    attempt: Attempt,
    usage: Option<Usage>,
    cost: Option<u64>,
    may_have_run: bool,
) {
    let Some(reserved) = draft
        .state
        .active
        .as_ref()
        .and_then(|active| active.reserved)
    else {
        return;
    };
    if let Some(usage) = usage {
        if usage.prompt() > reserved.input || usage.output > reserved.output {
            draft.emit(BudgetOverrun {
                call,
                attempt,
                reserved,
                usage,
            });
        }
        draft.emit(BudgetSettled {
            call,
            attempt,
            usage,
            cost_micro_usd: cost.unwrap_or_else(|| most(draft, &usage)),
            estimated: false,
        });
    } else if may_have_run {
        let usage = reserved.as_usage();
        draft.emit(BudgetSettled {
            call,
            attempt,
            usage,
            cost_micro_usd: most(draft, &usage),
            estimated: true,
        });
    } else {
        release(draft, call, attempt);
    }
}

/// Gives a reservation back whole.
pub(super) fn release(draft: &mut Draft, call: CallId, attempt: Attempt) {
    draft.emit(BudgetSettled {
        call,
        attempt,
        usage: Usage::default(),
        cost_micro_usd: 0,
        estimated: false,
    });
}

/// What this usage can cost at most, where the provider's own count of it has no price.
fn most(draft: &Draft, usage: &Usage) -> u64 {
    let price = draft.state.price();
    price.map_or(0, |price| price.cost(usage.prompt(), usage.output))
}

fn is_reserving(draft: &Draft, call: CallId, attempt: Attempt) -> bool {
    let model = draft
        .state
        .active
        .as_ref()
        .and_then(|active| active.model.as_ref());
    model.is_some_and(|model| {
        model.call == call && model.attempt == attempt && model.phase == ModelPhase::Reserving
    })
}
