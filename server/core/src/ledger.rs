//! The named budgets of a namespace: a second machine of the same laws as the session's.
//!
//! All of them are one ledger, so that a reservation over a chain of budgets is one record: it takes
//! all of them or none. [`decide`] alone refuses, [`Ledger::apply`] folds, and neither knows a
//! clock. Whoever drives the ledger appends what was decided before it answers; the session's entry
//! that uses a grant comes after the ledger's.
//!
//! Invariant, at every record: for each budget and each limit, what is settled in the current period
//! and what is set aside stay within the limit that stood when it was granted, unless a settlement
//! was over its reservation, which is then written down as an overrun.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use crate::{
    agent::BudgetLimits,
    budget::{Amount, Dimension},
    ids::{Attempt, CallId, Seq, Timestamp},
};

mod apply;
mod carry;
mod charge;
mod claim;
mod decide;
mod event;
mod period;
mod request;
mod share;

#[cfg(test)]
mod tests;

pub use claim::claims;
pub use decide::decide;
pub use event::{
    BudgetCarried, BudgetCreated, BudgetDeleted, BudgetOverrun, BudgetPeriodStarted,
    BudgetReleased, BudgetReserved, BudgetSettled, BudgetWarning, EndedCarried, LedgerCarried,
    LedgerEntry, LedgerEvent, LedgerSealed, LimitsUpdated,
};
pub use period::{Period, Window};
pub use request::{Answer, Granted, Refusal, Request, Used};

/// Name of the budget that every loop of the namespace is charged to, where it was created.
pub const NAMESPACE_BUDGET: &str = "namespace";
/// Longest chain from a budget to the last of its parents.
pub const MAX_DEPTH: usize = 8;
/// Most budgets in one namespace.
pub const MAX_BUDGETS: usize = 10_000;
/// Reservations that have ended and are still recognised, so that a late repeat takes nothing.
pub const ENDED_KEPT: usize = 8_192;
/// Most reservations that are open at once in one namespace.
pub const MAX_HOLDS: usize = 100_000;

/// A budget's name.
pub type Name = Arc<str>;

/// The id of one reservation: reserving or settling it twice changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HoldId(Arc<str>);

impl HoldId {
    /// Of one attempt of a model call of the session of this id that was born then: one that took the
    /// id of a deleted session has reservations of its own.
    #[must_use]
    pub fn of_call(session: &str, born: Timestamp, call: CallId, attempt: Attempt) -> Self {
        Self(format!("call/{session}/{call}/{attempt}/{}", born.0).into())
    }

    /// Of a client that reserves for itself, by the id that it chose.
    #[must_use]
    pub fn of_client(id: &str) -> Self {
        Self(format!("client/{id}").into())
    }

    /// The session and the call that it is for; `None` for a client's.
    #[must_use]
    pub fn call(&self) -> Option<(&str, CallId, Attempt)> {
        let (session, rest) = self.0.strip_prefix("call/")?.split_once('/')?;
        let mut rest = rest.split('/');
        let call = rest.next()?.parse().ok()?;
        Some((session, call, rest.next()?.parse().ok()?))
    }

    /// The id that a client chose; `None` for a session's.
    #[must_use]
    pub fn client(&self) -> Option<&str> {
        self.0.strip_prefix("client/")
    }
}

impl fmt::Display for HoldId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a loop does when a budget does not cover its next call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnExhausted {
    /// It ends.
    #[default]
    End,
    /// It waits until the budget covers it.
    Pause,
}

/// What a budget allows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// The budget that it is a part of, and that everything is charged to as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Name>,
    /// Its limits, for each period.
    #[serde(default)]
    pub limits: BudgetLimits,
    /// When what was used is forgotten.
    #[serde(default)]
    pub period: Period,
    /// What loops do when it does not cover their next call.
    #[serde(default)]
    pub on_exhausted: OnExhausted,
    /// The share of a limit at which a warning is written, in thousandths, at most 1,000.
    #[serde(default = "warn_permille")]
    pub warn_permille: u32,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            parent: None,
            limits: BudgetLimits::default(),
            period: Period::None,
            on_exhausted: OnExhausted::End,
            warn_permille: warn_permille(),
        }
    }
}

