//! What the state wants done outside: keys only. The payload is rendered when an effect starts.

use std::collections::BTreeSet;

use crate::{
    ids::{Attempt, CallId, Timestamp},
    input::TimerWhy,
    state::{ModelPhase, State, ToolCall, ToolPhase},
};

/// One effect: small, `Copy`, ordered. Two effects with one key are the same effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EffectKey {
    /// Call the model.
    Model {
        /// The call.
        call: CallId,
        /// Its attempt.
        attempt: Attempt,
    },
    /// Dispatch the tool.
    Tool {
        /// The call.
        call: CallId,
        /// Its attempt.
        attempt: Attempt,
    },
    /// Ask the sidecar what became of a call.
    Lookup {
        /// The call.
        call: CallId,
    },
    /// Settle on named budgets; before what is reserved next, which what it gives back is for.
    Settle {
        /// The call.
        call: CallId,
        /// Its attempt.
        attempt: Attempt,
    },
    /// Reserve on named budgets.
    Reserve {
        /// The call.
        call: CallId,
        /// Its attempt.
        attempt: Attempt,
    },
    /// Wait.
    Timer {
        /// Until then.
        at: Timestamp,
        /// What for.
        why: TimerWhy,
    },
}

impl EffectKey {
    /// Whether it only waits: a driver that wants nothing else may detach.
    #[must_use]
    pub fn is_timer(&self) -> bool {
        matches!(self, Self::Timer { .. })
    }
}

/// What `state` wants to be running, all of it: whatever else runs is to be aborted.
#[must_use]
pub fn wanted(state: &State) -> BTreeSet<EffectKey> {
    if state.copied {
        return BTreeSet::new();
    }
    let mut keys: BTreeSet<EffectKey> = state
        .settling
        .keys()
        .map(|&(call, attempt)| EffectKey::Settle { call, attempt })
        .collect();
    let Some(active) = &state.active else {
        return keys;
    };
    if let Some(at) = active.deadline_at {
        keys.insert(EffectKey::Timer {
            at,
            why: TimerWhy::Deadline(active.id),
        });
    }
    for (at, why) in [
        (state.time_ends_at(), TimerWhy::WallTime(active.id)),
        (state.time_warns_at(), TimerWhy::WallTimeNear(active.id)),
    ] {
        keys.extend(at.map(|at| EffectKey::Timer { at, why }));
    }
    if let (Some(asked_at), Some(millis), true) = (
        active.asked_at,
        state.limits.idle_timeout_ms,
        active.waits_for_person(),
    ) {
        keys.insert(EffectKey::Timer {
            at: asked_at.plus(millis),
            why: TimerWhy::Idle(active.id),
        });
    }
    let rests = active.rests();
    if let Some(model) = &active.model {
        let (call, attempt) = (model.call, model.attempt);
        keys.extend(match model.phase {
            ModelPhase::Reserving if !rests => Some(EffectKey::Reserve { call, attempt }),
            ModelPhase::Running { .. } => Some(EffectKey::Model { call, attempt }),
            ModelPhase::Backoff { until } if !rests => Some(EffectKey::Timer {
                at: until,
                why: TimerWhy::RetryModel(call),
            }),
            ModelPhase::Reserving | ModelPhase::Backoff { .. } | ModelPhase::Abandoned => None,
        });
    }
    keys.extend(active.tools.iter().filter_map(|tool| of_tool(tool, rests)));
    keys
}

/// What a tool call wants. What runs is left to end while its loop rests, and nothing is made again.
fn of_tool(tool: &ToolCall, rests: bool) -> Option<EffectKey> {
    let (call, attempt) = (tool.call, tool.attempt);
    match tool.phase {
        ToolPhase::Running => Some(EffectKey::Tool { call, attempt }),
        ToolPhase::InDoubt { .. } => Some(EffectKey::Lookup { call }),
        ToolPhase::Backoff { until } if !rests => Some(EffectKey::Timer {
            at: until,
            why: TimerWhy::RetryTool(call),
        }),
        ToolPhase::Held { until, .. } => until.map(|at| EffectKey::Timer {
            at,
            why: TimerWhy::Approval(call),
        }),
        ToolPhase::Backoff { .. }
        | ToolPhase::Asking
        | ToolPhase::Waiting
        | ToolPhase::Ended(_) => None,
    }
}
