//! Commands: requests, checked whole, as inputs of the core.

use std::{collections::BTreeMap, sync::Arc};

use loopwright_core::{
    What,
    agent::LimitsChange,
    event::UnknownResolution,
    ids::LoopId,
    input::{Command, Mode, SendMessage},
    message::Parts,
};
use loopwright_log::{Id, StreamKey};
use loopwright_proto::v1;
use sha2::{Digest as _, Sha256};

use super::{
    agent::{Terms, terms},
    fields::{self, Violations},
    message::{Said, given_result, said},
    moves,
};
use crate::{config::Config, service::caller::Caller};

/// A StartLoop that has been checked.
#[derive(Clone, Debug)]
pub struct Start {
    /// Which session: the one named, or one whose id follows from namespace and request id.
    pub key: StreamKey,
    /// For whom.
    pub by: Command,
    /// What to do.
    pub parts: Parts,
    /// Labels of the session, should it be new.
    pub labels: BTreeMap<String, String>,
    /// The agent and its limits: those of the request, or the configured ones.
    pub terms: Terms,
    /// Whether the request says how the loop runs.
    pub brings_agent: bool,
}

/// A command to a session that exists, checked.
#[derive(Clone, Debug)]
pub struct Told {
    /// Which session.
    pub key: StreamKey,
    /// What it is told.
    pub what: What,
    /// Whether it may have to wait for a loop of its own.
    pub may_queue: bool,
}

/// An UpdateLimits that has been checked.
#[derive(Clone, Debug)]
pub struct Moved {
    /// Which session.
    pub key: StreamKey,
    /// For whom.
    pub by: Command,
    /// The loop meant.
    pub guard: Option<LoopId>,
    /// The limits that move.
    pub change: LimitsChange,
}

/// Checks a StartLoop.
///
/// # Errors
/// Every violation.
pub fn start(
    request: v1::StartLoopRequest,
    caller: &Caller,
    config: &Config,
) -> Result<Start, Violations> {
    use v1::start_loop_request::Input;
    let mut all = Violations::default();
    let request_id = fields::request_id(&request.request_id, &mut all);
    let named = fields::optional_id("session_id", &request.session_id, &mut all);
    let brings_agent = request.agent.is_some();
    let terms = terms(request.agent, config, &mut all);
    let input = match request.input {
        Some(Input::Text(text)) => Said::Text(text),
        Some(Input::Message(message)) => Said::Message(message),
        None => Said::Nothing,
    };
    let parts = said(input, config.limits.message_bytes.get(), &mut all);
    let labels = fields::labels(request.labels, &mut all);
    all.check(())?;
    let id = named.unwrap_or_else(|| derived_id(&caller.namespace, &request_id));
    let key = StreamKey::session(&caller.namespace, &id);
    let by = Command {
        request_id,
        principal: caller.principal.clone(),
    };
    Ok(Start {
        key,
        by,
        parts,
        labels,
        terms,
        brings_agent,
    })
}

/// Checks a SendMessage.
///
/// # Errors
/// Every violation.
pub fn message(
    request: v1::SendMessageRequest,
    caller: &Caller,
    traceparent: Option<String>,
    config: &Config,
) -> Result<Told, Violations> {
    use v1::send_message_request::Input;
    let mut all = Violations::default();
    let request_id = fields::request_id(&request.request_id, &mut all);
    let id = fields::id("session_id", &request.session_id, &mut all);
    let guard = fields::optional_loop("loop_id", &request.loop_id, &mut all);
    let mode = mode(request.mode, &mut all);
    let input = match request.input {
        Some(Input::Text(text)) => Said::Text(text),
        Some(Input::Message(message)) => Said::Message(message),
        None => Said::Nothing,
    };
    let parts = said(input, config.limits.message_bytes.get(), &mut all);
    let key = fields::key(&caller.namespace, id, all)?;
    let by = Command {
        request_id,
        principal: caller.principal.clone(),
    };
    let what = What::SendMessage(SendMessage {
        by,
        parts,
        mode,
        guard,
        agent: None,
        limits: None,
        traceparent,
    });
    Ok(Told {
        key,
        what,
        may_queue: mode == Mode::Queue,
    })
}

