//! StartLoop, SendMessage, CancelLoop: checked, given to the session's driver, answered.

use std::sync::Arc;

use futures_util::StreamExt as _;
use loopwright_core::{
    Input, What,
    agent::Agent,
    entry::{Cause, Entry},
    event::{Event, Origin},
    ids::{LoopId, Timestamp},
    input::{Command, Create, Mode, SendMessage, StartLoop},
    message::Parts,
};
use loopwright_log::{Id, ReadItem, ReadMode, Seq, StreamKey};
use loopwright_proto::v1;
use sha2::{Digest as _, Sha256};
use tonic::Status;

use crate::{
    driver::Answer,
    service::{
        ServiceState,
        caller::Caller,
        convert::{
            agent::{Terms, terms},
            entry,
            fields::{self, Violations},
            message::{Said, said},
        },
        status,
    },
};

/// Who gives a command, and the trace that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Who.
    pub caller: Caller,
    /// The client's W3C `traceparent`.
    pub traceparent: Option<String>,
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// The session.
    pub session: String,
    /// The last seq that it wrote.
    pub seq: Seq,
    /// The loop that it started, joined or touched; empty where there is none yet.
    pub loop_id: String,
}

/// A StartLoop that has been checked.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// Which session.
    pub key: StreamKey,
    by: Command,
    parts: Parts,
    labels: std::collections::BTreeMap<String, String>,
    terms: Terms,
    brings_agent: bool,
}

impl Prepared {
    /// The request's id: the client's, or the one that it was given.
    #[must_use]
    pub fn request_id(&self) -> &str {
        &self.by.request_id
    }
}

impl ServiceState {
    /// StartLoop.
    ///
    /// # Errors
    /// As StartLoop names them.
    pub async fn start_loop(
        &self,
        order: &Order,
        request: v1::StartLoopRequest,
    ) -> Result<Done, Status> {
        let prepared = self.prepare(&order.caller, request)?;
        self.start_prepared(order, prepared).await
    }

    /// Checks the fields of a StartLoop.
    ///
    /// # Errors
    /// INVALID_ARGUMENT, with every violation.
    pub fn prepare(
        &self,
        caller: &Caller,
        request: v1::StartLoopRequest,
    ) -> Result<Prepared, Status> {
        use v1::start_loop_request::Input;
        let mut all = Violations::default();
        let request_id = fields::request_id(&request.request_id, &mut all);
        let named = fields::optional_id("session_id", &request.session_id, &mut all);
        let brings_agent = request.agent.is_some();
        let terms = terms(request.agent, &self.config, &mut all);
        let input = match request.input {
            Some(Input::Text(text)) => Said::Text(text),
            Some(Input::Message(message)) => Said::Message(message),
            None => Said::Nothing,
        };
        let parts = said(input, self.config.limits.message_bytes.get(), &mut all);
        let labels = fields::labels(request.labels, &mut all);
        all.check(()).map_err(|all| status::invalid(&all))?;
        let id = named.unwrap_or_else(|| derived_id(&caller.namespace, &request_id));
        let key = StreamKey::session(&caller.namespace, &id);
        let by = Command {
            request_id,
            principal: caller.principal.clone(),
        };
        Ok(Prepared {
            key,
            by,
            parts,
            labels,
            terms,
            brings_agent,
        })
    }

    /// Gives a checked StartLoop to the session's driver.
    ///
    /// # Errors
    /// As StartLoop names them, but for INVALID_ARGUMENT.
    pub async fn start_prepared(&self, order: &Order, prepared: Prepared) -> Result<Done, Status> {
        let Prepared {
            key,
            by,
            parts,
            labels,
            mut terms,
            brings_agent,
        } = prepared;
        let session = key.id().to_owned();
        let before = self
            .log
            .tail(&key)
            .await
            .map_err(|error| status::log(&error))?;
        let needs_agent = brings_agent || before.is_none();
        let mut tools = Arc::default();
        if needs_agent {
            self.settle_model(&mut terms)?;
            tools = self.tools(&key, &terms.agent)?;
        }
        let (agent, limits) = (Arc::new(terms.agent), terms.limits);
        let create = Create {
            by: by.clone(),
            session: session.clone(),
            namespace: key.namespace().to_owned(),
            agent: Arc::clone(&agent),
            limits: Arc::clone(&limits),
            labels,
            tools,
        };
        let start = StartLoop {
            by: by.clone(),
            parts: Arc::clone(&parts),
            agent: brings_agent.then_some(agent),
            limits: brings_agent.then_some(limits),
            traceparent: order.traceparent.clone(),
        };
        let answer = self.drivers.start_loop(&key, create, start).await;
        let answer = answer.map_err(|error| status::command(&error, &session))?;
        if before.is_some_and(|before| answer.seq <= before) {
            self.check_same(&key, answer, &by, &parts).await?;
        }
        Ok(done(session, answer))
    }

