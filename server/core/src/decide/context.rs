//! Room in the model's window: looked for before each call, made where it is short.

use std::sync::Arc;

use super::{Draft, control, recap, step};
use crate::{
    context::{
        CompactionTrigger, ContextTerms, Goal, MAX_USELESS, RecapAsk, RecapFallback, carry_out,
        room, to_drop,
    },
    event::ContextCompacted,
    outcome::EndReason,
};

/// Who writes the recap of a compaction.
enum By {
    /// A model, and this is what it wrote.
    Model(String),
    /// The rule; where a model was to, why it did not.
    Rule(Option<RecapFallback>),
}

/// Makes room for the next prompt where it is short of it; false where the call is not to be made now:
/// there is no room to be made, and the loop has ended, or a model writes a recap first.
pub(super) fn make_room(draft: &mut Draft) -> bool {
    let limits = Arc::clone(&draft.state.limits);
    let Some(terms) = &limits.context else {
        return true;
    };
    let ceiling = terms.ceiling(limits.max_output_tokens);
    let estimate = draft.state.prompt_estimate();
    let mut how = By::Rule(None);
    let trigger = if estimate > ceiling {
        CompactionTrigger::Ceiling
    } else if is_due(draft, terms) && estimate > terms.threshold() {
        match ask_model(draft, terms, ceiling) {
            Some(Ok(())) => return false,
            Some(Err(why)) => how = By::Rule(Some(why)),
            None => {}
        }
        CompactionTrigger::Threshold
    } else {
        return true;
    };
    let goal = goal(draft, terms.target(), ceiling);
    let dropped = to_drop(
        &draft.state.conversation.turns(),
        draft.state.recap.as_deref(),
        goal,
    );
    compact(draft, trigger, terms.target(), ceiling, dropped, how);
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

/// Compacts with the recap that a model has written.
pub(super) fn compact_by_model(draft: &mut Draft, ask: RecapAsk, text: String) {
    compact_as_asked(draft, ask, By::Model(text));
}

/// Compacts by the rule, where a model was to write the recap and did not.
pub(super) fn compact_by_rule(draft: &mut Draft, ask: RecapAsk, why: RecapFallback) {
    compact_as_asked(draft, ask, By::Rule(Some(why)));
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
    let turns = draft.state.conversation.turns();
    let dropped = to_drop(
        &turns,
        draft.state.recap.as_deref(),
        goal(draft, target, target),
    );
    let trigger = CompactionTrigger::Provider;
    compact(draft, trigger, target, target, dropped, By::Rule(None))
}

/// Whether it is the step of a regular check, and checks have been of use.
fn is_due(draft: &Draft, terms: &ContextTerms) -> bool {
    let Some(active) = &draft.state.active else {
        return false;
    };
    // Of the session: a loop of few steps has its turn too.
    let steps = draft.state.totals.steps;
    let is_check = steps > 0 && steps.is_multiple_of(terms.check_every.max(1));
    is_check && active.compacted_at != Some(steps) && draft.state.useless < MAX_USELESS
}

/// Has a model write the recap, where one is to and turns would go; why it does not.
fn ask_model(
    draft: &mut Draft,
    terms: &ContextTerms,
    ceiling: u64,
) -> Option<Result<(), RecapFallback>> {
    terms.recap_by_model.as_ref()?;
    let goal = goal(draft, terms.target(), ceiling);
    let turns = draft.state.conversation.turns();
    let dropped = to_drop(&turns, draft.state.recap.as_deref(), goal);
    let ask = RecapAsk {
        dropped: u32::try_from(dropped).unwrap_or(u32::MAX),
        room: room(goal),
    };
    let active = draft.state.active.as_ref();
    if active.is_some_and(|active| active.landing.is_some()) {
        // What is left is for the last call.
        return (dropped > 0).then_some(Err(RecapFallback::Budget));
    }
    (dropped > 0).then(|| recap::start(draft, ask))
}

fn compact_as_asked(draft: &mut Draft, ask: RecapAsk, how: By) {
    let limits = Arc::clone(&draft.state.limits);
    let Some(terms) = &limits.context else {
        return;
    };
    let ceiling = terms.ceiling(limits.max_output_tokens);
    let (trigger, dropped) = (CompactionTrigger::Threshold, ask.dropped as usize);
    compact(draft, trigger, terms.target(), ceiling, dropped, how);
}

/// What is to be reached, in bytes of the conversation: what stands beside it in the prompt is none of it.
fn goal(draft: &Draft, target: u64, ceiling: u64) -> Goal {
    let state = &draft.state;
    let ratio = state.ratio();
    let beside = state.fixed_bytes().saturating_add(state.waiting_bytes());
    let room = |tokens| ratio.bytes_of(tokens).saturating_sub(beside);
    let terms = state.limits.context.as_ref();
    Goal {
        target: room(target.min(ceiling)),
        ceiling: room(ceiling),
        min_recent: terms.map_or(0, |terms| terms.min_recent_messages) as usize,
        reads_output: state.tools.reads_output(),
    }
}

fn compact(
    draft: &mut Draft,
    trigger: CompactionTrigger,
    target: u64,
    ceiling: u64,
    dropped: usize,
    how: By,
) -> bool {
    let state = &draft.state;
    let (ratio, tokens_before) = (state.ratio(), state.prompt_estimate());
    let beside = state.fixed_bytes().saturating_add(state.waiting_bytes());
    let turns = state.conversation.turns();
    let (written, fallback) = match how {
        By::Model(text) => (Some(text), None),
        By::Rule(why) => (None, why),
    };
    let by_model = written.is_some();
    let goal = goal(draft, target, ceiling);
    let Some(plan) = carry_out(&turns, state.recap.as_deref(), goal, dropped, written) else {
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
        by_model,
        fallback,
    });
    true
}
