//! Drivers as the architecture draws them: decide, append, apply, reconcile; losing the fence or
//! not knowing whether an append happened ends them.

use std::{collections::BTreeSet, sync::Arc};

use loopwright_core::{
    Cause, EffectKey, Entry, Event, Input, Instances, Rejection, State, What,
    agent::{BudgetLimits, EffectClass, ToolSet},
    event::UnknownResolution,
    ids::{Epoch, Timestamp},
    message::Part,
    state::ToolPhase,
};

use super::{Driver, Happening, Record, World};
use crate::simulator::{
    mutant::Mutant,
    oracle::{Said, Violation, check},
    plan::Feature,
};

/// The most that two clocks differ by, milliseconds.
pub(crate) const MOST_AHEAD_MS: u64 = 40;

/// What a driver answers.
pub(super) enum Reply {
    Done,
    Rejected(Rejection),
    Died,
}

/// What a driver learns of its append.
enum Appended {
    Acknowledged,
    Lost,
}

impl World {
    /// The driver that attached last, while it lives.
    pub(super) fn current(&self) -> Option<usize> {
        let last = self.drivers.len().checked_sub(1)?;
        self.drivers[last].alive.then_some(last)
    }

    /// The registry: where a session is wanted and nobody drives it, somebody will.
    pub(super) fn ensure_driver(&mut self) {
        let needed = || {
            self.requests.iter().any(|request| !request.done)
                || !loopwright_core::wanted(&self.shadow).is_empty()
        };
        if self.current().is_none() && !self.attaching && needed() {
            self.attaching = true;
            let long = self.rng.chance(15) && self.features.has(Feature::Outage);
            let after = self.rng.between(1, if long { 500 } else { 20 });
            self.put(after, Happening::Attach);
        }
    }

    pub(super) fn attach(&mut self) -> Result<(), Violation> {
        self.attaching = false;
        if self.current().is_some() {
            return Ok(());
        }
        self.spawn()
    }

    /// A new driver folds the log and takes the session, whoever else believes to have it.
    pub(super) fn spawn(&mut self) -> Result<(), Violation> {
        let mut state = State::default();
        for (at, record) in self.records.iter().enumerate() {
            self.machine.apply(&mut state, at as u64 + 1, &record.entry);
        }
        let same = state == self.shadow;
        check(same, "fold_is_live", || {
            "folding again gives another state".to_owned()
        })?;
        let epoch = state.epoch + 1;
        let id = self.drivers.len();
        let ahead = self.rng.between(0, MOST_AHEAD_MS);
        let skewed = self.features.has(Feature::ClockSkew);
        self.drivers.push(Driver {
            ahead: if skewed { ahead } else { 0 },
            epoch,
            state,
            running: std::collections::BTreeMap::new(),
            alive: true,
        });
        let cut_bytes = self.torn.take();
        let seq = self.records.len();
        let reply = self.handle(
            id,
            What::Attach {
                epoch,
                cut_bytes,
                server: String::new(),
            },
        )?;
        if let Some(record) = self.records.get(seq) {
            let told = record.entry.events.iter().find_map(|event| {
                if let Event::LogRecovered(e) = event {
                    Some(e.cut_bytes)
                } else {
                    None
                }
            });
            check(told == cut_bytes, "recovery_told", || {
                format!("{cut_bytes:?} bytes were cut, {told:?} were told of")
            })?;
        }
        match reply {
            Reply::Done | Reply::Died => Ok(()),
            Reply::Rejected(rejection) => Err(Violation::new("attach", rejection.to_string())),
        }
    }

    /// What a driver takes the time to be.
    pub(super) fn clock_of(&self, id: usize) -> Timestamp {
        Timestamp(self.now + self.drivers[id].ahead)
    }

    pub(super) fn kill(&mut self, id: usize) {
        self.drivers[id].alive = false;
        self.drivers[id].running.clear();
    }