/// Checks a CancelLoop.
///
/// # Errors
/// Every violation.
pub fn cancel(request: v1::CancelLoopRequest, caller: &Caller) -> Result<Told, Violations> {
    let mut all = Violations::default();
    let request_id = fields::request_id(&request.request_id, &mut all);
    let id = fields::id("session_id", &request.session_id, &mut all);
    let guard = fields::optional_loop("loop_id", &request.loop_id, &mut all);
    let reason = fields::reason(&request.reason, &mut all);
    let key = fields::key(&caller.namespace, id, all)?;
    let by = Command {
        request_id,
        principal: caller.principal.clone(),
    };
    Ok(Told {
        key,
        what: What::CancelLoop { by, guard, reason },
        may_queue: false,
    })
}

/// Checks a PauseLoop.
///
/// # Errors
/// Every violation.
pub fn pause(request: &v1::PauseLoopRequest, caller: &Caller) -> Result<Told, Violations> {
    let (key, by, guard) = addressed(
        &request.request_id,
        &request.session_id,
        &request.loop_id,
        caller,
        Violations::default(),
    )?;
    Ok(Told {
        key,
        what: What::PauseLoop { by, guard },
        may_queue: false,
    })
}

/// Checks a ResumeLoop.
///
/// # Errors
/// Every violation.
pub fn resume(request: &v1::ResumeLoopRequest, caller: &Caller) -> Result<Told, Violations> {
    let (key, by, guard) = addressed(
        &request.request_id,
        &request.session_id,
        &request.loop_id,
        caller,
        Violations::default(),
    )?;
    Ok(Told {
        key,
        what: What::ResumeLoop { by, guard },
        may_queue: false,
    })
}

/// Checks an UpdateLimits, but for what the session's models have to say of it.
///
/// # Errors
/// Every violation.
pub fn update_limits(
    request: &v1::UpdateLimitsRequest,
    caller: &Caller,
    config: &Config,
) -> Result<Moved, Violations> {
    let mut all = Violations::default();
    let change = moves::change(request, config, &mut all);
    let (key, by, guard) = addressed(
        &request.request_id,
        &request.session_id,
        &request.loop_id,
        caller,
        all,
    )?;
    Ok(Moved {
        key,
        by,
        guard,
        change,
    })
}

/// Who gives a command to which loop of which session.
fn addressed(
    request_id: &str,
    session_id: &str,
    loop_id: &str,
    caller: &Caller,
    mut all: Violations,
) -> Result<(StreamKey, Command, Option<LoopId>), Violations> {
    let request_id = fields::request_id(request_id, &mut all);
    let id = fields::id("session_id", session_id, &mut all);
    let guard = fields::optional_loop("loop_id", loop_id, &mut all);
    let key = fields::key(&caller.namespace, id, all)?;
    let by = Command {
        request_id,
        principal: caller.principal.clone(),
    };
    Ok((key, by, guard))
}

/// Checks a ResolveApproval.
///
/// # Errors
/// Every violation.
pub fn approval(request: v1::ResolveApprovalRequest, caller: &Caller) -> Result<Told, Violations> {
    let mut all = Violations::default();
    let request_id = fields::request_id(&request.request_id, &mut all);
    let id = fields::id("session_id", &request.session_id, &mut all);
    let guard = fields::optional_loop("loop_id", &request.loop_id, &mut all);
    let call = fields::call("call", &request.call, &mut all);
    let reason = fields::reason(&request.reason, &mut all);
    let key = fields::key(&caller.namespace, id, all)?;
    let by = Command {
        request_id,
        principal: caller.principal.clone(),
    };
    let what = What::ResolveApproval {
        by,
        guard,
        call,
        allow: request.allow,
        reason,
    };
    Ok(Told {
        key,
        what,
        may_queue: false,
    })
}

