//! What follows from a request: all of it, or a refusal that says why.

use std::sync::Arc;

use super::{
    Answer, BudgetCreated, BudgetDeleted, BudgetOverrun, BudgetPeriodStarted, BudgetReleased,
    BudgetReserved, BudgetSettled, BudgetWarning, Granted, Hold, HoldId, Ledger, LedgerEvent,
    LimitsUpdated, MAX_BUDGETS, MAX_DEPTH, MAX_HOLDS, NAMESPACE_BUDGET, Name, OnExhausted, Refusal,
    Request, Terms, Used,
    charge::charge,
    share::{said_left, share_of_tools},
};
use crate::{
    budget::{Amount, Ask, Dimension, Grant, Left, Shortfall, covers, grant},
    ids::Timestamp,
};

/// The facts that `request` causes at `at`, none where it was carried out before, and its answer.
///
/// # Errors
/// A [`Refusal`]; nothing happened then.
pub fn decide(
    ledger: &Ledger,
    at: Timestamp,
    request: &Request,
) -> Result<(Vec<LedgerEvent>, Answer), Refusal> {
    match request {
        Request::Create { name, terms } => create(ledger, at, name, terms),
        Request::Update { name, terms } => update(ledger, at, name, terms),
        Request::Delete { name } => delete(ledger, name),
        Request::ReserveCall { hold, budgets, ask } => {
            reserve_call(ledger, at, hold, budgets, *ask)
        }
        Request::Reserve {
            hold,
            budgets,
            amount,
            expires_at,
        } => reserve(ledger, at, hold, budgets, amount, *expires_at),
        Request::Settle { hold, used } => settle(ledger, at, hold, *used),
        Request::Charge {
            hold,
            budgets,
            used,
        } => done(charge(ledger, at, hold, budgets, used)),
        Request::Release { hold } => release(ledger, hold),
        Request::Expire => done(expire(ledger, at)),
        Request::Abandon { session } => {
            let holds = ledger.holds_of(session).map(|(id, _)| id);
            done(settle_whole(ledger, at, holds.take(ENDED_AT_ONCE)))
        }
    }
}

/// Reservations that one request ends: the facts must fit a record.
const ENDED_AT_ONCE: usize = 64;

type Decided = Result<(Vec<LedgerEvent>, Answer), Refusal>;

fn create(ledger: &Ledger, at: Timestamp, name: &Name, terms: &Arc<Terms>) -> Decided {
    if let Some(known) = ledger.budgets.get(name) {
        // A repeat of the request that made it.
        let same = known.terms == **terms;
        return if same {
            done(Vec::new())
        } else {
            Err(Refusal::Exists(Arc::clone(name)))
        };
    }
    if ledger.budgets.len() >= MAX_BUDGETS {
        return Err(Refusal::TooMany);
    }
    check_parent(ledger, name, terms)?;
    done(vec![
        BudgetCreated {
            name: Arc::clone(name),
            terms: Arc::clone(terms),
            at,
        }
        .into(),
    ])
}

fn update(ledger: &Ledger, at: Timestamp, name: &Name, terms: &Arc<Terms>) -> Decided {
    let known = ledger.budgets.get(name);
    let known = known.ok_or_else(|| Refusal::NoBudget(Arc::clone(name)))?;
    if known.terms == **terms {
        return done(Vec::new());
    }
    check_parent(ledger, name, terms)?;
    if known.terms.parent != terms.parent {
        // What is set aside was taken from the old chain and goes back to it.
        free_of_holds(ledger, name)?;
    }
    done(vec![
        LimitsUpdated {
            name: Arc::clone(name),
            terms: Arc::clone(terms),
            at,
        }
        .into(),
    ])
}

fn delete(ledger: &Ledger, name: &Name) -> Decided {
    if !ledger.budgets.contains_key(name) {
        return Err(Refusal::NoBudget(Arc::clone(name)));
    }
    let is_child = |budget: &super::Budget| budget.terms.parent.as_ref() == Some(name);
    if let Some((child, _)) = ledger.budgets.iter().find(|(_, budget)| is_child(budget)) {
        return Err(Refusal::InUse {
            name: Arc::clone(name),
            by: format!("budget `{child}` is a part of it"),
        });
    }
    free_of_holds(ledger, name)?;
    done(vec![
        BudgetDeleted {
            name: Arc::clone(name),
        }
        .into(),
    ])
}