    /// The sidecar is another one every now and then.
    fn instances(&self) -> Instances {
        let instance = format!("i{}", self.now / 100);
        Instances::Present(Arc::new([("t".to_owned(), instance)].into()))
    }

    /// One turn of a driver's loop.
    pub(super) fn handle(&mut self, id: usize, what: What) -> Result<Reply, Violation> {
        let asked = outcome_of(&what);
        let (late, said) = (self.is_late(id, &what), Said::of(&what));
        let at = self.clock_of(id);
        let input = Input {
            instances: self.instances(),
            ..Input::new(at, what)
        };
        let cause = input.cause();
        let driver = &self.drivers[id];
        let events = match self.machine.decide(&driver.state, input) {
            Ok(events) if events.is_empty() => {
                check(!late, "late", || format!("{asked:?} is not logged as late"))?;
                return Ok(Reply::Done);
            }
            Ok(events) => events,
            Err(rejection) => return Ok(Reply::Rejected(rejection)),
        };
        said.stands_in(&events)?;
        let wanted = asked.is_none_or(|k| loopwright_core::wanted(&driver.state).contains(&k));
        let told = late && matches!(events[..], [Event::ToolCallResultLate(_)]);
        let in_time = asked.is_some_and(|key| is_open_question(&driver.state, key));
        check(wanted || told || in_time, "stale_outcome", || {
            format!("{asked:?} decides to {events:?}")
        })?;
        let entry = Arc::new(Entry::new(cause, events));
        if self.machine.is(Mutant::ActBeforeCommit) {
            let seq = driver.state.seq + 1;
            let before = driver.state.clone();
            self.machine.apply(&mut self.drivers[id].state, seq, &entry);
            self.reconcile(id)?;
            self.drivers[id].state = before;
        }
        match self.append(id, at, &entry)? {
            Appended::Acknowledged => {
                self.apply(id, &entry)?;
                self.reconcile(id)?;
                Ok(Reply::Done)
            }
            Appended::Lost => {
                self.kill(id);
                Ok(Reply::Died)
            }
        }
    }

    /// Whether this is a result that a driver which knows the whole log must log as late.
    fn is_late(&self, id: usize, what: &What) -> bool {
        let knows = self.drivers[id].state.seq == self.records.len() as u64;
        let late = |call, attempt| self.oracle.expects_late(call, attempt);
        knows && matches!(*what, What::ToolCompleted { call, attempt, .. } if late(call, attempt))
    }

    fn append(
        &mut self,
        id: usize,
        at: Timestamp,
        entry: &Arc<Entry>,
    ) -> Result<Appended, Violation> {
        if self.strikes(Feature::Crash, 3) {
            self.note(|| format!("driver {id} crashes before it appends"));
            self.torn = self.rng.maybe(1, 900);
            return Ok(Appended::Lost);
        }
        let (expected, epoch) = (self.drivers[id].state.seq, self.drivers[id].epoch);
        if expected != self.records.len() as u64 && !self.machine.is(Mutant::FenceOff) {
            self.note(|| format!("driver {id} loses the fence"));
            if self.machine.is(Mutant::LostFenceIgnored) {
                return Ok(Appended::Acknowledged);
            }
            return Ok(Appended::Lost);
        }
        self.commit(epoch, at, entry)?;
        if self.strikes(Feature::Crash, 3) {
            self.note(|| format!("driver {id} crashes after it appended"));
            return Ok(Appended::Lost);
        }
        if self.strikes(Feature::LostAck, 4) {
            self.note(|| format!("driver {id} is not told of its append"));
            if self.machine.is(Mutant::LostAckAppendedAgain) {
                self.commit(epoch, at, entry)?;
            }
            return Ok(Appended::Lost);
        }
        Ok(Appended::Acknowledged)
    }

    fn strikes(&mut self, feature: Feature, percent: u64) -> bool {
        let drawn = self.rng.chance(percent);
        let strikes = drawn && self.faults_left > 0 && self.features.has(feature);
        if strikes {
            self.faults_left -= 1;
            self.faults += 1;
        }
        strikes
    }

