//! Briefs of sessions and loops as summaries of the wire.

use std::collections::BTreeMap;

use loopwright_core::{
    ids::{LoopId, Timestamp},
    usage::Totals,
};
use loopwright_log::StreamKey;
use loopwright_proto::v1;

use super::{timestamp, words};
use crate::{
    index::{Brief, LoopDigest, Waits, state_hash},
    service::page::Place,
};

/// One loop in short; `now` is what the wall time of a loop that goes on is counted to.
#[must_use]
pub fn of_loop(
    key: &StreamKey,
    brief: &Brief,
    one: &LoopDigest,
    now: Timestamp,
) -> v1::LoopSummary {
    let ended_at = one.ended.as_ref().map(|(at, _, _)| *at);
    let wall = if ended_at.is_some() {
        one.totals.wall_ms
    } else {
        let until = one.paused_at.unwrap_or(now);
        until.since(one.started_at).saturating_sub(one.paused_ms)
    };
    let pending = if ended_at.is_none() {
        pending(brief)
    } else {
        Vec::new()
    };
    v1::LoopSummary {
        session_id: key.id().to_owned(),
        loop_id: one.id.to_string(),
        state: loop_state(brief, one) as i32,
        end_reason: end_reason(one) as i32,
        steps: one.totals.steps,
        totals: Some(words::totals(&Totals {
            wall_ms: wall,
            ..one.totals
        })),
        last_text: one.last_text.clone(),
        agent: one.agent.clone(),
        model: one.model.clone(),
        labels: brief.labels.clone(),
        started_at: Some(timestamp(one.started_at)),
        updated_at: Some(timestamp(one.updated_at)),
        ended_at: ended_at.map(timestamp),
        driver_restarts: one.restarts,
        seq: brief.seq,
        pending_calls: pending,
    }
}

/// One session in short.
#[must_use]
pub fn of_session(key: &StreamKey, brief: &Brief) -> v1::SessionSummary {
    let current = brief.current();
    v1::SessionSummary {
        session_id: key.id().to_owned(),
        state: session_state(brief) as i32,
        labels: brief.labels.clone(),
        created_at: brief.created_at.map(timestamp),
        updated_at: Some(timestamp(brief.updated_at)),
        tail_seq: brief.seq,
        oldest_seq: 1,
        state_hash: state_hash(brief.seq, brief.crc),
        loop_id: current.map(|one| one.id.to_string()).unwrap_or_default(),
        loop_state: current.map_or(v1::LoopState::Unspecified, |one| loop_state(brief, one)) as i32,
        end_reason: current.map_or(v1::EndReason::Unspecified, end_reason) as i32,
        loops: brief.begun,
        totals: Some(words::totals(&brief.totals)),
        agent: brief.agent.clone(),
        model: current.map_or(&brief.model, |one| &one.model).clone(),
        title: brief.title.clone(),
        last_text: current.map(|one| one.last_text.clone()).unwrap_or_default(),
        queued_messages: brief.queued,
        driver_restarts: restarts(brief, current.map_or(0, |one| one.restarts)),
        problem: problem(brief),
    }
}

/// Where a loop stands.
#[must_use]
pub fn loop_state(brief: &Brief, one: &LoopDigest) -> v1::LoopState {
    if one.ended.is_some() {
        v1::LoopState::Ended
    } else if brief.standing.paused {
        v1::LoopState::Paused
    } else if brief.standing.waiting {
        v1::LoopState::Waiting
    } else {
        v1::LoopState::Running
    }
}

/// Where a loop of a session stands, be it kept in the digest or not: older ones have ended.
#[must_use]
pub fn state_of(brief: &Brief, id: LoopId) -> v1::LoopState {
    let kept = brief.loops.iter().find(|one| one.id == id);
    kept.map_or(v1::LoopState::Ended, |one| loop_state(brief, one))
}

/// Where each loop of a session stands in a list of loops, and how it is.
pub(in crate::service) fn places(
    key: &StreamKey,
    brief: &Brief,
    agent: Option<&loopwright_log::Id>,
) -> impl Iterator<Item = (Place, v1::LoopState)> {
    let of_agent = move |name: &str| agent.is_none_or(|agent| agent.as_str() == name);
    let starts = brief.starts().filter(move |&(.., name)| of_agent(name));
    starts.map(|(id, started_at, _)| {
        // Of two loops that a session started in one millisecond the later one comes first.
        let name = format!("{}/{:010}", key.id(), u32::MAX - id.0);
        (Place::new(started_at.0, name), state_of(brief, id))
    })
}

/// The session and the loop of a place in a list of loops.
pub(in crate::service) fn placed(name: &str) -> Option<(&str, LoopId)> {
    let (session, number) = name.split_once('/')?;
    Some((session, LoopId(u32::MAX - number.parse::<u32>().ok()?)))
}

/// Where a session stands.
#[must_use]
pub fn session_state(brief: &Brief) -> v1::SessionState {
    if brief.damaged {
        return v1::SessionState::Corrupt;
    }
    if brief
        .trouble
        .as_ref()
        .is_some_and(|trouble| trouble.given_up)
    {
        v1::SessionState::Failed
    } else if brief.standing.open {
        v1::SessionState::Active
    } else {
        v1::SessionState::Idle
    }
}

/// Whether a session has all of these labels with these values.
#[must_use]
pub fn has_labels(brief: &Brief, wanted: &BTreeMap<String, String>) -> bool {
    wanted
        .iter()
        .all(|(key, value)| brief.labels.get(key) == Some(value))
}

/// Drivers that took the loop up again, those that were lost before they could say so included.
fn restarts(brief: &Brief, attached: u32) -> u32 {
    let lost = brief.trouble.as_ref().map_or(0, |trouble| trouble.losses);
    attached.max(lost)
}

/// What is wrong with a session, in words; empty where nothing is.
fn problem(brief: &Brief) -> String {
    match &brief.trouble {
        _ if brief.damaged => format!(
            "the log is damaged behind entry {}; it can be read up to there, and \
             `loopwright log repair` makes it whole again",
            brief.seq
        ),
        Some(trouble) if trouble.given_up && trouble.losses == 0 => format!(
            "{}; no driver can go on with it, so its loop cannot be cancelled; it can be read and \
             deleted",
            trouble.reason
        ),
        Some(trouble) if trouble.given_up => format!(
            "{}; {} drivers were lost in a row, none got any further; a command or a restart of \
             the server tries again",
            trouble.reason, trouble.losses
        ),
        Some(trouble) => format!("{}; another driver follows", trouble.reason),
        None => String::new(),
    }
}

fn end_reason(one: &LoopDigest) -> v1::EndReason {
    let reason = one
        .ended
        .as_ref()
        .map(|(_, _, reason)| words::end_reason(reason));
    reason.unwrap_or(v1::EndReason::Unspecified)
}

fn pending(brief: &Brief) -> Vec<v1::PendingCall> {
    let pending = brief.pending.iter().map(|one| {
        let (state, expires_at) = match one.waits {
            Waits::Turn => (v1::PendingState::Queued, None),
            Waits::Attempt(at) => (v1::PendingState::Queued, Some(at)),
            Waits::Sidecar => (v1::PendingState::Dispatched, None),
            Waits::Lookup => (v1::PendingState::InDoubt, None),
            Waits::Approval(until) => (v1::PendingState::Approval, until),
            Waits::Resolution(until) => (v1::PendingState::Unknown, until),
        };
        v1::PendingCall {
            call: one.call.to_string(),
            tool: one.tool.clone(),
            state: state as i32,
            expires_at: expires_at.map(timestamp),
        }
    });
    pending.collect()
}
