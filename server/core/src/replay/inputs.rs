//! The input behind an entry: what its cause and its events say of it.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "each search is for one kind among all"
)]

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    agent::LimitsChange,
    budget::{Dimension, Shortfall},
    entry::{Cause, Entry},
    event::{
        BudgetWarning, Event, MessageAdded, Nudge, RejectReason, ToolCallCompleted,
        ToolCallResultLate,
    },
    input::{AdoptOrigin, Command, Create, Instances, SendMessage, StartLoop, What},
    outcome::{
        AbandonReason, EndReason, LookupAnswer, ModelFailure, ModelReply, ToolFailure,
        ToolFailureKind, Verdict, WaitsFor,
    },
};

/// The first value that `of` finds among the events.
fn find<'a, T>(entry: &'a Entry, of: impl Fn(&'a Event) -> Option<T>) -> Option<T> {
    entry.events.iter().find_map(of)
}

macro_rules! find {
    ($entry:expr, $kind:ident) => {
        find($entry, |event| {
            if let Event::$kind(e) = event {
                Some(e)
            } else {
                None
            }
        })
    };
}

/// The instances that its dispatches name.
pub(super) fn instances_of(entry: &Entry) -> Instances {
    let named = entry.events.iter().filter_map(|event| match event {
        Event::ToolCallStarted(e) if !e.sidecar_instance.is_empty() => {
            Some(((e.call, e.attempt), e.sidecar_instance.clone()))
        }
        _ => None,
    });
    let named: BTreeMap<_, _> = named.collect();
    if named.is_empty() {
        return Instances::default();
    }
    Instances::Recorded(named)
}

pub(super) fn what_of(entry: &Entry) -> Option<What> {
    Some(match &entry.cause {
        Cause::Create(by) => What::Create(created(by, entry)?),
        Cause::StartLoop(by) => {
            let started = find!(entry, LoopStarted)?;
            What::StartLoop(StartLoop {
                by: by.clone(),
                parts: message(entry)?.parts.clone(),
                agent: started.agent.clone(),
                limits: started.limits.clone(),
                traceparent: started.traceparent.clone(),
            })
        }
        Cause::SendMessage { by, mode, guard } => {
            let started = find!(entry, LoopStarted);
            What::SendMessage(SendMessage {
                by: by.clone(),
                parts: message(entry)?.parts.clone(),
                mode: *mode,
                guard: *guard,
                agent: started.and_then(|e| e.agent.clone()),
                limits: started.and_then(|e| e.limits.clone()),
                traceparent: started.and_then(|e| e.traceparent.clone()),
            })
        }
        Cause::CancelLoop { .. }
        | Cause::PauseLoop { .. }
        | Cause::ResumeLoop { .. }
        | Cause::UpdateLimits { .. } => control_what(entry)?,
        Cause::ResolveApproval { .. } | Cause::ResolveUnknown { .. } => answer_what(entry)?,
        Cause::Adopt(by) => adopted(by, entry)?,
        Cause::Attach => attached(entry)?,
        Cause::Detach => What::Detach,
        Cause::Tools => What::ToolsChanged(find!(entry, ToolsChanged)?.tools.clone()),
        Cause::Model { .. } => model_what(entry)?,
        Cause::Tool { .. } => tool_what(entry)?,
        Cause::Lookup { call, not_known } => What::LookedUp {
            call: *call,
            answer: answer(entry, not_known.as_ref())?,
        },
        Cause::BudgetGranted { .. }
        | Cause::BudgetWaits { .. }
        | Cause::BudgetRefused { .. }
        | Cause::BudgetSpent { .. }
        | Cause::BudgetSettled { .. } => budget_what(entry)?,
        &Cause::Timer(why) => What::TimerFired(why),
    })
}

/// What shared budgets said.
fn budget_what(entry: &Entry) -> Option<What> {
    Some(match &entry.cause {
        &Cause::BudgetGranted {
            call,
            attempt,
            max_output_tokens,
            tool_calls,
        } => What::BudgetGranted {
            call,
            attempt,
            max_output_tokens,
            tool_calls,
            left: find!(entry, BudgetReserved).map_or_else(Arc::default, |e| e.left.clone()),
        },
        &Cause::BudgetWaits { call, attempt } => What::BudgetWaits {
            call,
            attempt,
            waits_for: match find!(entry, LoopPaused) {
                Some(paused) => paused.waits_for.clone(),
                None => of_recap(entry)?,
            },
        },
        &Cause::BudgetRefused { call, attempt } => {
            let reason = match of_recap(entry) {
                Some(_) => EndReason::Error {
                    message: String::new(),
                },
                None => refused_for(entry)?,
            };
            What::BudgetRefused {
                call,
                attempt,
                reason,
            }
        }
        &Cause::BudgetSpent { call, attempt } => What::BudgetSpent { call, attempt },
        Cause::BudgetSettled {
            call,
            attempt,
            more,
        } => What::BudgetSettled {
            call: *call,
            attempt: *attempt,
            more: more.clone(),
            warnings: warnings(entry),
        },
        _ => return None,
    })
}

