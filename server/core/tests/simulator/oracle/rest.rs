//! Pauses: nothing starts while a loop rests, and it rests until the one whom it waits for lets it
//! go on. Limits are in force as they were moved.

use loopwright_core::{
    Cause, Entry, Event, State,
    budget::{LOOP_BUDGET, SESSION_BUDGET},
    event::{LoopPaused, LoopResumed, Nudge},
    ledger::OnExhausted,
    outcome::{EndReason, WaitsFor},
};

use super::{Violation, check};

#[derive(Default)]
pub(super) struct Rest {
    waits_for: Option<WaitsFor>,
    /// Whether the loop makes its last call, after which it ends whatever its limits become.
    concludes: bool,
}

impl Rest {
    pub(super) fn rests(&self) -> bool {
        match self.waits_for {
            Some(WaitsFor::Client { .. } | WaitsFor::Limit { .. }) => true,
            Some(WaitsFor::Budget { .. }) | None => false,
        }
    }

    pub(super) fn event(
        &mut self,
        entry: &Entry,
        event: &Event,
        after: &State,
    ) -> Result<(), Violation> {
        #[expect(clippy::wildcard_enum_match_arm, reason = "the rest starts nothing")]
        match event {
            Event::LoopPaused(e) => self.paused(entry, e, after),
            Event::LoopResumed(e) => self.resumed(entry, e),
            Event::LoopEnded(e) => {
                self.waits_for = None;
                let concluded = std::mem::take(&mut self.concludes);
                let own = matches!(&e.reason, EndReason::BudgetExceeded { budget, .. }
                    if [LOOP_BUDGET, SESSION_BUDGET].contains(&budget.as_str()));
                let waits = after.limits.on_exhausted == OnExhausted::Pause;
                check(!own || !waits || concluded, "waits_at_its_limit", || {
                    format!("{:?} ends a loop that should wait", e.reason)
                })
            }
            Event::MessageAdded(e) => {
                self.concludes |= matches!(e.nudge, Some(Nudge::Conclude(_)));
                Ok(())
            }
            Event::ModelCallReserving(_)
            | Event::ModelCallStarted(_)
            | Event::ToolCallStarted(_) => check(!self.rests(), "nothing_starts", || {
                format!("{event:?} while it waits for {:?}", self.waits_for)
            }),
            Event::LimitsUpdated(e) => check(after.limits == e.limits, "limits_kept", || {
                format!("{:?} are in force, not {:?}", after.limits, e.limits)
            }),
            _ => Ok(()),
        }
    }

    fn paused(&mut self, entry: &Entry, e: &LoopPaused, after: &State) -> Result<(), Violation> {
        let before = self.waits_for.replace(e.waits_for.clone());
        let sound = match &e.waits_for {
            WaitsFor::Client { by } => {
                let asked = matches!(&entry.cause, Cause::PauseLoop { by: who, .. } if who.principal == *by);
                let goes_on = |e: &Event| matches!(e, Event::LoopStarted(_));
                asked || entry.events.iter().any(goes_on)
            }
            WaitsFor::Limit { .. } => after.limits.on_exhausted == OnExhausted::Pause,
            WaitsFor::Budget { .. } => matches!(entry.cause, Cause::BudgetWaits { .. }),
        };
        check(
            sound && before.as_ref() != Some(&e.waits_for),
            "paused",
            || format!("{e:?} by {:?} after {before:?}", entry.cause),
        )
    }

    fn resumed(&mut self, entry: &Entry, e: &LoopResumed) -> Result<(), Violation> {
        let waited = self.waits_for.take();
        let sound = match (&waited, &entry.cause) {
            (
                Some(WaitsFor::Client { .. } | WaitsFor::Limit { .. }),
                Cause::ResumeLoop { by, .. },
            ) => e.by == by.principal,
            (Some(WaitsFor::Limit { .. }), Cause::UpdateLimits { .. })
            | (Some(WaitsFor::Budget { .. }), Cause::BudgetGranted { .. }) => e.by.is_empty(),
            _ => false,
        };
        check(sound, "resumed", || {
            format!("{e:?} by {:?} after {waited:?}", entry.cause)
        })
    }
}
