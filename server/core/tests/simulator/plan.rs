//! What one seed is about: the session's terms, what its clients send and when, which faults occur.

use std::{collections::BTreeMap, sync::Arc};

use loopwright_core::{
    agent::{
        Agent, BudgetChange, BudgetLimits, EffectClass, Limits, LimitsChange, Move, ToolSet,
        ToolSpec, UnknownPolicy,
    },
    budget::{Dimension, Price},
    context::ContextTerms,
    input::Mode,
    ledger::OnExhausted,
    retry::RetryPolicy,
};

use super::rng::Rng;

/// The model that writes recaps.
pub(crate) const RECAP_MODEL: &str = "writer";

/// Something that a seed may contain; a failing seed is narrowed down by leaving them out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Feature {
    Crash,
    LostAck,
    Zombie,
    Duplicate,
    LateOutcome,
    Drain,
    Outage,
    ClockSkew,
    ToolFaults,
    ModelFaults,
    CutReplies,
    Catalog,
    Budget,
    NamedBudget,
    Deadline,
    Commands,
    Persons,
    Expiry,
    Fork,
    Progress,
    Pause,
    Moves,
    Session,
    WallTime,
    Removals,
}

impl Feature {
    pub(crate) const ALL: [Self; 25] = [
        Self::Crash,
        Self::LostAck,
        Self::Zombie,
        Self::Duplicate,
        Self::LateOutcome,
        Self::Drain,
        Self::Outage,
        Self::ClockSkew,
        Self::ToolFaults,
        Self::ModelFaults,
        Self::CutReplies,
        Self::Catalog,
        Self::Budget,
        Self::NamedBudget,
        Self::Deadline,
        Self::Commands,
        Self::Persons,
        Self::Expiry,
        Self::Fork,
        Self::Progress,
        Self::Pause,
        Self::Moves,
        Self::Session,
        Self::WallTime,
        Self::Removals,
    ];
}

/// Which features a run has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Features(u32);

impl Features {
    pub(crate) const ALL: Self = Self(u32::MAX);

    pub(crate) fn without(self, feature: Feature) -> Self {
        Self(self.0 & !(1 << feature as u32))
    }

    pub(crate) fn has(self, feature: Feature) -> bool {
        self.0 & (1 << feature as u32) != 0
    }
}

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "a seed has a few of them")]
pub(crate) enum Order {
    Start,
    Send(Mode),
    Cancel,
    Pause,
    Resume,
    Move(Moved),
}

/// Limits that a client moves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Moved {
    pub(crate) max_steps: Option<u32>,
    pub(crate) max_parallel: Option<u32>,
    pub(crate) deadline_ms: Move<u64>,
    pub(crate) budget: BudgetChange,
    pub(crate) session_budget: BudgetChange,
    pub(crate) on_exhausted: Option<OnExhausted>,
}

impl From<Moved> for LimitsChange {
    fn from(moved: Moved) -> Self {
        Self {
            max_steps: moved.max_steps,
            max_parallel_tool_calls: moved.max_parallel,
            deadline_ms: moved.deadline_ms,
            budget: moved.budget,
            session_budget: moved.session_budget,
            on_exhausted: moved.on_exhausted,
            ..Self::default()
        }
    }
}

/// One seed's session.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) agent: Arc<Agent>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) tools: Arc<ToolSet>,
    /// When each command is first sent, milliseconds.
    pub(crate) orders: Vec<(u64, Order)>,
    /// Faults of drivers and of the log, after which there are no more.
    pub(crate) faults: u32,
    /// A provider that counts more than was reserved.
    pub(crate) overcounts: bool,
    /// Tokens that the named budget holds.
    pub(crate) ledger: u64,
}

impl Plan {
    pub(crate) fn new(rng: &mut Rng, features: Features) -> Self {
        let limits = limits(rng, features);
        let named = rng.chance(30) && features.has(Feature::NamedBudget);
        let fallbacks = if rng.chance(30) {
            vec!["second".to_owned()]
        } else {
            Vec::new()
        };
        let agent = Agent {
            model: "first".to_owned(),
            fallbacks,
            system_prompt: "Be brief.".to_owned(),
            budgets: if named {
                vec!["team".to_owned()]
            } else {
                Vec::new()
            },
            ..Agent::default()
        };
        let retention_ms = rng.between(5, 100);
        Self {
            agent: Arc::new(agent),
            limits: Arc::new(limits),
            tools: tools(retention_ms),
            orders: orders(rng, features),
            faults: u32::try_from(rng.between(0, 6)).expect("small"),
            overcounts: rng.chance(5),
            ledger: rng.between(800, 12_000),
        }
    }
}

