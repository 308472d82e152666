//! One seed's world: drivers, their log, what is outside, and an agenda of what happens when.
//!
//! One thread and one clock of milliseconds. Everything random comes from the seed; what is random
//! about progress comes from a stream of its own, so that leaving progress out changes nothing else.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use loopwright_core::{
    EffectKey, Entry, Input, State, What,
    agent::BudgetLimits,
    budget::Ask,
    ids::{Attempt, CallId, Epoch, LoopId, Timestamp},
    input::{Command, Create},
    message::Parts,
    state::{Answer, LoopRun},
    usage::Usage,
};

use super::{
    ledger::Ledger,
    machine::Machine,
    mutant::Mutant,
    oracle::{Oracle, Violation, check},
    plan::{Feature, Features, Plan},
    rng::Rng,
    sidecar::{Forgets, Sidecar},
};

mod client;
mod copy;
mod driver;
mod effects;
mod people;

pub(crate) use driver::MOST_AHEAD_MS;

/// Happenings after which a run that has not ended never will.
const MOST_HAPPENINGS: u32 = 4_000;

/// What became of a run.
pub(crate) struct Outcome {
    pub(crate) violation: Option<Violation>,
    /// Line by line, where it was asked for.
    pub(crate) trace: Vec<String>,
    /// The log.
    pub(crate) records: Vec<Record>,
    pub(crate) faults: u32,
}

/// A durable entry.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Record {
    pub(crate) at: Timestamp,
    pub(crate) entry: Arc<Entry>,
}

/// Something on the agenda.
#[derive(Clone, Debug)]
enum Happening {
    Send(usize),
    Attach,
    TakeOver,
    Crash,
    Drain,
    Catalog,
    Deliver(Ticket, EffectKey, What),
    Arrive {
        ticket: Ticket,
        call: CallId,
        attempt: Attempt,
        epoch: Epoch,
        answers: bool,
    },
    LookUp(Ticket, CallId, Attempt, Epoch),
    Rejoin(Ticket, CallId),
    Reserve(Ticket, CallId, Attempt, Ask),
    Settle(Ticket, CallId, Attempt),
    Stray(What),
    Progress(usize),
}

/// One start of an effect by one driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ticket {
    driver: usize,
    start: u64,
}

struct Driver {
    /// Its clock is so far ahead of the others', milliseconds.
    ahead: u64,
    epoch: Epoch,
    state: State,
    running: BTreeMap<EffectKey, u64>,
    alive: bool,
}

struct Request {
    id: String,
    what: What,
    answer: Option<Answer>,
    done: bool,
}

/// The world of one seed.
pub(crate) struct World {
    plan: Plan,
    features: Features,
    machine: Machine,
    rng: Rng,
    chatter: Rng,
    now: u64,
    /// By time, then progress last, then the order in which it was put there.
    agenda: BTreeMap<(u64, bool, u64), Happening>,
    serial: [u64; 2],
    records: Vec<Record>,
    /// The fold of the log.
    shadow: State,
    drivers: Vec<Driver>,
    attaching: bool,
    requests: Vec<Request>,
    sidecar: Sidecar,
    ledger: Ledger,
    oracle: Oracle,
    /// Attempts of model and tool calls that were really started.
    started: BTreeSet<EffectKey>,
    settled: BTreeMap<(CallId, Attempt), Usage>,
    /// The last reply, and the tool that each call of any reply asks for.
    reply: Parts,
    names: BTreeMap<CallId, String>,
    /// What providers really counted, by loop.
    real: BTreeMap<LoopId, Usage>,
    /// The most that loops, and the session, were ever allowed.
    most: (BudgetLimits, BudgetLimits),
    faults_left: u32,
    faults: u32,
    /// Bytes of an append that a crash cut short.
    torn: Option<u64>,
    /// Before the ids of requests, so that those of a copy are its own.
    prefix: &'static str,
    /// Whether entries go through JSON on their way.
    json: bool,
    trace: Option<Vec<String>>,
}

