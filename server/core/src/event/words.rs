//! The words that events alone use, and how a tool's promise is read from them.

use serde::{Deserialize, Serialize};

use crate::{
    agent::{EffectClass, ToolSet},
    outcome::EndReason,
};

/// Where a message came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// It starts a loop.
    User,
    /// It joins the running loop at its next model call.
    Steer,
    /// It waits for the next loop.
    Queue,
    /// The loop itself says it, to keep the model going.
    Nudge,
}

/// What the loop itself has to say to its model, beside that it goes on from where it was cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Nudge {
    /// Its last steps brought nothing new.
    NoProgress,
    /// Few steps are left.
    Wrapup,
    /// One last call is made, and then the loop ends for this reason.
    Conclude(EndReason),
}

/// Why a requested tool call was not dispatched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RejectReason {
    /// No offered tool has this name.
    UnknownTool,
    /// The arguments are not JSON, or not what the tool's schema asks for.
    InvalidArguments,
    /// The reply was cut before the call was surely whole.
    Truncated,
    /// The tool was called as often as one loop may.
    TooManyCalls,
    /// Dispatching it would pass a budget.
    Budget,
    /// A person did not allow it.
    Denied,
    /// Nobody allowed it in time.
    Expired,
}

/// Why a tool call waits for a person before it is dispatched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalReason {
    /// The same call with the same arguments had an unknown outcome before.
    RepeatsUnknown,
}

/// How a wait for approval ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalOutcome {
    /// A person allowed the call.
    Allowed,
    /// A person denied it.
    Denied,
    /// Nobody answered in time; the default applied.
    Expired,
    /// The loop ended first.
    Cancelled,
}

/// What became of a call whose outcome was unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnknownResolution {
    /// It ran.
    Happened,
    /// It did not run, and the model is told so.
    DidNotHappen,
    /// It did not run, and is to be run now.
    RunAgain,
    /// It stays unknown, and the model is told so.
    TellModel,
    /// The loop ended first; nobody says it of a call.
    Cancelled,
}

/// What a repeat of the call may do, read from the tools in force: at most once where the tool is
/// gone.
#[must_use]
pub fn effect_class(tools: &ToolSet, tool: &str) -> EffectClass {
    tools
        .get(tool)
        .map_or(EffectClass::AtMostOnce, |spec| spec.effect)
}