/// The tools on offer: one of each effect class, and one that must not be repeated and cannot say
/// what became of a call.
pub(crate) fn tools(retention_ms: u64) -> Arc<ToolSet> {
    let blind_destroys = retention_ms.is_multiple_of(3);
    let spec = |name: &str, effect, lookup| ToolSpec {
        name: format!("t__{name}"),
        description: "a tool".to_owned(),
        input_schema: "{}".to_owned(),
        effect,
        destructive: effect == EffectClass::AtMostOnce && (name == "blind") == blind_destroys,
        lookup,
        timeout_ms: 50,
        absolute_cap_ms: 100,
    };
    ToolSet::new(vec![
        spec("read", EffectClass::ReadOnly, false),
        spec("idem", EffectClass::Idempotent, false),
        spec(
            "dedup",
            EffectClass::Deduplicated { retention_ms },
            retention_ms.is_multiple_of(2),
        ),
        spec("once", EffectClass::AtMostOnce, true),
        spec("blind", EffectClass::AtMostOnce, false),
    ])
}

fn limits(rng: &mut Rng, features: Features) -> Limits {
    let small = |rng: &mut Rng, low, high| u32::try_from(rng.between(low, high)).expect("small");
    let deadline = rng.between(60, 500);
    let with_deadline = rng.chance(20) && features.has(Feature::Deadline);
    let expires = features.has(Feature::Expiry);
    let priced = rng.chance(30) && features.has(Feature::Budget);
    Limits {
        max_steps: small(rng, 1, 6),
        max_output_tokens: rng.between(40, 400),
        max_output_retries: small(rng, 0, 2),
        max_parallel_tool_calls: small(rng, 1, 3),
        max_tool_calls_per_name: rng.maybe(1, 4).map(|n| u32::try_from(n).expect("small")),
        deadline_ms: with_deadline.then_some(deadline),
        max_waiting_messages: small(rng, 1, 4),
        min_output_tokens: 16,
        budget: BudgetLimits {
            cost_micro_usd: rng.maybe(2_000, 20_000).filter(|_| priced),
            ..budget(rng, features)
        },
        prices: if priced { prices() } else { BTreeMap::new() },
        retry: RetryPolicy {
            max_attempts: small(rng, 1, 4),
            base_delay_ms: 10,
            max_delay_ms: 60,
            total_deadline_ms: 400,
        },
        on_unknown: rng.pick(&[
            None,
            Some(UnknownPolicy::Ask),
            Some(UnknownPolicy::Ask),
            Some(UnknownPolicy::TellModel),
            Some(UnknownPolicy::TellModel),
            Some(UnknownPolicy::End),
        ]),
        approval_timeout_ms: rng.maybe(20, 200).filter(|_| expires),
        approval_default_allow: rng.chance(30),
        idle_timeout_ms: rng.maybe(40, 400).filter(|_| expires),
        context: context(rng),
        no_progress: rng.maybe(1, 4).map(|n| u32::try_from(n).expect("small")),
        wrapup_steps: small(rng, 0, 3),
        final_call_tokens: rng.maybe(100, 2_000),
        tell_budget: rng.chance(30),
        session_budget: BudgetLimits {
            cost_micro_usd: rng.maybe(4_000, 40_000).filter(|_| priced),
            ..session_budget(rng, features)
        },
        on_exhausted: rng.pick(&[OnExhausted::End, OnExhausted::End, OnExhausted::Pause]),
        warn_permille: rng.pick(&[0, 500, 800]),
        ..Limits::default()
    }
}

/// Micro-USD for a million tokens, read and written.
fn prices() -> BTreeMap<String, Price> {
    let all = [("first", 2, 10), ("second", 1, 5), (RECAP_MODEL, 3, 15)];
    let price = |(model, input, output): (&str, u64, u64)| {
        let price = Price {
            input: input * 1_000_000,
            output: output * 1_000_000,
            long: None,
        };
        (model.to_owned(), price)
    };
    all.map(price).into()
}

/// A window that a few steps fill.
fn context(rng: &mut Rng) -> Option<ContextTerms> {
    let small = |rng: &mut Rng, low, high| u32::try_from(rng.between(low, high)).expect("small");
    let terms = ContextTerms {
        max_tokens: rng.between(900, 4_000),
        threshold_permille: small(rng, 150, 900),
        check_every: small(rng, 1, 3),
        target_permille: small(rng, 100, 600),
        min_recent_messages: small(rng, 0, 4),
        recap_by_model: rng.chance(80).then(|| RECAP_MODEL.to_owned()),
    };
    rng.chance(50).then_some(terms)
}

