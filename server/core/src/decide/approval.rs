//! Calls that wait for a person before they are dispatched: a repeat of one whose outcome is
//! unknown is held until somebody allows it, denies it, or nobody answers in time.

use super::{Draft, message, tool};
use crate::{
    agent::EffectClass,
    event::{
        ApprovalOutcome, ApprovalReason, ApprovalRequested, ApprovalResolved, RejectReason,
        ToolCallRejected, effect_class,
    },
    ids::{CallId, LoopId},
    input::Command,
    rejection::Rejection,
    state::{ToolCall, ToolPhase},
};

/// What a model is told of a call that a person did not allow.
const DENIED: &str = "A person did not allow this call: the same call was made before, and it is \
                      not known whether it ran.";
/// What a model is told of a call that nobody allowed in time.
const EXPIRED: &str = "Nobody allowed this call in time: the same call was made before, and it is \
                       not known whether it ran.";

/// Holds every waiting call that repeats one whose outcome is unknown.
pub(super) fn hold_repeats(draft: &mut Draft) {
    let Some(active) = &draft.state.active else {
        return;
    };
    let repeats = |tool: &&ToolCall| {
        let name = active.tool_name(tool);
        // A repeat of the others does no harm, whatever became of the first.
        let harms = match effect_class(&draft.state.tools, name) {
            EffectClass::ReadOnly | EffectClass::Idempotent => false,
            // To its sidecar the repeat is another call, with a key of its own.
            EffectClass::Deduplicated { .. } | EffectClass::AtMostOnce => true,
        };
        let waits = tool.phase == ToolPhase::Waiting && !tool.approved;
        waits && harms && draft.state.is_unknown(name, &tool.args_hash)
    };
    let held: Vec<CallId> = active
        .tools
        .iter()
        .filter(repeats)
        .map(|t| t.call)
        .collect();
    let limits = &draft.state.limits;
    let expires_at = limits.approval_timeout_ms.map(|ms| draft.at.plus(ms));
    let allow_on_expiry = limits.approval_default_allow;
    for call in held {
        draft.emit(ApprovalRequested {
            call,
            reason: ApprovalReason::RepeatsUnknown,
            at: draft.at,
            expires_at,
            allow_on_expiry,
        });
    }
}

/// A person answers.
pub(super) fn resolve(
    draft: &mut Draft,
    by: Command,
    guard: Option<LoopId>,
    call: CallId,
    allow: bool,
    reason: String,
) -> Result<(), Rejection> {
    let awaited = "approval";
    let Some(tool) = asked_about(draft, &by, guard, call, awaited)? else {
        return Ok(());
    };
    let refused = |phase| Rejection::NotWaiting {
        call,
        awaited,
        phase,
    };
    let ToolPhase::Held { until, .. } = tool.phase else {
        return Err(refused(in_words(&tool.phase)));
    };
    if until.is_some_and(|until| until <= draft.at) {
        return Err(refused(
            "the wait for it has expired, and the default applies",
        ));
    }
    let outcome = if allow {
        ApprovalOutcome::Allowed
    } else {
        ApprovalOutcome::Denied
    };
    let message = if reason.is_empty() {
        DENIED.to_owned()
    } else {
        format!("{DENIED} They say: {reason}")
    };
    draft.emit(ApprovalResolved {
        call,
        outcome,
        allowed: allow,
        at: draft.at,
        by: by.principal,
        reason,
    });
    if !allow {
        reject(draft, call, RejectReason::Denied, message);
    }
    tool::go_on(draft);
    Ok(())
}

/// Nobody answered in time: the default applies.
pub(super) fn expired(draft: &mut Draft, call: CallId) {
    let tool = draft
        .state
        .active
        .as_ref()
        .and_then(|active| active.tool(call));
    let Some(&ToolPhase::Held {
        allow_on_expiry, ..
    }) = tool.map(|tool| &tool.phase)
    else {
        return;
    };
    draft.emit(ApprovalResolved {
        call,
        outcome: ApprovalOutcome::Expired,
        allowed: allow_on_expiry,
        at: draft.at,
        by: String::new(),
        reason: String::new(),
    });
    if !allow_on_expiry {
        reject(draft, call, RejectReason::Expired, EXPIRED.to_owned());
    }
    tool::go_on(draft);
}

/// The call that a person's command is about; none where the command was answered already.
pub(super) fn asked_about(
    draft: &Draft,
    by: &Command,
    guard: Option<LoopId>,
    call: CallId,
    awaited: &'static str,
) -> Result<Option<ToolCall>, Rejection> {
    message::exists(draft)?;
    if draft.is_answered(&by.request_id) {
        return Ok(None);
    }
    let current = draft.state.current_loop();
    if current == LoopId(0) {
        return Err(Rejection::NoLoopRunning);
    }
    message::check_guard(guard, Some(current))?;
    let active = draft.state.active.as_ref();
    if let Some(tool) = active.and_then(|active| active.tool(call)) {
        return Ok(Some(tool.clone()));
    }
    if call == CallId(0) || call.0 >= draft.state.next_call {
        return Err(Rejection::NoSuchCall {
            call,
            running: current,
        });
    }
    // Of two people who answer, the second one may come when all is over.
    let phase = if active.is_some() {
        "it is over"
    } else {
        "its loop has ended"
    };
    Err(Rejection::NotWaiting {
        call,
        awaited,
        phase,
    })
}

/// How far a call is, for a person whose answer it does not wait for.
pub(super) fn in_words(phase: &ToolPhase) -> &'static str {
    match phase {
        ToolPhase::Waiting => "it waits for a free slot",
        ToolPhase::Held { .. } => "it waits for approval; answer with ResolveApproval",
        ToolPhase::Running => "it is running",
        ToolPhase::Backoff { .. } => "its next attempt is due",
        ToolPhase::InDoubt { .. } => "its sidecar is being asked what became of it",
        ToolPhase::Asking => "its outcome is unknown; answer with ResolveUnknown",
        ToolPhase::Ended(_) => "it has ended",
    }
}

fn reject(draft: &mut Draft, call: CallId, reason: RejectReason, message: String) {
    draft.emit(ToolCallRejected {
        call,
        reason,
        message,
    });
}
