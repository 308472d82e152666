//! A server in this process that plays one session from a list of steps and breaks streams on command.
//!
//! A reader that comes back finds what the real server gives it: the entries after its cursor, and the text
//! of the call in flight, as far as it was sent to anybody, as one delta from offset 0.

pub(crate) mod logs;
mod loops;

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use loopwright_proto::v1::delta::Content;
use loopwright_proto::v1::loop_service_server::LoopServiceServer;
use loopwright_proto::v1::session_log_service_server::SessionLogServiceServer;
use loopwright_proto::v1::{
    CommandStatus, ConverseRequest, Delta, Goodbye, GoodbyeReason, Heartbeat, ListSessionsRequest,
    LoopSummary, ReadEntriesResponse, Reply, ResolveApprovalRequest, ResolveUnknownRequest,
    UpdateLimitsRequest, WatchLoopResponse, converse_request::Command, converse_response,
    read_entries_response, watch_loop_response, watch_loops_response,
};
use loopwright_proto::well_known::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::session::Step;
use crate::{Client, ClientOptions};

/// How a stream ends: after how many items, and how.
#[derive(Debug, Clone)]
pub(crate) enum Cut {
    /// With this status.
    Status(usize, Status),
    /// With OK, out of turn.
    End(usize),
    /// With a goodbye.
    Goodbye(usize, GoodbyeReason),
    /// Not at all: nothing comes any more.
    Hang(usize),
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) steps: Vec<Step>,
    /// How streams end, in the order in which they begin; those after the last are not cut.
    pub(crate) cuts: VecDeque<Cut>,
    /// Answers to commands before they are accepted, in order.
    pub(crate) refusals: VecDeque<Status>,
    /// Commands that get no reply, and whose stream then ends; Converse only.
    pub(crate) unanswered: usize,
    /// Starts that are accepted, but whose reply is lost; Converse only.
    pub(crate) lost_replies: usize,
    /// Every command that came: its kind and request_id.
    pub(crate) commands: Vec<(&'static str, String)>,
    /// The answers to approvals that came.
    pub(crate) approvals: Vec<ResolveApprovalRequest>,
    /// What was said of unknown calls.
    pub(crate) resolved: Vec<ResolveUnknownRequest>,
    /// The limits that were moved.
    pub(crate) moved: Vec<UpdateLimitsRequest>,
    /// The filters of every list of sessions that was asked for.
    pub(crate) listed: Vec<ListSessionsRequest>,
    /// Where the loop stands, for those who ask.
    pub(crate) summary: Option<LoopSummary>,
    /// The cursor of every stream that began.
    pub(crate) cursors: Vec<u64>,
    /// What each of those said of the entry at its cursor: its epoch and the nanoseconds of its time.
    pub(crate) marks: Vec<(Option<u64>, Option<i32>)>,
    /// The credential of the last command.
    pub(crate) authorization: Option<String>,
    /// What each stream of WatchLoops tells before it is cut, in the order in which they begin.
    pub(crate) overviews: VecDeque<Vec<watch_loops_response::Item>>,
    cancelled: bool,
    hung_up: bool,
    live: usize,
}

/// A handle; clones are the same server.
#[derive(Clone, Default)]
pub(crate) struct Fake {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
}

type Items<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Sink = mpsc::Sender<Result<converse_response::Item, Status>>;

