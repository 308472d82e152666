//! The interactive channel of one session, across any number of connections.
//!
//! ```text
//! first connection    start | attach{after}, commands..      replies, entries, deltas ..
//!    -- cut --
//! next connection     attach{cursor}, then the commands that have no reply, with their request_ids
//! ```
//!
//! A start that has no reply, or whose first entry has not come, is given again instead of the attach: the
//! server then sends from that entry again. Boundary: Converse only; the connection is [`Link`]'s, what is
//! new is [`Reader`]'s. Invariant: every command gets one reply, every entry is yielded once.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::{Stream, StreamExt};
use loopwright_proto::v1::{
    CancelLoopRequest, ConverseAttach, ConverseRequest, ConverseResponse, PauseLoopRequest, Reply,
    ResolveApprovalRequest, ResolveUnknownRequest, ResumeLoopRequest, SendMessageRequest,
    StartLoopRequest, UpdateLimitsRequest, converse_request::Command, converse_response,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::client::fill_in;
use crate::link::{Link, Opening as OpeningCall, Report};
use crate::reader::{EntryMark, Item, Reader, Taken};
use crate::{Client, Error, WatchEvent};

/// Commands that may wait for their replies at a time.
const MAX_UNANSWERED: usize = 64;
/// Times that a command is given again because the server said UNAVAILABLE to it.
const MAX_TRIES: u32 = 6;

/// How a conversation begins.
#[derive(Debug, Clone, PartialEq)]
pub enum Opening {
    /// Starts a loop; an empty `request_id` is filled in.
    Start(Box<StartLoopRequest>),
    /// Watches a session that exists.
    Attach {
        /// The session.
        session_id: String,
        /// Entries after this seq; 0 = from the beginning.
        after_seq: u64,
        /// What is known of the entry at that seq, as in [`WatchOptions::after_mark`](crate::WatchOptions).
        after_mark: Option<EntryMark>,
    },
}

/// Something that a conversation brings.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ConverseEvent {
    /// An entry, a delta, a sign of life, or a word about the connection.
    Watch(WatchEvent),
    /// The answer to a command, the opening included.
    Reply(CommandReply),
}

/// The answer to one command.
#[derive(Debug, Clone)]
pub struct CommandReply {
    /// The command's request_id.
    pub request_id: String,
    /// What it did, or why it was refused. A refusal does not end the conversation.
    pub result: Result<Accepted, Error>,
}

/// What an accepted command did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The last seq that it wrote; for an attach, the log's tail at that moment.
    pub seq: u64,
    /// The session.
    pub session_id: String,
    /// The loop that it started, joined or touched; empty where there is none yet.
    pub loop_id: String,
}

/// The interactive channel of one session. Drop it to leave; the loop goes on without.
pub struct Conversation {
    client: Client,
    opening: ConverseRequest,
    opening_id: String,
    /// The server's answer to the opening; none before it came.
    opened: Option<Accepted>,
    /// True once the opening of the connection in use was accepted.
    attached: bool,
    unanswered: VecDeque<Unanswered>,
    up: Option<mpsc::Sender<ConverseRequest>>,
    link: Link<Item>,
    reader: Reader,
    done: bool,
}

struct Unanswered {
    request_id: String,
    request: ConverseRequest,
    tries: u32,
    /// True once it was given on the connection in use.
    sent: bool,
}

impl Conversation {
    pub(crate) fn new(client: Client, opening: Opening) -> Self {
        let url = &client.options().url;
        let mut opening_id = String::new();
        let (command, reader) = match opening {
            Opening::Start(mut start) => {
                fill_in(&mut start.request_id);
                opening_id.clone_from(&start.request_id);
                let reader = Reader::new(url, &start.session_id, None, true);
                (Command::Start(*start), reader)
            }
            Opening::Attach {
                session_id,
                after_seq,
                after_mark,
            } => {
                fill_in(&mut opening_id);
                let reader = Reader::new(url, &session_id, Some(after_seq), true);
                let reader = reader.marked(after_mark);
                (attach(&reader, after_seq, &opening_id), reader)
            }
        };
        Self {
            link: Link::new(client.options()),
            client,
            opening: ConverseRequest {
                command: Some(command),
            },
            opening_id,
            opened: None,
            attached: false,
            unanswered: VecDeque::new(),
            up: None,
            reader,
            done: false,
        }
    }

