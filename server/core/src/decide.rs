//! What follows from an input: one match, one file per family of inputs.
//!
//! A decision of several events is made on a draft: each event is applied to a copy of the state as
//! it is decided, so that the next rule sees what the last one did. The copy shares all content.

use crate::{
    event::Event,
    ids::Timestamp,
    input::{Input, Instances, What},
    rejection::Rejection,
    state::State,
};

mod adopt;
mod approval;
mod attach;
mod budget;
mod cancel;
mod context;
mod control;
mod landing;
mod message;
mod model;
mod recap;
mod step;
mod timer;
mod tool;
mod unknown;

pub(crate) use landing::is_nudge;

/// The events that `input` causes in `state`; none where it is stale or already answered.
///
/// # Errors
/// A [`Rejection`] where a command or an attach is refused. Outcomes and timers are refused only in
/// an unfinished copy, where there are none.
pub fn decide(state: &State, input: Input) -> Result<Vec<Event>, Rejection> {
    if state.copied && !matches!(input.what, What::Adopt { .. }) {
        return Err(Rejection::Unfinished);
    }
    let mut draft = Draft {
        at: input.at,
        instances: input.instances,
        state: state.clone(),
        events: Vec::new(),
    };
    match input.what {
        What::Create(create) => message::create(&mut draft, create)?,
        What::StartLoop(start) => message::start_loop(&mut draft, start)?,
        What::SendMessage(message) => message::send(&mut draft, message)?,
        What::CancelLoop { by, guard, reason } => cancel::cancel(&mut draft, by, guard, reason)?,
        What::PauseLoop { by, guard } => control::pause(&mut draft, by, guard)?,
        What::ResumeLoop { by, guard } => control::resume(&mut draft, by, guard)?,
        What::UpdateLimits { by, guard, change } => {
            control::update_limits(&mut draft, by, guard, &change)?;
        }
        What::ResolveApproval {
            by,
            guard,
            call,
            allow,
            reason,
        } => approval::resolve(&mut draft, by, guard, call, allow, reason)?,
        What::ResolveUnknown {
            by,
            guard,
            call,
            resolution,
            output,
            reason,
        } => {
            let resolved = unknown::Resolved {
                resolution,
                output,
                reason,
            };
            unknown::resolve(&mut draft, by, guard, call, resolved)?;
        }
        What::Adopt {
            by,
            session,
            namespace,
            origin,
        } => adopt::adopt(&mut draft, by, session, namespace, origin)?,
        What::Attach {
            epoch,
            cut_bytes,
            server,
        } => attach::attach(&mut draft, epoch, cut_bytes, server)?,
        What::Detach => attach::detach(&mut draft),
        What::ToolsChanged(tools) => attach::tools_changed(&mut draft, tools),
        what @ (What::ModelCompleted { .. }
        | What::ModelFailed { .. }
        | What::ToolCompleted { .. }
        | What::ToolFailed { .. }
        | What::LookedUp { .. }
        | What::BudgetGranted { .. }
        | What::BudgetWaits { .. }
        | What::BudgetRefused { .. }
        | What::BudgetSpent { .. }
        | What::BudgetSettled { .. }) => outcome(&mut draft, what),
        What::TimerFired(why) => timer::fired(&mut draft, why),
    }
    Ok(draft.events)
}

/// What follows from the end of an effect.
fn outcome(draft: &mut Draft, what: What) {
    match what {
        What::ModelCompleted {
            call,
            attempt,
            reply,
        } => {
            model::completed(draft, call, attempt, reply);
        }
        What::ModelFailed {
            call,
            attempt,
            failure,
            jitter,
        } => {
            model::failed(draft, call, attempt, failure, jitter);
        }
        What::ToolCompleted {
            call,
            attempt,
            output,
        } => {
            tool::completed(draft, call, attempt, output);
        }
        What::ToolFailed {
            call,
            attempt,
            failure,
            jitter,
        } => {
            tool::failed(draft, call, attempt, failure, jitter);
        }
        What::LookedUp { call, answer } => unknown::looked_up(draft, call, answer),
        what @ (What::BudgetGranted { .. }
        | What::BudgetWaits { .. }
        | What::BudgetRefused { .. }
        | What::BudgetSpent { .. }
        | What::BudgetSettled { .. }) => budget::answered(draft, what),
        What::Create(_)
        | What::StartLoop(_)
        | What::SendMessage(_)
        | What::CancelLoop { .. }
        | What::PauseLoop { .. }
        | What::ResumeLoop { .. }
        | What::UpdateLimits { .. }
        | What::ResolveApproval { .. }
        | What::ResolveUnknown { .. }
        | What::Adopt { .. }
        | What::Attach { .. }
        | What::Detach
        | What::ToolsChanged(_)
        | What::TimerFired(_) => {}
    }
}

/// A decision in the making.
struct Draft {
    at: Timestamp,
    instances: Instances,
    state: State,
    events: Vec<Event>,
}

impl Draft {
    fn emit(&mut self, event: impl Into<Event>) {
        let event = event.into();
        self.state.apply(&event);
        self.events.push(event);
    }

    /// Whether this request was answered already, so that nothing is to be decided again.
    fn is_answered(&self, request_id: &str) -> bool {
        !request_id.is_empty() && self.state.answer(request_id).is_some()
    }
}

#[cfg(test)]
mod tests;