/// The named budgets of one namespace, as their ledger says they are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ledger {
    /// Position of the last entry applied.
    pub seq: Seq,
    /// All of them, by name.
    pub budgets: BTreeMap<Name, Budget>,
    /// What is set aside, by reservation.
    pub holds: BTreeMap<HoldId, Hold>,
    /// Those among them that expire, by when.
    expiring: BTreeSet<(Timestamp, HoldId)>,
    ended: VecDeque<HoldId>,
    ended_set: BTreeSet<HoldId>,
}

/// One budget.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Budget {
    /// What it allows.
    pub terms: Terms,
    /// When it was created.
    pub created_at: Timestamp,
    /// When its terms were last changed.
    pub updated_at: Timestamp,
    /// When its current period began: its creation, where it has none.
    pub period_start: Timestamp,
    /// What was settled since it was created.
    #[serde(default)]
    pub ever: Amount,
    /// What is set aside: the sum of its open reservations, from which it is read back.
    #[serde(skip)]
    pub reserved: Amount,
    #[serde(default)]
    settled: Amount,
    #[serde(default)]
    window: Window,
    #[serde(default)]
    warned: BTreeSet<Dimension>,
}

/// One reservation.
#[derive(Clone, Debug, PartialEq)]
pub struct Hold {
    /// The budgets that it takes from, parents included.
    pub budgets: Arc<[Name]>,
    /// How much, from each.
    pub amount: Amount,
    /// When it was made.
    pub at: Timestamp,
    /// When it counts as used whole, where nobody settles it.
    pub expires_at: Option<Timestamp>,
    /// Whether a budget limits tool calls, so that the reply is let through no more than are set aside.
    pub capped: bool,
}

impl Ledger {
    /// The budgets that a call is charged to that names these: each with its parents, none twice,
    /// and the namespace's own where there is one, whether it is named or not.
    ///
    /// # Errors
    /// The first name that is not there.
    pub fn chain<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Result<Vec<Name>, Name> {
        let own = self
            .budgets
            .contains_key(NAMESPACE_BUDGET)
            .then_some(NAMESPACE_BUDGET);
        let mut chain: Vec<Name> = Vec::new();
        let named = names.into_iter().filter(|name| *name != NAMESPACE_BUDGET);
        for name in named.chain(own) {
            let mut next = Some(Name::from(name));
            while let Some(name) = next.take().filter(|name| !chain.contains(name)) {
                let budget = self.budgets.get(&name).ok_or_else(|| Arc::clone(&name))?;
                next.clone_from(&budget.terms.parent);
                chain.push(name);
            }
        }
        Ok(chain)
    }

    /// Whether a reservation has ended, as far back as the ledger remembers.
    #[must_use]
    pub fn has_ended(&self, hold: &HoldId) -> bool {
        self.ended_set.contains(hold)
    }

    /// The open reservations of a session's calls.
    pub fn holds_of(&self, session: &str) -> impl Iterator<Item = (&HoldId, &Hold)> {
        let prefix = format!("call/{session}/");
        let from = HoldId(prefix.as_str().into());
        self.holds
            .range(from..)
            .take_while(move |(id, _)| id.0.starts_with(&prefix))
    }

    /// The earliest instant at which an open reservation counts as used.
    #[must_use]
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.expiring.first().map(|&(at, _)| at)
    }
}

impl Budget {
    /// What was settled in the period that `at` lies in.
    #[must_use]
    pub fn settled_at(&self, at: Timestamp) -> Amount {
        match self.terms.period {
            Period::Rolling { .. } => self.window.sum(self.terms.period, at),
            period if period.has_turned(self.period_start, at) => Amount::default(),
            Period::None | Period::Day | Period::Month => self.settled,
        }
    }

    /// What is gone at `at`: settled in its period, or set aside.
    #[must_use]
    pub fn used_at(&self, at: Timestamp) -> Amount {
        self.settled_at(at).plus(&self.reserved)
    }
}

fn warn_permille() -> u32 {
    800
}