    /// The entry becomes durable: from here on everybody sees it, and the judges do.
    pub(super) fn commit(
        &mut self,
        writer: Epoch,
        at: Timestamp,
        entry: &Arc<Entry>,
    ) -> Result<(), Violation> {
        self.note(|| {
            format!(
                "epoch {writer} {}",
                serde_json::to_string(&**entry).expect("JSON")
            )
        });
        self.decide_again(at, entry)?;
        let attaches = entry.cause == Cause::Attach;
        let epoch = self.shadow.epoch + u64::from(attaches);
        check(writer == epoch, "fence", || {
            format!("epoch {writer} writes in epoch {}", self.shadow.epoch)
        })?;
        for event in &entry.events {
            self.know_outside(event);
            self.know_limits(event);
        }
        let entry = if self.json {
            through_json(entry)?
        } else {
            Arc::clone(entry)
        };
        let seq = self.records.len() as u64 + 1;
        self.machine.apply(&mut self.shadow, seq, &entry);
        check(self.shadow.epoch == epoch, "epoch_rises", || {
            format!("epoch {} after the attach of {epoch}", self.shadow.epoch)
        })?;
        self.oracle
            .observe(at, &entry, &self.shadow, &self.sidecar)?;
        self.ask_people(at, &entry);
        self.records.push(Record { at, entry });
        Ok(())
    }

    /// The recovered input decides to what was logged.
    fn decide_again(&self, at: Timestamp, entry: &Entry) -> Result<(), Violation> {
        let failed = |why: String| Violation::new("redecide", why);
        let input = Input::from_entry(at, entry).map_err(|e| failed(e.to_string()))?;
        let again = self
            .machine
            .decide(&self.shadow, input)
            .map_err(|rejection| failed(rejection.to_string()))?;
        check(again == entry.events, "redecide", || {
            format!("logged {:?}, decided {again:?}", entry.events)
        })
    }

    /// What the sidecars and the ledger will be asked about.
    pub(super) fn know_outside(&mut self, event: &Event) {
        if let Event::UnknownResolved(e) = event
            && e.resolution == UnknownResolution::RunAgain
        {
            self.sidecar.said_again(e.call);
        }
        if let Event::BudgetSettled(e) = event {
            self.settled.insert((e.call, e.attempt), e.usage);
        }
        if let Event::ModelCallCompleted(e) = event {
            self.reply = Arc::clone(&e.parts);
        }
        if let Event::ToolCallRequested(e) = event
            && let Some(Part::ToolCall(part)) = self.reply.get(e.index as usize)
        {
            self.names.insert(e.call, part.tool.clone());
        }
        if let Event::ToolCallStarted(e) = event
            && e.attempt == 1
        {
            let name = self.names.get(&e.call);
            let offered = name.and_then(|name| self.shadow.tools.get(name));
            let class = offered.map_or(EffectClass::AtMostOnce, |spec| spec.effect);
            self.sidecar.expect(e.call, class);
        }
    }

    /// The most that was ever allowed, to loops and to the session.
    fn know_limits(&mut self, event: &Event) {
        if let Event::LimitsUpdated(e) = event {
            widen(&mut self.most.0, &e.limits.budget);
            widen(&mut self.most.1, &e.limits.session_budget);
        }
    }

    fn apply(&mut self, id: usize, entry: &Entry) -> Result<(), Violation> {
        let driver = &mut self.drivers[id];
        let seq = driver.state.seq + 1;
        self.machine.apply(&mut driver.state, seq, entry);
        check(driver.state == self.shadow, "fold_is_live", || {
            format!("driver {id} and the log part at {seq}")
        })
    }

