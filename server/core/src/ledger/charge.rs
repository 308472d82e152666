//! What is charged to budgets although nothing was set aside for it.
//!
//! Boundary: an amount in, the facts of a reservation that is settled at once out. Invariant: an id is
//! charged once, as far back as the ledger remembers what ended.

use std::sync::Arc;

use super::{
    BudgetReserved, Hold, HoldId, Ledger, LedgerEvent, Name,
    decide::{settled, turn_periods},
};
use crate::{budget::Amount, ids::Timestamp};

/// A reservation of nothing, settled with `used` at once. Of what was charged already, and of budgets
/// that are gone by now, nothing is.
pub(super) fn charge(
    ledger: &Ledger,
    at: Timestamp,
    id: &HoldId,
    budgets: &[Name],
    used: &Amount,
) -> Vec<LedgerEvent> {
    let known = budgets.iter().filter(|n| ledger.budgets.contains_key(*n));
    let chain = ledger.chain(known.map(AsRef::as_ref)).unwrap_or_default();
    if chain.is_empty() || ledger.has_ended(id) || ledger.holds.contains_key(id) {
        return Vec::new();
    }
    let hold = Hold {
        budgets: Arc::from(chain),
        amount: Amount::default(),
        at,
        expires_at: None,
        capped: false,
    };
    let mut events = turn_periods(ledger, at, &hold.budgets);
    events.push(
        BudgetReserved {
            hold: id.clone(),
            budgets: Arc::clone(&hold.budgets),
            amount: hold.amount,
            at,
            expires_at: None,
            capped: false,
        }
        .into(),
    );
    events.extend(settled(ledger, at, (id, &hold), *used, false).0);
    events
}
