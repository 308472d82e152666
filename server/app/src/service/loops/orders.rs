//! Commands that were checked, given to the session's driver, and what became of them.

use std::sync::Arc;

use futures_util::StreamExt as _;
use loopwright_core::{
    Input, What,
    agent::Agent,
    entry::{Cause, Entry},
    event::{Event, Origin},
    ids::{LoopId, Timestamp},
    input::{Command, Create, StartLoop},
    message::Parts,
};
use loopwright_log::{ReadItem, ReadMode, Seq, StreamKey};
use tonic::Status;

use crate::{
    driver::Answer,
    service::{
        ServiceState,
        caller::Caller,
        convert::{
            agent::Terms,
            commands::{Start, Told},
            entry,
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

impl ServiceState {
    /// StartLoop.
    ///
    /// # Errors
    /// As StartLoop names them, but for INVALID_ARGUMENT.
    pub async fn start_loop(&self, order: &Order, start: Start) -> Result<Done, Status> {
        let Start {
            key,
            by,
            parts,
            labels,
            mut terms,
            brings_agent,
        } = start;
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

    /// SendMessage or CancelLoop.
    ///
    /// # Errors
    /// As they name them, but for INVALID_ARGUMENT.
    pub async fn tell(&self, told: Told) -> Result<Done, Status> {
        let Told {
            key,
            what,
            may_queue,
        } = told;
        let answer = self.drivers.command(&key, what).await;
        let answer = answer.map_err(|error| status::command(&error, key.id()))?;
        let mut done = done(key.id().to_owned(), answer);
        if may_queue && self.is_queued(&key, answer.seq).await? {
            done.loop_id.clear();
        }
        Ok(done)
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

    /// Names the model that an empty name stands for, and checks that each can be called.
    fn settle_model(&self, terms: &mut Terms) -> Result<(), Status> {
        let agent = &mut terms.agent;
        let facts = self.models.check(&agent.model).map_err(status::no_model)?;
        if agent.model.is_empty() {
            agent.model = facts.name;
        }
        if let Some(most) = facts
            .max_output
            .filter(|most| *most < terms.limits.max_output_tokens)
        {
            Arc::make_mut(&mut terms.limits).max_output_tokens = most;
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

/// The tool that the agent must call, where it names one.
fn forced_tool(agent: &Agent) -> Option<String> {
    agent
        .tool_choice
        .clone()
        .filter(|choice| choice.contains("__"))
}