/// Runs `seed` on the core, or on the core with one fault.
pub(crate) fn run(
    seed: u64,
    mutant: Option<Mutant>,
    features: Features,
    with_trace: bool,
) -> Outcome {
    let mut world = World::new(seed, mutant, features, with_trace);
    let mut outcome = Outcome {
        violation: world.live().err(),
        trace: world.trace.take().unwrap_or_default(),
        records: world.records.clone(),
        faults: world.faults,
    };
    if outcome.violation.is_some() {
        return outcome;
    }
    world.trace = with_trace.then(Vec::new);
    match world.copy() {
        Ok(None) => {}
        Err(violation) => outcome.violation = Some(violation),
        Ok(Some(mut copy)) => {
            outcome.violation = copy.live_as_a_copy().err();
            outcome.trace.extend(copy.trace.unwrap_or_default());
            outcome.records.extend(copy.records);
            outcome.faults += copy.faults;
        }
    }
    outcome
}

impl World {
    fn new(seed: u64, mutant: Option<Mutant>, features: Features, with_trace: bool) -> Self {
        let mut rng = Rng::new(seed, 1);
        let plan = Plan::new(&mut rng, features);
        let mut sidecar = Sidecar::default();
        sidecar.forgets = match mutant {
            Some(Mutant::LookupDoesNotBind) => Some(Forgets::Everything),
            Some(Mutant::LookupBindsTheEpochAlone) => Some(Forgets::TheAttempt),
            _ => None,
        };
        Self {
            ledger: Ledger::new(plan.ledger),
            most: (plan.limits.budget, plan.limits.session_budget),
            faults_left: plan.faults,
            plan,
            features,
            machine: Machine(mutant),
            rng,
            chatter: Rng::new(seed, 2),
            now: 1_000_000,
            agenda: BTreeMap::new(),
            serial: [0, 0],
            records: Vec::new(),
            shadow: State::default(),
            drivers: Vec::new(),
            attaching: false,
            requests: Vec::new(),
            sidecar,
            oracle: Oracle::default(),
            started: BTreeSet::new(),
            settled: BTreeMap::new(),
            reply: Parts::default(),
            names: BTreeMap::new(),
            real: BTreeMap::new(),
            faults: 0,
            torn: None,
            prefix: "",
            json: seed.is_multiple_of(8),
            trace: with_trace.then(Vec::new),
        }
    }

    /// From the session's creation until nothing happens any more, then the last judgement.
    fn live(&mut self) -> Result<(), Violation> {
        self.create()?;
        self.prepare();
        self.go_on()
    }

    /// Until nothing happens any more, then the last judgement.
    fn go_on(&mut self) -> Result<(), Violation> {
        let mut count = 0;
        loop {
            self.ensure_driver();
            let Some(((at, ..), happening)) = self.agenda.pop_first() else {
                break;
            };
            self.now = at;
            self.happen(happening)?;
            count += 1;
            check(count < MOST_HAPPENINGS, "converges", || {
                format!("{count} happenings and no end")
            })?;
        }
        self.judge()
    }

    fn create(&mut self) -> Result<(), Violation> {
        let what = What::Create(Create {
            by: Command::default(),
            session: "s".to_owned(),
            namespace: "n".to_owned(),
            agent: Arc::clone(&self.plan.agent),
            limits: Arc::clone(&self.plan.limits),
            labels: BTreeMap::new(),
            tools: Arc::clone(&self.plan.tools),
        });
        let input = Input::new(Timestamp(self.now), what);
        let cause = input.cause();
        let events = self
            .machine
            .decide(&self.shadow, input)
            .map_err(|rejection| Violation::new("created", rejection.to_string()))?;
        self.commit(0, Timestamp(self.now), &Arc::new(Entry::new(cause, events)))
    }

