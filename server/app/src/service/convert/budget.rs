//! Budgets that sessions share: terms and amounts, both ways.

use std::{collections::BTreeMap, sync::Arc};

use loopwright_core::{
    agent::BudgetLimits,
    budget::{Amount, LOOP_BUDGET, SESSION_BUDGET},
    ids::Timestamp,
    ledger::{
        Budget, HoldId, Ledger, NAMESPACE_BUDGET, Name, OnExhausted, Period, Request, Terms, Used,
    },
};
use loopwright_proto::v1;

use super::{
    duration,
    fields::{self, Violations, shown},
    timestamp,
};

/// When a client's reservation counts as used, where it does not say.
const DEFAULT_EXPIRY_MS: u64 = 10 * 60 * 1_000;
/// Longest that a client's reservation stays open.
const MAX_EXPIRY_MS: u64 = 24 * 60 * 60 * 1_000;
/// Budgets that one reservation names.
const MAX_NAMED: usize = 8;
/// Most of one dimension that a client's reservation takes, or is settled with: as many as can be open
/// stay below 2^64 together.
const MAX_AMOUNT: u64 = 10_000_000_000_000;
/// Shortest and longest rolling window.
const WINDOWS_MS: std::ops::RangeInclusive<u64> = 1_000..=366 * 24 * 60 * 60 * 1_000;

/// A required name of a budget.
pub fn name(text: &str, all: &mut Violations) -> Name {
    if [LOOP_BUDGET, SESSION_BUDGET].contains(&text) {
        let problem =
            "is what a loop's own budget is called, or its session's; choose another name";
        all.add("name", format!("{text:?} {problem}"));
    }
    fields::id("name", text, all).map_or_else(|| "".into(), |id| id.as_str().into())
}

/// What a budget is to allow.
pub fn terms(asked: Option<&v1::BudgetTerms>, all: &mut Violations) -> Arc<Terms> {
    let none = v1::BudgetTerms::default();
    let asked = asked.unwrap_or(&none);
    let parent = fields::optional_id("terms.parent", &asked.parent, all);
    if parent
        .as_ref()
        .is_some_and(|parent| parent.as_str() == NAMESPACE_BUDGET)
    {
        let problem = "is the namespace's own, above every budget already; leave it empty";
        all.add("terms.parent", format!("{NAMESPACE_BUDGET:?} {problem}"));
    }
    let limits = asked.limits.unwrap_or_default();
    Arc::new(Terms {
        parent: parent.map(|id| id.as_str().into()),
        limits: caps(&limits, all),
        period: period(asked.period.as_ref(), all),
        on_exhausted: on_exhausted(limits.on_exhausted, all),
        warn_permille: warn_permille(limits.warn_at, all),
    })
}

/// A client's reservation.
pub fn reserve(asked: v1::ReserveRequest, now: Timestamp, all: &mut Violations) -> Request {
    let hold = reservation(&asked.reservation_id, all);
    if asked.budgets.is_empty() || asked.budgets.len() > MAX_NAMED {
        let problem = format!("names {}; name 1 to {MAX_NAMED}", asked.budgets.len());
        all.add("budgets", problem);
    }
    let named = |text: &String| fields::id("budgets", text, all).map(|id| id.as_str().into());
    let budgets = asked
        .budgets
        .iter()
        .take(MAX_NAMED)
        .filter_map(named)
        .collect();
    let amount = amount(
        "amount",
        asked
            .amount
            .as_ref()
            .unwrap_or(&v1::BudgetAmount::default()),
        all,
    );
    if amount == Amount::default() {
        all.add("amount", "is nothing; say how much is set aside");
    }
    let expires_after = match millis(asked.expires_after.as_ref()) {
        Ok(asked) => asked.unwrap_or(DEFAULT_EXPIRY_MS),
        Err(shown) => {
            all.add(
                "expires_after",
                format!("{shown} is no span; send 1s to 24h"),
            );
            DEFAULT_EXPIRY_MS
        }
    };
    if expires_after == 0 || expires_after > MAX_EXPIRY_MS {
        let problem = format!("{expires_after} ms is not within 1 ms and 24 h");
        all.add("expires_after", problem);
    }
    Request::Reserve {
        hold,
        budgets,
        amount,
        expires_at: now.plus(expires_after),
    }
}

/// The reservation that a client names.
pub fn reservation(text: &str, all: &mut Violations) -> HoldId {
    let plain = text.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'/');
    if text.is_empty() || text.len() > fields::MAX_REQUEST_ID || !plain {
        let most = fields::MAX_REQUEST_ID;
        let problem = format!("is not 1 to {most} printable ASCII characters without `/`");
        all.add("reservation_id", format!("{} {problem}", shown(text)));
    }
    HoldId::of_client(text)
}