impl Fake {
    /// Serves on a free loopback port; a client of it that is quick to try again.
    pub(crate) async fn serve(steps: Vec<Step>) -> (Self, Client) {
        let fake = Self::default();
        fake.state().steps = steps;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = Server::builder()
            .add_service(LoopServiceServer::new(fake.clone()))
            .add_service(SessionLogServiceServer::new(fake.clone()));
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        tokio::spawn(server.serve_with_incoming(incoming));
        let options = ClientOptions {
            retry_delay: Duration::from_millis(1),
            silence_timeout: Duration::from_millis(400),
            token: Some("secret".into()),
            ..ClientOptions::at(url)
        };
        (fake, Client::connect(options).unwrap())
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Notes a command; its refusal, if the next answer is one.
    fn command(&self, kind: &'static str, request_id: &str) -> Result<(), Status> {
        let mut state = self.state();
        state.commands.push((kind, request_id.to_owned()));
        match state.refusals.pop_front() {
            Some(status) => Err(status),
            None => Ok(()),
        }
    }

    /// Notes what a request says of the entry at its cursor.
    fn marked(&self, epoch: Option<u64>, at: Option<Timestamp>) {
        let mark = (epoch, at.map(|at| at.nanos));
        self.state().marks.push(mark);
    }

    fn cancel(&self) {
        self.state().cancelled = true;
        self.changed.notify_waiters();
    }

    fn tail(&self) -> u64 {
        let state = self.state();
        let entries = state
            .steps
            .iter()
            .filter(|step| matches!(step, Step::Entry(_)));
        entries.count() as u64
    }

    /// Sends the session from a cursor on, until the stream's cut.
    async fn play(self, after: u64, ends: bool, sink: Sink) {
        let cut = {
            let mut state = self.state();
            state.cursors.push(after);
            state.cuts.pop_front()
        };
        let (mut at, live) = self.position(after);
        for sent in 0.. {
            if cut.as_ref().is_some_and(|cut| cut.at() == sent) {
                return self.perform(cut, after, &sink).await;
            }
            let Some((item, next)) = self.item(at, live).await else {
                let heartbeat = Heartbeat {
                    complete_through: self.tail(),
                    ..Heartbeat::default()
                };
                let item = converse_response::Item::Heartbeat(heartbeat);
                if sink.send(Ok(item)).await.is_ok() && !ends {
                    sink.closed().await;
                }
                return;
            };
            at = next;
            {
                let mut state = self.state();
                state.live = state.live.max(at);
            }
            if sink.send(Ok(item)).await.is_err() {
                return;
            }
        }
    }

    async fn perform(&self, cut: Option<Cut>, cursor: u64, sink: &Sink) {
        match cut {
            Some(Cut::Status(_, status)) => drop(sink.send(Err(status)).await),
            Some(Cut::Goodbye(_, reason)) => {
                let goodbye = Goodbye {
                    cursor,
                    reason: reason.into(),
                    ..Goodbye::default()
                };
                drop(
                    sink.send(Ok(converse_response::Item::Goodbye(goodbye)))
                        .await,
                );
            }
            Some(Cut::Hang(_)) => {
                self.until(|state| state.hung_up).await;
                drop(sink.send(Err(Status::unavailable("hung up"))).await);
            }
            Some(Cut::End(_)) | None => {}
        }
    }

    /// Breaks the streams that hang.
    pub(crate) fn hang_up(&self) {
        self.state().hung_up = true;
        self.changed.notify_waiters();
    }

    async fn until(&self, holds: impl Fn(&State) -> bool) {
        loop {
            let changed = self.changed.notified();
            if holds(&self.state()) {
                return;
            }
            changed.await;
        }
    }

    fn position(&self, after: u64) -> (usize, usize) {
        let state = self.state();
        let position = state
            .steps
            .iter()
            .position(|step| matches!(step, Step::Entry(entry) if entry.seq == after))
            .map_or(0, |at| at + 1);
        (position, state.live)
    }

    /// The item at a position, with the position behind it.
    async fn item(&self, at: usize, live: usize) -> Option<(converse_response::Item, usize)> {
        let step = self.state().steps.get(at).cloned()?;
        match step {
            Step::Entry(entry) => Some((converse_response::Item::Entry(entry), at + 1)),
            Step::Delta(delta) => {
                let (delta, next) = self.merged(delta, at, live);
                Some((converse_response::Item::Delta(delta), next))
            }
            Step::AwaitCancel => {
                self.until(|state| state.cancelled).await;
                Box::pin(self.item(at + 1, live)).await
            }
        }
    }

    /// What was sent to anybody before is one delta.
    fn merged(&self, mut delta: Delta, at: usize, live: usize) -> (Delta, usize) {
        let state = self.state();
        let mut next = at + 1;
        while let (true, Some(Step::Delta(more))) = (next < live, state.steps.get(next)) {
            if let (Some(Content::Text(text)), Some(Content::Text(more))) =
                (&mut delta.content, &more.content)
            {
                text.push_str(more);
            }
            next += 1;
        }
        (delta, next)
    }

    fn reply(&self, kind: &'static str, request_id: &str) -> converse_response::Item {
        let status = match self.command(kind, request_id) {
            Ok(()) => None,
            Err(status) => Some(CommandStatus {
                code: status.code().into(),
                message: status.message().into(),
                details: details(&status),
            }),
        };
        let accepted = status.is_none();
        converse_response::Item::Reply(Reply {
            request_id: request_id.into(),
            status,
            seq: if accepted { 3 } else { 0 },
            session_id: "s1".into(),
            loop_id: "l1".into(),
        })
    }

    /// Answers the commands of one Converse stream until one is to go unanswered.
    async fn answer(self, mut commands: Streaming<ConverseRequest>, sink: Sink) {
        let mut feed = None;
        while let Some(Ok(request)) = commands.next().await {
            let (kind, request_id, after) = match request.command.unwrap() {
                Command::Start(start) => ("start", start.request_id, Some(0)),
                Command::Attach(attach) => {
                    self.marked(attach.after_epoch, attach.after_committed_at);
                    ("attach", attach.request_id, Some(attach.after_seq))
                }
                Command::Message(message) => ("message", message.request_id, None),
                Command::Cancel(cancel) => ("cancel", cancel.request_id, None),
                Command::ResolveApproval(answer) => ("approval", answer.request_id, None),
                Command::ResolveUnknown(answer) => ("unknown", answer.request_id, None),
                Command::Pause(pause) => ("pause", pause.request_id, None),
                Command::Resume(resume) => ("resume", resume.request_id, None),
                Command::UpdateLimits(update) => ("limits", update.request_id, None),
            };
            let silent = {
                let mut state = self.state();
                let silent = state.unanswered > 0 && after.is_none();
                state.unanswered -= usize::from(silent);
                silent
            };
            if silent {
                self.state().commands.push((kind, request_id));
                let _ = sink.send(Err(Status::unavailable("cut"))).await;
                break;
            }
            let reply = self.reply(kind, &request_id);
            let lost = {
                let mut state = self.state();
                let lost = kind == "start" && state.lost_replies > 0;
                state.lost_replies -= usize::from(lost);
                lost
            };
            if !lost && sink.send(Ok(reply)).await.is_err() {
                break;
            }
            if kind == "cancel" {
                self.cancel();
            }
            if let Some(after) = after {
                let play = self.clone().play(after, false, sink.clone());
                feed = Some(tokio::spawn(play));
            }
        }
        if let Some(feed) = feed {
            feed.abort();
        }
    }
}

impl Cut {
    fn at(&self) -> usize {
        match self {
            Self::Status(at, _) | Self::End(at) | Self::Goodbye(at, _) | Self::Hang(at) => *at,
        }
    }
}

/// A status as the server makes it.
pub(crate) fn status(code: Code, reason: &str) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info(
        reason,
        "loopwright",
        [("tail_seq".to_owned(), "7".to_owned())],
    );
    if code == Code::InvalidArgument {
        details.add_bad_request_violation("agent.limits.max_steps", "must be at least 1");
        details.add_bad_request_violation("text", "must not be empty");
    }
    if code == Code::Unavailable {
        details.set_retry_info(Some(Duration::from_millis(2)));
    }
    Status::with_error_details(code, "refused", details)
}

