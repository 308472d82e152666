//! How a loop is brought down softly: its model is told that it gets nowhere or that few steps are
//! left, and may make one last call out of what was held back, to conclude with what it has.

use std::sync::Arc;

use super::{Draft, budget, cancel, step};
use crate::{
    event::{MessageAdded, Nudge, Origin},
    ids::CallId,
    message::Part,
    outcome::{AbandonReason, EndReason},
};

/// Steps without anything new before the last one of them that the model is told so.
const STEPS_BEFORE: u32 = 4;
/// What the loop says to a model whose reply was cut.
pub(super) const CONTINUE: &str = "Your last reply was cut off at the output limit. Go on exactly where \
                                   it stopped, without repeating anything.";
/// How it is told that the end of its window cut its reply.
pub(super) const GO_ON: &str = "Your last reply was cut off at the end of the context window, and what \
                                was said before it is condensed now. Go on exactly where it stopped, \
                                without repeating anything.";
/// How it is told that it gets nowhere.
const NOTHING_NEW: &str = "Nothing new came of the last ";
/// What it is told to do when few steps are left.
const FEW_LEFT: &str = " left. Finish what matters most and conclude.";
/// What the last call is made with.
const CONCLUDE: &str = "The budget covers no further step: this is your last reply, and no tool can \
                        be called in it. Conclude with what you have.";

/// Why the loop may go no further on its own account: its steps are used up, or bring nothing new.
pub(super) fn stop(draft: &Draft) -> Option<EndReason> {
    let (active, limits) = (draft.state.active.as_ref()?, &draft.state.limits);
    if active.totals.steps >= limits.max_steps {
        let limit = limits.max_steps;
        return Some(EndReason::MaxSteps { limit });
    }
    let steps = active.progress.idle;
    let is_stuck = limits.no_progress.is_some_and(|limit| steps >= limit);
    // Who has something to say to the model may have the way out.
    let heard = draft.state.pending.iter().all(|message| message.nudge);
    (is_stuck && heard).then_some(EndReason::NoProgress { steps })
}

/// Tells the model, once each, that it gets nowhere and that few steps are left.
pub(super) fn remind(draft: &mut Draft) {
    let limits = Arc::clone(&draft.state.limits);
    let Some(active) = &draft.state.active else {
        return;
    };
    if active.landing.is_some() {
        return;
    }
    let (steps, idle) = (active.totals.steps, active.progress.idle);
    let left = limits.max_steps.saturating_sub(steps);
    let few = steps > 0 && left <= limits.wrapup_steps && !active.wrapped_up;
    if let Some(limit) = limits.no_progress.filter(|_| !active.progress.told)
        && idle >= limit.saturating_sub(STEPS_BEFORE).max(1)
    {
        let text = format!(
            "{NOTHING_NEW}{}: the same calls gave the same results. Try another way, \
             or conclude with what you have; {} more like that and the loop ends.",
            counted(idle),
            limit.saturating_sub(idle),
        );
        nudge(draft, Nudge::NoProgress, text);
    }
    if few {
        let text = format!(
            "Only {}{FEW_LEFT}",
            if left == 1 {
                "1 step is".to_owned()
            } else {
                format!("{left} steps are")
            }
        );
        nudge(draft, Nudge::Wrapup, text);
    }
}

/// The budget covers no further step: one last call is made out of what was held back, where
/// something was, else the loop ends. No tool call may be open, and no attempt of a model call.
pub(super) fn land(draft: &mut Draft, reason: EndReason) {
    let holds = draft.state.limits.final_call_tokens.is_some();
    let may = draft.state.active.as_ref().is_some_and(|active| {
        active.landing.is_none() && active.totals.steps < draft.state.limits.max_steps
    });
    let is_late = step::is_late(draft) || budget::out_of_time(draft).is_some();
    if !holds || !may || is_late {
        return step::end(draft, reason);
    }
    let conclude = MessageAdded {
        origin: Origin::Nudge,
        parts: Arc::new(vec![Part::Text(CONCLUDE.to_owned())]),
        nudge: Some(Nudge::Conclude(reason.clone())),
    };
    let mut after = draft.state.clone();
    after.apply(&conclude.clone().into());
    if let Some(active) = &mut after.active {
        // It is a call of its own, which every waiting message joins.
        active.model = None;
    }
    if after.own_grant().is_err() {
        return step::end(draft, reason);
    }
    // What is asked now is another question than the one that an attempt failed at.
    cancel::abandon_model(draft, AbandonReason::Interrupted);
    draft.emit(conclude);
    let call = CallId(draft.state.next_call);
    step::start_call(draft, call, 1);
}

/// Whether these are words of a loop's own to its model, which nobody needs to remember.
pub(crate) fn is_nudge(text: &str) -> bool {
    let known = [CONTINUE, GO_ON, CONCLUDE].contains(&text);
    known
        || text.starts_with(NOTHING_NEW)
        || (text.starts_with("Only ") && text.ends_with(FEW_LEFT))
}

fn nudge(draft: &mut Draft, nudge: Nudge, text: String) {
    draft.emit(MessageAdded {
        origin: Origin::Nudge,
        parts: Arc::new(vec![Part::Text(text)]),
        nudge: Some(nudge),
    });
}

fn counted(steps: u32) -> String {
    if steps == 1 {
        "step".to_owned()
    } else {
        format!("{steps} steps")
    }
}
