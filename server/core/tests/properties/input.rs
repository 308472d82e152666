//! Random inputs: half of them are outcomes that the state waits for, the rest is anything.

mod outcome;

use std::{collections::BTreeMap, sync::Arc};

use loopwright_core::{
    EffectKey, State, What,
    agent::{
        Agent, BudgetChange, BudgetLimits, EffectClass, Limits, LimitsChange, Move, ToolSet,
        ToolSpec, UnknownPolicy,
    },
    budget::Dimension,
    event::{BudgetWarning, UnknownResolution},
    ids::{Attempt, CallId, LoopId},
    input::{AdoptOrigin, Command, Create, Mode, SendMessage, StartLoop, TimerWhy},
    ledger::OnExhausted,
    message::Part,
    outcome::{DoubtCause, EndReason, LookupAnswer, ToolFailure, ToolFailureKind},
    wanted,
};
use proptest::prelude::*;

/// The dice behind one input; what they mean depends on the state.
#[derive(Clone, Debug)]
pub(crate) struct Roll {
    kind: u8,
    pick: u8,
    shape: u8,
    number: u64,
    text: String,
}

/// Scripts of inputs. The first creates a session in most of them.
pub(crate) fn rolls() -> impl Strategy<Value = Vec<Roll>> {
    proptest::collection::vec(roll(), 1..50)
}

pub(crate) fn roll() -> impl Strategy<Value = Roll> {
    let number = prop_oneof![6 => 0_u64..5_000, 1 => Just(u64::MAX), 1 => any::<u64>()];
    (
        any::<u8>(),
        any::<u8>(),
        any::<u8>(),
        number,
        "[a-z\"\\\\\u{7f}-\u{2028}]{0,8}",
    )
        .prop_map(|(kind, pick, shape, number, text)| Roll {
            kind,
            pick,
            shape,
            number,
            text,
        })
}

impl Roll {
    pub(crate) fn pause(&self) -> u64 {
        u64::from(self.pick) * u64::from(self.shape % 4)
    }

    pub(crate) fn input(&self, state: &State) -> What {
        if state.session.is_none() && self.kind != 0 {
            return self.create();
        }
        let keys: Vec<EffectKey> = wanted(state).into_iter().collect();
        match self.kind % 16 {
            0..=7 if !keys.is_empty() => self.outcome(keys[usize::from(self.pick) % keys.len()]),
            0..=8 => self.command(),
            9 if self.shape.is_multiple_of(3) => self.intervention(),
            9 => self.word_of_a_person(state),
            10 => What::Attach {
                epoch: state.epoch + u64::from(!self.shape.is_multiple_of(8)),
                cut_bytes: self.pick.is_multiple_of(2).then_some(self.number),
                server: String::new(),
            },
            11 if self.pick.is_multiple_of(2) => What::Detach,
            11 => What::ToolsChanged(self.tools()),
            12 => What::TimerFired(self.timer()),
            13 => self.outcome(EffectKey::Lookup { call: self.call() }),
            14 => self.outcome(EffectKey::Tool {
                call: self.call(),
                attempt: self.attempt(),
            }),
            _ => self.outcome(EffectKey::Model {
                call: self.call(),
                attempt: self.attempt(),
            }),
        }
    }

    fn intervention(&self) -> What {
        let (by, guard) = (self.by(), None);
        match self.pick % 4 {
            0 => What::PauseLoop { by, guard },
            1 => What::ResumeLoop { by, guard },
            _ => What::UpdateLimits {
                by,
                guard,
                change: Box::new(LimitsChange {
                    max_steps: Some(u32::from(self.shape)),
                    deadline_ms: match self.pick {
                        0..=60 => Move::Stays,
                        61..=99 => Move::Off,
                        100.. => Move::To(self.number),
                    },
                    budget: BudgetChange::default()
                        .with(Dimension::TotalTokens, Move::To(self.number))
                        .with(
                            Dimension::WallTimeMs,
                            [Move::Off, Move::Stays][usize::from(self.shape % 2)],
                        ),
                    on_exhausted: Some(OnExhausted::Pause),
                    ..LimitsChange::default()
                }),
            },
        }
    }

