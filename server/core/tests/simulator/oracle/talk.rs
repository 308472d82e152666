//! What is said: a message is taken up once, in order, and calls stay paired with their results.

use std::collections::BTreeSet;

use loopwright_core::{
    Cause, Entry, Event, State,
    event::Origin,
    ids::CallId,
    input::Mode,
    message::{Part, text_of},
    outcome::EndReason,
    state::Turn,
};

use super::{
    Violation,
    calls::{Calls, End},
    check,
};

#[derive(Default)]
pub(super) struct Talk {
    /// Texts of clients, in accept order, with where they went.
    accepted: Vec<(String, Origin)>,
    requests: BTreeSet<String>,
    cancels: BTreeSet<String>,
    completed: bool,
    /// What waited was dropped by this entry.
    dropped: bool,
    seen: usize,
}

impl Talk {
    pub(super) fn before(&mut self, entry: &Entry, model_runs: bool) -> Result<(), Violation> {
        self.completed = false;
        if let Some(by) = entry.cause.command()
            && !by.request_id.is_empty()
        {
            let is_new = self.requests.insert(by.request_id.clone());
            check(is_new, "command_once", || {
                format!("{} again", by.request_id)
            })?;
        }
        if let Cause::SendMessage {
            mode: Mode::Interrupt,
            ..
        } = entry.cause
        {
            let abandons = |e: &Event| matches!(e, Event::ModelCallAbandoned(_));
            let interrupted = entry.events.iter().any(abandons);
            check(!model_runs || interrupted, "interrupt", || {
                "an interrupt left the model call running".to_owned()
            })?;
        }
        Ok(())
    }

    pub(super) fn event(&mut self, entry: &Entry, event: &Event) -> Result<(), Violation> {
        if let Event::MessageAdded(e) = event
            && e.origin != Origin::Nudge
        {
            let text = text_of(&e.parts);
            let is_new = !self.accepted.iter().any(|(known, _)| *known == text);
            self.accepted.push((text, e.origin));
            return check(is_new, "command_once", || format!("{:?} again", e.parts));
        }
        self.dropped |= matches!(event, Event::SessionForked(_));
        if let Event::LoopEnded(e) = event {
            self.completed = e.reason == EndReason::Completed;
            if let EndReason::Cancelled { reason, .. } = &e.reason {
                let is_new = self.cancels.insert(reason.clone());
                return check(is_new, "command_once", || format!("cancel {reason} again"));
            }
        }
        if let Event::LoopStarted(e) = event {
            let asked = matches!(entry.cause, Cause::StartLoop(_) | Cause::SendMessage { .. });
            return check(asked || self.completed, "queue_after_completed", || {
                format!("{} starts by itself after {}", e.id, entry.cause.label())
            });
        }
        Ok(())
    }

    /// Turns that are new since the last entry: calls are followed by their results, each as the
    /// call ended.
    pub(super) fn conversation(&mut self, calls: &Calls, after: &State) -> Result<(), Violation> {
        let from = self.seen.saturating_sub(1);
        if after.conversation.len() > self.seen {
            let mut open: Vec<CallId> = Vec::new();
            for turn in after.conversation.since(from) {
                open = next_turn(&open, &turn, calls)?;
            }
            let runs = after.active.as_ref().is_some_and(|a| !a.tools.is_empty());
            check(open.is_empty() || runs, "paired", || {
                format!("{open:?} have no results")
            })?;
        }
        self.seen = after.conversation.len();
        if std::mem::take(&mut self.dropped) {
            let turns = after.conversation.turns();
            let joined: Vec<String> = turns.iter().flat_map(|turn| said(turn)).collect();
            self.accepted.retain(|(text, _)| joined.contains(text));
        }
        Ok(())
    }

    pub(super) fn finish(&self, state: &State) -> Result<(), Violation> {
        let joined: Vec<String> = state
            .conversation
            .turns()
            .iter()
            .flat_map(|turn| said(turn))
            .collect();
        let waiting = state.pending.iter().map(|p| text_of(&p.parts));
        let queued = state.queue.iter().map(|parts| text_of(parts));
        let mut all: Vec<String> = joined
            .iter()
            .cloned()
            .chain(waiting)
            .chain(queued)
            .collect();
        all.retain(|text| text.starts_with('m'));
        all.sort();
        let mut accepted: Vec<String> =
            self.accepted.iter().map(|(text, _)| text.clone()).collect();
        accepted.sort();
        if state
            .recap
            .as_ref()
            .is_some_and(|recap| recap.forgotten > 0)
        {
            // What a recap has no room for is in the log alone; nothing may be made up or told twice.
            accepted.retain(|text| all.contains(text));
        }
        check(all == accepted, "message_once", || {
            format!("{accepted:?} became {all:?}")
        })?;
        let direct = self
            .accepted
            .iter()
            .filter(|(_, origin)| *origin != Origin::Queue);
        let order: Vec<&String> = direct
            .map(|(text, _)| text)
            .filter(|text| joined.contains(text))
            .collect();
        let heard: Vec<&String> = joined.iter().filter(|text| order.contains(text)).collect();
        check(order == heard, "accept_order", || {
            format!("{order:?} were heard as {heard:?}")
        })
    }
}

/// What a turn says that somebody said: of a recap, each line of it.
fn said(turn: &Turn) -> Vec<String> {
    let Turn::User(parts) = turn else {
        return Vec::new();
    };
    let text = text_of(parts);
    if !text.starts_with('[') {
        return vec![text];
    }
    let items = text.lines().filter_map(|line| line.strip_prefix("- "));
    items.map(str::to_owned).collect()
}

/// The calls that are open after `turn`.
fn next_turn(open: &[CallId], turn: &Turn, calls: &Calls) -> Result<Vec<CallId>, Violation> {
    match turn {
        Turn::Results(results) => {
            let told: Vec<CallId> = results.iter().map(|result| result.call).collect();
            check(told == open || open.is_empty(), "paired", || {
                format!("{open:?} were asked for, {told:?} came back")
            })?;
            for result in results.iter() {
                let as_told = match calls.end(result.call) {
                    Some(End::Completed | End::Said) => true,
                    Some(End::Otherwise) => result.output.is_error,
                    None => false,
                };
                check(as_told, "told_as_it_ended", || {
                    format!("{} is told as {:?}", result.call, result.output)
                })?;
            }
            Ok(Vec::new())
        }
        Turn::User(_) | Turn::Assistant { .. } => {
            check(open.is_empty(), "paired", || {
                format!("{open:?} have no results")
            })?;
            let Turn::Assistant { parts, first_call } = turn else {
                return Ok(Vec::new());
            };
            let asks = |part: &&Part| matches!(part, Part::ToolCall(_));
            let count = u32::try_from(parts.iter().filter(asks).count()).expect("few");
            Ok((0..count).map(|at| CallId(first_call.0 + at)).collect())
        }
    }
}