    /// SendMessage.
    ///
    /// # Errors
    /// As SendMessage names them.
    pub async fn send_message(
        &self,
        order: &Order,
        request: v1::SendMessageRequest,
    ) -> Result<Done, Status> {
        use v1::send_message_request::Input;
        let mut all = Violations::default();
        let request_id = fields::request_id(&request.request_id, &mut all);
        let id = fields::id("session_id", &request.session_id, &mut all);
        let guard = fields::optional_loop("loop_id", &request.loop_id, &mut all);
        let mode = mode(request.mode, &mut all);
        let input = match request.input {
            Some(Input::Text(text)) => Said::Text(text),
            Some(Input::Message(message)) => Said::Message(message),
            None => Said::Nothing,
        };
        let parts = said(input, self.config.limits.message_bytes.get(), &mut all);
        let key = self.named(&order.caller, id, all)?;
        let by = Command {
            request_id,
            principal: order.caller.principal.clone(),
        };
        let traceparent = order.traceparent.clone();
        let what = What::SendMessage(SendMessage {
            by,
            parts,
            mode,
            guard,
            traceparent,
        });
        let answer = self.drivers.command(&key, what).await;
        let answer = answer.map_err(|error| status::command(&error, key.id()))?;
        let mut done = done(key.id().to_owned(), answer);
        if mode == Mode::Queue && self.is_queued(&key, answer.seq).await? {
            done.loop_id.clear();
        }
        Ok(done)
    }

    /// CancelLoop.
    ///
    /// # Errors
    /// As CancelLoop names them.
    pub async fn cancel_loop(
        &self,
        order: &Order,
        request: v1::CancelLoopRequest,
    ) -> Result<Done, Status> {
        let mut all = Violations::default();
        let request_id = fields::request_id(&request.request_id, &mut all);
        let id = fields::id("session_id", &request.session_id, &mut all);
        let guard = fields::optional_loop("loop_id", &request.loop_id, &mut all);
        let reason = fields::reason(&request.reason, &mut all);
        let key = self.named(&order.caller, id, all)?;
        let by = Command {
            request_id,
            principal: order.caller.principal.clone(),
        };
        let answer = self
            .drivers
            .command(&key, What::CancelLoop { by, guard, reason })
            .await;
        let answer = answer.map_err(|error| status::command(&error, key.id()))?;
        Ok(done(key.id().to_owned(), answer))
    }