/// Why a budget refused: its loop makes a last call for that reason, or ends.
fn refused_for(entry: &Entry) -> Option<EndReason> {
    let concludes = find(entry, |event| match event {
        Event::MessageAdded(MessageAdded {
            nudge: Some(Nudge::Conclude(reason)),
            ..
        }) => Some(reason),
        _ => None,
    });
    let ends = || find!(entry, LoopEnded).map(|e| &e.reason);
    concludes.or_else(ends).cloned()
}

/// What settlements brought to the warning share of shared budgets.
fn warnings(entry: &Entry) -> Vec<BudgetWarning> {
    let warning = |event: &Event| match event {
        Event::BudgetWarning(e) => Some(e.clone()),
        _ => None,
    };
    entry.events.iter().filter_map(warning).collect()
}

/// What a budget said of a recap, which goes on without it whatever that was.
fn of_recap(entry: &Entry) -> Option<WaitsFor> {
    let abandoned = find!(entry, ModelCallAbandoned)?;
    let of_recap = abandoned.reason == AbandonReason::NotCovered;
    of_recap.then(|| WaitsFor::Budget {
        budget: String::new(),
        short: Shortfall {
            dimension: Dimension::TotalTokens,
            limit: 0,
            used: 0,
            requested: 0,
        },
    })
}

fn attached(entry: &Entry) -> Option<What> {
    let attached = find!(entry, DriverAttached)?;
    Some(What::Attach {
        epoch: attached.epoch,
        cut_bytes: find!(entry, LogRecovered).map(|e| e.cut_bytes),
        server: attached.server.clone(),
    })
}

fn created(by: &Command, entry: &Entry) -> Option<Create> {
    let created = find!(entry, SessionCreated)?;
    Some(Create {
        by: by.clone(),
        session: created.session.clone(),
        namespace: created.namespace.clone(),
        agent: created.agent.clone(),
        limits: created.limits.clone(),
        labels: created.labels.clone(),
        tools: find!(entry, ToolsChanged)
            .map(|e| e.tools.clone())
            .unwrap_or_default(),
    })
}

/// What a client asked of a loop that is going on.
fn control_what(entry: &Entry) -> Option<What> {
    Some(match &entry.cause {
        Cause::CancelLoop { by, guard } => {
            let EndReason::Cancelled { reason, .. } = &find!(entry, LoopEnded)?.reason else {
                return None;
            };
            What::CancelLoop {
                by: by.clone(),
                guard: *guard,
                reason: reason.clone(),
            }
        }
        Cause::PauseLoop { by, guard } => What::PauseLoop {
            by: by.clone(),
            guard: *guard,
        },
        Cause::ResumeLoop { by, guard } => What::ResumeLoop {
            by: by.clone(),
            guard: *guard,
        },
        Cause::UpdateLimits { by, guard } => What::UpdateLimits {
            by: by.clone(),
            guard: *guard,
            change: Box::new(LimitsChange::to(&find!(entry, LimitsUpdated)?.limits)),
        },
        _ => return None,
    })
}

/// What a person said of a tool call.
fn answer_what(entry: &Entry) -> Option<What> {
    Some(match &entry.cause {
        Cause::ResolveApproval { by, guard } => {
            let resolved = find!(entry, ApprovalResolved)?;
            What::ResolveApproval {
                by: by.clone(),
                guard: *guard,
                call: resolved.call,
                allow: resolved.allowed,
                reason: resolved.reason.clone(),
            }
        }
        Cause::ResolveUnknown { by, guard } => {
            let resolved = find!(entry, UnknownResolved)?;
            What::ResolveUnknown {
                by: by.clone(),
                guard: *guard,
                call: resolved.call,
                resolution: resolved.resolution,
                output: resolved.output.clone(),
                reason: resolved.reason.clone(),
            }
        }
        _ => return None,
    })
}

