//! The time that a loop runs, as its own and its session's budget count it: from its start, without
//! the time for which it was paused.
//!
//! Boundary: instants that records told in, milliseconds out; who asks says what time it is. Invariant:
//! where the timer of a budget is due, its time is up, and no sooner as long as anything is left of it.

use crate::{
    agent::{BudgetLimits, Limits},
    budget::{Dimension, LOOP_BUDGET, SESSION_BUDGET, Shortfall, Warned},
    ids::Timestamp,
    state::{LoopRun, State},
};

impl LoopRun {
    /// How long it has run at `at`, milliseconds. While it is paused that stands still.
    #[must_use]
    pub fn ran_ms(&self, at: Timestamp) -> u64 {
        let until = self.paused_at.unwrap_or(at);
        until.since(self.started_at).saturating_sub(self.paused_ms)
    }

    /// How long it ran by the last instant that its state tells of, milliseconds: a copy does not run on.
    pub(super) fn known_ms(&self) -> u64 {
        let tools = self.tools.iter().filter_map(|tool| tool.first_at);
        let model = self.model.as_ref().and_then(|model| model.first_at);
        let last = tools.chain(model).chain(self.asked_at).max();
        self.ran_ms(last.unwrap_or(self.started_at))
    }

    /// When it will have run for so long, if nothing pauses it.
    fn has_run_at(&self, millis: u64) -> Timestamp {
        self.started_at.plus(self.paused_ms).plus(millis)
    }

    /// Somebody or something pauses it, or says anew what it waits for. Of versions that did not say
    /// when, the pause counts as time that it ran.
    pub(super) fn stops(&mut self, at: Timestamp) {
        if self.paused_at.is_none() && !at.is_unknown() {
            self.paused_at = Some(at);
        }
    }

    /// It goes on.
    pub(super) fn goes_on(&mut self, at: Timestamp) {
        if let Some(since) = self.paused_at.take() {
            self.paused_ms = self.paused_ms.saturating_add(at.since(since));
        }
    }
}

impl State {
    /// Why the loop's own budget or its session's allows no further time at `at`; none where they do,
    /// and where the loop rests: what it waits for is known.
    #[must_use]
    pub fn time_shortfall(&self, at: Timestamp) -> Option<(&'static str, Shortfall)> {
        let active = self.active.as_ref().filter(|active| !active.rests())?;
        self.books_of_time(active).into_iter().find_map(|book| {
            let used = book.before.saturating_add(active.ran_ms(at));
            let limit = book.limit.filter(|&limit| used >= limit)?;
            let short = Shortfall {
                dimension: Dimension::WallTimeMs,
                limit,
                used,
                requested: 1,
            };
            Some((book.budget, short))
        })
    }

    /// When the time of the running loop is up by its own budget or its session's.
    pub(crate) fn time_ends_at(&self) -> Option<Timestamp> {
        let active = self.active.as_ref().filter(|a| a.paused.is_none())?;
        let ends = self.books_of_time(active).into_iter().filter_map(|book| {
            let left = book.limit?.saturating_sub(book.before);
            Some(active.has_run_at(left))
        });
        ends.min()
    }

    /// When one of those limits is to be warned of that was not.
    pub(crate) fn time_warns_at(&self) -> Option<Timestamp> {
        let active = self.active.as_ref().filter(|a| a.paused.is_none())?;
        let share = warn_share(&self.limits)?;
        let warns = self.books_of_time(active).into_iter().filter_map(|book| {
            let told = book.warned.has(Dimension::WallTimeMs);
            let limit = book.limit.filter(|&limit| !told && limit > 0)?;
            let near = u128::from(limit).saturating_mul(share).div_ceil(1_000);
            let near = u64::try_from(near).unwrap_or(u64::MAX);
            Some(active.has_run_at(near.saturating_sub(book.before)))
        });
        warns.min()
    }

