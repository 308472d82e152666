//! Records as entries of the wire, made once for all watchers.
//!
//! Invariant: `WatchLoopResponse`, `ConverseResponse` and `ReadEntriesResponse` all hold the entry
//! in field 1, so that one encoding serves all three; a test holds the protos to it.

use bytes::{BufMut, Bytes, BytesMut};
use loopwright_core::{
    entry::{Cause, Entry},
    event::Event,
};
use loopwright_log::Record;
use loopwright_proto::v1;
use prost::Message as _;

use super::{
    committed_at,
    event::{Context, kinds},
    kinds::KindSet,
};
use crate::redaction::Fields;

/// Bytes before the message in what a record keeps: its kinds.
const HEAD: usize = 8;

/// A record as its watchers need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// The kinds of its events.
    pub kinds: KindSet,
    /// A response of any of the streams, with the entry in it.
    pub message: Bytes,
}

/// A record whose body is not an entry of this or an earlier version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("entry {seq} of {stream} cannot be read by this version: {reason}")]
pub struct Unreadable {
    /// The stream.
    pub stream: String,
    /// The record.
    pub seq: u64,
    /// What is wrong.
    pub reason: String,
}

/// The record's message, without what `fields` hides; made by the first watcher that needs it, shared
/// by all others.
///
/// # Errors
/// [`Unreadable`].
pub fn ready(record: &Record, fields: &Fields) -> Result<Ready, Unreadable> {
    let kept = record.memo(|| encoded(record, fields).unwrap_or_default());
    match kept.first_chunk::<HEAD>() {
        Some(head) => {
            let kinds = KindSet(u64::from_le_bytes(*head));
            Ok(Ready {
                kinds,
                message: kept.slice(HEAD..),
            })
        }
        None => Err(parse(record)
            .err()
            .unwrap_or_else(|| unreadable(record, "it has no body"))),
    }
}

/// The entry that a record holds.
///
/// # Errors
/// [`Unreadable`].
pub fn parse(record: &Record) -> Result<Entry, Unreadable> {
    // The head and tail of the log are fields that an entry does not have, and skips.
    serde_json::from_slice(record.line()).map_err(|error| unreadable(record, &error.to_string()))
}

/// The entry on the wire.
#[must_use]
pub fn to_wire(record: &Record, entry: &Entry) -> v1::Entry {
    let context = Context {
        events: &entry.events,
        seq: record.seq,
        epoch: record.epoch,
    };
    let events = entry.events.iter().flat_map(|event| kinds(event, &context));
    let traceparent = entry.events.iter().find_map(|event| match event {
        Event::LoopStarted(e) => e.traceparent.clone(),
        _ => None,
    });
    let command = entry.cause.command();
    v1::Entry {
        seq: record.seq,
        session_id: record.key.id().to_owned(),
        committed_at: Some(committed_at(record.at)),
        epoch: record.epoch,
        cause: Some(v1::Cause {
            kind: cause(entry).to_owned(),
            request_id: command.map(|by| by.request_id.clone()).unwrap_or_default(),
            principal: command.map(|by| by.principal.clone()).unwrap_or_default(),
        }),
        events: events
            .map(|kind| v1::Event {
                ignorable: false,
                kind: Some(kind),
            })
            .collect(),
        traceparent: traceparent.unwrap_or_default(),
    }
}

fn encoded(record: &Record, fields: &Fields) -> Result<Bytes, Unreadable> {
    let entry = parse(record)?;
    let shown = fields.entry(&entry);
    let entry = to_wire(record, shown.as_ref().unwrap_or(&entry));
    let kinds = entry.events.iter().filter_map(|event| event.kind.as_ref());
    let kinds = kinds.fold(KindSet::NONE, |all, kind| all.and(KindSet::of(kind)));
    let message = v1::WatchLoopResponse {
        item: Some(v1::watch_loop_response::Item::Entry(entry)),
    };
    let mut bytes = BytesMut::with_capacity(HEAD + message.encoded_len());
    bytes.put_u64_le(kinds.0);
    message
        .encode(&mut bytes)
        .expect("a BytesMut grows as far as it must");
    Ok(bytes.freeze())
}

fn unreadable(record: &Record, reason: &str) -> Unreadable {
    Unreadable {
        stream: record.key.to_string(),
        seq: record.seq,
        reason: reason.to_owned(),
    }
}

/// The kind of input, as the wire names it.
fn cause(entry: &Entry) -> &'static str {
    let failed =
        |is: fn(&Event) -> bool, yes, no| if entry.events.iter().any(is) { yes } else { no };
    match &entry.cause {
        Cause::Create(_) => "create_session",
        Cause::StartLoop(_) => "start_loop",
        Cause::SendMessage { .. } => "send_message",
        Cause::CancelLoop { .. } => "cancel_loop",
        Cause::PauseLoop { .. } => "pause_loop",
        Cause::ResumeLoop { .. } => "resume_loop",
        Cause::UpdateLimits { .. } => "update_limits",
        Cause::ResolveApproval { .. } => "resolve_approval",
        Cause::ResolveUnknown { .. } => "resolve_unknown",
        Cause::Adopt(_) => "adopted",
        Cause::Attach => "attached",
        Cause::Detach => "detached",
        Cause::Tools => "tools_changed",
        Cause::Model { .. } => {
            let is = |event: &Event| matches!(event, Event::ModelCallFailed(_));
            failed(is, "model_failed", "model_completed")
        }
        Cause::Tool { .. } => {
            let is = |event: &Event| {
                matches!(event, Event::ToolCallFailed(_) | Event::ToolCallInDoubt(_))
            };
            failed(is, "tool_failed", "tool_completed")
        }
        Cause::Lookup { .. } => "looked_up",
        Cause::BudgetGranted { .. } => "budget_granted",
        Cause::BudgetWaits { .. } => "budget_waits",
        Cause::BudgetRefused { .. } => "budget_refused",
        Cause::BudgetSpent { .. } => "budget_spent",
        Cause::BudgetSettled { .. } => "budget_settled",
        Cause::Timer(_) => "timer_fired",
    }
}
