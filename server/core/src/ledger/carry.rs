//! What a new stream begins with, so that the streams before it can go.
//!
//! Invariant: the fold of what is carried is the ledger that carried it, so that the fold of a ledger's
//! last stream is the fold of all of them.

use std::sync::Arc;

use super::{
    Budget, BudgetCarried, BudgetReserved, EndedCarried, HoldId, Ledger, LedgerCarried, LedgerEvent,
};
use crate::{budget::Amount, ids::Seq};

/// Ended reservations in one fact: it must fit a record.
const ENDED_AT_ONCE: usize = 1_024;

impl Ledger {
    /// The facts that a stream begins with whose first record follows the ledger's position `seq`:
    /// how all budgets stand, what is set aside, and which reservations have ended.
    #[must_use]
    pub fn carry(&self, seq: Seq) -> Vec<LedgerEvent> {
        let budgets = self.budgets.iter().map(|(name, budget)| {
            let budget = Budget {
                reserved: Amount::default(),
                ..budget.clone()
            };
            BudgetCarried {
                name: Arc::clone(name),
                budget: Arc::new(budget),
            }
            .into()
        });
        let holds = self.holds.iter().map(|(id, hold)| {
            BudgetReserved {
                hold: id.clone(),
                budgets: Arc::clone(&hold.budgets),
                amount: hold.amount,
                at: hold.at,
                expires_at: hold.expires_at,
                capped: hold.capped,
            }
            .into()
        });
        let ended: Vec<HoldId> = self.ended.iter().cloned().collect();
        let ended = ended
            .chunks(ENDED_AT_ONCE)
            .map(|some| EndedCarried { holds: some.into() }.into());
        let mut events: Vec<LedgerEvent> = vec![];
        events.extend(budgets);
        events.extend(holds);
        events.extend(ended);
        let count = events.len() as u64;
        events.insert(0, LedgerCarried { seq, events: count }.into());
        events
    }
}
