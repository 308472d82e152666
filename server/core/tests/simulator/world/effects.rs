//! Effects, and the ways in which they end: in time, late, twice, for the wrong attempt, or never.

use loopwright_core::{
    EffectKey, What,
    budget::Ask,
    ids::{Attempt, CallId, Epoch},
    outcome::{LookupAnswer, ToolFailure, ToolFailureKind},
    retry::JITTER_ONE,
};

use super::{Happening, Ticket, World, driver::outcome_of};
use crate::simulator::{
    model::{Spoken, speak},
    mutant::Mutant,
    oracle::{Violation, check},
    plan::Feature,
    sidecar::Known,
};

impl World {
    /// A driver starts an effect: its licence must be durable by now.
    pub(super) fn start(&mut self, id: usize, key: EffectKey) -> Result<(), Violation> {
        check(self.oracle.licensed(&key), "licence", || {
            format!("driver {id} starts {key:?} without a durable licence")
        })?;
        self.serial[0] += 1;
        let ticket = Ticket {
            driver: id,
            start: self.serial[0],
        };
        self.drivers[id].running.insert(key, ticket.start);
        let delay = self.rng.between(1, 20);
        match key {
            EffectKey::Model { .. } => self.start_model(ticket, key),
            EffectKey::Tool { call, attempt } => self.start_tool(ticket, key, call, attempt),
            EffectKey::Lookup { call } => {
                let request = self.drivers[id].state.tool_request(call);
                let request = request.expect("a call in doubt has its request");
                let look = Happening::LookUp(ticket, call, request.attempt, request.epoch);
                self.put(delay, look);
                Ok(())
            }
            EffectKey::Reserve { call, attempt } => {
                let ask = self.drivers[id].state.budget_request();
                let none = || Violation::new("request", format!("{call} reserves, and has none"));
                let ask = ask.ok_or_else(none)?;
                self.put(delay, Happening::Reserve(ticket, call, attempt, ask));
                Ok(())
            }
            EffectKey::Settle { call, attempt } => {
                self.put(delay, Happening::Settle(ticket, call, attempt));
                Ok(())
            }
            EffectKey::Timer { at, why } => {
                let early = self.machine.is(Mutant::TimerFiresEarly);
                let wait = if early {
                    0
                } else {
                    at.0.saturating_sub(self.clock_of(id).0)
                };
                self.put(wait, Happening::Deliver(ticket, key, What::TimerFired(why)));
                Ok(())
            }
        }
    }

    /// Attempts of calls are started once in the life of a session.
    fn start_once(&mut self, key: EffectKey) -> Result<(), Violation> {
        let new = self.started.insert(key);
        check(new, "started_once", || format!("{key:?} is started again"))
    }

    fn start_model(&mut self, ticket: Ticket, key: EffectKey) -> Result<(), Violation> {
        self.start_once(key)?;
        let state = &self.drivers[ticket.driver].state;
        let request = state
            .model_request()
            .expect("a licensed call has its request");
        let (call, attempt, of_recap) = (request.call, request.attempt, request.recap);
        let loop_id = state.current_loop();
        let at_most = state.active.as_ref().and_then(|active| active.at_most);
        let Spoken { outcome, real } =
            speak(&mut self.rng, &request, self.features, self.plan.overcounts);
        let held = self.oracle.held_input().or(at_most.map(|most| most.input));
        check(
            held.is_none_or(|held| real.prompt() <= held),
            "prompt_bound",
            || {
                format!(
                    "{call} counts {} tokens of prompt, {held:?} were held",
                    real.prompt()
                )
            },
        )?;
        self.ledger.overcounted |= self.plan.overcounts;
        let sum = self.real.entry(loop_id).or_default();
        *sum = sum.plus(&real);
        let what = match outcome {
            Ok(reply) => What::ModelCompleted {
                call,
                attempt,
                reply,
            },
            Err(failure) => What::ModelFailed {
                call,
                attempt,
                failure,
                jitter: self.jitter(),
            },
        };
        // A recap is of much that was said: time enough for a client to interrupt it.
        let longest = if of_recap { 200 } else { 30 };
        let delay = self.rng.between(1, longest);
        self.put(delay, Happening::Deliver(ticket, key, what));
        if self.features.has(Feature::Progress) {
            for _ in 0..self.chatter.between(0, 2) {
                let after = self.chatter.between(0, delay);
                self.put(after, Happening::Progress(ticket.driver));
            }
        }
        Ok(())
    }