fn reserve_call(
    ledger: &Ledger,
    at: Timestamp,
    hold: &HoldId,
    budgets: &[Name],
    ask: Ask,
) -> Decided {
    if let Some(known) = known(ledger, hold)? {
        // Made for a shorter prompt, it would not cover this one.
        return match ask.input <= known.amount.input {
            true => {
                let left = said_left(ledger, at, &known.budgets, &known.amount, ask);
                Ok((Vec::new(), granted(known, left)))
            }
            false => Err(Refusal::Reused(hold.clone())),
        };
    }
    let chain = chain(ledger, budgets)?;
    let mut cap = ask.output;
    let mut tool_calls = None;
    for name in chain.iter() {
        let budget = &ledger.budgets[name];
        // A loop that waits for a budget makes no last call of it.
        let ends = budget.terms.on_exhausted == OnExhausted::End;
        let ask = Ask {
            output: cap,
            keep: ask.keep.filter(|_| ends),
            ..ask
        };
        let used = budget.used_at(at);
        let Grant { reserved, .. } = grant(&budget.terms.limits, &used, ask)
            .map_err(|short| exhausted(ledger, name, short))?;
        cap = reserved.output;
        if let Some(share) = share_of_tools(&budget.terms, &used, ask)
            .map_err(|short| exhausted(ledger, name, short))?
        {
            tool_calls = Some(tool_calls.unwrap_or(share).min(share));
        }
    }
    let amount = Amount {
        input: ask.input,
        output: cap,
        cost_micro_usd: ask.price.map_or(0, |price| price.cost(ask.input, cap)),
        model_calls: 1,
        tool_calls: tool_calls.unwrap_or(0),
        wall_ms: 0,
    };
    let made = Hold {
        budgets: chain,
        amount,
        at,
        expires_at: None,
        capped: tool_calls.is_some(),
    };
    let left = said_left(ledger, at, &made.budgets, &Amount::default(), ask);
    set_aside(ledger, hold, made, left)
}

fn reserve(
    ledger: &Ledger,
    at: Timestamp,
    hold: &HoldId,
    budgets: &[Name],
    amount: &Amount,
    expires_at: Timestamp,
) -> Decided {
    let chain = chain(ledger, budgets)?;
    if let Some(known) = known(ledger, hold)? {
        let same = known.amount == *amount && known.budgets == chain;
        return if same {
            Ok((Vec::new(), granted(known, Vec::new())))
        } else {
            Err(Refusal::Reused(hold.clone()))
        };
    }
    for name in chain.iter() {
        let budget = &ledger.budgets[name];
        covers(&budget.terms.limits, &budget.used_at(at), amount)
            .map_err(|short| exhausted(ledger, name, short))?;
    }
    let made = Hold {
        budgets: chain,
        amount: *amount,
        at,
        expires_at: Some(expires_at),
        capped: false,
    };
    set_aside(ledger, hold, made, Vec::new())
}

fn set_aside(ledger: &Ledger, hold: &HoldId, made: Hold, left: Vec<Left>) -> Decided {
    if ledger.holds.len() >= MAX_HOLDS {
        return Err(Refusal::TooManyHolds);
    }
    let mut events = turn_periods(ledger, made.at, &made.budgets);
    let answer = granted(&made, left);
    events.push(
        BudgetReserved {
            hold: hold.clone(),
            budgets: made.budgets,
            amount: made.amount,
            at: made.at,
            expires_at: made.expires_at,
            capped: made.capped,
        }
        .into(),
    );
    Ok((events, answer))
}

fn settle(ledger: &Ledger, at: Timestamp, id: &HoldId, used: Used) -> Decided {
    let Some(hold) = ledger.holds.get(id) else {
        return ended_or_unknown(ledger, id);
    };
    let amount = match used {
        Used::Reported(amount) => amount,
        Used::Tokens(beside) => hold.amount.with(beside),
        Used::Whole => hold.amount,
    };
    let mut events = turn_periods(ledger, at, &hold.budgets);
    let estimated = !matches!(used, Used::Reported(_));
    let (more, warned) = settled(ledger, at, (id, hold), amount, estimated);
    events.extend(more);
    Ok((events, Answer::Settled(warned)))
}