fn details(status: &Status) -> Vec<loopwright_proto::well_known::Any> {
    use prost::Message as _;
    let rpc = tonic_types::pb::Status::decode(status.details()).unwrap();
    rpc.details
        .into_iter()
        .map(|any| loopwright_proto::well_known::Any {
            type_url: any.type_url,
            value: any.value.into(),
        })
        .collect()
}

fn watch_item(item: converse_response::Item) -> WatchLoopResponse {
    use converse_response::Item as From;
    use watch_loop_response::Item as To;
    let item = match item {
        From::Entry(entry) => Some(To::Entry(entry)),
        From::Delta(delta) => Some(To::Delta(delta)),
        From::Heartbeat(heartbeat) => Some(To::Heartbeat(heartbeat)),
        From::Goodbye(goodbye) => Some(To::Goodbye(goodbye)),
        From::Reply(_) => None,
    };
    WatchLoopResponse { item }
}

fn read_item(item: converse_response::Item, through: u64) -> Option<ReadEntriesResponse> {
    use converse_response::Item as From;
    use read_entries_response::Item as To;
    let item = match item {
        From::Entry(entry) if through > 0 && entry.seq > through => return None,
        From::Entry(entry) => To::Entry(entry),
        From::Heartbeat(heartbeat) => To::Heartbeat(heartbeat),
        From::Goodbye(goodbye) => To::Goodbye(goodbye),
        From::Delta(_) | From::Reply(_) => return None,
    };
    Some(ReadEntriesResponse { item: Some(item) })
}