    /// Puts the clients' commands and the faults of the world on the agenda.
    fn prepare(&mut self) {
        self.draw_requests();
        let faults = [
            (Feature::Zombie, Happening::TakeOver, 40),
            (Feature::Zombie, Happening::TakeOver, 20),
            (Feature::Crash, Happening::Crash, 40),
            (Feature::Drain, Happening::Drain, 15),
            (Feature::Catalog, Happening::Catalog, 15),
        ];
        for (feature, happening, percent) in faults {
            let (drawn, after) = (self.rng.chance(percent), self.rng.between(2, 120));
            if drawn && self.features.has(feature) {
                self.put(after, happening);
            }
        }
    }

    fn happen(&mut self, happening: Happening) -> Result<(), Violation> {
        match happening {
            Happening::Send(request) => self.send(request),
            Happening::Attach => self.attach(),
            Happening::TakeOver => {
                self.note(|| "another replica takes over".to_owned());
                self.faults += 1;
                self.spawn()
            }
            Happening::Crash => {
                if let Some(id) = self.current() {
                    self.note(|| format!("driver {id} crashes"));
                    self.faults += 1;
                    self.kill(id);
                }
                Ok(())
            }
            Happening::Drain => match self.current() {
                Some(id) => {
                    self.handle(id, What::Detach)?;
                    self.kill(id);
                    Ok(())
                }
                None => Ok(()),
            },
            Happening::Catalog => self.change_catalog(),
            Happening::Deliver(ticket, key, what) => self.deliver(ticket, key, what),
            Happening::Arrive {
                ticket,
                call,
                attempt,
                epoch,
                answers,
            } => self.arrive(ticket, call, attempt, epoch, answers),
            Happening::LookUp(ticket, call, attempt, epoch) => {
                self.look_up(ticket, call, attempt, epoch);
                Ok(())
            }
            Happening::Rejoin(ticket, call) => {
                self.rejoin(ticket, call);
                Ok(())
            }
            Happening::Reserve(ticket, call, attempt, ask) => {
                self.reserve(ticket, call, attempt, ask)
            }
            Happening::Settle(ticket, call, attempt) => self.settle(ticket, call, attempt),
            Happening::Stray(what) => self.stray(what),
            Happening::Progress(id) => {
                self.progress(id);
                Ok(())
            }
        }
    }

    /// What must hold once nothing happens any more.
    fn judge(&mut self) -> Result<(), Violation> {
        let state = &self.shadow;
        let rests = |active: &LoopRun| active.waits_for_person() || self.oracle.rests();
        let waits = state.active.as_ref().is_none_or(rests);
        check(waits, "converges", || {
            format!("{:?} never ends", state.active.as_ref().map(|a| a.id))
        })?;
        let left = loopwright_core::wanted(state);
        check(left.is_empty(), "converges", || {
            format!("{left:?} is still wanted")
        })?;
        check(self.ledger.held() == 0, "ledger", || {
            format!("{} tokens are held for ever", self.ledger.held())
        })?;
        self.oracle.finish(state, &self.sidecar)?;
        self.judge_requests()?;
        self.judge_real_use()
    }

    /// What providers counted never passes a limit, whatever was lost on the way.
    fn judge_real_use(&self) -> Result<(), Violation> {
        let (of_loops, of_session) = &self.most;
        let all = self.real.values();
        let all = all.fold(Usage::default(), |sum, real| sum.plus(real));
        let loops = self.real.iter().map(|(id, real)| (*id, *real, of_loops));
        for (id, real, limits) in loops.chain([(LoopId(0), all, of_session)]) {
            let sums = [
                (limits.input_tokens, real.prompt()),
                (limits.output_tokens, real.output),
                (limits.total_tokens, real.total()),
            ];
            for (limit, sum) in sums {
                let within = limit.is_none_or(|limit| sum <= limit);
                check(self.plan.overcounts || within, "budget_real", || {
                    format!("{id} really used {sum} of {limit:?}")
                })?;
            }
        }
        Ok(())
    }

    fn put(&mut self, after: u64, happening: Happening) {
        let progress = matches!(happening, Happening::Progress(_));
        let serial = &mut self.serial[usize::from(progress)];
        *serial += 1;
        self.agenda
            .insert((self.now + after, progress, *serial), happening);
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        let now = self.now;
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{now} {}", line()));
        }
    }
}
