//! Reservations and settlements, of the loop's own budget and of named ones.

use std::sync::Arc;

use super::{Draft, control, landing, recap, step};
use crate::{
    budget::{
        Amount, Bound, Dimension, Grant, LOOP_BUDGET, Left, Price, Reservation, SESSION_BUDGET,
    },
    context::RecapFallback,
    event::{
        BudgetOverrun, BudgetReserved, BudgetSettled, BudgetWarning, LoopPaused, LoopResumed,
        ModelCallAbandoned, SettlementAcknowledged,
    },
    ids::{Attempt, CallId},
    input::What,
    outcome::{AbandonReason, EndReason, WaitsFor},
    state::ModelPhase,
    usage::Usage,
};

/// What named budgets say of a call that they cover.
struct Said {
    /// The output cap that they allow, tokens.
    cap: u64,
    /// Tool calls of the reply that they let through, where they limit them.
    tool_calls: Option<u64>,
    /// What they have left.
    left: Arc<[Left]>,
}

/// Named budgets answered.
#[expect(clippy::wildcard_enum_match_arm, reason = "the caller names the kinds")]
pub(super) fn answered(draft: &mut Draft, what: What) {
    match what {
        What::BudgetGranted {
            call,
            attempt,
            max_output_tokens,
            tool_calls,
            left,
        } => {
            let said = Said {
                cap: max_output_tokens,
                tool_calls,
                left,
            };
            granted(draft, call, attempt, said);
        }
        What::BudgetWaits {
            call,
            attempt,
            waits_for,
        } => waits(draft, call, attempt, waits_for),
        What::BudgetRefused {
            call,
            attempt,
            reason,
        } => refused(draft, call, attempt, reason),
        What::BudgetSpent { call, attempt } => spent(draft, call, attempt),
        What::BudgetSettled {
            call,
            attempt,
            more,
            warnings,
        } => taken(draft, (call, attempt), more, warnings),
        _ => {}
    }
}

/// Named budgets said yes: the call may start, if the loop's own budget still covers it.
fn granted(draft: &mut Draft, call: CallId, attempt: Attempt, said: Said) {
    if !is_reserving(draft, call, attempt) {
        return;
    }
    if let Some(active) = draft.state.active.as_ref().filter(|a| a.paused.is_some()) {
        let (id, by, at) = (active.id, String::new(), draft.at);
        draft.emit(LoopResumed { id, by, at });
    }
    if let Some(reason) = out_of_time(draft) {
        return control::exhausted(draft, reason);
    }
    if let Some(ask) = recap::open(draft) {
        return recap::granted(draft, call, attempt, ask);
    }
    match draft.state.own_grant() {
        Err(reason) => control::exhausted(draft, reason),
        Ok(own) => {
            let tool_calls = said.tool_calls;
            let mut granted = Grant { tool_calls, ..own };
            if said.cap < own.reserved.output {
                granted.reserved.output = said.cap;
                granted.bound = Bound::NamedBudget;
            }
            let told = draft.state.limits.tell_budget;
            let left = if told { said.left } else { Arc::default() };
            step::license(draft, call, attempt, granted, left);
        }
    }
}

/// Named budgets say no for now: the loop waits, and says so once.
fn waits(draft: &mut Draft, call: CallId, attempt: Attempt, waits_for: WaitsFor) {
    if !is_reserving(draft, call, attempt) {
        return;
    }
    if let Some(ask) = recap::open(draft) {
        // The step waits for what it cannot do without, never for a better recap.
        return recap::give_up(draft, ask, RecapFallback::Budget);
    }
    if let Some(active) = draft.state.active.as_ref().filter(|a| a.paused.is_none()) {
        draft.emit(LoopPaused {
            id: active.id,
            waits_for,
            at: draft.at,
        });
    }
}

/// Named budgets said no: the loop comes down by one last call, for which they were made to keep
/// something, or at once.
fn refused(draft: &mut Draft, call: CallId, attempt: Attempt, reason: EndReason) {
    if !is_reserving(draft, call, attempt) {
        return;
    }
    match recap::open(draft) {
        Some(ask) => recap::give_up(draft, ask, RecapFallback::Budget),
        None if matches!(reason, EndReason::BudgetExceeded { .. }) => landing::land(draft, reason),
        None => step::end(draft, reason),
    }
}

