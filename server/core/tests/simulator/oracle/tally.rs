//! The oracle's own books of each loop's budget: reserve, settle, never above a limit.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use loopwright_core::{
    Event, State,
    agent::{BudgetLimits, Limits},
    budget::{Dimension, LOOP_BUDGET, Price, Reservation, SESSION_BUDGET},
    event::{BudgetReserved, BudgetSettled, BudgetWarning, ModelCallStarted, Nudge},
    ids::{Attempt, CallId},
    ledger::OnExhausted,
    usage::{Totals, Usage},
};

use super::{Violation, check};

type Key = (CallId, Attempt);

/// What a loop, or all loops of the session, used.
#[derive(Clone, Copy, Debug, Default)]
struct Used {
    tokens: Usage,
    cost: u64,
    model_calls: u64,
    tool_calls: u64,
}

/// What a provider reported of an attempt that ended: tokens and money, and whether it may have run.
type Report = (Option<Usage>, Option<u64>, bool);

#[derive(Default)]
pub(super) struct Tally {
    of_loop: Used,
    of_session: Used,
    /// What was warned of: of the session, or of the loop.
    warned: BTreeSet<(bool, Dimension)>,
    /// The limits in force, as far as an event has told.
    limits: Option<Arc<Limits>>,
    held: Option<(Key, Reservation)>,
    /// The attempt that runs.
    runs: Option<Key>,
    /// The attempt that was started last, and what its model's tokens cost.
    priced: Option<(Key, Price)>,
    /// Its output cap.
    cap: u64,
    /// An attempt that ended, may have run and was counted by nobody: its settlement is owed.
    owed: Option<Key>,
    overrun: bool,
    /// Whether the loop's last call is made, for which something was held back.
    concluding: bool,
    /// Tool calls of the reply that named budgets let through, and those that have started.
    granted: Option<u64>,
    started: u64,
    /// What named budgets were charged with of the reply.
    charged: Option<u64>,
    /// What the provider reported of an attempt that ended, and whether it may have run.
    reported: BTreeMap<Key, Report>,
}

impl Tally {
    pub(super) fn held_input(&self) -> Option<u64> {
        self.held.map(|(_, reserved)| reserved.input)
    }

    pub(super) fn event(&mut self, event: &Event, after: &State) -> Result<(), Violation> {
        #[expect(clippy::wildcard_enum_match_arm, reason = "the rest costs nothing")]
        match event {
            Event::LoopStarted(_) => {
                self.of_loop = Used::default();
                self.concluding = false;
                (self.granted, self.started, self.charged) = (None, 0, None);
                self.warned.retain(|&(of_session, _)| of_session);
                Ok(())
            }
            Event::MessageAdded(e) => {
                self.concluding |= matches!(e.nudge, Some(Nudge::Conclude(_)));
                Ok(())
            }
            Event::BudgetReserved(e) => {
                (self.granted, self.started, self.charged) = (e.tool_calls, 0, None);
                self.reserved(e, &after.limits)
            }
            Event::ModelCallStarted(e) => self.started(e, after),
            Event::ModelCallCompleted(e) => {
                self.report((e.call, e.attempt), (e.usage, e.cost_micro_usd, true));
                Ok(())
            }
            Event::ModelCallFailed(e) => {
                let may_have_run = e.kind.may_have_run();
                self.report(
                    (e.call, e.attempt),
                    (e.usage, e.cost_micro_usd, may_have_run),
                );
                Ok(())
            }
            Event::BudgetOverrun(_) => {
                self.overrun = true;
                Ok(())
            }
            Event::ModelCallAbandoned(_) => {
                self.owed = self.runs.take();
                Ok(())
            }
            Event::BudgetSettled(e) => {
                self.charged = (!after.agent.budgets.is_empty()).then_some(e.tool_calls);
                self.settled(e)
            }
            Event::ToolCallStarted(e) => {
                if e.attempt > 1 {
                    return Ok(());
                }
                self.tool_started(&after.limits)
            }
            Event::BudgetWarning(e) if e.dimension == Dimension::WallTimeMs => Ok(()),
            Event::BudgetWarning(e) => self.warned_of(e, &after.limits),
            Event::LimitsUpdated(e) => {
                self.moved(&e.limits);
                Ok(())
            }
            Event::LoopEnded(e) => self.loop_ended(&e.totals),
            _ => Ok(()),
        }
    }

    fn started(&mut self, e: &ModelCallStarted, after: &State) -> Result<(), Violation> {
        let (key, limits) = ((e.call, e.attempt), &after.limits);
        self.runs = Some(key);
        self.cap = e.max_output_tokens;
        self.of_loop.model_calls += 1;
        self.of_session.model_calls += 1;
        let price = limits.prices.get(&e.model);
        self.priced = price.map(|price| (key, *price));
        self.within(limits, &[Dimension::ModelCalls, Dimension::CostMicroUsd])?;
        let limited = limits.are_budgeted() || !after.agent.budgets.is_empty();
        let held = self.held.filter(|(of, _)| *of == key);
        let covered = held.is_some_and(|(_, held)| held.output == e.max_output_tokens);
        check(!limited || covered, "reserve_settle", || {
            format!("{} starts with {:?} held", e.call, self.held)
        })
    }

