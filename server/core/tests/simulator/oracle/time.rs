//! The oracle's own clock of each loop: nothing starts when its time is up, no model call outlives
//! it, a pause stops it, and shared budgets are charged with all of it.

use loopwright_core::{
    Entry, Event, State,
    agent::{BudgetLimits, Limits},
    budget::{Dimension, LOOP_BUDGET, SESSION_BUDGET},
    event::{BudgetWarning, LoopEnded},
    ids::Timestamp,
    outcome::{EndReason, WaitsFor},
};

use super::{Violation, check};

#[derive(Default)]
pub(super) struct Time {
    run: Option<Run>,
    /// How long the loops ran that have ended.
    session: u64,
    /// When a driver came or limits moved: what runs then may be over, until somebody notices.
    moved_at: Timestamp,
    /// What limits were in force, of the loop and of the session, and which was warned of.
    limits: [Option<u64>; 2],
    warned: [bool; 2],
}

/// The loop that goes on.
#[derive(Default)]
struct Run {
    began: Timestamp,
    stopped: Option<Timestamp>,
    stood_ms: u64,
    /// What shared budgets were charged with.
    charged_ms: u64,
    /// Whether it waits for more time.
    waits: bool,
}

impl Time {
    pub(super) fn event(
        &mut self,
        at: Timestamp,
        entry: &Entry,
        event: &Event,
        after: &State,
    ) -> Result<(), Violation> {
        let limits: &Limits = &after.limits;
        #[expect(clippy::wildcard_enum_match_arm, reason = "the rest takes no time")]
        match event {
            Event::LoopStarted(_) => {
                let began = at;
                self.run = Some(Run {
                    began,
                    ..Run::default()
                });
                self.warned[0] = false;
            }
            Event::DriverAttached(_) | Event::LimitsUpdated(_) => self.moved_at = at,
            Event::ModelCallReserving(_)
            | Event::ModelCallStarted(_)
            | Event::ToolCallStarted(_) => {
                return check(self.over(at, limits).is_none(), "wall_time", || {
                    format!("{event:?} when its time is up: {:?}", self.used(at))
                });
            }
            Event::ModelCallCompleted(_) | Event::ModelCallFailed(_) => {
                let over = self.over(at, limits).filter(|(limit, used)| used > limit);
                let told = at <= self.moved_at;
                // In a paused loop what runs ends, under whatever limits came meanwhile.
                let stands = self.run.as_ref().is_some_and(|run| run.stopped.is_some());
                return check(over.is_none() || told || stands, "wall_time", || {
                    format!("{event:?} outlives its time: {over:?}")
                });
            }
            Event::LoopPaused(e) => return self.paused(at, &e.waits_for, limits),
            Event::LoopResumed(_) => {
                if let Some(run) = &mut self.run {
                    let since = run.stopped.take().unwrap_or(at);
                    run.stood_ms += at.since(since);
                    run.waits = false;
                }
            }
            Event::BudgetSettled(e) => {
                if let Some(run) = &mut self.run {
                    run.charged_ms += e.wall_ms;
                }
            }
            Event::BudgetWarning(e) if e.dimension == Dimension::WallTimeMs => {
                return self.warned_of(at, e, limits);
            }
            Event::LoopEnded(e) => return self.ended(at, entry, e, after),
            _ => {}
        }
        Ok(())
    }

    /// After each entry: a loop that waits for more time has no model call that takes of it.
    pub(super) fn settled(&mut self, after: &State, model_runs: bool) -> Result<(), Violation> {
        let limits = [
            limit(&after.limits.budget),
            limit(&after.limits.session_budget),
        ];
        for (book, limit) in limits.iter().enumerate() {
            self.warned[book] &= self.limits[book] == *limit;
        }
        self.limits = limits;
        let waits = self.run.as_ref().is_some_and(|run| run.waits);
        check(!waits || !model_runs, "wall_time", || {
            "a model call runs while its loop waits for time".to_owned()
        })
    }