    /// Starts what is wanted and does not run, aborts what runs and is not wanted.
    pub(super) fn reconcile(&mut self, id: usize) -> Result<(), Violation> {
        let wanted = self.machine.wanted(&self.drivers[id].state);
        if !self.machine.is(Mutant::CancelledLoopKeepsItsTools) {
            self.drivers[id]
                .running
                .retain(|key, _| wanted.contains(key));
        }
        for key in wanted {
            if !self.drivers[id].running.contains_key(&key) {
                self.start(id, key)?;
            }
        }
        let driver = &self.drivers[id];
        let running: BTreeSet<EffectKey> = driver.running.keys().copied().collect();
        let wanted = loopwright_core::wanted(&driver.state);
        check(running == wanted, "running_is_wanted", || {
            format!("driver {id} runs {running:?}, wanted {wanted:?}")
        })
    }

    /// The catalog loses a tool, or a tool says more of itself, or makes another promise.
    pub(super) fn change_catalog(&mut self) -> Result<(), Violation> {
        let Some(id) = self.current() else {
            return Ok(());
        };
        let mut specs: Vec<_> = self.plan.tools.iter().cloned().collect();
        let at = usize::try_from(self.rng.between(0, specs.len() as u64 - 1)).expect("small");
        let class = self
            .rng
            .pick(&[EffectClass::Idempotent, EffectClass::AtMostOnce]);
        match self.rng.between(0, 2) {
            0 => drop(specs.remove(at)),
            1 => specs[at].description = "long ".repeat(200),
            _ => specs[at].effect = class,
        }
        self.handle(id, What::ToolsChanged(ToolSet::new(specs)))?;
        Ok(())
    }
}

fn widen(most: &mut BudgetLimits, limits: &BudgetLimits) {
    let wider = |most: &mut Option<u64>, limit: Option<u64>| {
        *most = most.zip(limit).map(|(most, limit)| most.max(limit));
    };
    wider(&mut most.input_tokens, limits.input_tokens);
    wider(&mut most.output_tokens, limits.output_tokens);
    wider(&mut most.total_tokens, limits.total_tokens);
}

fn through_json(entry: &Entry) -> Result<Arc<Entry>, Violation> {
    let text = serde_json::to_string(entry).expect("an entry is JSON");
    let back: Entry = serde_json::from_str(&text)
        .map_err(|error| Violation::new("json", format!("{error} in {text}")))?;
    check(back == *entry, "json", || {
        format!("{text} reads back as {back:?}")
    })?;
    Ok(Arc::new(back))
}

/// Whether a tool call is still asked about: its sidecar, or a person.
fn is_open_question(state: &State, key: EffectKey) -> bool {
    let EffectKey::Tool { call, attempt } = key else {
        return false;
    };
    let tool = state.active.as_ref().and_then(|active| active.tool(call));
    let asked = |phase: &ToolPhase| matches!(phase, ToolPhase::InDoubt { .. } | ToolPhase::Asking);
    tool.is_some_and(|tool| tool.attempt == attempt && asked(&tool.phase))
}

/// The effect that an input is the outcome of.
pub(super) fn outcome_of(what: &What) -> Option<EffectKey> {
    match *what {
        What::ModelCompleted { call, attempt, .. } | What::ModelFailed { call, attempt, .. } => {
            Some(EffectKey::Model { call, attempt })
        }
        What::ToolCompleted { call, attempt, .. } | What::ToolFailed { call, attempt, .. } => {
            Some(EffectKey::Tool { call, attempt })
        }
        What::LookedUp { call, .. } => Some(EffectKey::Lookup { call }),
        What::BudgetGranted { call, attempt, .. }
        | What::BudgetWaits { call, attempt, .. }
        | What::BudgetSpent { call, attempt }
        | What::BudgetRefused { call, attempt, .. } => Some(EffectKey::Reserve { call, attempt }),
        What::BudgetSettled { call, attempt, .. } => Some(EffectKey::Settle { call, attempt }),
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
        | What::TimerFired(_) => None,
    }
}