    /// The next event; none after an error. Drives the conversation: commands are sent and sent again only
    /// while it is awaited. May be dropped while it waits.
    pub async fn next(&mut self) -> Option<Result<ConverseEvent, Error>> {
        StreamExt::next(self).await
    }

    /// Gives the session a message; the request_id that its reply will carry is returned. An empty
    /// `request_id` or `session_id` is filled in.
    ///
    /// # Errors
    /// [`Error::TooManyCommands`] where 64 commands wait for their replies.
    pub fn send_message(&mut self, mut request: SendMessageRequest) -> Result<String, Error> {
        fill_in(&mut request.request_id);
        let request_id = request.request_id.clone();
        self.command(request_id, Command::Message(request))
    }

    /// Cancels the loop that is going on; the request_id that the reply will carry is returned.
    ///
    /// # Errors
    /// As [`Self::send_message`].
    pub fn cancel(&mut self, reason: impl Into<String>) -> Result<String, Error> {
        let mut request = CancelLoopRequest {
            reason: reason.into(),
            ..CancelLoopRequest::default()
        };
        fill_in(&mut request.request_id);
        let request_id = request.request_id.clone();
        self.command(request_id, Command::Cancel(request))
    }

    /// Allows or denies a tool call that waits for a person; the request_id that the reply will
    /// carry is returned. An empty `request_id` or `session_id` is filled in.
    ///
    /// # Errors
    /// As [`Self::send_message`].
    pub fn resolve_approval(
        &mut self,
        mut request: ResolveApprovalRequest,
    ) -> Result<String, Error> {
        fill_in(&mut request.request_id);
        let request_id = request.request_id.clone();
        self.command(request_id, Command::ResolveApproval(request))
    }

    /// Says what a tool call did of which nobody could tell; the request_id that the reply will
    /// carry is returned. An empty `request_id` or `session_id` is filled in.
    ///
    /// # Errors
    /// As [`Self::send_message`].
    pub fn resolve_unknown(&mut self, mut request: ResolveUnknownRequest) -> Result<String, Error> {
        fill_in(&mut request.request_id);
        let request_id = request.request_id.clone();
        self.command(request_id, Command::ResolveUnknown(request))
    }

    /// Pauses the loop that is going on; the request_id that the reply will carry is returned.
    ///
    /// # Errors
    /// As [`Self::send_message`].
    pub fn pause(&mut self) -> Result<String, Error> {
        let mut request = PauseLoopRequest::default();
        fill_in(&mut request.request_id);
        let request_id = request.request_id.clone();
        self.command(request_id, Command::Pause(request))
    }

    /// Lets a paused loop go on; the request_id that the reply will carry is returned.
    ///
    /// # Errors
    /// As [`Self::send_message`].
    pub fn resume(&mut self) -> Result<String, Error> {
        let mut request = ResumeLoopRequest::default();
        fill_in(&mut request.request_id);
        let request_id = request.request_id.clone();
        self.command(request_id, Command::Resume(request))
    }

    /// Moves limits of the loop that is going on; the request_id that the reply will carry is
    /// returned. An empty `request_id` or `session_id` is filled in.
    ///
    /// # Errors
    /// As [`Self::send_message`].
    pub fn update_limits(&mut self, mut request: UpdateLimitsRequest) -> Result<String, Error> {
        fill_in(&mut request.request_id);
        let request_id = request.request_id.clone();
        self.command(request_id, Command::UpdateLimits(request))
    }

