//! The oracle's own books of each loop's budget: reserve, settle, never above a limit.

use std::collections::BTreeMap;

use loopwright_core::{
    Event, State,
    agent::Limits,
    budget::Reservation,
    event::{BudgetSettled, Nudge},
    ids::{Attempt, CallId},
    usage::Usage,
};

use super::{Violation, check};

type Key = (CallId, Attempt);

#[derive(Default)]
pub(super) struct Tally {
    used: Usage,
    model_calls: u64,
    tool_calls: u64,
    held: Option<(Key, Reservation)>,
    overrun: bool,
    /// Whether the loop's last call is made, for which something was held back.
    concluding: bool,
    /// Tool calls of the reply that named budgets let through, and those that have started.
    granted: Option<u64>,
    started: u64,
    /// What named budgets were charged with of the reply.
    charged: Option<u64>,
    /// What the provider reported of an attempt that ended, and whether it may have run.
    reported: BTreeMap<Key, (Option<Usage>, bool)>,
}

impl Tally {
    pub(super) fn held_input(&self) -> Option<u64> {
        self.held.map(|(_, reserved)| reserved.input)
    }

    pub(super) fn event(&mut self, event: &Event, after: &State) -> Result<(), Violation> {
        let limited = !after.limits.budget.is_open() || !after.agent.budgets.is_empty();
        #[expect(clippy::wildcard_enum_match_arm, reason = "the rest costs nothing")]
        match event {
            Event::LoopStarted(_) => {
                let overrun = self.overrun;
                *self = Self::default();
                self.overrun = overrun;
                Ok(())
            }
            Event::MessageAdded(e) => {
                self.concluding |= matches!(e.nudge, Some(Nudge::Conclude(_)));
                Ok(())
            }
            Event::BudgetReserved(e) => {
                let before = self.held.replace(((e.call, e.attempt), e.reserved));
                (self.granted, self.started, self.charged) = (e.tool_calls, 0, None);
                check(before.is_none(), "reserve_settle", || {
                    format!("{before:?} was not settled before {}", e.call)
                })
            }
            Event::ModelCallStarted(e) => {
                self.model_calls += 1;
                let held = self.held.filter(|(key, _)| *key == (e.call, e.attempt));
                let covered = held.is_some_and(|(_, held)| held.output == e.max_output_tokens);
                check(!limited || covered, "reserve_settle", || {
                    format!("{} starts with {:?} held", e.call, self.held)
                })
            }
            Event::ModelCallCompleted(e) => {
                self.report((e.call, e.attempt), e.usage, true, limited);
                Ok(())
            }
            Event::ModelCallFailed(e) => {
                let may_have_run = e.kind.may_have_run();
                self.report((e.call, e.attempt), e.usage, may_have_run, limited);
                Ok(())
            }
            Event::BudgetOverrun(_) => {
                self.overrun = true;
                Ok(())
            }
            Event::BudgetSettled(e) => {
                self.charged = (!after.agent.budgets.is_empty()).then_some(e.tool_calls);
                self.settled(e)
            }
            Event::ToolCallStarted(e) => {
                self.tool_calls += u64::from(e.attempt == 1);
                self.started += u64::from(e.attempt == 1);
                let started = self.started;
                let most = self.granted.unwrap_or(u64::MAX);
                let most = most.min(self.charged.unwrap_or(u64::MAX));
                check(started <= most, "shared_tools", || {
                    format!("{started} tool calls of a reply that {most} are paid for of")
                })
            }
            Event::LoopEnded(e) => {
                check(self.held.is_none(), "reserve_settle", || {
                    format!("{:?} is held after the loop's end", self.held)
                })?;
                check(e.totals.usage == self.used, "totals", || {
                    format!("{:?} is told, {:?} was settled", e.totals.usage, self.used)
                })
            }
            _ => Ok(()),
        }
    }

    fn report(&mut self, key: Key, usage: Option<Usage>, may_have_run: bool, limited: bool) {
        self.reported.insert(key, (usage, may_have_run));
        if !limited {
            self.used = self.used.plus(&usage.unwrap_or_default());
        }
    }

    /// Real usage where there is a report; the whole reservation where none came and it may have
    /// run; nothing where it surely did not.
    fn settled(&mut self, e: &BudgetSettled) -> Result<(), Violation> {
        let key = (e.call, e.attempt);
        let held = match self.held.take() {
            Some((held, reserved)) if held == key => reserved,
            Some(other) => {
                return Err(Violation::new(
                    "reserve_settle",
                    format!("{other:?} for {key:?}"),
                ));
            }
            None => Reservation::default(),
        };
        let (expected, estimated) = match self.reported.get(&key) {
            Some(&(Some(usage), _)) => (usage, false),
            Some((None, false)) => (Usage::default(), false),
            Some((None, true)) => (held.as_usage(), true),
            None => (held.as_usage(), held != Reservation::default()),
        };
        check(
            (e.usage, e.estimated) == (expected, estimated),
            "reserve_settle",
            || format!("{key:?} settles {:?}, expected {expected:?}", e.usage),
        )?;
        let over = e.usage.prompt() > held.input || e.usage.output > held.output;
        check(!over || self.overrun, "overrun_told", || {
            format!("{key:?} used more")
        })?;
        self.used = self.used.plus(&e.usage);
        Ok(())
    }

    /// After each entry: nothing is held for a call that does not run, and no limit is passed.
    pub(super) fn settles_up(&self, limits: &Limits, model_runs: bool) -> Result<(), Violation> {
        check(self.held.is_none() || model_runs, "reserve_settle", || {
            format!("{:?} is held for no call", self.held)
        })?;
        self.leaves_what_is_held_back(limits)?;
        let held = self.held.map(|(_, held)| held).unwrap_or_default();
        let budget = &limits.budget;
        let sums = [
            (budget.input_tokens, self.used.prompt() + held.input),
            (budget.output_tokens, self.used.output + held.output),
            (
                budget.total_tokens,
                self.used.total() + held.input + held.output,
            ),
            (budget.model_calls, self.model_calls),
            (budget.tool_calls, self.tool_calls),
        ];
        for (limit, sum) in sums {
            check(
                self.overrun || limit.is_none_or(|limit| sum <= limit),
                "budget",
                || format!("{sum} used and held of {limit:?}"),
            )?;
        }
        Ok(())
    }

    /// Every call but the last one leaves what is held back, of each limit half at most.
    fn leaves_what_is_held_back(&self, limits: &Limits) -> Result<(), Violation> {
        let (Some((_, held)), Some(tokens)) = (self.held, limits.final_call_tokens) else {
            return Ok(());
        };
        let sum = self.used.total() + held.input + held.output;
        let left = |limit: u64| sum + tokens.min(limit / 2) <= limit;
        let total = limits.budget.total_tokens.is_none_or(left);
        let calls = |limit: u64| limit < 2 || self.model_calls < limit;
        let calls = limits.budget.model_calls.is_none_or(calls);
        check(
            self.concluding || self.overrun || (total && calls),
            "held_back",
            || {
                format!(
                    "{sum} tokens, {} calls, {tokens} to be held",
                    self.model_calls
                )
            },
        )
    }
}
