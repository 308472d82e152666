//! Kinds of events as a set, for filters: one bit each, so that a filter costs one instruction.

use loopwright_proto::v1::event;

use super::fields::{Violations, shown};

/// A set of event kinds, a bit each in the order of [`KIND_NAMES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KindSet(pub u64);

macro_rules! kinds {
    ($($variant:ident = $name:literal,)+) => {
        /// The names of the fields of `Event.kind`, in the order of their numbers.
        pub const KIND_NAMES: &[&str] = &[$($name),+];

        #[derive(Clone, Copy)]
        enum Bit { $($variant),+ }

        impl KindSet {
            /// The one kind of this event.
            #[must_use]
            pub fn of(kind: &event::Kind) -> Self {
                Self(1 << match kind { $(event::Kind::$variant(_) => Bit::$variant as u32),+ })
            }
        }
    };
}

kinds! {
    SessionCreated = "session_created",
    SessionForked = "session_forked",
    DriverAttached = "driver_attached",
    DriverDetached = "driver_detached",
    MessageAdded = "message_added",
    LoopStarted = "loop_started",
    ModelCallReserving = "model_call_reserving",
    ModelCallStarted = "model_call_started",
    ModelCallCompleted = "model_call_completed",
    ModelCallFailed = "model_call_failed",
    ModelCallAbandoned = "model_call_abandoned",
    ToolCallRequested = "tool_call_requested",
    ToolCallRejected = "tool_call_rejected",
    ApprovalRequested = "approval_requested",
    ApprovalResolved = "approval_resolved",
    ToolCallStarted = "tool_call_started",
    ToolCallCompleted = "tool_call_completed",
    ToolCallFailed = "tool_call_failed",
    ToolCallInDoubt = "tool_call_in_doubt",
    ToolCallUnknown = "tool_call_unknown",
    UnknownResolved = "unknown_resolved",
    ToolCallResultLate = "tool_call_result_late",
    ToolCallCancelled = "tool_call_cancelled",
    ToolsChanged = "tools_changed",
    BudgetReserved = "budget_reserved",
    BudgetSettled = "budget_settled",
    BudgetWarning = "budget_warning",
    BudgetOverrun = "budget_overrun",
    LimitsUpdated = "limits_updated",
    ContextCompacted = "context_compacted",
    LoopPaused = "loop_paused",
    LoopResumed = "loop_resumed",
    LogRecovered = "log_recovered",
    LoopEnded = "loop_ended",
    SessionImported = "session_imported",
}

impl KindSet {
    /// Every kind, those of later versions included.
    pub const ALL: Self = Self(u64::MAX);
    /// No kind.
    pub const NONE: Self = Self(0);
    /// The end of a loop.
    pub const LOOP_ENDED: Self = Self(1 << Bit::LoopEnded as u32);

    /// Whether an entry with these kinds passes the filter.
    #[must_use]
    pub fn wants(self, kinds: Self) -> bool {
        self == Self::ALL || self.0 & kinds.0 != 0
    }

    /// Both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A filter by kinds; none named = all.
pub fn filter(names: &[String], all: &mut Violations) -> KindSet {
    if names.is_empty() {
        return KindSet::ALL;
    }
    let mut set = 0;
    for name in names {
        match KIND_NAMES.iter().position(|known| known == name) {
            Some(bit) => set |= 1 << bit,
            None => all.add(
                "kinds",
                format!(
                    "{} is no kind of event; they are named as the fields of Event.kind, such as \
                     \"loop_ended\"",
                    shown(name)
                ),
            ),
        }
    }
    KindSet(set)
}
