//! The stub of a ledger of named budgets: idempotent by (call, attempt), all tokens in one pot.

use std::collections::BTreeMap;

use loopwright_core::{
    budget::{Ask, Dimension, Left, Shortfall},
    event::BudgetWarning,
    ids::{Attempt, CallId},
    outcome::{EndReason, WaitsFor},
    usage::Usage,
};

use super::oracle::Violation;

/// One named budget.
pub(crate) struct Ledger {
    limit: u64,
    used: u64,
    slots: BTreeMap<(CallId, Attempt), Slot>,
    warned: bool,
    /// Set where a provider counts more than was reserved: settlements may then pass it.
    pub(crate) overcounted: bool,
}

enum Slot {
    Reserved { input: u64, cap: u64 },
    Settled,
}

impl Ledger {
    pub(crate) fn new(limit: u64) -> Self {
        Self {
            limit,
            used: 0,
            slots: BTreeMap::new(),
            warned: false,
            overcounted: false,
        }
    }

    /// What every loop of it may have at most.
    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// Tokens that are neither used nor held.
    pub(crate) fn free(&self) -> u64 {
        self.limit.saturating_sub(self.used + self.held())
    }

    /// Has this reservation made and settled by somebody before, unless it is known; whether it has.
    pub(crate) fn forget(&mut self, key: (CallId, Attempt)) -> bool {
        let new = !self.slots.contains_key(&key);
        if new {
            self.slots.insert(key, Slot::Settled);
        }
        new
    }

    /// What is left, where a call asks to be told, beside what it has been granted already.
    pub(crate) fn left(&self, key: (CallId, Attempt), ask: Ask) -> Vec<Left> {
        let own = match self.slots.get(&key) {
            Some(Slot::Reserved { input, cap }) => input + cap,
            Some(Slot::Settled) | None => 0,
        };
        let left = Left {
            dimension: Dimension::TotalTokens,
            left: self.free() + own,
            limit: self.limit,
        };
        vec![left; usize::from(ask.tells)]
    }

    /// Reserves, or repeats the grant that this key has had. What was settled is not granted again.
    pub(crate) fn reserve(&mut self, key: (CallId, Attempt), ask: Ask) -> Result<u64, EndReason> {
        let Ask {
            input,
            output,
            min_output,
            ..
        } = ask;
        let keep = ask.keep.map_or(0, |keep| keep.tokens.min(self.limit / 2));
        let left = self.free().saturating_sub(keep);
        let refusal = EndReason::BudgetExceeded {
            budget: "team".to_owned(),
            dimension: Dimension::TotalTokens,
            limit: self.limit,
            used: self.used,
            requested: input + output,
        };
        match self.slots.get(&key) {
            Some(&Slot::Reserved { cap, .. }) => Ok(cap),
            Some(Slot::Settled) => Err(refusal),
            None if left < input + min_output.min(output) => Err(refusal),
            None => {
                let cap = output.min(left - input);
                self.slots.insert(key, Slot::Reserved { input, cap });
                Ok(cap)
            }
        }
    }

    /// Tool calls that a grant lets through, by its key: of most as many as the model asks for, of some
    /// none.
    pub(crate) fn tools_of(&self, (call, attempt): (CallId, Attempt)) -> Option<u64> {
        match (u64::from(call.0) * 7 + u64::from(attempt) + self.limit) % 6 {
            0 => Some(0),
            1 => Some(1),
            2 => Some(2),
            _ => None,
        }
    }

    /// Lets more in than was refused for this reason: what a loop that waits for it is told.
    pub(crate) fn raise(&mut self, refusal: &EndReason) -> WaitsFor {
        let EndReason::BudgetExceeded {
            requested, used, ..
        } = *refusal
        else {
            panic!("refused for {refusal:?}");
        };
        let short = Shortfall {
            dimension: Dimension::TotalTokens,
            limit: self.limit,
            used,
            requested,
        };
        self.limit += 2 * requested + 100;
        self.warned = false;
        WaitsFor::Budget {
            budget: "team".to_owned(),
            short,
        }
    }

    /// Settles, once, and warns; a settlement that comes again changes nothing.
    pub(crate) fn settle(
        &mut self,
        key: (CallId, Attempt),
        usage: &Usage,
    ) -> Result<Option<BudgetWarning>, Violation> {
        let held = match self.slots.insert(key, Slot::Settled) {
            Some(Slot::Settled) => return Ok(None),
            Some(Slot::Reserved { input, cap }) => input + cap,
            None => 0,
        };
        self.used += usage.total();
        if usage.total() > held && !self.overcounted {
            let detail = format!("{key:?} settled {} of {held} held", usage.total());
            return Err(Violation::new("ledger", detail));
        }
        if self.used + self.held() > self.limit && !self.overcounted {
            let detail = format!("{} used of {}", self.used, self.limit);
            return Err(Violation::new("ledger", detail));
        }
        let near = self.used * 5 >= self.limit * 4 && !self.warned;
        self.warned |= near;
        Ok(near.then(|| BudgetWarning {
            budget: "team".to_owned(),
            dimension: Dimension::TotalTokens,
            limit: self.limit,
            used: self.used,
        }))
    }

    /// Tokens held for calls that have not been settled.
    pub(crate) fn held(&self) -> u64 {
        let held = |slot: &Slot| match slot {
            Slot::Reserved { input, cap } => input + cap,
            Slot::Settled => 0,
        };
        self.slots.values().map(held).sum()
    }
}