    /// The session; none before a start was answered or its first entry came.
    #[must_use]
    pub fn session_id(&self) -> Option<&str> {
        Some(self.reader.session_id()).filter(|id| !id.is_empty())
    }

    /// The loop that a start began; none before it was answered.
    #[must_use]
    pub fn loop_id(&self) -> Option<&str> {
        let opened = self.opened.as_ref()?;
        Some(opened.loop_id.as_str()).filter(|id| !id.is_empty())
    }

    /// The last seq that was yielded; none before a start's first entry.
    #[must_use]
    pub fn cursor(&self) -> Option<u64> {
        self.reader.cursor()
    }

    fn command(&mut self, request_id: String, command: Command) -> Result<String, Error> {
        if self.unanswered.len() >= MAX_UNANSWERED {
            return Err(Error::TooManyCommands {
                limit: MAX_UNANSWERED,
            });
        }
        self.unanswered.push_back(Unanswered {
            request_id: request_id.clone(),
            request: ConverseRequest {
                command: Some(command),
            },
            tries: 0,
            sent: false,
        });
        self.flush();
        Ok(request_id)
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<ConverseEvent, Error>> {
        loop {
            let report = ready!(self.poll_link(cx))?;
            let broken = match report {
                Report::Broken { error, retry_in } => {
                    return Poll::Ready(Ok(self.interrupted(error, retry_in)));
                }
                Report::Ended => Error::Unreachable {
                    url: self.client.options().url.clone(),
                    cause: "the stream ended without a word".to_owned(),
                },
                Report::Item(item) => match self.reader.take(item) {
                    Taken::Event(event) => {
                        self.link.thrives();
                        return Poll::Ready(Ok(ConverseEvent::Watch(event)));
                    }
                    Taken::Reply(reply) => match self.reply(reply)? {
                        Answer::Yield(reply) => {
                            self.link.thrives();
                            return Poll::Ready(Ok(ConverseEvent::Reply(reply)));
                        }
                        Answer::Nothing => continue,
                        Answer::TryAgain(error) => error,
                    },
                    Taken::Nothing => continue,
                    Taken::Broken(error) => error,
                },
            };
            if let Report::Broken { error, retry_in } = self.link.broken(broken)? {
                return Poll::Ready(Ok(self.interrupted(error, retry_in)));
            }
        }
    }

    fn poll_link(&mut self, cx: &mut Context<'_>) -> Poll<Result<Report<Item>, Error>> {
        let (client, up) = (&self.client, &mut self.up);
        let attached = &mut self.attached;
        let unanswered = &mut self.unanswered;
        let opening = reopening(
            &self.opening,
            &self.opening_id,
            self.opened.is_some(),
            &self.reader,
        );
        let mut open = || {
            let (sender, receiver) = mpsc::channel(MAX_UNANSWERED + 1);
            *up = Some(sender);
            *attached = false;
            for command in unanswered.iter_mut() {
                command.sent = false;
            }
            open(client, up.as_ref(), receiver, &opening)
        };
        self.link.poll(cx, &mut open)
    }

    fn interrupted(&mut self, error: Error, retry_in: std::time::Duration) -> ConverseEvent {
        self.up = None;
        self.attached = false;
        ConverseEvent::Watch(WatchEvent::Interrupted { error, retry_in })
    }

    fn reply(&mut self, reply: Reply) -> Result<Answer, Error> {
        let refused = Error::from_reply(reply.status);
        if reply.request_id == self.opening_id {
            return match refused {
                Some(error) if error.is_transient() => Ok(Answer::TryAgain(error)),
                Some(error) => Err(error),
                None => Ok(self.accepted(reply.seq, reply.session_id, reply.loop_id)),
            };
        }
        let waiting = &mut self.unanswered;
        let Some(at) = waiting
            .iter()
            .position(|command| command.request_id == reply.request_id)
        else {
            return Ok(Answer::Nothing);
        };
        let command = &mut waiting[at];
        command.tries += 1;
        let result = match refused {
            Some(error) if error.is_transient() && command.tries < MAX_TRIES => {
                return Ok(Answer::TryAgain(error));
            }
            Some(error) => Err(error),
            None => Ok(Accepted {
                seq: reply.seq,
                session_id: reply.session_id,
                loop_id: reply.loop_id,
            }),
        };
        waiting.remove(at);
        Ok(Answer::Yield(CommandReply {
            request_id: reply.request_id,
            result,
        }))
    }

    /// The opening was accepted: the commands may follow. Only the first answer is news.
    fn accepted(&mut self, seq: u64, session_id: String, loop_id: String) -> Answer {
        self.attached = true;
        self.flush();
        if self.opened.is_some() {
            return Answer::Nothing;
        }
        self.reader.name_session(&session_id);
        let accepted = Accepted {
            seq,
            session_id,
            loop_id,
        };
        self.opened = Some(accepted.clone());
        Answer::Yield(CommandReply {
            request_id: self.opening_id.clone(),
            result: Ok(accepted),
        })
    }

    /// A command before the opening's reply might be judged on a session that was refused.
    fn flush(&mut self) {
        let Some(up) = self.up.as_ref().filter(|_| self.attached) else {
            return;
        };
        for command in self.unanswered.iter_mut().filter(|command| !command.sent) {
            // A closed channel is a broken connection, which the stream's own end reports.
            command.sent = up.try_send(command.request.clone()).is_ok();
        }
    }
}

impl Stream for Conversation {
    type Item = Result<ConverseEvent, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.done {
            return Poll::Ready(None);
        }
        // What did not fit the channel before fits once the server has read.
        self.flush();
        let event = ready!(self.poll_event(cx));
        self.done = event.is_err();
        if self.done {
            self.link.close();
            self.up = None;
        }
        Poll::Ready(Some(event))
    }
}