    /// The request is sent, or not; it arrives, in time, late or never; the answer comes, or not.
    fn start_tool(
        &mut self,
        ticket: Ticket,
        key: EffectKey,
        call: CallId,
        attempt: Attempt,
    ) -> Result<(), Violation> {
        self.start_once(key)?;
        let request = self.drivers[ticket.driver].state.tool_request(call);
        let request = request.expect("a licensed call has its request");
        let (delay, later) = (self.rng.between(1, 15), self.rng.between(1, 40));
        let (roll, retryable) = (self.rng.between(0, 99), self.rng.chance(70));
        let roll = if self.features.has(Feature::ToolFaults) {
            roll
        } else {
            99
        };
        let arrive = |answers| Happening::Arrive {
            ticket,
            call,
            attempt,
            epoch: request.epoch,
            answers,
        };
        let jitter = self.jitter();
        let retry_after_ms = self.rng.maybe(1, 60).filter(|_| retryable);
        let failed = |kind, retryable| {
            let failure = ToolFailure {
                kind,
                message: "it broke".to_owned(),
                retryable,
                retry_after_ms,
                cause: None,
            };
            let what = What::ToolFailed {
                call,
                attempt,
                failure,
                jitter,
            };
            Happening::Deliver(ticket, key, what)
        };
        match roll {
            0..=9 => self.put(delay, failed(ToolFailureKind::NotExecuted, retryable)),
            10..=17 => {
                self.put(delay, arrive(false));
                self.put(delay + later, failed(ToolFailureKind::Ambiguous, retryable));
            }
            18..=23 => {
                self.put(delay, failed(ToolFailureKind::Ambiguous, retryable));
                self.put(delay + later, arrive(false));
            }
            24..=29 => self.put(delay, failed(ToolFailureKind::Ambiguous, retryable)),
            _ => self.put(delay, arrive(true)),
        }
        Ok(())
    }

    pub(super) fn arrive(
        &mut self,
        ticket: Ticket,
        call: CallId,
        attempt: Attempt,
        epoch: Epoch,
        answers: bool,
    ) -> Result<(), Violation> {
        let key = EffectKey::Tool { call, attempt };
        // A driver that is gone, or gave the call up, may have done so before the request left.
        if !self.holds(ticket, key) && self.rng.chance(50) {
            return Ok(());
        }
        let after = self.rng.between(1, 25);
        let until = self.now + after;
        let ran = self.sidecar.run(call, attempt, epoch, (self.now, until))?;
        self.note(|| format!("{call} attempt {attempt} arrives: {ran:?}"));
        let what = match ran {
            Some(output) => What::ToolCompleted {
                call,
                attempt,
                output,
            },
            None => What::ToolFailed {
                call,
                attempt,
                failure: ToolFailure {
                    kind: ToolFailureKind::NotExecuted,
                    message: "refused".to_owned(),
                    retryable: false,
                    retry_after_ms: None,
                    cause: None,
                },
                jitter: 0,
            },
        };
        if answers {
            self.put(after, Happening::Deliver(ticket, key, what));
        }
        Ok(())
    }

    pub(super) fn look_up(&mut self, ticket: Ticket, call: CallId, attempt: Attempt, epoch: Epoch) {
        let known = if self.rng.chance(25) {
            Known::Answer(LookupAnswer::NotKnown("no answer".to_owned()))
        } else {
            self.sidecar.look_up(call, attempt, epoch, self.now)
        };
        self.note(|| format!("{call} is looked up in epoch {epoch}: {known:?}"));
        match known {
            Known::Answer(answer) => self.looked_up(ticket, call, answer),
            Known::Running(until) => self.put(until - self.now, Happening::Rejoin(ticket, call)),
        }
    }

    /// A call that was found running has ended, or the sidecar broke off before it could say so.
    pub(super) fn rejoin(&mut self, ticket: Ticket, call: CallId) {
        let answer = if self.rng.chance(20) {
            LookupAnswer::NotKnown("it broke off".to_owned())
        } else {
            self.sidecar.result(call)
        };
        self.looked_up(ticket, call, answer);
    }

    fn looked_up(&mut self, ticket: Ticket, call: CallId, answer: LookupAnswer) {
        let after = self.rng.between(1, 20);
        let what = What::LookedUp { call, answer };
        let key = EffectKey::Lookup { call };
        self.put(after, Happening::Deliver(ticket, key, what));
    }