/// What a client's reservation is replaced by; absent, the whole of it counts.
pub fn used(asked: Option<&v1::BudgetAmount>, all: &mut Violations) -> Used {
    asked.map_or(Used::Whole, |asked| {
        Used::Reported(amount("used", asked, all))
    })
}

/// An amount from the wire, which sums of many cannot wrap.
fn amount(field: &str, asked: &v1::BudgetAmount, all: &mut Violations) -> Amount {
    let cost = asked.cost_micro_usd.unwrap_or(0);
    for (part, count) in [
        ("input_tokens", asked.input_tokens),
        ("output_tokens", asked.output_tokens),
        ("cost_micro_usd", cost),
        ("model_calls", asked.model_calls),
        ("tool_calls", asked.tool_calls),
        ("wall_time_ms", asked.wall_time_ms),
    ] {
        if count > MAX_AMOUNT {
            let problem = format!("{count} is over {MAX_AMOUNT}, the most of one reservation");
            all.add(format!("{field}.{part}"), problem);
        }
    }
    Amount {
        input: asked.input_tokens,
        output: asked.output_tokens,
        cost_micro_usd: cost,
        model_calls: asked.model_calls,
        tool_calls: asked.tool_calls,
        wall_ms: asked.wall_time_ms,
    }
}

/// An amount on the wire.
#[must_use]
pub fn amount_to_wire(amount: &Amount) -> v1::BudgetAmount {
    v1::BudgetAmount {
        input_tokens: amount.input,
        output_tokens: amount.output,
        cost_micro_usd: Some(amount.cost_micro_usd),
        model_calls: amount.model_calls,
        tool_calls: amount.tool_calls,
        wall_time_ms: amount.wall_ms,
    }
}

/// A named budget, as events refer to it.
#[must_use]
pub fn reference(name: &str) -> v1::BudgetRef {
    let scope = if name == NAMESPACE_BUDGET {
        v1::BudgetScope::Namespace
    } else {
        v1::BudgetScope::Named
    };
    v1::BudgetRef {
        scope: scope.into(),
        name: name.to_owned(),
    }
}

/// How many reservations are open on each budget.
#[must_use]
pub fn open_reservations(ledger: &Ledger) -> BTreeMap<Name, u32> {
    let mut open = BTreeMap::new();
    for name in ledger.holds.values().flat_map(|hold| hold.budgets.iter()) {
        *open.entry(Arc::clone(name)).or_insert(0) += 1;
    }
    open
}

/// Where a budget stands at `at`.
#[must_use]
pub fn to_wire(name: &str, budget: &Budget, open: u32, at: Timestamp) -> v1::Budget {
    let period = budget.terms.period;
    let turned = period.has_turned(budget.period_start, at);
    let start = period.start_of(at).filter(|_| turned);
    v1::Budget {
        name: name.to_owned(),
        terms: Some(terms_to_wire(&budget.terms)),
        settled: Some(amount_to_wire(&budget.settled_at(at))),
        reserved: Some(amount_to_wire(&budget.reserved)),
        ever: Some(amount_to_wire(&budget.ever)),
        open_reservations: open,
        created_at: Some(timestamp(budget.created_at)),
        updated_at: Some(timestamp(budget.updated_at)),
        period_start: Some(timestamp(start.unwrap_or(budget.period_start))),
        period_end: period.next_after(at).map(timestamp),
    }
}

fn terms_to_wire(terms: &Terms) -> v1::BudgetTerms {
    let limits = &terms.limits;
    let kind = match terms.period {
        Period::None => v1::BudgetPeriodKind::None,
        Period::Day => v1::BudgetPeriodKind::Day,
        Period::Month => v1::BudgetPeriodKind::Month,
        Period::Rolling { .. } => v1::BudgetPeriodKind::Rolling,
    };
    let window = match terms.period {
        Period::Rolling { window_ms } => Some(duration(window_ms)),
        Period::None | Period::Day | Period::Month => None,
    };
    let on_exhausted = match terms.on_exhausted {
        OnExhausted::End => v1::OnExhausted::End,
        OnExhausted::Pause => v1::OnExhausted::Pause,
    };
    v1::BudgetTerms {
        parent: terms.parent.as_deref().unwrap_or_default().to_owned(),
        limits: Some(v1::BudgetLimits {
            max_input_tokens: limits.input_tokens,
            max_output_tokens: limits.output_tokens,
            max_total_tokens: limits.total_tokens,
            max_cost_micro_usd: limits.cost_micro_usd,
            max_model_calls: limits.model_calls,
            max_tool_calls: limits.tool_calls,
            max_wall_time: limits.wall_ms.map(duration),
            warn_at: Some(f64::from(terms.warn_permille) / 1_000.0),
            on_exhausted: on_exhausted.into(),
            min_output_tokens: None,
        }),
        period: Some(v1::BudgetPeriod {
            kind: kind.into(),
            window,
        }),
    }
}