enum Answer {
    Yield(CommandReply),
    Nothing,
    TryAgain(Error),
}

/// What the next connection begins with.
fn reopening(
    opening: &ConverseRequest,
    opening_id: &str,
    answered: bool,
    reader: &Reader,
) -> ConverseRequest {
    let started = matches!(opening.command, Some(Command::Start(_)));
    match reader.cursor() {
        Some(cursor) if answered || !started => ConverseRequest {
            command: Some(attach(reader, cursor, opening_id)),
        },
        _ => opening.clone(),
    }
}

fn attach(reader: &Reader, after_seq: u64, request_id: &str) -> Command {
    let (after_epoch, after_committed_at) = reader.mark();
    Command::Attach(ConverseAttach {
        session_id: reader.session_id().to_owned(),
        after_seq,
        deltas: true,
        request_id: request_id.to_owned(),
        after_epoch,
        after_committed_at,
    })
}

fn open(
    client: &Client,
    up: Option<&mpsc::Sender<ConverseRequest>>,
    receiver: mpsc::Receiver<ConverseRequest>,
    opening: &ConverseRequest,
) -> OpeningCall<Item> {
    if let Some(up) = up {
        up.try_send(opening.clone())
            .expect("a new channel has room for the opening");
    }
    let mut loops = client.loops();
    Box::pin(async move {
        let commands = ReceiverStream::new(receiver);
        let items = loops.converse(commands).await?.into_inner();
        Ok(items.map(|item| item.map(item_of)).boxed())
    })
}

fn item_of(response: ConverseResponse) -> Item {
    use converse_response::Item as Wire;
    match response.item {
        Some(Wire::Entry(entry)) => Item::Entry(entry),
        Some(Wire::Delta(delta)) => Item::Delta(delta),
        Some(Wire::Reply(reply)) => Item::Reply(reply),
        Some(Wire::Heartbeat(heartbeat)) => Item::Heartbeat(heartbeat),
        Some(Wire::Goodbye(goodbye)) => Item::Goodbye(goodbye),
        None => Item::Unknown,
    }
}
