//! What reaches a driver: commands, outcomes of effects, timers, attach and detach.
//!
//! Time, chance and the state of the world come in here and nowhere else.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    agent::{Agent, Limits, LimitsChange, ToolSet},
    budget::Left,
    event::{BudgetWarning, UnknownResolution},
    ids::{Attempt, CallId, Epoch, LoopId, Seq, Timestamp},
    message::{Parts, ToolOutput},
    outcome::{EndReason, LookupAnswer, ModelFailure, ModelReply, ToolFailure, WaitsFor},
};

/// Who asks, and under which request: a repeat of the request gets the same answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The client's id of the request; empty where it gave none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub request_id: String,
    /// The caller.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub principal: String,
}

/// How a message joins a session whose loop is running.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// It waits for the next loop.
    #[default]
    Queue,
    /// It joins at the next model call.
    Steer,
    /// The running model call is given up, then as `Steer`.
    Interrupt,
}

/// What a timer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimerWhy {
    /// The next attempt of a model call is due.
    RetryModel(CallId),
    /// The next attempt of a tool call is due.
    RetryTool(CallId),
    /// The loop's time is up.
    Deadline(LoopId),
    /// The wait for a person's approval of a tool call is up.
    Approval(CallId),
    /// The loop has waited for a person, and for nothing else, as long as it may.
    Idle(LoopId),
    /// The time that the loop's own budget or its session's allows is up.
    WallTime(LoopId),
    /// So much of that time is gone that it is warned of.
    WallTimeNear(LoopId),
}

/// Where the entries of a session come from that it did not write itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdoptOrigin {
    /// Another session of this server.
    Fork {
        /// Its id.
        from: String,
        /// The last entry that was copied.
        from_seq: Seq,
        /// The copy's labels.
        labels: BTreeMap<String, String>,
    },
    /// An export.
    Import {
        /// What it was exported as, `namespace/session`.
        from: String,
        /// The last entry that was imported.
        from_seq: Seq,
    },
}

/// A new session: identity and terms.
#[derive(Clone, Debug, PartialEq)]
pub struct Create {
    /// For whom.
    pub by: Command,
    /// The session's id.
    pub session: String,
    /// The tenant that it belongs to.
    pub namespace: String,
    /// Who answers.
    pub agent: Arc<Agent>,
    /// Within which limits.
    pub limits: Arc<Limits>,
    /// The creator's labels.
    pub labels: BTreeMap<String, String>,
    /// The tools on offer.
    pub tools: Arc<ToolSet>,
}

/// A new loop.
#[derive(Clone, Debug, PartialEq)]
pub struct StartLoop {
    /// For whom.
    pub by: Command,
    /// What to do.
    pub parts: Parts,
    /// Another agent from here on.
    pub agent: Option<Arc<Agent>>,
    /// Other limits from here on.
    pub limits: Option<Arc<Limits>>,
    /// The trace that the loop belongs to.
    pub traceparent: Option<String>,
}

/// A message for a session.
#[derive(Clone, Debug, PartialEq)]
pub struct SendMessage {
    /// From whom.
    pub by: Command,
    /// What it says.
    pub parts: Parts,
    /// How it joins a running loop.
    pub mode: Mode,
    /// The loop that it is meant for, refused where another one runs.
    pub guard: Option<LoopId>,
    /// The agent of a loop which it starts, where another one than the session has.
    pub agent: Option<Arc<Agent>>,
    /// The limits of a loop which it starts, where the session has others.
    pub limits: Option<Arc<Limits>>,
    /// The trace that a loop which it starts belongs to.
    pub traceparent: Option<String>,
}

/// Something that reached the driver, at `at`.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// When.
    pub at: Timestamp,
    /// What.
    pub what: What,
    /// Which instance of each sidecar tools are dispatched to.
    pub instances: Instances,
}

/// Which instance of its sidecar an attempt of a tool call is meant for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Instances {
    /// The one that each sidecar says it is, by the sidecar's name; none of one that is away.
    Present(Arc<BTreeMap<String, String>>),
    /// The one that an entry names, by attempt.
    Recorded(BTreeMap<(CallId, Attempt), String>),
}

impl Input {
    /// An input of which no dispatch to a sidecar follows, or one where none says which it is.
    #[must_use]
    pub fn new(at: Timestamp, what: What) -> Self {
        let instances = Instances::default();
        Self {
            at,
            what,
            instances,
        }
    }
}

impl Default for Instances {
    fn default() -> Self {
        Self::Present(Arc::default())
    }
}

impl Instances {
    /// The instance that this attempt is meant for; empty where none is known.
    #[must_use]
    pub fn of(&self, call: CallId, attempt: Attempt, tool: &str) -> &str {
        let instance = match self {
            Self::Present(by_name) => tool
                .rsplit_once("__")
                .and_then(|(sidecar, _)| by_name.get(sidecar)),
            Self::Recorded(by_attempt) => by_attempt.get(&(call, attempt)),
        };
        instance.map(String::as_str).unwrap_or_default()
    }
}