fn caps(asked: &v1::BudgetLimits, all: &mut Violations) -> BudgetLimits {
    if asked.min_output_tokens.is_some() {
        let problem = "is not of a budget; set it in agent.limits.budget, or leave it out";
        all.add("terms.limits.min_output_tokens", problem);
    }
    let wall_ms = max_wall_time(asked, "terms.limits", all);
    BudgetLimits {
        input_tokens: asked.max_input_tokens,
        output_tokens: asked.max_output_tokens,
        total_tokens: asked.max_total_tokens,
        cost_micro_usd: asked.max_cost_micro_usd,
        model_calls: asked.max_model_calls,
        tool_calls: asked.max_tool_calls,
        wall_ms,
    }
}

/// The limit on time of a budget's limits that stand in the field `at`, milliseconds.
pub(super) fn max_wall_time(
    asked: &v1::BudgetLimits,
    at: &str,
    all: &mut Violations,
) -> Option<u64> {
    millis(asked.max_wall_time.as_ref()).unwrap_or_else(|shown| {
        let problem = format!("{shown} is no span; send 0s or more, or leave it out for no limit");
        all.add(format!("{at}.max_wall_time"), problem);
        None
    })
}

fn period(asked: Option<&v1::BudgetPeriod>, all: &mut Violations) -> Period {
    let Some(asked) = asked else {
        return Period::None;
    };
    let window = millis(asked.window.as_ref());
    let rolling = asked.kind == v1::BudgetPeriodKind::Rolling as i32;
    if asked.window.is_some() && !rolling {
        all.add("terms.period.window", "is of ROLLING alone; leave it out");
    }
    match v1::BudgetPeriodKind::try_from(asked.kind) {
        Ok(v1::BudgetPeriodKind::Unspecified | v1::BudgetPeriodKind::None) => Period::None,
        Ok(v1::BudgetPeriodKind::Day) => Period::Day,
        Ok(v1::BudgetPeriodKind::Month) => Period::Month,
        Ok(v1::BudgetPeriodKind::Rolling) => match window {
            Ok(Some(window_ms)) if WINDOWS_MS.contains(&window_ms) => Period::Rolling { window_ms },
            Ok(_) | Err(_) => {
                all.add("terms.period.window", "is not within a second and 366 days");
                Period::None
            }
        },
        Err(_) => {
            let problem = format!("{} is no value of this enum; leave it out", asked.kind);
            all.add("terms.period.kind", problem);
            Period::None
        }
    }
}

fn on_exhausted(asked: i32, all: &mut Violations) -> OnExhausted {
    match v1::OnExhausted::try_from(asked) {
        Ok(v1::OnExhausted::Unspecified | v1::OnExhausted::End) => OnExhausted::End,
        Ok(v1::OnExhausted::Pause) => OnExhausted::Pause,
        Err(_) => {
            let problem = format!("{asked} is no value of this enum; leave it out for END");
            all.add("terms.limits.on_exhausted", problem);
            OnExhausted::End
        }
    }
}

fn warn_permille(asked: Option<f64>, all: &mut Violations) -> u32 {
    let default = Terms::default().warn_permille;
    let Some(asked) = asked else {
        return default;
    };
    if !(0.0..=1.0).contains(&asked) {
        let problem = format!("{asked} is not a share from 0 to 1; leave it out for 0.8");
        all.add("terms.limits.warn_at", problem);
        return default;
    }
    // In thousandths: exact in the log, and finer than anybody warns.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "from 0 to 1,000"
    )]
    let permille = (asked * 1_000.0).round() as u32;
    permille
}

/// A span in milliseconds.
///
/// # Errors
/// The span as it is shown, where it is negative.
fn millis(asked: Option<&loopwright_proto::well_known::Duration>) -> Result<Option<u64>, String> {
    let Some(asked) = asked else {
        return Ok(None);
    };
    let seconds = u64::try_from(asked.seconds);
    let nanos = u64::try_from(asked.nanos);
    match (seconds, nanos) {
        (Ok(seconds), Ok(nanos)) => Ok(Some(
            seconds
                .saturating_mul(1_000)
                .saturating_add(nanos / 1_000_000),
        )),
        _ => Err(format!(
            "{}.{:09}s",
            asked.seconds,
            asked.nanos.unsigned_abs()
        )),
    }
}
