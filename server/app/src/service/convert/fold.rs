//! The conversation that a log tells, as a client asks for it: entries of the wire are read back as
//! events of the core, and the core's own fold makes the conversation. What the fold does not look at
//! is not read back.

use std::sync::Arc;

use loopwright_client::cli::FoldMessages;
use loopwright_core::{
    Event, State,
    agent::UnknownPolicy,
    context::RecapAsk,
    event::{
        ApprovalReason, ApprovalRequested, LoopEnded, LoopStarted, MessageAdded,
        ModelCallCompleted, ModelCallReserving, ModelCallStarted, Origin, RejectReason,
        SessionCreated, SessionForked, SessionImported, ToolCallCancelled, ToolCallCompleted,
        ToolCallFailed, ToolCallRejected, ToolCallRequested, ToolCallUnknown, UnknownResolution,
        UnknownResolved,
    },
    ids::{CallId, IdError, LoopId, Timestamp},
    message::{BlobPart, CallPart, Opaque, Part, Parts, Thinking, ToolOutput},
    outcome::{EndReason, StopReason, ToolFailureKind},
    state::Turn,
    usage::Totals,
};
use loopwright_proto::v1::{self, event::Kind, part};

use super::message;

/// Folds with the core, which is what the driver folds with.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fold;

impl FoldMessages for Fold {
    fn fold(&self, entries: &[v1::Entry]) -> Result<Vec<v1::Message>, String> {
        let mut state = State::default();
        for entry in entries {
            for event in &entry.events {
                let read = event.kind.as_ref().map_or(Ok(None), read);
                if let Some(event) = read.map_err(|error| format!("seq {}: {error}", entry.seq))? {
                    state.apply(&event);
                }
            }
        }
        Ok(state
            .conversation
            .turns()
            .iter()
            .map(|turn| to_wire(turn))
            .collect())
    }
}

/// One turn on the wire.
fn to_wire(turn: &Turn) -> v1::Message {
    match turn {
        Turn::User(parts) => v1::Message {
            role: v1::Role::User.into(),
            parts: parts.iter().map(|part| message::part(part, None)).collect(),
        },
        Turn::Assistant { parts, first_call } => {
            let mut next = first_call.0;
            let mut part = |part: &Part| match part {
                Part::ToolCall(_) => {
                    let call = CallId(next);
                    next += 1;
                    message::part(part, Some(call))
                }
                other => message::part(other, None),
            };
            v1::Message {
                role: v1::Role::Assistant.into(),
                parts: parts.iter().map(&mut part).collect(),
            }
        }
        Turn::Results(results) => v1::Message {
            role: v1::Role::Tool.into(),
            parts: results
                .iter()
                .map(|result| result_part(result.call, &result.output))
                .collect(),
        },
    }
}

fn result_part(call: CallId, output: &ToolOutput) -> v1::Part {
    let result = message::tool_result(output);
    let kind = part::Kind::ToolResult(v1::ToolResultPart {
        call: call.to_string(),
        is_error: result.is_error,
        parts: result.parts,
        structured_json: result.structured_json,
    });
    v1::Part {
        kind: Some(kind),
        full: None,
    }
}

/// The core's event, as far as the conversation follows from it.
fn read(kind: &Kind) -> Result<Option<Event>, IdError> {
    let at = Timestamp(0);
    Ok(Some(match kind {
        Kind::SessionCreated(e) => SessionCreated {
            session: e.session_id.clone(),
            namespace: e.namespace.clone(),
            at,
            agent: Arc::default(),
            limits: Arc::default(),
            labels: e.labels.clone(),
        }
        .into(),
        Kind::SessionForked(e) => SessionForked {
            session: e.session_id.clone(),
            namespace: e.namespace.clone(),
            at,
            from: e.from_session_id.clone(),
            from_seq: e.from_seq,
            labels: e.labels.clone(),
        }
        .into(),
        Kind::SessionImported(e) => SessionImported {
            session: e.session_id.clone(),
            namespace: e.namespace.clone(),
            at,
            from: e.from.clone(),
            from_seq: e.from_seq,
        }
        .into(),
        Kind::MessageAdded(e) => added(e).into(),
        Kind::LoopStarted(e) => {
            let id: LoopId = e.loop_id.parse()?;
            LoopStarted {
                id,
                at,
                traceparent: None,
                agent: None,
                limits: None,
            }
            .into()
        }
        Kind::LoopEnded(e) => LoopEnded {
            id: e.loop_id.parse()?,
            at,
            reason: EndReason::Completed,
            text: String::new(),
            totals: Totals::default(),
        }
        .into(),
        other => return read_model(other),
    }))
}

fn read_model(kind: &Kind) -> Result<Option<Event>, IdError> {
    let at = Timestamp(0);
    Ok(Some(match kind {
        Kind::ModelCallReserving(e) => ModelCallReserving {
            call: e.call.parse()?,
            attempt: e.attempt,
            recap: recap(e.purpose()),
        }
        .into(),
        Kind::ModelCallStarted(e) => ModelCallStarted {
            step: e.step,
            call: e.call.parse()?,
            attempt: e.attempt,
            at,
            model: e.model.clone(),
            max_output_tokens: e.max_output_tokens,
            bound: Default::default(),
            recap: recap(e.purpose()),
        }
        .into(),
        Kind::ModelCallCompleted(e) => ModelCallCompleted {
            call: e.call.parse()?,
            attempt: e.attempt,
            parts: parts(e.message.as_ref()),
            stop: StopReason::EndTurn,
            usage: None,
            response_id: None,
            body_crc: String::new(),
            latency_ms: 0,
            first_token_ms: None,
            cost_micro_usd: None,
            recap: recap(e.purpose()).is_some(),
        }
        .into(),
        other => return read_tool(other),
    }))
}