/// What an amount that replaces a reservation comes to, and the warnings among it.
pub(super) fn settled(
    ledger: &Ledger,
    at: Timestamp,
    (id, hold): (&HoldId, &Hold),
    amount: Amount,
    estimated: bool,
) -> (Vec<LedgerEvent>, Vec<BudgetWarning>) {
    let mut events = overruns(ledger, at, (id, hold), &amount);
    events.push(
        BudgetSettled {
            hold: id.clone(),
            amount,
            at,
            estimated,
        }
        .into(),
    );
    let near = |name| warnings(ledger, at, name, &amount);
    let warned: Vec<BudgetWarning> = hold.budgets.iter().flat_map(near).collect();
    events.extend(warned.iter().cloned().map(LedgerEvent::from));
    (events, warned)
}

fn release(ledger: &Ledger, id: &HoldId) -> Decided {
    if !ledger.holds.contains_key(id) {
        return ended_or_unknown(ledger, id);
    }
    done(vec![BudgetReleased { hold: id.clone() }.into()])
}

/// A reservation that nobody settled in time may have been used whole: it counts so.
fn expire(ledger: &Ledger, at: Timestamp) -> Vec<LedgerEvent> {
    let due = ledger
        .expiring
        .iter()
        .take_while(|(expires, _)| *expires <= at);
    settle_whole(ledger, at, due.map(|(_, id)| id).take(ENDED_AT_ONCE))
}

/// What an end that nobody reports makes of these reservations.
fn settle_whole<'a>(
    ledger: &Ledger,
    at: Timestamp,
    holds: impl Iterator<Item = &'a HoldId>,
) -> Vec<LedgerEvent> {
    // One at a time, on a draft: each may be what passes a warning share.
    let mut draft = None;
    let mut events = Vec::new();
    for id in holds {
        let draft = draft.get_or_insert_with(|| ledger.clone());
        let settled = settle(draft, at, id, Used::Whole)
            .map(|(events, _)| events)
            .unwrap_or_default();
        settled.iter().for_each(|event| draft.apply(event));
        events.extend(settled);
    }
    events
}

/// The periods of these budgets that have ended by `at`.
pub(super) fn turn_periods(ledger: &Ledger, at: Timestamp, budgets: &[Name]) -> Vec<LedgerEvent> {
    let turned = |name: &Name| {
        let budget = ledger.budgets.get(name)?;
        let period = budget.terms.period;
        let began = period
            .start_of(at)
            .filter(|_| period.has_turned(budget.period_start, at))?;
        let name = Arc::clone(name);
        Some(BudgetPeriodStarted { name, at: began }.into())
    };
    budgets.iter().filter_map(turned).collect()
}

fn overruns(
    ledger: &Ledger,
    at: Timestamp,
    (id, hold): (&HoldId, &Hold),
    amount: &Amount,
) -> Vec<LedgerEvent> {
    // Of time, and of tool calls without a limit, nothing is set aside: what passes a limit counts.
    let passes = |dimension: Dimension| {
        hold.budgets.iter().any(|name| {
            let budget = ledger.budgets.get(name);
            budget.is_some_and(|budget| {
                let others = budget.used_at(at).minus(&hold.amount).of(dimension);
                let limit = budget.terms.limits.of(dimension);
                limit.is_some_and(|limit| others.saturating_add(amount.of(dimension)) > limit)
            })
        })
    };
    let over = |dimension: Dimension| {
        let (reserved, used) = (hold.amount.of(dimension), amount.of(dimension));
        let is_over = used > reserved
            && match dimension {
                Dimension::InputTokens
                | Dimension::OutputTokens
                | Dimension::CostMicroUsd
                | Dimension::ModelCalls => true,
                Dimension::ToolCalls | Dimension::WallTimeMs => reserved > 0 || passes(dimension),
                // The sum of tokens follows from its parts.
                Dimension::TotalTokens => false,
            };
        is_over.then(|| {
            BudgetOverrun {
                hold: id.clone(),
                dimension,
                reserved,
                used,
            }
            .into()
        })
    };
    Dimension::ALL.into_iter().filter_map(over).collect()
}

