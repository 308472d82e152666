//! A client that runs one session after another, and keeps all that it is told.
//!
//! Boundary: the public client, and nothing of the server. Invariant: what was acknowledged or shown
//! is kept as it came, and never made good.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use loopwright_client::{Client, Error, Watch, WatchEvent};
use loopwright_proto::v1::{
    Agent, Entry, MessageMode, ResolveUnknownRequest, SendMessageRequest, StartLoopRequest,
    UnknownPolicy, UnknownResolution, event::Kind, send_message_request, start_loop_request,
};
use loopwright_tests::rig::{
    self, Chance,
    history::{Ack, History},
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{kills::Moments, plan::Plan};

/// Loops that a session starts when it is quiet; then another session begins.
const LOOPS: u32 = 3;
/// Messages that a session is sent while a loop runs.
const INTERJECTIONS: u32 = 4;
/// One entry in so many has an interjection follow it.
const INTERJECT_EVERY: u64 = 15;
/// The models, by alias.
pub(super) const MODELS: [&str; 2] = ["brisk", "slow"];

/// What all lanes know.
#[derive(Clone)]
pub(super) struct Course {
    pub(super) url: String,
    pub(super) plan: Plan,
    pub(super) moments: Moments,
    /// No new loops are to be started.
    pub(super) closing: CancellationToken,
    /// Whatever has not ended by now never will.
    pub(super) overdue: CancellationToken,
}

struct Talk<'a> {
    client: Client,
    course: &'a Course,
    chance: &'a mut Chance,
    history: &'a mut History,
    pending: JoinSet<Result<Option<Ack>>>,
    said: u32,
}

/// Runs sessions until the rig closes.
pub(super) async fn drive(course: Course, lane: u64) -> Vec<History> {
    let mut chance = course.plan.chance(lane);
    let mut histories = Vec::new();
    while !course.closing.is_cancelled() {
        let mut history = History {
            session: format!("lane{lane}-{}", histories.len()),
            ..History::default()
        };
        let model = MODELS[usize::from(chance.below(2) == 0)];
        let talked = tokio::select! {
            talked = talk(&course, &mut chance, &mut history, model) => talked,
            () = course.overdue.cancelled() => Err(anyhow::anyhow!("its loop did not end in time")),
        };
        history.gave_up = talked.err().map(|error| format!("{error:#}"));
        let gave_up = history.gave_up.is_some();
        histories.push(history);
        if gave_up {
            break;
        }
    }
    histories
}

async fn talk(
    course: &Course,
    chance: &mut Chance,
    history: &mut History,
    model: &str,
) -> Result<()> {
    let mut talk = Talk {
        client: rig::patient(&course.url)?,
        course,
        chance,
        history,
        pending: JoinSet::new(),
        said: 0,
    };
    let ack = talk.start(model).await?;
    talk.history.acks.push(ack);
    let mut watch = talk.client.watch(&talk.history.session, 0);
    for turn in 1.. {
        talk.until_quiet(&mut watch).await?;
        if turn == LOOPS || course.closing.is_cancelled() {
            return Ok(());
        }
        talk.send(MessageMode::Queue);
    }
    Ok(())
}

