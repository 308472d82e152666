//! The fold: what each fact makes of the ledger. It refuses nothing and knows no clock.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    Budget, BudgetReserved, BudgetSettled, ENDED_KEPT, Hold, HoldId, Ledger, LedgerEntry,
    LedgerEvent, Period, Window,
};
use crate::{budget::Amount, ids::Seq, ids::Timestamp};

impl Ledger {
    /// Applies one entry, the next of the log.
    pub fn apply_entry(&mut self, seq: Seq, entry: &LedgerEntry) {
        self.seq = seq;
        for event in &entry.events {
            self.apply(event);
        }
    }

    /// Applies one fact.
    pub fn apply(&mut self, event: &LedgerEvent) {
        match event {
            LedgerEvent::BudgetCreated(e) => {
                let budget = Budget::new((*e.terms).clone(), e.at);
                self.budgets.insert(Arc::clone(&e.name), budget);
            }
            LedgerEvent::LimitsUpdated(e) => {
                if let Some(budget) = self.budgets.get_mut(&e.name) {
                    budget.renew((*e.terms).clone(), e.at);
                }
            }
            LedgerEvent::BudgetDeleted(e) => {
                self.budgets.remove(&e.name);
            }
            LedgerEvent::BudgetPeriodStarted(e) => {
                if let Some(budget) = self.budgets.get_mut(&e.name) {
                    budget.period_start = e.at;
                    budget.settled = Amount::default();
                    budget.warned.clear();
                }
            }
            LedgerEvent::BudgetReserved(e) => self.reserve(e),
            LedgerEvent::BudgetSettled(e) => self.settle(e),
            LedgerEvent::BudgetReleased(e) => {
                self.let_go(&e.hold);
            }
            LedgerEvent::BudgetWarning(e) => {
                if let Some(budget) = self.budgets.get_mut(&e.name) {
                    budget.warned.insert(e.dimension);
                }
            }
            LedgerEvent::LedgerCarried(_) => {
                *self = Self {
                    seq: self.seq,
                    ..Self::default()
                };
            }
            LedgerEvent::BudgetCarried(e) => {
                let budget = (*e.budget).clone();
                self.budgets.insert(Arc::clone(&e.name), budget);
            }
            LedgerEvent::EndedCarried(e) => e.holds.iter().for_each(|hold| self.remember(hold)),
            // The settlement after an overrun says what was used; the stream after a seal, all.
            LedgerEvent::BudgetOverrun(_) | LedgerEvent::LedgerSealed(_) => {}
        }
    }

    fn reserve(&mut self, e: &BudgetReserved) {
        for name in e.budgets.iter() {
            if let Some(budget) = self.budgets.get_mut(name) {
                budget.reserved = budget.reserved.plus(&e.amount);
            }
        }
        let hold = Hold {
            budgets: Arc::clone(&e.budgets),
            amount: e.amount,
            at: e.at,
            expires_at: e.expires_at,
            capped: e.capped,
        };
        if let Some(at) = e.expires_at {
            self.expiring.insert((at, e.hold.clone()));
        }
        self.holds.insert(e.hold.clone(), hold);
    }

    fn settle(&mut self, event: &BudgetSettled) {
        let Some(hold) = self.let_go(&event.hold) else {
            return;
        };
        for name in hold.budgets.iter() {
            if let Some(budget) = self.budgets.get_mut(name) {
                budget.charge(&event.amount, event.at);
            }
        }
    }

    /// Takes a reservation out; what it had set aside is free again.
    fn let_go(&mut self, id: &HoldId) -> Option<Hold> {
        let hold = self.holds.remove(id)?;
        if let Some(at) = hold.expires_at {
            self.expiring.remove(&(at, id.clone()));
        }
        for name in hold.budgets.iter() {
            if let Some(budget) = self.budgets.get_mut(name) {
                budget.reserved = budget.reserved.minus(&hold.amount);
            }
        }
        self.remember(id);
        Some(hold)
    }

    fn remember(&mut self, ended: &HoldId) {
        if self.ended_set.insert(ended.clone()) {
            self.ended.push_back(ended.clone());
        }
        if self.ended.len() > ENDED_KEPT
            && let Some(oldest) = self.ended.pop_front()
        {
            self.ended_set.remove(&oldest);
        }
    }
}

impl Budget {
    fn new(terms: super::Terms, at: Timestamp) -> Self {
        Self {
            period_start: terms.period.start_of(at).unwrap_or(at),
            terms,
            created_at: at,
            updated_at: at,
            ever: Amount::default(),
            reserved: Amount::default(),
            settled: Amount::default(),
            window: Window::default(),
            warned: BTreeSet::new(),
        }
    }

    fn charge(&mut self, amount: &Amount, at: Timestamp) {
        self.ever = self.ever.plus(amount);
        self.settled = self.settled.plus(amount);
        self.window.add(self.terms.period, at, amount);
    }

    /// Another period begins anew with what was settled in the old one: a change of terms gives
    /// nothing away.
    fn renew(&mut self, terms: super::Terms, at: Timestamp) {
        if terms.period != self.terms.period {
            let known = self.settled_at(at);
            self.settled = known;
            self.window = Window::default();
            self.window.add(terms.period, at, &known);
            self.period_start = terms.period.start_of(at).unwrap_or(at);
        }
        if matches!(terms.period, Period::Rolling { .. }) {
            self.settled = Amount::default();
        }
        self.warned.clear();
        self.terms = terms;
        self.updated_at = at;
    }
}
