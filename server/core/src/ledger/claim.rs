//! What a session's log knows of its reservations: whatever else is set aside for it is an orphan.

use std::collections::BTreeSet;

use super::HoldId;
use crate::{
    effect::{EffectKey, wanted},
    state::{ModelPhase, State},
};

/// The reservations that a session will settle or give back by itself, whatever the ledger knows of
/// them: those of its running model call, and those whose settlement the ledger has not taken yet.
#[must_use]
pub fn claims(state: &State) -> BTreeSet<HoldId> {
    let Some(head) = state.session.as_deref().filter(|_| !state.copied) else {
        return BTreeSet::new();
    };
    let of_effect = |key| match key {
        EffectKey::Model { call, attempt }
        | EffectKey::Reserve { call, attempt }
        | EffectKey::Settle { call, attempt } => Some((call, attempt)),
        EffectKey::Tool { .. } | EffectKey::Lookup { .. } | EffectKey::Timer { .. } => None,
    };
    let model = state.active.as_ref().and_then(|run| run.model.as_ref());
    // While a loop is paused its call is not wanted, and still its own.
    let of_call = model.filter(|model| !matches!(model.phase, ModelPhase::Backoff { .. }));
    let of_call = of_call.map(|model| (model.call, model.attempt));
    wanted(state)
        .into_iter()
        .filter_map(of_effect)
        .chain(of_call)
        .map(|(call, attempt)| HoldId::of_call(&head.session, head.born_at, call, attempt))
        .collect()
}