    fn paused(
        &mut self,
        at: Timestamp,
        waits_for: &WaitsFor,
        limits: &Limits,
    ) -> Result<(), Violation> {
        let waits = match waits_for {
            WaitsFor::Limit { budget, short } if short.dimension == Dimension::WallTimeMs => {
                self.is_so(at, limits, (budget, short.limit, short.used))?;
                true
            }
            WaitsFor::Limit { .. } | WaitsFor::Client { .. } | WaitsFor::Budget { .. } => false,
        };
        if let Some(run) = &mut self.run {
            run.stopped.get_or_insert(at);
            run.waits = waits;
        }
        Ok(())
    }

    fn ended(
        &mut self,
        at: Timestamp,
        entry: &Entry,
        e: &LoopEnded,
        after: &State,
    ) -> Result<(), Violation> {
        if let EndReason::BudgetExceeded {
            ref budget,
            dimension: Dimension::WallTimeMs,
            limit,
            used,
            ..
        } = e.reason
            && [LOOP_BUDGET, SESSION_BUDGET].contains(&budget.as_str())
        {
            self.is_so(at, &after.limits, (budget, limit, used))?;
        }
        let [ran, _] = self.used(at);
        check(e.totals.wall_ms == ran, "totals", || {
            format!("{} ms are told, it ran {ran}", e.totals.wall_ms)
        })?;
        let charged = self.run.take().map_or(0, |run| run.charged_ms);
        let is_copied =
            |e: &Event| matches!(e, Event::SessionForked(_) | Event::SessionImported(_));
        if entry.events.iter().any(is_copied) {
            // Nobody knows when the original stopped.
            let most = self.session + ran;
            self.session = after.totals.wall_ms;
            return check(self.session <= most, "totals", || {
                format!("{} ms of a session that ran {most}", self.session)
            });
        }
        self.session += ran;
        check(after.totals.wall_ms == self.session, "totals", || {
            format!("{:?}, it ran {}", after.totals, self.session)
        })?;
        let shared = !after.agent.budgets.is_empty();
        check(!shared || charged >= ran, "time_charged", || {
            format!("{charged} of {ran} ms are charged")
        })
    }

    /// What the loop and the session have used at `at`.
    fn used(&self, at: Timestamp) -> [u64; 2] {
        let ran = self.run.as_ref().map_or(0, |run| {
            let until = run.stopped.unwrap_or(at);
            until.since(run.began).saturating_sub(run.stood_ms)
        });
        [ran, self.session + ran]
    }

    /// A limit that is reached, and what is used of it.
    fn over(&self, at: Timestamp, limits: &Limits) -> Option<(u64, u64)> {
        let books = [limit(&limits.budget), limit(&limits.session_budget)];
        let mut books = books.into_iter().zip(self.used(at));
        books.find_map(|(limit, used)| Some((limit.filter(|&limit| used >= limit)?, used)))
    }

    fn is_so(
        &self,
        at: Timestamp,
        limits: &Limits,
        (budget, told, used): (&str, u64, u64),
    ) -> Result<(), Violation> {
        let book = usize::from(budget == SESSION_BUDGET);
        let terms = [limit(&limits.budget), limit(&limits.session_budget)][book];
        let real = self.used(at)[book];
        let sound = terms == Some(told) && real == used && used >= told;
        check(sound, "wall_time", || {
            format!("{used} of {told} ms are told of {budget}, it is {real} of {terms:?}")
        })
    }

    fn warned_of(
        &mut self,
        at: Timestamp,
        e: &BudgetWarning,
        limits: &Limits,
    ) -> Result<(), Violation> {
        let book = usize::from(e.budget == SESSION_BUDGET);
        let again = std::mem::replace(&mut self.warned[book], true);
        let moved =
            [limit(&limits.budget), limit(&limits.session_budget)][book] != self.limits[book];
        let used = self.used(at)[book];
        let near = used * 1_000 >= e.limit * u64::from(limits.warn_permille);
        check(
            (moved || !again) && near && used == e.used,
            "warned",
            || format!("{e:?} at {used} ms, before: {again}"),
        )
    }
}

fn limit(budget: &BudgetLimits) -> Option<u64> {
    budget.of(Dimension::WallTimeMs)
}
