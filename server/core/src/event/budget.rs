//! What is set aside for model calls, and what they used.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    budget::{Dimension, Left, Reservation},
    ids::{Attempt, CallId},
    usage::Usage,
};

impl From<crate::ledger::BudgetWarning> for BudgetWarning {
    fn from(of: crate::ledger::BudgetWarning) -> Self {
        Self {
            budget: of.name.to_string(),
            dimension: of.dimension,
            limit: of.limit,
            used: of.used,
        }
    }
}

facts! {
    /// See [`super::Event::BudgetReserved`].
    BudgetReserved {
        /// For this call.
        pub call: CallId,
        /// And this attempt of it.
        pub attempt: Attempt,
        /// So much.
        pub reserved: Reservation,
        /// Tool calls of its reply that shared budgets let through; absent where they limit none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub tool_calls: Option<u64>,
        /// What shared budgets had left for the call, the tightest of each dimension that they limit;
        /// empty where its model is not told.
        #[serde(default, skip_serializing_if = "<[Left]>::is_empty")]
        pub left: Arc<[Left]>,
    }
    /// See [`super::Event::BudgetSettled`].
    BudgetSettled {
        /// The call.
        pub call: CallId,
        /// Its attempt; 0 where no call is settled, but the time that a loop ran after its last one.
        pub attempt: Attempt,
        /// What counts against the budgets.
        pub usage: Usage,
        /// And in money, micro-USD; 0 where the model has no price.
        #[serde(default, skip_serializing_if = "crate::message::is_zero")]
        pub cost_micro_usd: u64,
        /// True where no provider reported it: the whole reservation counts.
        #[serde(default, skip_serializing_if = "crate::message::is_false")]
        pub estimated: bool,
        /// Tool calls of its reply that were let through, where shared budgets are charged.
        #[serde(default, skip_serializing_if = "crate::message::is_zero")]
        pub tool_calls: u64,
        /// How long the loop ran since it was last charged, milliseconds, where shared budgets are
        /// charged.
        #[serde(default, skip_serializing_if = "crate::message::is_zero")]
        pub wall_ms: u64,
    }
    /// See [`super::Event::SettlementAcknowledged`].
    SettlementAcknowledged {
        /// The call.
        pub call: CallId,
        /// Its attempt.
        pub attempt: Attempt,
    }
    /// See [`super::Event::BudgetWarning`].
    BudgetWarning {
        /// The budget, `loop` for the loop's own.
        pub budget: String,
        /// Its dimension.
        pub dimension: Dimension,
        /// Its limit.
        pub limit: u64,
        /// What is used of it.
        pub used: u64,
    }
    /// See [`super::Event::BudgetOverrun`].
    BudgetOverrun {
        /// The call that used more.
        pub call: CallId,
        /// Its attempt.
        pub attempt: Attempt,
        /// What was reserved.
        pub reserved: Reservation,
        /// What was used.
        pub usage: Usage,
        /// What the reservation could cost at most, micro-USD; 0 where the model had no price.
        #[serde(default, skip_serializing_if = "crate::message::is_zero")]
        pub reserved_micro_usd: u64,
        /// What was charged, micro-USD; 0 where the model had no price.
        #[serde(default, skip_serializing_if = "crate::message::is_zero")]
        pub cost_micro_usd: u64,
    }
}
