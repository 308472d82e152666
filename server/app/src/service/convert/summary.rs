//! Digests of sessions and loops as summaries of the wire.

use std::collections::BTreeMap;

use loopwright_core::{
    ids::{LoopId, Timestamp},
    state::{State, ToolPhase},
};
use loopwright_log::StreamKey;
use loopwright_proto::v1;

use super::{timestamp, words};
use crate::{
    index::{Digest, LoopDigest, state_hash},
    service::page::Place,
};

/// One loop in short; `now` is what the wall time of a loop that goes on is counted to.
#[must_use]
pub fn of_loop(
    key: &StreamKey,
    digest: &Digest,
    one: &LoopDigest,
    now: Timestamp,
) -> v1::LoopSummary {
    let ended_at = one.ended.as_ref().map(|(at, _, _)| *at);
    let wall = ended_at
        .unwrap_or(now.max(one.started_at))
        .since(one.started_at);
    let pending = if ended_at.is_none() {
        pending(&digest.state)
    } else {
        Vec::new()
    };
    v1::LoopSummary {
        session_id: key.id().to_owned(),
        loop_id: one.id.to_string(),
        state: loop_state(one) as i32,
        end_reason: end_reason(one) as i32,
        steps: one.totals.steps,
        totals: Some(words::totals(&one.totals, Some(wall))),
        last_text: one.last_text.clone(),
        agent: one.agent.clone(),
        model: one.model.clone(),
        labels: labels(digest),
        started_at: Some(timestamp(one.started_at)),
        updated_at: Some(timestamp(one.updated_at)),
        ended_at: ended_at.map(timestamp),
        driver_restarts: one.restarts,
        seq: digest.seq,
        pending_calls: pending,
    }
}

/// One session in short.
#[must_use]
pub fn of_session(key: &StreamKey, digest: &Digest) -> v1::SessionSummary {
    let current = digest.current();
    let state = &digest.state;
    let created = state
        .session
        .as_ref()
        .map(|head| timestamp(head.created_at));
    v1::SessionSummary {
        session_id: key.id().to_owned(),
        state: session_state(digest) as i32,
        labels: labels(digest),
        created_at: created,
        updated_at: Some(timestamp(digest.updated_at)),
        tail_seq: digest.seq,
        oldest_seq: 1,
        state_hash: state_hash(digest.seq, digest.crc),
        loop_id: current.map(|one| one.id.to_string()).unwrap_or_default(),
        loop_state: current.map_or(v1::LoopState::Unspecified, loop_state) as i32,
        end_reason: current.map_or(v1::EndReason::Unspecified, end_reason) as i32,
        loops: state.next_loop.saturating_sub(1),
        totals: Some(words::totals(&state.totals, None)),
        agent: state.agent.name.clone(),
        model: current.map_or(&state.agent.model, |one| &one.model).clone(),
        title: digest.title.clone(),
        last_text: current.map(|one| one.last_text.clone()).unwrap_or_default(),
        queued_messages: u32::try_from(state.queue.len()).unwrap_or(u32::MAX),
        driver_restarts: current.map_or(0, |one| one.restarts),
    }
}

/// Where a loop stands.
#[must_use]
pub fn loop_state(one: &LoopDigest) -> v1::LoopState {
    if one.ended.is_some() {
        v1::LoopState::Ended
    } else {
        v1::LoopState::Running
    }
}

/// Where a loop of a session stands, be it kept in the digest or not: older ones have ended.
#[must_use]
pub fn state_of(digest: &Digest, id: LoopId) -> v1::LoopState {
    let kept = digest.loops.iter().find(|one| one.id == id);
    kept.map_or(v1::LoopState::Ended, loop_state)
}

/// Where each loop of a session stands in a list of loops, and how it is.
pub(in crate::service) fn places(
    key: &StreamKey,
    digest: &Digest,
    agent: Option<&loopwright_log::Id>,
) -> impl Iterator<Item = (Place, v1::LoopState)> {
    let of_agent = move |name: &str| agent.is_none_or(|agent| agent.as_str() == name);
    let starts = digest
        .starts
        .iter()
        .filter(move |(.., agent)| of_agent(&agent.name));
    starts.map(|&(id, started_at, _)| {
        // Of two loops that a session started in one millisecond the later one comes first.
        let name = format!("{}/{:010}", key.id(), u32::MAX - id.0);
        (Place::new(started_at.0, name), state_of(digest, id))
    })
}

/// The session and the loop of a place in a list of loops.
pub(in crate::service) fn placed(name: &str) -> Option<(&str, LoopId)> {
    let (session, number) = name.split_once('/')?;
    Some((session, LoopId(u32::MAX - number.parse::<u32>().ok()?)))
}

/// Where a session stands.
#[must_use]
pub fn session_state(digest: &Digest) -> v1::SessionState {
    if digest.damage.is_some() {
        return v1::SessionState::Corrupt;
    }
    match &digest.state.active {
        Some(_) => v1::SessionState::Active,
        None => v1::SessionState::Idle,
    }
}

/// Whether a session has all of these labels with these values.
#[must_use]
pub fn has_labels(digest: &Digest, wanted: &BTreeMap<String, String>) -> bool {
    let Some(head) = &digest.state.session else {
        return wanted.is_empty();
    };
    wanted
        .iter()
        .all(|(key, value)| head.labels.get(key) == Some(value))
}

fn labels(digest: &Digest) -> BTreeMap<String, String> {
    digest
        .state
        .session
        .as_ref()
        .map(|head| head.labels.clone())
        .unwrap_or_default()
}

fn end_reason(one: &LoopDigest) -> v1::EndReason {
    let reason = one
        .ended
        .as_ref()
        .map(|(_, _, reason)| words::end_reason(reason));
    reason.unwrap_or(v1::EndReason::Unspecified)
}

fn pending(state: &State) -> Vec<v1::PendingCall> {
    let Some(active) = &state.active else {
        return Vec::new();
    };
    let pending = |tool: &loopwright_core::state::ToolCall| {
        let (state, expires_at) = match tool.phase {
            ToolPhase::Waiting => (v1::PendingState::Queued, None),
            ToolPhase::Backoff { until } => (v1::PendingState::Queued, Some(timestamp(until))),
            ToolPhase::Running => (v1::PendingState::Dispatched, None),
            ToolPhase::InDoubt { .. } => (v1::PendingState::InDoubt, None),
            ToolPhase::Held { until, .. } => (v1::PendingState::Approval, until.map(timestamp)),
            ToolPhase::Asking => (v1::PendingState::Unknown, None),
            ToolPhase::Ended(_) => return None,
        };
        Some(v1::PendingCall {
            call: tool.call.to_string(),
            tool: active.tool_name(tool).to_owned(),
            state: state as i32,
            expires_at,
        })
    };
    active.tools.iter().filter_map(pending).collect()
}
