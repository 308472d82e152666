//! From the log back: the input behind each entry, and the fold.
//!
//! Folding needs `apply` alone, so old logs replay under new rules. Deciding the recovered inputs
//! again shows where today's rules would decide otherwise.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "each search is for one kind among all"
)]

use crate::{
    decide::decide,
    entry::{Cause, Entry},
    event::Event,
    ids::{Attempt, CallId, Seq, Timestamp},
    input::{Input, What},
    outcome::LookupAnswer,
    state::State,
};

mod inputs;

use inputs::{instances_of, what_of};

/// Why an entry does not say which input caused it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an entry caused by `{cause}` does not hold the event that tells its input")]
pub struct NoInput {
    cause: &'static str,
}

/// Where deciding again parts from the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Divergence {
    /// The entry.
    pub seq: Seq,
    /// What the log says.
    pub logged: Vec<Event>,
    /// What is decided now, or why it is refused.
    pub decided: Result<Vec<Event>, String>,
}

/// Folds entries, the first of them at seq 1.
#[must_use]
pub fn fold<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> State {
    let mut state = State::default();
    for (at, entry) in entries.into_iter().enumerate() {
        state.apply_entry(at as Seq + 1, entry);
    }
    state
}

/// Kinds of events that this version does not know and may not skip: a session that has one can be
/// read, but not driven, by this version.
pub fn newer_kinds(entry: &Entry) -> impl Iterator<Item = &str> {
    entry.events.iter().filter_map(|event| match event {
        Event::Unknown(unknown) if !unknown.is_ignorable() => Some(unknown.kind.as_str()),
        _ => None,
    })
}

/// Decides the input behind `entry` again, in the state before it.
///
/// # Errors
/// The divergence, where what is decided is not what was logged.
pub fn redecide(state: &State, at: Timestamp, entry: &Entry) -> Result<(), Box<Divergence>> {
    // Where an entry was copied to, its original was not a copy.
    let mut before = state.clone();
    before.copied &= !entry.copied;
    let decided = Input::from_entry(at, entry)
        .map_err(|e| e.to_string())
        .and_then(|input| decide(&before, input).map_err(|e| e.to_string()));
    if decided.as_ref() == Ok(&entry.events) {
        return Ok(());
    }
    Err(Box::new(Divergence {
        seq: state.seq + 1,
        logged: entry.events.clone(),
        decided,
    }))
}

impl Input {
    /// The input that caused `entry`, committed at `at`.
    ///
    /// # Errors
    /// [`NoInput`] where the entry was not written by `decide`.
    pub fn from_entry(at: Timestamp, entry: &Entry) -> Result<Self, NoInput> {
        let missing = || NoInput {
            cause: entry.cause.label(),
        };
        let what = what_of(entry).ok_or_else(missing)?;
        let instances = instances_of(entry);
        Ok(Self {
            at,
            what,
            instances,
        })
    }

    /// The cause that an entry of this input carries.
    #[must_use]
    pub fn cause(&self) -> Cause {
        match &self.what {
            What::Create(create) => Cause::Create(create.by.clone()),
            What::StartLoop(start) => Cause::StartLoop(start.by.clone()),
            What::SendMessage(message) => Cause::SendMessage {
                by: message.by.clone(),
                mode: message.mode,
                guard: message.guard,
            },
            What::CancelLoop { by, guard, .. } => Cause::CancelLoop {
                by: by.clone(),
                guard: *guard,
            },
            What::PauseLoop { by, guard } => Cause::PauseLoop {
                by: by.clone(),
                guard: *guard,
            },
            What::ResumeLoop { by, guard } => Cause::ResumeLoop {
                by: by.clone(),
                guard: *guard,
            },
            What::UpdateLimits { by, guard, .. } => Cause::UpdateLimits {
                by: by.clone(),
                guard: *guard,
            },
            What::ResolveApproval { by, guard, .. } => Cause::ResolveApproval {
                by: by.clone(),
                guard: *guard,
            },
            What::ResolveUnknown { by, guard, .. } => Cause::ResolveUnknown {
                by: by.clone(),
                guard: *guard,
            },
            What::Adopt { by, .. } => Cause::Adopt(by.clone()),
            What::Attach { .. } => Cause::Attach,
            What::Detach => Cause::Detach,
            What::ToolsChanged(_) => Cause::Tools,
            &What::ModelCompleted { call, attempt, .. } => ended_model(call, attempt, 0, None),
            &What::ModelFailed {
                call,
                attempt,
                ref failure,
                jitter,
            } => ended_model(call, attempt, jitter, failure.retry_after_ms),
            &What::ToolCompleted { call, attempt, .. } => ended_tool(call, attempt, 0, false, None),
            &What::ToolFailed {
                call,
                attempt,
                ref failure,
                jitter,
            } => ended_tool(
                call,
                attempt,
                jitter,
                failure.retryable,
                failure.retry_after_ms,
            ),
            What::LookedUp { call, answer } => Cause::Lookup {
                call: *call,
                not_known: not_known(answer),
            },
            what @ (What::BudgetGranted { .. }
            | What::BudgetWaits { .. }
            | What::BudgetRefused { .. }
            | What::BudgetSpent { .. }
            | What::BudgetSettled { .. }) => of_budgets(what).expect("the arm names its kinds"),
            &What::TimerFired(why) => Cause::Timer(why),
        }
    }
}

fn not_known(answer: &LookupAnswer) -> Option<String> {
    match answer {
        LookupAnswer::NotKnown(words) => Some(words.clone()),
        LookupAnswer::Completed(_) | LookupAnswer::NeverStarted => None,
    }
}

/// The cause that an answer of named budgets is written down as; `None` for any other input.
#[expect(clippy::wildcard_enum_match_arm, reason = "the caller names the kinds")]
fn of_budgets(what: &What) -> Option<Cause> {
    Some(match what {
        &What::BudgetGranted {
            call,
            attempt,
            max_output_tokens,
            tool_calls,
            left: _,
        } => Cause::BudgetGranted {
            call,
            attempt,
            max_output_tokens,
            tool_calls,
        },
        &What::BudgetWaits { call, attempt, .. } => Cause::BudgetWaits { call, attempt },
        &What::BudgetRefused { call, attempt, .. } => Cause::BudgetRefused { call, attempt },
        &What::BudgetSpent { call, attempt } => Cause::BudgetSpent { call, attempt },
        What::BudgetSettled {
            call,
            attempt,
            more,
            warnings: _,
        } => Cause::BudgetSettled {
            call: *call,
            attempt: *attempt,
            more: more.clone(),
        },
        _ => return None,
    })
}

fn ended_model(call: CallId, attempt: Attempt, jitter: u32, retry_after_ms: Option<u64>) -> Cause {
    Cause::Model {
        call,
        attempt,
        jitter,
        retry_after_ms,
    }
}

fn ended_tool(
    call: CallId,
    attempt: Attempt,
    jitter: u32,
    retryable: bool,
    retry_after_ms: Option<u64>,
) -> Cause {
    Cause::Tool {
        call,
        attempt,
        jitter,
        retryable,
        retry_after_ms,
    }
}

#[cfg(test)]
mod tests;