/// Named budgets know this reservation of old: the log was cut back behind it. It counts whole there, and
/// another attempt asks under its own name; a call of which none was made is another call.
fn spent(draft: &mut Draft, call: CallId, attempt: Attempt) {
    if !is_reserving(draft, call, attempt) {
        return;
    }
    let recap = recap::open(draft);
    draft.emit(ModelCallAbandoned {
        call,
        attempt,
        reason: AbandonReason::DriverLost,
    });
    draft.emit(BudgetSettled {
        call,
        attempt,
        usage: Usage::default(),
        cost_micro_usd: 0,
        estimated: true,
        tool_calls: 0,
        wall_ms: 0,
    });
    let model = draft.state.active.as_ref().and_then(|a| a.model.as_ref());
    let begun = model.is_some_and(|model| model.first_at.is_some());
    let next = attempt.saturating_add(1);
    match recap {
        Some(ask) => recap::again(draft, call, next, ask),
        None if begun => step::start_call(draft, call, next),
        None => step::next(draft),
    }
}

/// Named budgets took settlements: each is written down once, and what they brought to its warning
/// share with them.
fn taken(
    draft: &mut Draft,
    first: (CallId, Attempt),
    more: Vec<(CallId, Attempt)>,
    warnings: Vec<BudgetWarning>,
) {
    for (call, attempt) in [first].into_iter().chain(more) {
        if draft.state.settling.contains_key(&(call, attempt)) {
            draft.emit(SettlementAcknowledged { call, attempt });
        }
    }
    if !draft.events.is_empty() {
        warnings.into_iter().for_each(|warning| draft.emit(warning));
    }
}

/// What an attempt that ended is settled with.
#[derive(Clone, Copy, Default)]
pub(super) struct Ended {
    /// What the provider counted, where it did.
    pub(super) usage: Option<Usage>,
    /// And what that costs.
    pub(super) cost: Option<u64>,
    /// Whether it may have run, so that it may have used what nobody counted.
    pub(super) may_have_run: bool,
    /// Tool calls of its reply that are let through.
    pub(super) tool_calls: u64,
    /// What its tokens cost at most, where its model is not the one that the state calls by now.
    pub(super) price: Option<Price>,
}

impl Ended {
    /// With a reply, of whose tool calls these are refused.
    pub(super) fn replied<T>(
        usage: Option<Usage>,
        cost: Option<u64>,
        refused: &[Option<T>],
    ) -> Self {
        let let_through = refused.iter().filter(|refused| refused.is_none());
        Self {
            usage,
            cost,
            may_have_run: true,
            tool_calls: let_through.count() as u64,
            price: None,
        }
    }
}

/// The cost of a failed attempt, where no settlement will say it.
pub(super) fn unreserved(draft: &Draft, cost: Option<u64>) -> Option<u64> {
    let active = draft.state.active.as_ref();
    cost.filter(|_| active.is_some_and(|active| active.reserved.is_none()))
}

/// Settles what was reserved for an attempt that ended: with what the provider counted, else with
/// the whole reservation where the call may have run, else with nothing. Where nothing is limited and
/// so nothing was reserved, what the provider counted stands with the attempt's end, and what nobody
/// counted is settled at what would have been reserved.
pub(super) fn settle(draft: &mut Draft, call: CallId, attempt: Attempt, ended: Ended) {
    let uncounted = ended.usage.is_none() && ended.may_have_run;
    let active = draft.state.active.as_ref();
    let reserved = active.and_then(|active| {
        let at_most = active.at_most.filter(|_| uncounted);
        active.reserved.or(at_most)
    });
    let Some(reserved) = reserved else {
        return;
    };
    let (usage, estimated) = match ended.usage {
        Some(usage) => (usage, false),
        None if ended.may_have_run => (reserved.as_usage(), true),
        None => (Usage::default(), false),
    };
    let price = ended.price.or_else(|| draft.state.price());
    let most = |input, output| price.map_or(0, |price| price.cost(input, output));
    let counted = ended.cost.filter(|_| ended.usage.is_some());
    let cost_micro_usd = counted.unwrap_or_else(|| most(usage.prompt(), usage.output));
    let reserved_micro_usd = most(reserved.input, reserved.output);
    let overdrawn = price.is_some() && cost_micro_usd > reserved_micro_usd;
    if usage.prompt() > reserved.input || usage.output > reserved.output || overdrawn {
        draft.emit(BudgetOverrun {
            call,
            attempt,
            reserved,
            usage,
            reserved_micro_usd,
            cost_micro_usd: price.map_or(0, |_| cost_micro_usd),
        });
    }
    let shared = !draft.state.agent.budgets.is_empty();
    draft.emit(BudgetSettled {
        call,
        attempt,
        usage,
        cost_micro_usd,
        estimated,
        tool_calls: if shared { ended.tool_calls } else { 0 },
        wall_ms: if shared { uncharged(draft) } else { 0 },
    });
    warn(draft);
}