    /// The seq before the first entry that a start wrote: 0 where it created the session.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn before_start(&self, key: &StreamKey, by: &str, seq: Seq) -> Result<Seq, Status> {
        let first = self.entry_at(key, 1).await?;
        let created = matches!(&first.cause, Cause::Create(create) if create.request_id == by);
        Ok(if created { 0 } else { seq.saturating_sub(1) })
    }

    fn named(&self, caller: &Caller, id: Option<Id>, all: Violations) -> Result<StreamKey, Status> {
        match all.check(id) {
            Ok(Some(id)) => Ok(StreamKey::session(&caller.namespace, &id)),
            Ok(None) => Err(status::invalid_field("session_id", "is empty; name one")),
            Err(all) => Err(status::invalid(&all)),
        }
    }

    /// Names the model that an empty name stands for, and checks that each can be called.
    fn settle_model(&self, terms: &mut Terms) -> Result<(), Status> {
        let agent = &mut terms.agent;
        if agent.model.is_empty() {
            agent.model = self.config.loops.model.clone().unwrap_or_default();
        }
        let facts = self.models.check(&agent.model).map_err(status::no_model)?;
        if agent.model.is_empty() {
            agent.model = facts.name;
        }
        for fallback in &agent.fallbacks {
            self.models.check(fallback).map_err(status::no_model)?;
        }
        Ok(())
    }

    fn tools(
        &self,
        key: &StreamKey,
        agent: &Agent,
    ) -> Result<Arc<loopwright_core::agent::ToolSet>, Status> {
        let tools = self.sidecars.tools(key.namespace(), agent.tools.as_deref());
        let mut missing: Vec<String> = agent.tools.iter().flatten().cloned().collect();
        missing.extend(forced_tool(agent));
        missing.retain(|name| tools.get(name).is_none());
        if missing.is_empty() {
            return Ok(tools);
        }
        let known = self.sidecars.tools(key.namespace(), None).len();
        Err(status::tools_not_found(&missing, known))
    }

    /// A repeat must be of the same request.
    async fn check_same(
        &self,
        key: &StreamKey,
        answer: Answer,
        by: &Command,
        parts: &Parts,
    ) -> Result<(), Status> {
        let entry = self.entry_at(key, answer.seq).await?;
        let input = Input::from_entry(Timestamp(0), &entry).map(|input| input.what);
        match input {
            Ok(What::StartLoop(first)) if first.parts == *parts => Ok(()),
            _ => Err(status::request_id_reused(&by.request_id)),
        }
    }

    /// Whether the message of this entry waits for a loop of its own.
    async fn is_queued(&self, key: &StreamKey, seq: Seq) -> Result<bool, Status> {
        let entry = self.entry_at(key, seq).await?;
        Ok(entry.events.iter().any(
            |event| matches!(event, Event::MessageAdded(added) if added.origin == Origin::Queue),
        ))
    }

    async fn entry_at(&self, key: &StreamKey, seq: Seq) -> Result<Entry, Status> {
        let mut items = self.log.read(key, seq.saturating_sub(1), ReadMode::ToTail);
        loop {
            match items.next().await {
                Some(Ok(ReadItem::Fact(record))) => {
                    return entry::parse(&record).map_err(|error| status::unreadable(&error));
                }
                Some(Ok(ReadItem::Progress(_))) => {}
                Some(Err(error)) => return Err(status::log(&error)),
                Some(Ok(ReadItem::CompleteThrough(_))) | None => {
                    return Err(status::session_not_found(key.id()));
                }
            }
        }
    }
}

fn done(session: String, answer: Answer) -> Done {
    let LoopId(number) = answer.loop_id;
    let loop_id = if number == 0 {
        String::new()
    } else {
        answer.loop_id.to_string()
    };
    Done {
        session,
        seq: answer.seq,
        loop_id,
    }
}

fn mode(asked: i32, all: &mut Violations) -> Mode {
    match v1::MessageMode::try_from(asked) {
        Ok(v1::MessageMode::Unspecified | v1::MessageMode::Queue) => Mode::Queue,
        Ok(v1::MessageMode::Steer) => Mode::Steer,
        Ok(v1::MessageMode::Interrupt) => Mode::Interrupt,
        Err(_) => {
            all.add(
                "mode",
                format!("{asked} is no value of this enum; leave it out"),
            );
            Mode::Queue
        }
    }
}

/// The tool that the agent must call, where it names one.
fn forced_tool(agent: &Agent) -> Option<String> {
    agent
        .tool_choice
        .clone()
        .filter(|choice| choice.contains("__"))
}

/// A new session's id: the same for a retry, and nobody else's.
fn derived_id(namespace: &Id, request_id: &str) -> Id {
    use std::fmt::Write as _;
    let mut hash = Sha256::new();
    hash.update(namespace.as_str());
    hash.update([0]);
    hash.update(request_id);
    let mut text = String::from("s-");
    for byte in hash.finalize().iter().take(16) {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    Id::parse(&text).expect("hexadecimal digits behind a letter are an id")
}