fn adopted(by: &Command, entry: &Entry) -> Option<What> {
    let (session, namespace, origin) = find(entry, |event| match event {
        Event::SessionForked(e) => Some((
            &e.session,
            &e.namespace,
            AdoptOrigin::Fork {
                from: e.from.clone(),
                from_seq: e.from_seq,
                labels: e.labels.clone(),
            },
        )),
        Event::SessionImported(e) => Some((
            &e.session,
            &e.namespace,
            AdoptOrigin::Import {
                from: e.from.clone(),
                from_seq: e.from_seq,
            },
        )),
        _ => None,
    })?;
    Some(What::Adopt {
        by: by.clone(),
        session: session.clone(),
        namespace: namespace.clone(),
        origin,
    })
}

fn message(entry: &Entry) -> Option<&MessageAdded> {
    find!(entry, MessageAdded)
}

fn model_what(entry: &Entry) -> Option<What> {
    let &Cause::Model {
        jitter,
        retry_after_ms,
        ..
    } = &entry.cause
    else {
        return None;
    };
    if let Some(e) = find!(entry, ModelCallFailed) {
        let settled = find!(entry, BudgetSettled).filter(|_| e.usage.is_some());
        let failure = ModelFailure {
            kind: e.kind,
            message: e.message.clone(),
            retry_after_ms,
            http_status: e.http_status,
            usage: e.usage,
            cost_micro_usd: e
                .cost_micro_usd
                .or(settled.map(|settled| settled.cost_micro_usd)),
            body_crc: e.body_crc.clone(),
        };
        return Some(What::ModelFailed {
            call: e.call,
            attempt: e.attempt,
            failure,
            jitter,
        });
    }
    let e = find!(entry, ModelCallCompleted)?;
    let reply = ModelReply {
        parts: e.parts.clone(),
        stop: e.stop.clone(),
        usage: e.usage,
        response_id: e.response_id.clone(),
        body_crc: e.body_crc.clone(),
        latency_ms: e.latency_ms,
        first_token_ms: e.first_token_ms,
        cost_micro_usd: e.cost_micro_usd,
        verdicts: verdicts(entry),
    };
    Some(What::ModelCompleted {
        call: e.call,
        attempt: e.attempt,
        reply,
    })
}

fn verdicts(entry: &Entry) -> Vec<Verdict> {
    let invalid = |call| {
        find(entry, |event| match event {
            Event::ToolCallRejected(e)
                if e.call == call && e.reason == RejectReason::InvalidArguments =>
            {
                Some(e.message.clone())
            }
            _ => None,
        })
    };
    let verdict = |event: &Event| match event {
        Event::ToolCallRequested(e) => Some(Verdict {
            args_hash: e.args_hash.clone(),
            invalid: invalid(e.call),
        }),
        _ => None,
    };
    entry.events.iter().filter_map(verdict).collect()
}

fn tool_what(entry: &Entry) -> Option<What> {
    let &Cause::Tool {
        call,
        attempt,
        jitter,
        retryable,
        retry_after_ms,
    } = &entry.cause
    else {
        return None;
    };
    let failed = |kind, message: &str, cause| {
        let failure = ToolFailure {
            kind,
            message: message.to_owned(),
            retryable,
            retry_after_ms,
            cause,
        };
        What::ToolFailed {
            call,
            attempt,
            failure,
            jitter,
        }
    };
    find(entry, |event| match event {
        Event::ToolCallCompleted(ToolCallCompleted { output, .. })
        | Event::ToolCallResultLate(ToolCallResultLate { output, .. }) => {
            let output = output.clone();
            Some(What::ToolCompleted {
                call,
                attempt,
                output,
            })
        }
        Event::ToolCallFailed(e) => Some(failed(e.kind, &e.message, e.cause)),
        Event::ToolCallInDoubt(e) => Some(failed(ToolFailureKind::Ambiguous, &e.message, None)),
        _ => None,
    })
}

fn answer(entry: &Entry, not_known: Option<&String>) -> Option<LookupAnswer> {
    if let Some(words) = not_known {
        return Some(LookupAnswer::NotKnown(words.clone()));
    }
    find(entry, |event| match event {
        Event::ToolCallCompleted(e) => Some(LookupAnswer::Completed(e.output.clone())),
        Event::ToolCallStarted(_) | Event::ToolCallFailed(_) => Some(LookupAnswer::NeverStarted),
        _ => None,
    })
}
