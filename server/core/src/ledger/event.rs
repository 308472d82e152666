//! What happened to the budgets of a namespace: facts in the past tense, as its ledger keeps them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Budget, HoldId, Name, Terms};
use crate::{
    budget::{Amount, Dimension},
    ids::{Seq, Timestamp},
    message::is_false,
};

/// One entry of a ledger: what several loops asked for at once is one entry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LedgerEntry {
    /// What happened, in order; never empty.
    pub events: Vec<LedgerEvent>,
}

/// One fact. A ledger with a kind that this version does not know is not read further: what it
/// does to a budget cannot be guessed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum LedgerEvent {
    /// A budget was created.
    BudgetCreated(BudgetCreated),
    /// Its terms were replaced.
    LimitsUpdated(LimitsUpdated),
    /// It was deleted; everything is forgotten of it.
    BudgetDeleted(BudgetDeleted),
    /// What was used of it is forgotten.
    BudgetPeriodStarted(BudgetPeriodStarted),
    /// An amount was set aside, from every budget of a chain.
    BudgetReserved(BudgetReserved),
    /// A reservation was replaced by what was used.
    BudgetSettled(BudgetSettled),
    /// A reservation was given back whole: nothing was used.
    BudgetReleased(BudgetReleased),
    /// A budget passed its warning share: once a period for each dimension, or once until its terms
    /// change.
    BudgetWarning(BudgetWarning),
    /// More was used than was set aside.
    BudgetOverrun(BudgetOverrun),
    /// The stream is over: the ledger goes on in another one, which begins with all that it comes to.
    LedgerSealed(LedgerSealed),
    /// A stream begins with what the streams before it come to; whatever was known is forgotten.
    LedgerCarried(LedgerCarried),
    /// A budget, as the streams before leave it; what is set aside follows by itself.
    BudgetCarried(BudgetCarried),
    /// Reservations that ended in the streams before and are still recognised.
    EndedCarried(EndedCarried),
}

macro_rules! facts {
    ($($(#[$doc:meta])* $name:ident { $($body:tt)* })+) => {
        $($(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        pub struct $name { $($body)* }

        impl From<$name> for LedgerEvent {
            fn from(event: $name) -> Self {
                Self::$name(event)
            }
        })+
    };
}

facts! {
    /// See [`LedgerEvent::BudgetCreated`].
    BudgetCreated {
        /// Its name.
        pub name: Name,
        /// What it allows.
        pub terms: Arc<Terms>,
        /// When.
        pub at: Timestamp,
    }
    /// See [`LedgerEvent::LimitsUpdated`].
    LimitsUpdated {
        /// The budget.
        pub name: Name,
        /// What it allows from here on.
        pub terms: Arc<Terms>,
        /// When.
        pub at: Timestamp,
    }
    /// See [`LedgerEvent::BudgetDeleted`].
    BudgetDeleted {
        /// The budget.
        pub name: Name,
    }
    /// See [`LedgerEvent::BudgetPeriodStarted`].
    BudgetPeriodStarted {
        /// The budget.
        pub name: Name,
        /// When the period began.
        pub at: Timestamp,
    }
    /// See [`LedgerEvent::BudgetReserved`].
    BudgetReserved {
        /// The reservation.
        pub hold: HoldId,
        /// The budgets, parents included.
        pub budgets: Arc<[Name]>,
        /// How much, from each.
        pub amount: Amount,
        /// When.
        pub at: Timestamp,
        /// When it counts as used whole, where nobody settles it; absent: never.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub expires_at: Option<Timestamp>,
        /// Whether a budget limits tool calls, so that no more are let through than are set aside.
        #[serde(default, skip_serializing_if = "is_false")]
        pub capped: bool,
    }
    /// See [`LedgerEvent::BudgetSettled`].
    BudgetSettled {
        /// The reservation.
        pub hold: HoldId,
        /// What was used, of each of its budgets.
        pub amount: Amount,
        /// When.
        pub at: Timestamp,
        /// True where nobody reported it: the whole reservation counts.
        #[serde(default, skip_serializing_if = "is_false")]
        pub estimated: bool,
    }
    /// See [`LedgerEvent::BudgetReleased`].
    BudgetReleased {
        /// The reservation.
        pub hold: HoldId,
    }
    /// See [`LedgerEvent::BudgetWarning`].
    BudgetWarning {
        /// The budget.
        pub name: Name,
        /// The dimension.
        pub dimension: Dimension,
        /// Its limit.
        pub limit: u64,
        /// What is used of it in this period.
        pub used: u64,
    }
    /// See [`LedgerEvent::BudgetOverrun`].
    BudgetOverrun {
        /// The reservation.
        pub hold: HoldId,
        /// The dimension.
        pub dimension: Dimension,
        /// What was set aside.
        pub reserved: u64,
        /// What was used.
        pub used: u64,
    }
    /// See [`LedgerEvent::LedgerSealed`].
    LedgerSealed {
        /// Id of the stream that the ledger goes on in.
        pub next: Arc<str>,
        /// How many records of it are what this stream comes to.
        pub records: u64,
    }
    /// See [`LedgerEvent::LedgerCarried`].
    LedgerCarried {
        /// The ledger's position before the stream's first record.
        pub seq: Seq,
        /// How many of the events that follow say what the streams before come to.
        pub events: u64,
    }
    /// See [`LedgerEvent::BudgetCarried`].
    BudgetCarried {
        /// Its name.
        pub name: Name,
        /// How it stands.
        pub budget: Arc<Budget>,
    }
    /// See [`LedgerEvent::EndedCarried`].
    EndedCarried {
        /// The reservations, oldest first.
        pub holds: Arc<[HoldId]>,
    }
}
