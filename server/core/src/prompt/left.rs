//! What a model is told of its budget: what is left of it when the call starts, of the loop's own, its
//! session's and those that it shares, whichever is tightest.
//!
//! It stands behind all that was said and in no log: it follows from the state at the licence of
//! the call, where shared budgets said what they have left, so that a replay says the same, and what
//! was said before it stays what a provider has cached.

use crate::{
    budget::{Amount, Dimension, Left, MARGIN_PER_MESSAGE},
    state::State,
};

/// The longest note, bytes: six dimensions of two numbers each, and words.
const MOST_BYTES: u64 = 512;

/// What the model of the running loop is told, where it is to be told and something is limited.
pub(super) fn note(state: &State) -> Option<String> {
    if !is_told(state) {
        return None;
    }
    let active = state.active.as_ref()?;
    let limits = &state.limits;
    let (gone, before) = (Amount::from(&active.totals), Amount::from(&state.totals));
    let left = Dimension::ALL.into_iter().filter_map(|dimension| {
        let words = words(dimension)?;
        let own = Left::of(&limits.budget, dimension, &gone);
        let session = Left::of(&limits.session_budget, dimension, &before);
        let shared = active.shared_left.iter().copied();
        let shared = shared.filter(|left| left.dimension == dimension);
        let known = own.into_iter().chain(session).chain(shared);
        let Left { left, limit, .. } = known.reduce(Left::tighter)?;
        Some(format!("{left} of {limit} {words}"))
    });
    let left: Vec<String> = left.collect();
    let left = left.join(", ");
    (!left.is_empty()).then(|| format!("[Left of your budget: {left}.]"))
}

/// The most tokens that a note takes.
pub(super) fn bound(state: &State) -> u64 {
    if is_told(state) {
        MOST_BYTES + MARGIN_PER_MESSAGE
    } else {
        0
    }
}

fn is_told(state: &State) -> bool {
    let limits = &state.limits;
    let own = [&limits.budget, &limits.session_budget];
    let limited = |d: Dimension| words(d).is_some() && own.iter().any(|of| of.of(d).is_some());
    let own = Dimension::ALL.into_iter().any(limited);
    limits.tell_budget && (own || !state.agent.budgets.is_empty())
}

/// A dimension as a model reads it; `None` for wall time, which the state cannot tell.
fn words(dimension: Dimension) -> Option<&'static str> {
    match dimension {
        Dimension::InputTokens => Some("input tokens"),
        Dimension::OutputTokens => Some("output tokens"),
        Dimension::TotalTokens => Some("tokens"),
        Dimension::CostMicroUsd => Some("micro-USD"),
        Dimension::ModelCalls => Some("model calls"),
        Dimension::ToolCalls => Some("tool calls"),
        Dimension::WallTimeMs => None,
    }
}