    fn create(&self) -> What {
        let some = |bit: u8, value: u64| (self.shape & bit != 0).then_some(value);
        let limits = Limits {
            max_steps: u32::from(self.pick % 6),
            max_output_tokens: self.number % 500,
            max_output_retries: u32::from(self.pick % 3),
            max_parallel_tool_calls: u32::from(self.pick % 4),
            max_tool_calls_per_name: some(1, 2).map(|_| 2),
            deadline_ms: some(2, self.number),
            max_waiting_messages: u32::from(self.pick % 7),
            min_output_tokens: 16,
            budget: BudgetLimits {
                input_tokens: some(4, self.number),
                output_tokens: some(8, self.number),
                total_tokens: some(16, self.number),
                model_calls: some(32, self.number % 9),
                tool_calls: some(64, self.number % 9),
                cost_micro_usd: some(1, self.number),
                wall_ms: some(2, self.number % 900),
            },
            on_unknown: [
                None,
                Some(UnknownPolicy::Ask),
                Some(UnknownPolicy::TellModel),
                Some(UnknownPolicy::End),
            ][usize::from(self.pick % 4)],
            approval_timeout_ms: some(128, self.number),
            approval_default_allow: self.pick.is_multiple_of(3),
            idle_timeout_ms: some(2, self.number / 2),
            no_progress: some(8, 2).map(|_| 2),
            wrapup_steps: u32::from(self.pick % 3),
            final_call_tokens: some(64, self.number / 3),
            tell_budget: self.pick.is_multiple_of(2),
            session_budget: BudgetLimits {
                total_tokens: some(128, self.number),
                tool_calls: some(4, self.number % 9),
                wall_ms: some(16, self.number % 2_000),
                ..BudgetLimits::default()
            },
            on_exhausted: [OnExhausted::End, OnExhausted::Pause][usize::from(self.pick % 2)],
            warn_permille: u32::from(self.pick) * 4,
            ..Limits::default()
        };
        let agent = Agent {
            model: self.text.clone(),
            fallbacks: vec!["second".to_owned(); usize::from(self.pick % 3)],
            temperature: Some(0.1 + f64::from(self.pick)),
            budgets: vec!["team".to_owned(); usize::from(self.shape % 2)],
            ..Agent::default()
        };
        What::Create(Create {
            by: self.by(),
            session: "s".to_owned(),
            namespace: "n".to_owned(),
            agent: Arc::new(agent),
            limits: Arc::new(limits),
            labels: BTreeMap::from([(self.text.clone(), String::new())]),
            tools: self.tools(),
        })
    }

    fn command(&self) -> What {
        let guard = self
            .shape
            .is_multiple_of(5)
            .then_some(LoopId(u32::from(self.pick % 3)));
        let parts = Arc::new(vec![Part::Text(self.text.clone())]);
        match self.shape % 5 {
            0 | 1 => What::StartLoop(StartLoop {
                by: self.by(),
                parts,
                agent: self.pick.is_multiple_of(8).then(Arc::default),
                limits: self.pick.is_multiple_of(9).then(Arc::default),
                traceparent: Some(self.text.clone()),
            }),
            2 | 3 => What::SendMessage(SendMessage {
                by: self.by(),
                parts,
                mode: [Mode::Queue, Mode::Steer, Mode::Interrupt][usize::from(self.pick % 3)],
                guard,
                agent: None,
                limits: None,
                traceparent: None,
            }),
            _ => What::CancelLoop {
                by: self.by(),
                guard,
                reason: self.text.clone(),
            },
        }
    }

    /// An answer, mostly to a question that is open.
    fn word_of_a_person(&self, state: &State) -> What {
        let tools = state.active.iter().flat_map(|active| &active.tools);
        let open: Vec<CallId> = tools
            .filter(|tool| tool.phase.waits_for_person())
            .map(|tool| tool.call)
            .collect();
        let call = open
            .get(usize::from(self.pick) % (open.len() + 1))
            .copied()
            .unwrap_or(self.call());
        let guard = self.shape.is_multiple_of(7).then_some(LoopId(1));
        let resolutions = [
            UnknownResolution::Happened,
            UnknownResolution::DidNotHappen,
            UnknownResolution::RunAgain,
            UnknownResolution::TellModel,
            UnknownResolution::Cancelled,
        ];
        if self.shape.is_multiple_of(2) {
            return What::ResolveApproval {
                by: self.by(),
                guard,
                call,
                allow: self.pick.is_multiple_of(2),
                reason: self.text.clone(),
            };
        }
        What::ResolveUnknown {
            by: self.by(),
            guard,
            call,
            resolution: resolutions[usize::from(self.pick) % resolutions.len()],
            output: self.pick.is_multiple_of(3).then(|| self.output()),
            reason: self.text.clone(),
        }
    }

    /// The command that closes a copy.
    pub(crate) fn adopt(&self) -> What {
        let (from, from_seq) = (self.text.clone(), self.number);
        let labels = BTreeMap::from([(self.text.clone(), String::new())]);
        What::Adopt {
            by: self.by(),
            session: "copy".to_owned(),
            namespace: "m".to_owned(),
            origin: if self.shape.is_multiple_of(2) {
                AdoptOrigin::Fork {
                    from,
                    from_seq,
                    labels,
                }
            } else {
                AdoptOrigin::Import { from, from_seq }
            },
        }
    }

