//! Recaps that a model writes: one a step at most, none repeated but for a lost driver, each followed by
//! its compaction, and told as it was written.

use loopwright_core::{
    Cause, Entry, Event, State, context::CompactionTrigger, event::ContextCompacted, ids::CallId,
    message::text_of, outcome::AbandonReason,
};

use super::{Violation, check};

#[derive(Default)]
pub(super) struct Recaps {
    /// The call that is under way or ended last.
    call: Option<CallId>,
    /// Its driver was lost: it may be made once more, now or when the loop goes on.
    lost: bool,
    /// Recaps asked for since the last step began.
    since_step: u32,
    steps: u32,
}

impl Recaps {
    pub(super) fn entry(&mut self, entry: &Entry, after: &State) -> Result<(), Violation> {
        let mut ended = false;
        for event in &entry.events {
            #[expect(clippy::wildcard_enum_match_arm, reason = "the rest is no recap")]
            match event {
                Event::LoopStarted(_) => (self.since_step, self.steps) = (0, 0),
                Event::ModelCallReserving(e) if e.recap.is_some() => {
                    self.asked(e.call, e.attempt, entry)?;
                }
                Event::ModelCallStarted(e) if e.recap.is_some() => {
                    self.asked(e.call, e.attempt, entry)?;
                }
                Event::ModelCallStarted(e) if e.attempt == 1 => {
                    self.since_step = 0;
                    self.steps += 1;
                }
                // It is asked for once more when the loop goes on.
                Event::ModelCallAbandoned(e)
                    if Some(e.call) == self.call && e.reason == AbandonReason::Paused =>
                {
                    self.since_step = 0;
                }
                Event::ModelCallAbandoned(e) if Some(e.call) == self.call => {
                    self.lost = e.reason == AbandonReason::DriverLost;
                }
                Event::ModelCallCompleted(e) if e.recap => ended = true,
                Event::ModelCallFailed(e) if Some(e.call) == self.call => {
                    ended = true;
                    check(e.retry_at.is_none(), "recap_once", || {
                        format!("recap {} is tried again", e.call)
                    })?;
                }
                Event::ContextCompacted(e) => {
                    compacted(e, entry, after)?;
                    ended = false;
                }
                Event::LoopEnded(e) => {
                    ended = false;
                    check(e.totals.steps == self.steps, "steps_told", || {
                        format!("{} steps are told of {}", e.totals.steps, self.steps)
                    })?;
                }
                _ => {}
            }
        }
        check(!ended, "recap_compacts", || {
            format!("recap {:?} ended, and nothing was compacted", self.call)
        })
    }

    fn asked(&mut self, call: CallId, attempt: u32, entry: &Entry) -> Result<(), Violation> {
        if self.call == Some(call) {
            let granted = matches!(entry.cause, Cause::BudgetGranted { .. });
            return check(attempt == 1 || self.lost || granted, "recap_once", || {
                format!("recap {call} is tried again by {}", entry.cause.label())
            });
        }
        (self.call, self.lost) = (Some(call), false);
        self.since_step += 1;
        check(self.since_step == 1, "recap_once", || {
            format!("{call} is the second recap before a step")
        })
    }
}

fn compacted(e: &ContextCompacted, entry: &Entry, after: &State) -> Result<(), Violation> {
    let text = entry.events.iter().find_map(|event| {
        if let Event::ModelCallCompleted(reply) = event {
            return reply.recap.then(|| text_of(&reply.parts).trim().to_owned());
        }
        None
    });
    let told = e.recap.as_ref().and_then(|recap| recap.written.clone());
    if e.by_model {
        return check(told.is_some() && told == text, "recap_as_written", || {
            format!("{told:?} is told, {text:?} was written")
        });
    }
    let terms = after.limits.context.as_ref();
    let model = terms.is_some_and(|terms| terms.recap_by_model.is_some());
    let asked = model && e.trigger == CompactionTrigger::Threshold && e.dropped > 0;
    check(asked == e.fallback.is_some(), "recap_fallback", || {
        format!("{:?} is why the rule holds, of {:?}", e.fallback, e.trigger)
    })
}