/// The dimensions of a budget that pass their warning share with `amount` settled.
fn warnings(ledger: &Ledger, at: Timestamp, name: &Name, amount: &Amount) -> Vec<BudgetWarning> {
    let Some(budget) = ledger.budgets.get(name) else {
        return Vec::new();
    };
    let period = budget.terms.period;
    let is_new = period.has_turned(budget.period_start, at);
    let settled = budget.settled_at(at).plus(amount);
    let passed = |dimension: Dimension| {
        let limit = budget.terms.limits.of(dimension)?;
        let used = settled.of(dimension);
        let told = !is_new && budget.warned.contains(&dimension);
        let share = u128::from(limit) * u128::from(budget.terms.warn_permille);
        (!told && u128::from(used) * 1_000 >= share).then(|| BudgetWarning {
            name: Arc::clone(name),
            dimension,
            limit,
            used,
        })
    };
    Dimension::ALL.into_iter().filter_map(passed).collect()
}

/// An open reservation of this id.
fn known<'a>(ledger: &'a Ledger, id: &HoldId) -> Result<Option<&'a Hold>, Refusal> {
    match ledger.holds.get(id) {
        Some(hold) => Ok(Some(hold)),
        None if ledger.has_ended(id) => Err(Refusal::Ended(id.clone())),
        None => Ok(None),
    }
}

fn ended_or_unknown(ledger: &Ledger, id: &HoldId) -> Decided {
    // The ledger forgets the oldest; a session's own settlement is then an old one given again.
    if ledger.has_ended(id) || id.call().is_some() {
        return done(Vec::new());
    }
    Err(Refusal::NoHold(id.clone()))
}

fn chain(ledger: &Ledger, budgets: &[Name]) -> Result<Arc<[Name]>, Refusal> {
    let chain = ledger.chain(budgets.iter().map(AsRef::as_ref));
    chain.map(Arc::from).map_err(Refusal::NoBudget)
}

fn check_parent(ledger: &Ledger, name: &Name, terms: &Terms) -> Result<(), Refusal> {
    let Some(parent) = &terms.parent else {
        return Ok(());
    };
    let circle = || Refusal::Circle {
        name: Arc::clone(name),
        parent: Arc::clone(parent),
    };
    if &**name == NAMESPACE_BUDGET {
        return Err(circle());
    }
    let mut above = 0;
    let mut next = Some(parent);
    while let Some(at) = next {
        let budget = ledger.budgets.get(at).filter(|_| at != name);
        let budget = budget.ok_or_else(|| match at == name {
            true => circle(),
            false => Refusal::NoBudget(Arc::clone(at)),
        })?;
        above += 1;
        if above > MAX_DEPTH {
            return Err(Refusal::TooDeep(Arc::clone(name)));
        }
        next = budget.terms.parent.as_ref();
    }
    Ok(())
}

fn free_of_holds(ledger: &Ledger, name: &Name) -> Result<(), Refusal> {
    let holds = ledger
        .holds
        .values()
        .filter(|hold| hold.budgets.contains(name))
        .count();
    if holds == 0 {
        return Ok(());
    }
    Err(Refusal::InUse {
        name: Arc::clone(name),
        by: format!("{holds} open reservations take from it"),
    })
}

fn exhausted(ledger: &Ledger, name: &Name, short: Shortfall) -> Refusal {
    let budget = ledger.budgets.get(name);
    Refusal::Exhausted {
        budget: Arc::clone(name),
        short,
        on_exhausted: budget
            .map(|budget| budget.terms.on_exhausted)
            .unwrap_or_default(),
    }
}

fn granted(hold: &Hold, left: Vec<Left>) -> Answer {
    Answer::Granted(Granted {
        budgets: Arc::clone(&hold.budgets),
        amount: hold.amount,
        tool_calls: hold.capped.then_some(hold.amount.tool_calls),
        left,
    })
}

fn done(events: Vec<LedgerEvent>) -> Decided {
    Ok((events, Answer::Done))
}