    fn reserved(&mut self, e: &BudgetReserved, limits: &Limits) -> Result<(), Violation> {
        let before = self.held.replace(((e.call, e.attempt), e.reserved));
        check(before.is_none(), "reserve_settle", || {
            format!("{before:?} was not settled before {}", e.call)
        })?;
        if self.runs == Some((e.call, e.attempt)) {
            // It was begun while nothing was limited.
            return Ok(());
        }
        let tokens = [
            Dimension::InputTokens,
            Dimension::OutputTokens,
            Dimension::TotalTokens,
        ];
        self.within(limits, &tokens)?;
        self.leaves_what_is_held_back(limits)
    }

    fn loop_ended(&self, told: &Totals) -> Result<(), Violation> {
        check(self.held.is_none(), "reserve_settle", || {
            format!("{:?} is held after the loop's end", self.held)
        })?;
        let used = self.of_loop;
        let is_so = (told.usage, told.cost_micro_usd) == (used.tokens, used.cost);
        check(is_so, "totals", || {
            format!("{told:?} is told, {used:?} was settled")
        })
    }

    fn tool_started(&mut self, limits: &Limits) -> Result<(), Violation> {
        self.of_loop.tool_calls += 1;
        self.of_session.tool_calls += 1;
        self.within(limits, &[Dimension::ToolCalls])?;
        self.started += 1;
        let started = self.started;
        let most = self.granted.unwrap_or(u64::MAX);
        let most = most.min(self.charged.unwrap_or(u64::MAX));
        check(started <= most, "shared_tools", || {
            format!("{started} tool calls of a reply that {most} are paid for of")
        })
    }

    fn report(&mut self, key: Key, report: Report) {
        let (usage, cost, may_have_run) = report;
        self.runs = None;
        self.owed = (usage.is_none() && may_have_run).then_some(key);
        self.reported.insert(key, report);
        // What was set aside is settled, although its limits may be gone by now.
        if self.held.is_none() {
            let cost = usage.and(cost).unwrap_or(0);
            self.use_up(&usage.unwrap_or_default(), cost);
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
            // Nothing is limited: what it would have reserved, all of it.
            None if self.owed == Some(key) => Reservation {
                input: e.usage.input.max(1),
                output: self.cap,
            },
            None => Reservation::default(),
        };
        self.owed = None;
        let (expected, estimated) = match self.reported.get(&key) {
            Some(&(Some(usage), _, _)) => (usage, false),
            Some((None, _, false)) => (Usage::default(), false),
            Some((None, _, true)) => (held.as_usage(), true),
            None => (held.as_usage(), held != Reservation::default()),
        };
        // Of an attempt that the log has lost the budget alone knows what it used.
        let lost = held == Reservation::default() && !self.reported.contains_key(&key);
        check(
            (e.usage, e.estimated && !lost) == (expected, estimated),
            "reserve_settle",
            || format!("{key:?} settles {:?}, expected {expected:?}", e.usage),
        )?;
        let most = self.most(key, &e.usage);
        let is_so = match self.reported.get(&key) {
            Some(&(Some(_), Some(cost), _)) => e.cost_micro_usd == cost,
            // What a failed attempt costs stands here alone.
            Some((Some(_), None, _)) => most == 0 || e.cost_micro_usd <= most,
            Some((None, ..)) | None => e.cost_micro_usd == most,
        };
        check(is_so, "reserve_settle", || {
            format!("{key:?} costs {}, at most {most}", e.cost_micro_usd)
        })?;
        let over = e.usage.prompt() > held.input || e.usage.output > held.output;
        check(!over || self.overrun, "overrun_told", || {
            format!("{key:?} used more")
        })?;
        self.use_up(&e.usage, e.cost_micro_usd);
        Ok(())
    }

    /// What tokens of this attempt cost at most; nothing where its model has no price.
    fn most(&self, key: Key, usage: &Usage) -> u64 {
        let priced = self.priced.filter(|(of, _)| *of == key);
        priced.map_or(0, |(_, price)| price.cost(usage.prompt(), usage.output))
    }

    fn use_up(&mut self, usage: &Usage, cost: u64) {
        for used in [&mut self.of_loop, &mut self.of_session] {
            used.tokens = used.tokens.plus(usage);
            used.cost += cost;
        }
    }

    /// After each entry: nothing is held for a call that does not run, and what is near its limit
    /// was warned of.
    pub(super) fn settles_up(&mut self, after: &State, model_runs: bool) -> Result<(), Violation> {
        check(self.held.is_none() || model_runs, "reserve_settle", || {
            format!("{:?} is held for no call", self.held)
        })?;
        check(self.owed.is_none(), "reserve_settle", || {
            format!("nobody counted {:?}, and nothing stands for it", self.owed)
        })?;
        self.limits = Some(Arc::clone(&after.limits));
        if after.active.is_none() {
            return Ok(());
        }
        let dimensions = [
            Dimension::InputTokens,
            Dimension::OutputTokens,
            Dimension::TotalTokens,
            Dimension::ToolCalls,
            Dimension::CostMicroUsd,
        ];
        for (of_session, limits, used) in self.books(&after.limits) {
            for dimension in dimensions {
                let told = self.warned.contains(&(of_session, dimension));
                let due = is_near(limits, dimension, used.of(dimension), &after.limits);
                check(told || !due, "warned", || {
                    format!("{used:?} of {limits:?} was not warned of")
                })?;
            }
        }
        Ok(())
    }