    pub(super) fn reserve(
        &mut self,
        ticket: Ticket,
        call: CallId,
        attempt: Attempt,
        mut ask: Ask,
    ) -> Result<(), Violation> {
        if self.machine.is(Mutant::SharedHoldBackSpent) {
            ask.keep = None;
        }
        let key = (call, attempt);
        if self.rng.chance(3) && self.ledger.forget(key) {
            // A session whose log was cut back, and that comes to the names of calls which it lost.
            let what = What::BudgetSpent { call, attempt };
            let key = EffectKey::Reserve { call, attempt };
            self.put(1, Happening::Deliver(ticket, key, what));
            return Ok(());
        }
        let left = self.ledger.left(key, ask).into();
        let keeps = self.oracle.keeps(&self.plan.limits, self.ledger.limit());
        // What was taken back meanwhile may have been granted before the loop came to its last call.
        let holds = self.holds(ticket, EffectKey::Reserve { call, attempt });
        let granted = self.ledger.reserve(key, ask);
        let spent = granted.is_ok() && self.ledger.free() < keeps;
        check(
            !spent || !holds || self.ledger.overcounted,
            "shared_held_back",
            || format!("{call} leaves {} of {keeps}", self.ledger.free()),
        )?;
        let what = match granted {
            Ok(max_output_tokens) => What::BudgetGranted {
                call,
                attempt,
                max_output_tokens,
                tool_calls: self.ledger.tools_of((call, attempt)),
                left,
            },
            // This budget says to wait, and somebody raises it.
            Err(reason) if self.rng.chance(40) => What::BudgetWaits {
                call,
                attempt,
                waits_for: self.ledger.raise(&reason),
            },
            Err(reason) => What::BudgetRefused {
                call,
                attempt,
                reason,
            },
        };
        let after = self.rng.between(1, 20);
        let key = EffectKey::Reserve { call, attempt };
        self.put(after, Happening::Deliver(ticket, key, what));
        Ok(())
    }

    pub(super) fn settle(
        &mut self,
        ticket: Ticket,
        call: CallId,
        attempt: Attempt,
    ) -> Result<(), Violation> {
        let usage = self.settled.get(&(call, attempt)).copied();
        let warning = self
            .ledger
            .settle((call, attempt), &usage.unwrap_or_default())?;
        let what = What::BudgetSettled {
            call,
            attempt,
            more: Vec::new(),
            warnings: warning.into_iter().collect(),
        };
        let key = EffectKey::Settle { call, attempt };
        self.put(1, Happening::Deliver(ticket, key, what));
        Ok(())
    }

    /// An outcome reaches the driver that waits for it; whatever comes too late may still turn up.
    pub(super) fn deliver(
        &mut self,
        ticket: Ticket,
        key: EffectKey,
        what: What,
    ) -> Result<(), Violation> {
        let again = self.rng.chance(12) && self.features.has(Feature::Duplicate);
        if again || !self.holds(ticket, key) {
            let after = self.rng.between(0, 30);
            if self.features.has(Feature::LateOutcome) && outcome_of(&what).is_some() {
                self.put(after, Happening::Stray(what.clone()));
            }
        }
        if !self.holds(ticket, key) {
            return Ok(());
        }
        self.drivers[ticket.driver].running.remove(&key);
        self.handle(ticket.driver, what)?;
        if self.drivers[ticket.driver].alive {
            self.reconcile(ticket.driver)?;
        }
        Ok(())
    }

    /// An outcome that nobody waits for reaches the driver, perhaps under another attempt's number.
    pub(super) fn stray(&mut self, mut what: What) -> Result<(), Violation> {
        let (shift, up) = (self.rng.chance(30), self.rng.chance(50));
        let Some(id) = self.current() else {
            return Ok(());
        };
        if shift && let Some(attempt) = attempt_of(&mut what) {
            *attempt = if up { *attempt + 1 } else { *attempt - 1 };
        }
        let key = outcome_of(&what);
        let wanted = loopwright_core::wanted(&self.drivers[id].state);
        if key.is_some_and(|key| wanted.contains(&key)) {
            return Ok(());
        }
        self.note(|| format!("stray {key:?}"));
        self.handle(id, what)?;
        Ok(())
    }

    /// Progress goes to watchers. It has no way into the state, in a driver without faults.
    pub(super) fn progress(&mut self, id: usize) {
        if self.machine.is(Mutant::ProgressChangesState) && self.drivers[id].alive {
            self.drivers[id].state.totals.usage.output += 1;
        }
    }

    fn holds(&self, ticket: Ticket, key: EffectKey) -> bool {
        let driver = &self.drivers[ticket.driver];
        driver.alive && driver.running.get(&key) == Some(&ticket.start)
    }

    fn jitter(&mut self) -> u32 {
        u32::try_from(self.rng.between(0, u64::from(JITTER_ONE))).expect("small")
    }
}

fn attempt_of(what: &mut What) -> Option<&mut Attempt> {
    match what {
        What::ModelCompleted { attempt, .. }
        | What::ModelFailed { attempt, .. }
        | What::ToolCompleted { attempt, .. }
        | What::ToolFailed { attempt, .. } => Some(attempt),
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
        | What::LookedUp { .. }
        | What::BudgetGranted { .. }
        | What::BudgetWaits { .. }
        | What::BudgetRefused { .. }
        | What::BudgetSpent { .. }
        | What::BudgetSettled { .. }
        | What::TimerFired(_) => None,
    }
}