fn budget(rng: &mut Rng, features: Features) -> BudgetLimits {
    let drawn = BudgetLimits {
        input_tokens: rng.maybe(900, 6_000),
        output_tokens: rng.maybe(100, 1_500),
        total_tokens: rng.maybe(1_000, 6_000),
        model_calls: rng.maybe(1, 8),
        tool_calls: rng.maybe(0, 6),
        wall_ms: time(rng, features, 30, 400),
        ..BudgetLimits::default()
    };
    if rng.chance(50) && features.has(Feature::Budget) {
        drawn
    } else {
        BudgetLimits::default()
    }
}

fn session_budget(rng: &mut Rng, features: Features) -> BudgetLimits {
    let drawn = BudgetLimits {
        output_tokens: rng.maybe(100, 1_500),
        total_tokens: rng.maybe(1_000, 9_000),
        model_calls: rng.maybe(1, 9),
        tool_calls: rng.maybe(0, 6),
        wall_ms: time(rng, features, 30, 500),
        ..BudgetLimits::default()
    };
    if rng.chance(25) && features.has(Feature::Session) {
        drawn
    } else {
        BudgetLimits::default()
    }
}

fn time(rng: &mut Rng, features: Features, low: u64, high: u64) -> Option<u64> {
    let drawn = rng.maybe(low, high);
    drawn.filter(|_| features.has(Feature::WallTime))
}

/// Pauses, most of which somebody ends, and limits that move up and down.
fn interventions(rng: &mut Rng, features: Features) -> Vec<(u64, Order)> {
    let mut orders = Vec::new();
    for _ in 0..2 {
        let (drawn, ends) = (rng.chance(18), rng.chance(85));
        let (at, long) = (rng.between(1, 120), rng.between(1, 150));
        if drawn && features.has(Feature::Pause) {
            orders.push((at, Order::Pause));
            if ends {
                orders.push((at + long, Order::Resume));
            }
        }
    }
    for _ in 0..3 {
        let (drawn, at) = (rng.chance(15), rng.between(1, 200));
        let moved = moved(rng, features);
        if drawn && features.has(Feature::Moves) {
            orders.push((at, Order::Move(moved)));
        }
    }
    orders
}

fn moved(rng: &mut Rng, features: Features) -> Moved {
    let small = |rng: &mut Rng, high| {
        let drawn = rng.maybe(1, high);
        drawn.map(|n| u32::try_from(n).expect("small"))
    };
    let budget = |rng: &mut Rng| BudgetLimits {
        output_tokens: rng.maybe(100, 3_000),
        total_tokens: rng.maybe(1_000, 12_000),
        model_calls: rng.maybe(1, 12),
        tool_calls: rng.maybe(0, 9),
        wall_ms: time(rng, features, 30, 900),
        ..BudgetLimits::default()
    };
    let whose = rng.between(0, 3);
    let (own, session) = (budget(rng), budget(rng));
    Moved {
        max_steps: small(rng, 8),
        max_parallel: small(rng, 4),
        deadline_ms: deadline(rng, features),
        budget: if whose < 2 {
            change(rng, features, own)
        } else {
            BudgetChange::default()
        },
        session_budget: if whose == 2 {
            change(rng, features, session)
        } else {
            BudgetChange::default()
        },
        on_exhausted: rng.pick(&[None, None, Some(OnExhausted::End), Some(OnExhausted::Pause)]),
    }
}

fn deadline(rng: &mut Rng, features: Features) -> Move<u64> {
    let (drawn, goes) = (rng.maybe(30, 600), rng.chance(10));
    match drawn.filter(|ms| ms.is_multiple_of(4)) {
        Some(millis) => Move::To(millis),
        None if goes && features.has(Feature::Removals) => Move::Off,
        None => Move::Stays,
    }
}

/// Limits that move, of which some go instead.
fn change(rng: &mut Rng, features: Features, to: BudgetLimits) -> BudgetChange {
    let all = Dimension::ALL.into_iter();
    all.fold(BudgetChange::from(to), |change, dimension| {
        if rng.chance(15) && features.has(Feature::Removals) {
            change.with(dimension, Move::Off)
        } else {
            change
        }
    })
}

fn orders(rng: &mut Rng, features: Features) -> Vec<(u64, Order)> {
    const KINDS: [Order; 7] = [
        Order::Start,
        Order::Send(Mode::Queue),
        Order::Send(Mode::Queue),
        Order::Send(Mode::Steer),
        Order::Send(Mode::Steer),
        Order::Send(Mode::Interrupt),
        Order::Cancel,
    ];
    let more = rng.between(0, 4);
    let mut orders = vec![(0, Order::Start)];
    for _ in 0..more {
        let at = rng.between(1, 120);
        let order = rng.pick(&KINDS);
        if features.has(Feature::Commands) {
            orders.push((at, order));
        }
    }
    orders.extend(interventions(rng, features));
    orders
}
