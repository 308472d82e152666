//! Room in the model's window: looked for before each call, made where it is short.

use std::sync::Arc;

use super::{Draft, control, step};
use crate::{
    context::{CompactionTrigger, ContextTerms, Goal, MAX_USELESS, plan},
    event::ContextCompacted,
    outcome::EndReason,
};

/// Makes room for the next prompt where it is short of it; false where there is none to be made, and
/// the loop has ended.
pub(super) fn make_room(draft: &mut Draft) -> bool {
    let limits = Arc::clone(&draft.state.limits);
    let Some(terms) = &limits.context else {
        return true;
    };
    let ceiling = terms.ceiling(limits.max_output_tokens);
    let estimate = draft.state.prompt_estimate();
    let trigger = if estimate > ceiling {
        CompactionTrigger::Ceiling
    } else if is_due(draft, terms) && estimate > terms.threshold() {
        CompactionTrigger::Threshold
    } else {
        return true;
    };
    compact(draft, trigger, terms.target(), ceiling);
    let fits = draft.state.prompt_estimate() <= ceiling;
    if !fits {
        // Of two reasons, the one that a person can do something about comes first.
        match draft.state.own_grant() {
            Err(reason) if control::waits(draft, &reason) => {}
            Err(reason) => step::end(draft, reason),
            Ok(_) => step::end(draft, exhausted(draft)),
        }
    }
    fits
}

/// How a loop ends whose conversation does not fit: what it is estimated at, and what fits.
pub(super) fn exhausted(draft: &Draft) -> EndReason {
    let limits = &draft.state.limits;
    let terms = limits.context.as_ref();
    EndReason::ContextExhausted {
        tokens: draft.state.prompt_estimate(),
        limit: terms.map_or(0, |terms| terms.ceiling(limits.max_output_tokens)),
    }
}

/// The provider counts otherwise than we do: makes the prompt much smaller, once a call. Whether it did.
pub(super) fn make_more_room(draft: &mut Draft) -> bool {
    let limits = Arc::clone(&draft.state.limits);
    let Some(terms) = &limits.context else {
        return false;
    };
    let half = draft.state.prompt_estimate() / 2;
    let target = terms.target().min(half);
    compact(draft, CompactionTrigger::Provider, target, target)
}

/// Whether it is the step of a regular check, and checks have been of use.
fn is_due(draft: &Draft, terms: &ContextTerms) -> bool {
    let steps = draft
        .state
        .active
        .as_ref()
        .map_or(0, |active| active.totals.steps);
    steps > 0 && steps.is_multiple_of(terms.check_every.max(1)) && draft.state.useless < MAX_USELESS
}

fn compact(draft: &mut Draft, trigger: CompactionTrigger, target: u64, ceiling: u64) -> bool {
    let state = &draft.state;
    let (ratio, tokens_before) = (state.ratio(), state.prompt_estimate());
    let beside = state.fixed_bytes().saturating_add(state.waiting_bytes());
    let room = |tokens| ratio.bytes_of(tokens).saturating_sub(beside);
    let recent = state
        .limits
        .context
        .as_ref()
        .map_or(0, |terms| terms.min_recent_messages);
    let goal = Goal {
        target: room(target.min(ceiling)),
        ceiling: room(ceiling),
        min_recent: recent as usize,
    };
    let turns = state.conversation.turns();
    let Some(plan) = plan(&turns, state.recap.as_deref(), goal) else {
        return false;
    };
    // An older recap is of an entry that came after those that it stands for.
    let first = usize::from(state.recap.is_some());
    let touched = if plan.dropped > 0 {
        plan.dropped
    } else {
        turns.len()
    };
    let entries = state
        .conversation
        .entries_of(first, touched.saturating_sub(1));
    let (from_seq, through_seq) = entries.unwrap_or_default();
    let tokens_after = ratio.tokens_of(plan.bytes.saturating_add(beside));
    draft.emit(ContextCompacted {
        trigger,
        dropped: u32::try_from(plan.dropped).unwrap_or(u32::MAX),
        from_seq,
        through_seq,
        tokens_before,
        tokens_after,
        target_met: tokens_after <= target,
        recap: plan.recap.map(Arc::new),
        shortened: plan.shortened,
    });
    true
}
