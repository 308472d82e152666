//! What is asked of a ledger, and what it says.

use std::sync::Arc;

use super::{BudgetWarning, HoldId, MAX_BUDGETS, MAX_DEPTH, MAX_HOLDS, Name, OnExhausted, Terms};
use crate::{
    budget::{Amount, Ask, Beside, Left, Shortfall},
    ids::Timestamp,
};

/// What is asked of a ledger.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// Create a budget.
    Create {
        /// Its name.
        name: Name,
        /// What it allows.
        terms: Arc<Terms>,
    },
    /// Replace a budget's terms.
    Update {
        /// Its name.
        name: Name,
        /// What it allows from here on.
        terms: Arc<Terms>,
    },
    /// Delete a budget.
    Delete {
        /// Its name.
        name: Name,
    },
    /// Set aside what a model call may use; its output cap shrinks to what is left.
    ReserveCall {
        /// The reservation.
        hold: HoldId,
        /// The budgets that it names; their parents come by themselves.
        budgets: Vec<Name>,
        /// What it asks for.
        ask: Ask,
    },
    /// Set aside an amount, as it is.
    Reserve {
        /// The reservation.
        hold: HoldId,
        /// The budgets that it names; their parents come by themselves.
        budgets: Vec<Name>,
        /// How much, from each.
        amount: Amount,
        /// When it counts as used whole, where nobody settles it.
        expires_at: Timestamp,
    },
    /// Replace a reservation by what was used.
    Settle {
        /// The reservation.
        hold: HoldId,
        /// What was used.
        used: Used,
    },
    /// Count as used what nothing was set aside for: the time of a loop after its last call.
    Charge {
        /// What it is charged by, once.
        hold: HoldId,
        /// The budgets that the loop names; their parents come by themselves.
        budgets: Vec<Name>,
        /// How much, to each.
        used: Amount,
    },
    /// Give a reservation back whole: nothing was used.
    Release {
        /// The reservation.
        hold: HoldId,
    },
    /// Count as used what has expired, a record's worth at a time.
    Expire,
    /// Count as used what a session that is gone had set aside, a record's worth at a time.
    Abandon {
        /// Its id.
        session: String,
    },
}

/// What a reservation is replaced by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Used {
    /// This.
    Reported(Amount),
    /// Nobody counted the tokens of a call: those of the reservation count, with their cost, and this
    /// beside them.
    Tokens(Beside),
    /// Nobody knows: the whole reservation counts.
    Whole,
}

/// A request's answer, to be given once its events are durable.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// It is so.
    Done,
    /// So much is set aside.
    Granted(Granted),
    /// It was settled, and brought these budgets to their warning share.
    Settled(Vec<BudgetWarning>),
}

/// What was set aside for a reservation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// The budgets, parents included; empty where none is named and the namespace has none.
    pub budgets: Arc<[Name]>,
    /// How much, from each.
    pub amount: Amount,
    /// Tool calls that are let through; `None` where no budget limits them.
    pub tool_calls: Option<u64>,
    /// What was left for it, the tightest of each dimension that a budget limits; empty where that was
    /// not asked.
    pub left: Vec<Left>,
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such budget.
    #[error("there is no budget `{0}`")]
    NoBudget(Name),
    /// The name is taken, with other terms.
    #[error("there is a budget `{0}` already, with other terms")]
    Exists(Name),
    /// A budget cannot be its own parent, near or far, and the namespace's has none.
    #[error("budget `{name}` cannot be a part of `{parent}`: that would close a circle")]
    Circle {
        /// The budget.
        name: Name,
        /// The parent asked for.
        parent: Name,
    },
    /// The chain would be too long.
    #[error("budget `{0}` would have more than {MAX_DEPTH} budgets above it")]
    TooDeep(Name),
    /// Too many budgets.
    #[error("the namespace has {MAX_BUDGETS} budgets, as many as it may")]
    TooMany,
    /// Too many open reservations.
    #[error("the namespace has {MAX_HOLDS} open reservations, as many as it may")]
    TooManyHolds,
    /// It is still needed.
    #[error("budget `{name}` is in use: {by}")]
    InUse {
        /// The budget.
        name: Name,
        /// By what.
        by: String,
    },
    /// A budget does not cover it.
    #[error(
        "budget `{budget}` does not cover it: {} limit {}, used {}, asked for {}",
        short.dimension, short.limit, short.used, short.requested
    )]
    Exhausted {
        /// The budget.
        budget: Name,
        /// How it stands.
        short: Shortfall,
        /// What a loop does about it.
        on_exhausted: OnExhausted,
    },
    /// The reservation has ended.
    #[error("reservation `{0}` has ended")]
    Ended(HoldId),
    /// The id stands for another reservation.
    #[error("reservation `{0}` was made for other budgets or another amount")]
    Reused(HoldId),
    /// No such reservation.
    #[error("there is no reservation `{0}`")]
    NoHold(HoldId),
}