/// What matters is that it is no step: how much it stands for is told by the compaction.
fn recap(purpose: v1::ModelCallPurpose) -> Option<RecapAsk> {
    (purpose == v1::ModelCallPurpose::Recap).then_some(RecapAsk {
        dropped: 0,
        room: 0,
    })
}

fn added(e: &v1::MessageAdded) -> MessageAdded {
    let origin = match e.origin() {
        v1::MessageOrigin::Queue => Origin::Queue,
        v1::MessageOrigin::Steer => Origin::Steer,
        v1::MessageOrigin::Nudge => Origin::Nudge,
        v1::MessageOrigin::User | v1::MessageOrigin::Unspecified => Origin::User,
    };
    MessageAdded {
        origin,
        parts: parts(e.message.as_ref()),
        nudge: None,
    }
}

fn read_tool(kind: &Kind) -> Result<Option<Event>, IdError> {
    Ok(Some(match kind {
        Kind::ToolCallRequested(e) => {
            let args_hash = e.arguments_sha256.clone();
            ToolCallRequested {
                call: e.call.parse()?,
                index: 0,
                args_hash,
            }
            .into()
        }
        Kind::ToolCallRejected(e) => ToolCallRejected {
            call: e.call.parse()?,
            reason: RejectReason::UnknownTool,
            message: e.message.clone(),
        }
        .into(),
        Kind::ToolCallCompleted(e) => ToolCallCompleted {
            call: e.call.parse()?,
            attempt: e.attempt,
            output: Arc::new(output(e.result.as_ref())),
        }
        .into(),
        Kind::ToolCallFailed(e) if e.retry_at.is_none() => ToolCallFailed {
            call: e.call.parse()?,
            attempt: e.attempt,
            kind: ToolFailureKind::NotExecuted,
            message: e.message.clone(),
            retry_at: None,
            cause: None,
        }
        .into(),
        Kind::ToolCallUnknown(e) => ToolCallUnknown {
            call: e.call.parse()?,
            attempt: e.attempt,
            message: e.reason.clone(),
            policy: match e.policy() {
                v1::UnknownPolicy::Ask => UnknownPolicy::Ask,
                _ => UnknownPolicy::TellModel,
            },
            asked_at: None,
        }
        .into(),
        Kind::ApprovalRequested(e) => ApprovalRequested {
            call: e.call.parse()?,
            reason: ApprovalReason::RepeatsUnknown,
            at: Timestamp(0),
            expires_at: None,
            allow_on_expiry: e.allow_on_expiry,
        }
        .into(),
        Kind::UnknownResolved(e) => unknown_resolved(e)?.into(),
        Kind::ToolCallCancelled(e) => ToolCallCancelled {
            call: e.call.parse()?,
            dispatched: e.dispatched,
        }
        .into(),
        _ => return Ok(None),
    }))
}

fn unknown_resolved(e: &v1::UnknownResolved) -> Result<UnknownResolved, IdError> {
    let result = e.result.as_ref();
    Ok(UnknownResolved {
        call: e.call.parse()?,
        resolution: resolution(e.resolution()),
        output: result.map(|result| Arc::new(output(Some(result)))),
        at: Timestamp(0),
        by: e.by.clone(),
        reason: e.reason.clone(),
    })
}

/// A word that this version does not know says nothing that the model could be told.
fn resolution(resolution: v1::UnknownResolution) -> UnknownResolution {
    match resolution {
        v1::UnknownResolution::Happened => UnknownResolution::Happened,
        v1::UnknownResolution::DidNotHappen => UnknownResolution::DidNotHappen,
        v1::UnknownResolution::RunAgain => UnknownResolution::RunAgain,
        v1::UnknownResolution::Cancelled => UnknownResolution::Cancelled,
        v1::UnknownResolution::TellModel | v1::UnknownResolution::Unspecified => {
            UnknownResolution::TellModel
        }
    }
}

fn parts(message: Option<&v1::Message>) -> Parts {
    Arc::new(
        message
            .map(|m| m.parts.iter().filter_map(read_part).collect())
            .unwrap_or_default(),
    )
}

fn read_part(part: &v1::Part) -> Option<Part> {
    Some(match part.kind.as_ref()? {
        part::Kind::Text(text) => Part::Text(text.clone()),
        part::Kind::Thinking(thinking) => Part::Thinking(Thinking {
            text: thinking.text.clone(),
            signature: Some(thinking.signature.clone()).filter(|text| !text.is_empty()),
        }),
        part::Kind::ToolCall(call) => Part::ToolCall(CallPart {
            provider_id: call.provider_call_id.clone(),
            tool: call.tool.clone(),
            arguments: call.arguments_json.clone(),
        }),
        part::Kind::Opaque(opaque) => Part::Opaque(Opaque {
            provider: opaque.provider.clone(),
            json: opaque.json.clone(),
        }),
        part::Kind::Blob(blob) => {
            let content = blob.blob.clone().unwrap_or_default();
            let media_type = blob.media_type.clone();
            Part::Blob(BlobPart {
                sha256: content.sha256,
                bytes: content.bytes,
                media_type,
            })
        }
        part::Kind::ToolResult(_) => return None,
    })
}

fn output(result: Option<&v1::ToolResult>) -> ToolOutput {
    let Some(result) = result else {
        return ToolOutput::default();
    };
    let text = |part: &v1::Part| match part.kind.as_ref() {
        Some(part::Kind::Text(text)) => Some(text.clone()),
        _ => None,
    };
    ToolOutput {
        text: result.parts.iter().filter_map(text).collect(),
        is_error: result.is_error,
        structured: Some(result.structured_json.clone()).filter(|json| !json.is_empty()),
        ..ToolOutput::default()
    }
}