    /// Every call but the last one leaves what is held back, of each limit half at most. A loop that
    /// waits at its limits holds nothing back.
    fn leaves_what_is_held_back(&self, limits: &Limits) -> Result<(), Violation> {
        let holds = limits.on_exhausted == OnExhausted::End;
        let tokens = limits.final_call_tokens.filter(|_| holds);
        let (Some((_, held)), Some(tokens)) = (self.held, tokens) else {
            return Ok(());
        };
        let sum = self.of_loop.tokens.total() + held.input + held.output;
        let half = |dimension| limits.budget.of(dimension).map_or(u64::MAX, |l| l / 2);
        // The last call can write and read no more than what of each is there for it.
        let tokens = tokens.min(half(Dimension::TotalTokens));
        let output = (tokens / 2)
            .min(limits.max_output_tokens)
            .min(half(Dimension::OutputTokens));
        let tokens = output + (tokens - output).min(half(Dimension::InputTokens));
        let left = |limit: u64| sum + tokens <= limit;
        let total = limits.budget.total_tokens.is_none_or(left);
        let made = self.of_loop.model_calls + 1;
        let calls = |limit: u64| limit < 2 || made < limit;
        let calls = limits.budget.model_calls.is_none_or(calls);
        check(
            self.concluding || self.overrun || (total && calls),
            "held_back",
            || format!("{sum} tokens, {made} calls, {tokens} to be held"),
        )
    }

    fn books(&self, limits: &Limits) -> [(bool, BudgetLimits, Used); 2] {
        [
            (false, limits.budget, self.of_loop),
            (true, limits.session_budget, self.of_session),
        ]
    }

    /// What is used and held passes no limit when more is taken.
    fn within(&self, limits: &Limits, dimensions: &[Dimension]) -> Result<(), Violation> {
        let held = self.held.map(|(_, held)| held).unwrap_or_default();
        let cost = self
            .held
            .map_or(0, |(key, held)| self.most(key, &held.as_usage()));
        for (_, limits, mut used) in self.books(limits) {
            used.tokens = used.tokens.plus(&held.as_usage());
            used.cost += cost;
            for &dimension in dimensions {
                let (limit, sum) = (limits.of(dimension), used.of(dimension));
                let fits = self.overrun || limit.is_none_or(|limit| sum <= limit);
                check(fits, "budget", || {
                    format!("{sum} {dimension} used and held of {limit:?}")
                })?;
            }
        }
        Ok(())
    }

    fn warned_of(&mut self, e: &BudgetWarning, limits: &Limits) -> Result<(), Violation> {
        if ![LOOP_BUDGET, SESSION_BUDGET].contains(&&*e.budget) {
            // Of what others use, too, the session knows nothing.
            return Ok(());
        }
        let of_session = e.budget == SESSION_BUDGET;
        let [own, session] = self.books(limits);
        let (_, terms, used) = if of_session { session } else { own };
        let near = is_near(terms, e.dimension, used.of(e.dimension), limits);
        let as_it_is = (terms.of(e.dimension), used.of(e.dimension)) == (Some(e.limit), e.used);
        let new = self.warned.insert((of_session, e.dimension));
        check(new && near && as_it_is, "warned", || {
            format!("{e:?}, with {used:?} used")
        })
    }

    /// What has another limit now is warned of again.
    fn moved(&mut self, to: &Arc<Limits>) {
        if let Some(from) = self.limits.replace(Arc::clone(to)) {
            self.warned.retain(|&(of_session, dimension)| {
                if of_session {
                    from.session_budget.of(dimension) == to.session_budget.of(dimension)
                } else {
                    from.budget.of(dimension) == to.budget.of(dimension)
                }
            });
        }
    }
}

impl Used {
    fn of(&self, dimension: Dimension) -> u64 {
        match dimension {
            Dimension::InputTokens => self.tokens.prompt(),
            Dimension::OutputTokens => self.tokens.output,
            Dimension::TotalTokens => self.tokens.total(),
            Dimension::ModelCalls => self.model_calls,
            Dimension::ToolCalls => self.tool_calls,
            Dimension::CostMicroUsd => self.cost,
            Dimension::WallTimeMs => 0,
        }
    }
}

/// Whether this much of a budget is to be warned of.
fn is_near(budget: BudgetLimits, dimension: Dimension, used: u64, limits: &Limits) -> bool {
    let share = u64::from(limits.warn_permille);
    let limit = budget.of(dimension).filter(|limit| *limit > 0);
    share > 0 && limit.is_some_and(|limit| used * 1_000 >= limit * share)
}