    fn outcome(&self, key: EffectKey) -> What {
        match key {
            EffectKey::Model { call, attempt } if self.shape.is_multiple_of(4) => {
                What::ModelFailed {
                    call,
                    attempt,
                    failure: self.model_failure(),
                    jitter: u32::from(self.pick) * 7_919,
                }
            }
            EffectKey::Model { call, attempt } => What::ModelCompleted {
                call,
                attempt,
                reply: self.reply(),
            },
            EffectKey::Tool { call, attempt } if self.shape.is_multiple_of(3) => What::ToolFailed {
                call,
                attempt,
                failure: ToolFailure {
                    kind: [ToolFailureKind::NotExecuted, ToolFailureKind::Ambiguous]
                        [usize::from(self.pick % 2)],
                    message: self.text.clone(),
                    retryable: self.shape.is_multiple_of(2),
                    retry_after_ms: self.pick.is_multiple_of(3).then_some(self.number),
                    cause: self.pick.is_multiple_of(5).then_some(DoubtCause::Timeout),
                },
                jitter: u32::from(self.pick),
            },
            EffectKey::Tool { call, attempt } => What::ToolCompleted {
                call,
                attempt,
                output: self.output(),
            },
            EffectKey::Lookup { call } => What::LookedUp {
                call,
                answer: match self.shape % 3 {
                    0 => LookupAnswer::Completed(self.output()),
                    1 => LookupAnswer::NeverStarted,
                    _ => LookupAnswer::NotKnown(self.text.clone()),
                },
            },
            EffectKey::Reserve { call, attempt } if self.shape.is_multiple_of(4) => {
                What::BudgetRefused {
                    call,
                    attempt,
                    reason: EndReason::BudgetExceeded {
                        budget: self.text.clone(),
                        dimension: Dimension::TotalTokens,
                        limit: self.number,
                        used: 0,
                        requested: 1,
                    },
                }
            }
            EffectKey::Reserve { call, attempt } => What::BudgetGranted {
                call,
                attempt,
                max_output_tokens: self.number,
                tool_calls: self.number.is_multiple_of(3).then_some(self.number % 5),
                left: Arc::default(),
            },
            EffectKey::Settle { call, attempt } => What::BudgetSettled {
                call,
                attempt,
                more: Vec::new(),
                warnings: self.warnings(),
            },
            EffectKey::Timer { why, .. } => What::TimerFired(why),
        }
    }

    fn warnings(&self) -> Vec<BudgetWarning> {
        let warning = BudgetWarning {
            budget: self.text.clone(),
            dimension: Dimension::TotalTokens,
            limit: self.number,
            used: self.number,
        };
        vec![warning; usize::from(self.pick % 2)]
    }

    fn tools(&self) -> Arc<ToolSet> {
        let retention_ms = self.number;
        let classes = [
            ("read", EffectClass::ReadOnly),
            ("dedup", EffectClass::Deduplicated { retention_ms }),
            ("once", EffectClass::AtMostOnce),
            ("blind", EffectClass::AtMostOnce),
        ];
        let spec = |(name, effect): (&str, EffectClass)| ToolSpec {
            name: name.to_owned(),
            description: self.text.clone(),
            input_schema: "{}".to_owned(),
            effect,
            destructive: name == "once",
            lookup: name == "once",
            timeout_ms: 1,
            absolute_cap_ms: 1,
        };
        let some = 4 - usize::from(self.pick.is_multiple_of(8));
        ToolSet::new(classes.into_iter().take(some).map(spec).collect())
    }

    fn timer(&self) -> TimerWhy {
        match self.shape % 5 {
            0 => TimerWhy::RetryModel(self.call()),
            1 => TimerWhy::RetryTool(self.call()),
            2 => TimerWhy::Approval(self.call()),
            3 => TimerWhy::Idle(LoopId(u32::from(self.pick % 4))),
            _ => TimerWhy::Deadline(LoopId(u32::from(self.pick % 4))),
        }
    }

    fn call(&self) -> CallId {
        CallId(u32::from(self.pick % 16))
    }

    fn attempt(&self) -> Attempt {
        u32::from(self.shape % 4)
    }

    /// Few requests, so that some come again; none in a part of them.
    fn by(&self) -> Command {
        let request_id = match self.pick % 5 {
            0 => String::new(),
            n => format!("r{n}{}", self.shape % 8),
        };
        Command {
            request_id,
            principal: self.text.clone(),
        }
    }
}