/// Checks a ResolveUnknown.
///
/// # Errors
/// Every violation.
pub fn unknown(
    request: v1::ResolveUnknownRequest,
    caller: &Caller,
    config: &Config,
) -> Result<Told, Violations> {
    let mut all = Violations::default();
    let request_id = fields::request_id(&request.request_id, &mut all);
    let id = fields::id("session_id", &request.session_id, &mut all);
    let guard = fields::optional_loop("loop_id", &request.loop_id, &mut all);
    let call = fields::call("call", &request.call, &mut all);
    let reason = fields::reason(&request.reason, &mut all);
    let resolution = resolution(request.resolution, &mut all);
    let output = request.result.map(|result| {
        if resolution != Some(UnknownResolution::Happened) {
            let problem = "goes with UNKNOWN_RESOLUTION_HAPPENED alone; leave it out";
            all.add("result", problem);
        }
        Arc::new(given_result(
            result,
            config.limits.message_bytes.get(),
            &mut all,
        ))
    });
    let key = fields::key(&caller.namespace, id, all)?;
    let by = Command {
        request_id,
        principal: caller.principal.clone(),
    };
    let what = What::ResolveUnknown {
        by,
        guard,
        call,
        // A violation where there is none, so that it is not come to here.
        resolution: resolution.unwrap_or(UnknownResolution::TellModel),
        output,
        reason,
    };
    Ok(Told {
        key,
        what,
        may_queue: false,
    })
}

fn resolution(asked: i32, all: &mut Violations) -> Option<UnknownResolution> {
    let field = "resolution";
    let way_out = "say HAPPENED, DID_NOT_HAPPEN, RUN_AGAIN or TELL_MODEL";
    match v1::UnknownResolution::try_from(asked) {
        Ok(v1::UnknownResolution::Happened) => return Some(UnknownResolution::Happened),
        Ok(v1::UnknownResolution::DidNotHappen) => return Some(UnknownResolution::DidNotHappen),
        Ok(v1::UnknownResolution::RunAgain) => return Some(UnknownResolution::RunAgain),
        Ok(v1::UnknownResolution::TellModel) => return Some(UnknownResolution::TellModel),
        Ok(v1::UnknownResolution::Unspecified) => all.add(field, format!("is empty; {way_out}")),
        Ok(v1::UnknownResolution::Cancelled) => {
            let problem = "CANCELLED is said by the server when the loop ends";
            all.add(field, format!("{problem}; {way_out}, or cancel the loop"));
        }
        Err(_) => all.add(
            field,
            format!("{asked} is no value of this enum; {way_out}"),
        ),
    }
    None
}

fn mode(asked: i32, all: &mut Violations) -> Mode {
    match v1::MessageMode::try_from(asked) {
        Ok(v1::MessageMode::Unspecified | v1::MessageMode::Queue) => Mode::Queue,
        Ok(v1::MessageMode::Steer) => Mode::Steer,
        Ok(v1::MessageMode::Interrupt) => Mode::Interrupt,
        Err(_) => {
            all.add(
                "mode",
                format!("{asked} is no value of this enum; leave it out"),
            );
            Mode::Queue
        }
    }
}

/// A new session's id: the same for a retry, and nobody else's.
pub(in crate::service) fn derived_id(namespace: &Id, request_id: &str) -> Id {
    use std::fmt::Write as _;
    let mut hash = Sha256::new();
    hash.update(namespace.as_str());
    hash.update([0]);
    hash.update(request_id);
    let mut text = String::from("s-");
    for byte in hash.finalize().iter().take(16) {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    Id::parse(&text).expect("hexadecimal digits behind a letter are an id")
}