    fn books_of_time(&self, active: &LoopRun) -> [Book; 2] {
        let limit = |limits: &BudgetLimits| limits.of(Dimension::WallTimeMs);
        let loops = Book {
            budget: LOOP_BUDGET,
            limit: limit(&self.limits.budget),
            before: 0,
            warned: active.warned,
        };
        let session = Book {
            budget: SESSION_BUDGET,
            limit: limit(&self.limits.session_budget),
            before: self.totals.wall_ms,
            warned: self.warned,
        };
        [loops, session]
    }
}

/// One budget's limit on time.
struct Book {
    budget: &'static str,
    limit: Option<u64>,
    /// What of it was used before the running loop began, milliseconds.
    before: u64,
    warned: Warned,
}

/// The share of a limit that is warned of, in thousandths; none where no limit is.
fn warn_share(limits: &Limits) -> Option<u128> {
    Some(limits.warn_permille.into()).filter(|&share| share > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::LoopStarted;

    fn running(limits: Limits, before: u64) -> State {
        let mut state = State {
            limits: std::sync::Arc::new(limits),
            ..State::default()
        };
        state.totals.wall_ms = before;
        let started = LoopStarted {
            id: crate::ids::LoopId(1),
            at: Timestamp(1_000),
            traceparent: None,
            agent: None,
            limits: None,
        };
        state.apply(&started.into());
        state
    }

    fn timed(own: Option<u64>, session: Option<u64>, warn_permille: u32) -> Limits {
        let time = |wall_ms| BudgetLimits {
            wall_ms,
            ..BudgetLimits::default()
        };
        Limits {
            budget: time(own),
            session_budget: time(session),
            warn_permille,
            ..Limits::default()
        }
    }

    #[test]
    fn a_timer_is_due_exactly_when_time_is_up() {
        for (own, session, before) in [
            (Some(50), None, 0),
            (Some(0), None, 7),
            (None, Some(60), 20),
            (None, Some(60), 90),
            (Some(50), Some(60), 20),
            (Some(u64::MAX), None, 0),
        ] {
            let mut state = running(timed(own, session, 0), before);
            if let Some(active) = &mut state.active {
                active.paused_ms = 13;
            }
            let due = state.time_ends_at().expect("a limit is set");
            for at in 990..1_200 {
                let at = Timestamp(at);
                let is_up = state.time_shortfall(at).is_some();
                let nothing_left = due == Timestamp(1_013);
                assert_eq!(
                    is_up,
                    nothing_left || at >= due,
                    "{own:?} {session:?} {before} {at:?}"
                );
            }
        }
        assert_eq!(running(timed(None, None, 800), 9).time_ends_at(), None);
    }

    #[test]
    fn a_warning_is_due_at_its_share_and_once() {
        let mut state = running(timed(Some(99), Some(1_000), 800), 0);
        assert_eq!(state.time_warns_at(), Some(Timestamp(1_080)), "of 79.2");
        if let Some(active) = &mut state.active {
            active.warned = active.warned.with(Dimension::WallTimeMs);
        }
        assert_eq!(state.time_warns_at(), Some(Timestamp(1_800)));
        state.warned = state.warned.with(Dimension::WallTimeMs);
        assert_eq!(state.time_warns_at(), None);
        let silent = running(timed(Some(99), None, 0), 0);
        assert_eq!(silent.time_warns_at(), None);
    }

    #[test]
    fn a_pause_of_which_nobody_knows_when_it_began_is_no_gift() {
        let mut state = running(timed(Some(50), None, 0), 0);
        let active = state.active.as_mut().expect("a loop runs");
        active.stops(Timestamp::default());
        active.goes_on(Timestamp(1_040));
        assert_eq!(active.ran_ms(Timestamp(1_040)), 40);
        active.stops(Timestamp(1_040));
        active.stops(Timestamp(1_070));
        assert_eq!(active.ran_ms(Timestamp(9_999)), 40, "from when it stopped");
        active.goes_on(Timestamp(1_030));
        assert_eq!(active.ran_ms(Timestamp(1_045)), 45, "clocks may differ");
    }
}