impl Talk<'_> {
    async fn start(&mut self, model: &str) -> Result<Ack> {
        let (request_id, text) = self.next_words();
        let policies = [UnknownPolicy::TellModel, UnknownPolicy::Ask];
        let policy = policies[self.chance.place(policies.len())];
        let request = StartLoopRequest {
            request_id: request_id.clone(),
            session_id: self.history.session.clone(),
            agent: Some(Agent {
                model: model.to_owned(),
                unknown_policy: policy.into(),
                ..Agent::default()
            }),
            input: Some(start_loop_request::Input::Text(text.clone())),
            ..StartLoopRequest::default()
        };
        let answer = self.client.start_loop(request).await.context("StartLoop")?;
        let seq = answer.seq;
        Ok(Ack {
            request_id,
            text,
            seq,
        })
    }

    /// Says something, without waiting for the answer.
    fn send(&mut self, mode: MessageMode) {
        let (request_id, text) = self.next_words();
        let request = SendMessageRequest {
            request_id: request_id.clone(),
            session_id: self.history.session.clone(),
            mode: mode.into(),
            input: Some(send_message_request::Input::Text(text.clone())),
            ..SendMessageRequest::default()
        };
        let client = self.client.clone();
        self.pending.spawn(async move {
            let answer = client.send_message(request).await.context("SendMessage")?;
            let seq = answer.seq;
            Ok(Some(Ack {
                request_id,
                text,
                seq,
            }))
        });
    }

    /// Says what a call did of which nobody knows it, as a person would.
    fn resolve(&mut self, call: &str) {
        let resolutions = [
            UnknownResolution::Happened,
            UnknownResolution::DidNotHappen,
            UnknownResolution::TellModel,
        ];
        let resolution = resolutions[self.chance.place(resolutions.len())];
        let request_id = format!("resolve-{}-{call}", self.history.session);
        let request = ResolveUnknownRequest {
            request_id: request_id.clone(),
            session_id: self.history.session.clone(),
            call: call.to_owned(),
            resolution: resolution.into(),
            reason: "somebody looked".to_owned(),
            ..ResolveUnknownRequest::default()
        };
        let client = self.client.clone();
        self.pending.spawn(async move {
            match client.resolve_unknown(request).await {
                Ok(answer) => Ok(Some(Ack {
                    request_id,
                    text: String::new(),
                    seq: answer.seq,
                })),
                // An interruption came first, and nobody asks any more.
                Err(Error::Rejected(_)) => Ok(None),
                Err(error) => Err(error).context("ResolveUnknown"),
            }
        });
    }

    fn next_words(&mut self) -> (String, String) {
        self.said += 1;
        let words = format!("{}-said-{}", self.history.session, self.said);
        (format!("request-{words}"), words)
    }

    /// Watches until every command is answered and shown, and every loop that was shown has ended.
    async fn until_quiet(&mut self, watch: &mut Watch) -> Result<()> {
        loop {
            let acked = self
                .history
                .acks
                .iter()
                .map(|ack| ack.seq)
                .max()
                .unwrap_or(0);
            let is_shown = watch.cursor() >= acked;
            if self.pending.is_empty() && is_shown && open_loops(&self.history.entries) == 0 {
                return Ok(());
            }
            tokio::select! {
                Some(ack) = self.pending.join_next() => self.history.acks.extend(ack??),
                event = watch.next() => match event.context("the watch ended")?? {
                    WatchEvent::Entry(entry) => self.take(entry),
                    WatchEvent::Interrupted { .. } => self.history.interruptions += 1,
                    _ => {}
                },
            }
        }
    }

    fn take(&mut self, entry: Entry) {
        for event in &entry.events {
            if let Some(Kind::ToolCallUnknown(unknown)) = &event.kind
                && unknown.policy() == UnknownPolicy::Ask
            {
                self.resolve(&unknown.call);
            }
        }
        self.history.entries.push(entry);
        self.course.moments.entry.notify_waiters();
        if self.said < LOOPS + INTERJECTIONS
            && open_loops(&self.history.entries) > 0
            && self.pending.is_empty()
            && self.chance.below(INTERJECT_EVERY) == 0
        {
            let modes = [
                MessageMode::Steer,
                MessageMode::Interrupt,
                MessageMode::Queue,
            ];
            let mode = modes[usize::try_from(self.chance.below(3)).unwrap_or(0)];
            self.send(mode);
        }
    }
}

/// Loops that began and have not ended.
fn open_loops(entries: &[Entry]) -> i64 {
    let events = entries.iter().flat_map(|entry| &entry.events);
    events
        .map(|event| match event.kind {
            Some(Kind::LoopStarted(_)) => 1,
            Some(Kind::LoopEnded(_)) => -1,
            _ => 0,
        })
        .sum()
}

/// Has the lanes run, each in a task of its own.
pub(super) fn start(course: &Course, lanes: u64) -> JoinSet<Vec<History>> {
    let course = Arc::new(course.clone());
    let mut running = JoinSet::new();
    for lane in 0..lanes {
        running.spawn(drive(Course::clone(&course), lane));
    }
    running
}