/// The loop's time that no shared budget was charged with yet, milliseconds.
fn uncharged(draft: &Draft) -> u64 {
    let active = draft.state.active.as_ref();
    active.map_or(0, |active| {
        let ran = active.ran_ms(draft.at);
        ran.saturating_sub(active.wall_charged_ms)
    })
}

/// Charges shared budgets with the time that an ending loop ran after its last model call. No call
/// stands for it: it has an id of its own, by which it is charged once.
pub(super) fn charge_time(draft: &mut Draft) {
    let wall_ms = uncharged(draft);
    if wall_ms == 0 || draft.state.agent.budgets.is_empty() {
        return;
    }
    draft.emit(BudgetSettled {
        call: CallId(draft.state.next_call),
        attempt: 0,
        usage: Usage::default(),
        cost_micro_usd: 0,
        estimated: false,
        tool_calls: 0,
        wall_ms,
    });
}

/// How a loop ends, or what it waits for, whose own budget or session's allows no further time.
pub(super) fn out_of_time(draft: &Draft) -> Option<EndReason> {
    let (budget, short) = draft.state.time_shortfall(draft.at)?;
    Some(short.of(budget))
}

/// Warns of each limit of the loop's own and the session's budget that has just come to its share.
pub(super) fn warn(draft: &mut Draft) {
    let limits = Arc::clone(&draft.state.limits);
    let share = u128::from(limits.warn_permille);
    let Some(active) = draft.state.active.as_ref().filter(|_| share > 0) else {
        return;
    };
    let ran = Amount {
        wall_ms: active.ran_ms(draft.at),
        ..Amount::default()
    };
    let loops = Amount::from(&active.totals).plus(&ran);
    let session = Amount::from(&draft.state.totals).plus(&ran);
    let budgets = [
        (LOOP_BUDGET, &limits.budget, loops, active.warned),
        (
            SESSION_BUDGET,
            &limits.session_budget,
            session,
            draft.state.warned,
        ),
    ];
    for (budget, limits, used, warned) in budgets {
        if limits.is_open() {
            continue;
        }
        for dimension in Dimension::ALL {
            let used = used.of(dimension);
            // Of nothing nothing is used.
            let Some(limit) = limits.of(dimension).filter(|limit| *limit > 0) else {
                continue;
            };
            let passed = u128::from(used) * 1_000 >= u128::from(limit) * share;
            if passed && !warned.has(dimension) {
                draft.emit(BudgetWarning {
                    budget: budget.to_owned(),
                    dimension,
                    limit,
                    used,
                });
            }
        }
    }
}

/// Sets aside what a call may use that was started while nothing was limited: it runs already, but
/// what becomes of it counts.
pub(super) fn reserve_running(draft: &mut Draft) {
    let state = &draft.state;
    let Some(active) = state.active.as_ref().filter(|a| a.reserved.is_none()) else {
        return;
    };
    if let Some(model) = &active.model
        && let ModelPhase::Running {
            max_output_tokens, ..
        } = model.phase
        && state.limits.are_budgeted()
    {
        let bound = match model.recap {
            Some(ask) => state.recap_budget(ask).input,
            None => state.prompt_bound(),
        };
        let reserved = Reservation {
            input: bound,
            output: max_output_tokens,
        };
        let (call, attempt) = (model.call, model.attempt);
        draft.emit(BudgetReserved {
            call,
            attempt,
            reserved,
            tool_calls: None,
            left: Arc::default(),
        });
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
        tool_calls: 0,
        wall_ms: 0,
    });
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