/// What reached the driver.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// Create the session.
    Create(Create),
    /// Start a loop.
    StartLoop(StartLoop),
    /// Take a message.
    SendMessage(SendMessage),
    /// Cancel the running loop.
    CancelLoop {
        /// For whom.
        by: Command,
        /// The loop meant, refused where another one runs.
        guard: Option<LoopId>,
        /// Why, in their words.
        reason: String,
    },
    /// Pause the running loop: what runs ends, nothing new starts.
    PauseLoop {
        /// For whom.
        by: Command,
        /// The loop meant, refused where another one runs.
        guard: Option<LoopId>,
    },
    /// Let a paused loop go on.
    ResumeLoop {
        /// For whom.
        by: Command,
        /// The loop meant, refused where another one runs.
        guard: Option<LoopId>,
    },
    /// Move limits of the running loop.
    UpdateLimits {
        /// For whom.
        by: Command,
        /// The loop meant, refused where another one runs.
        guard: Option<LoopId>,
        /// Those that move, and where to.
        change: Box<LimitsChange>,
    },
    /// Allow or deny a tool call that waits for approval.
    ResolveApproval {
        /// For whom.
        by: Command,
        /// The loop meant, refused where another one runs.
        guard: Option<LoopId>,
        /// The call.
        call: CallId,
        /// Whether it is dispatched.
        allow: bool,
        /// Why, in their words; the model is told it with a denial.
        reason: String,
    },
    /// Say what became of a call whose outcome is unknown.
    ResolveUnknown {
        /// For whom.
        by: Command,
        /// The loop meant, refused where another one runs.
        guard: Option<LoopId>,
        /// The call.
        call: CallId,
        /// What became of it; `Cancelled` is refused.
        resolution: UnknownResolution,
        /// What it gave back, where it happened and they know; ignored with anything else.
        output: Option<Arc<ToolOutput>>,
        /// Why, in their words; the model is told it.
        reason: String,
    },
    /// Close a log whose entries were copied: the session is its own from here on.
    Adopt {
        /// For whom.
        by: Command,
        /// The session's id.
        session: String,
        /// The tenant that it belongs to.
        namespace: String,
        /// Where the entries come from.
        origin: AdoptOrigin,
    },
    /// A driver takes the session.
    Attach {
        /// Its generation: one above the state's.
        epoch: Epoch,
        /// Bytes that recovery set aside, where it did.
        cut_bytes: Option<u64>,
        /// The version of its server.
        server: String,
    },
    /// The driver lets go.
    Detach,
    /// The catalog of tools changed.
    ToolsChanged(Arc<ToolSet>),
    /// A model answered.
    ModelCompleted {
        /// The call.
        call: CallId,
        /// Its attempt.
        attempt: Attempt,
        /// The answer.
        reply: ModelReply,
    },
    /// An attempt of a model call failed.
    ModelFailed {
        /// The call.
        call: CallId,
        /// Its attempt.
        attempt: Attempt,
        /// How.
        failure: ModelFailure,
        /// A number drawn from 0..=1_000_000, for the backoff.
        jitter: u32,
    },
    /// A tool answered.
    ToolCompleted {
        /// The call.
        call: CallId,
        /// Its attempt.
        attempt: Attempt,
        /// The answer.
        output: Arc<ToolOutput>,
    },
    /// An attempt of a tool call failed.
    ToolFailed {
        /// The call.
        call: CallId,
        /// Its attempt.
        attempt: Attempt,
        /// How.
        failure: ToolFailure,
        /// A number drawn from 0..=1_000_000, for the backoff.
        jitter: u32,
    },
    /// A sidecar said what became of a call in doubt.
    LookedUp {
        /// The call.
        call: CallId,
        /// Its word.
        answer: LookupAnswer,
    },
    /// Named budgets granted a reservation.
    BudgetGranted {
        /// The call.
        call: CallId,
        /// Its attempt.
        attempt: Attempt,
        /// The output cap that they allow, tokens.
        max_output_tokens: u64,
        /// Tool calls of the reply that they let through; `None` where they limit none.
        tool_calls: Option<u64>,
        /// What they have left, the tightest of each dimension that they limit; empty where that was not
        /// asked.
        left: Arc<[Left]>,
    },
    /// Named budgets do not cover a reservation now, and the one that is short says to wait.
    BudgetWaits {
        /// The call.
        call: CallId,
        /// Its attempt.
        attempt: Attempt,
        /// Which one, and how it stands.
        waits_for: WaitsFor,
    },
    /// Named budgets refused a reservation.
    BudgetRefused {
        /// The call.
        call: CallId,
        /// Its attempt.
        attempt: Attempt,
        /// Which budget, and how it stands: always `EndReason::BudgetExceeded`.
        reason: EndReason,
    },
    /// Named budgets have known this reservation for longer than the log does, which was cut back: what
    /// became of the attempt is lost.
    BudgetSpent {
        /// The call.
        call: CallId,
        /// Its attempt.
        attempt: Attempt,
    },
    /// Named budgets took a settlement.
    BudgetSettled {
        /// The call.
        call: CallId,
        /// Its attempt.
        attempt: Attempt,
        /// Others that they have taken since they were last said to.
        more: Vec<(CallId, Attempt)>,
        /// What these settlements brought to its warning share.
        warnings: Vec<BudgetWarning>,
    },
    /// A timer fired.
    TimerFired(TimerWhy),
}
