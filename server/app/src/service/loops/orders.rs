//! Commands that were checked, given to the session's driver, and what became of them.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::StreamExt as _;
use loopwright_core::{
    Input, What,
    agent::Agent,
    entry::{Cause, Entry},
    event::{Event, Origin},
    ids::{LoopId, Timestamp},
    input::{Create, StartLoop},
};
use loopwright_log::{LogError, ReadItem, ReadMode, Seq, StreamKey};
use tonic::Status;

use crate::{
    index::Digest,
    redaction::Redaction,
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
    /// As StartLoop names them, but for INVALID_ARGUMENT of its fields alone.
    pub async fn start_loop(&self, order: &Order, mut start: Start) -> Result<Done, Status> {
        let redaction = Redaction::from(&*self.config);
        start.parts = redaction.parts(start.parts);
        redaction.owned(&mut start.terms.agent.system_prompt);
        let session = start.key.id().to_owned();
        let known = self.known(&start.key).await?;
        if let Some(known) = &known {
            if let Some(first) = known.state.answer(&start.by.request_id) {
                self.check_same(&start, first.seq).await?;
                return Ok(done(session, first.seq, first.loop_id));
            }
            check_labels(known, &start.labels)?;
        }
        let key = start.key.clone();
        let (create, start) = self.inputs(order, start, known.as_deref()).await?;
        let answer = self.drivers.start_loop(&key, create, start).await;
        let answer = answer.map_err(|error| status::command(&error, &session))?;
        Ok(done(session, answer.seq, answer.loop_id))
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
        let mut what = Redaction::from(&*self.config).command(what);
        if let What::SendMessage(message) = &mut what
            && let Some(known) = self.known(&key).await?
            && known.state.active.is_none()
            && known.state.answer(&message.by.request_id).is_none()
        {
            // It starts a loop.
            let state = &known.state;
            self.check_models(&state.agent)?;
            let renewed = self.renewed(&key, &state.agent, &state.limits).await?;
            if let Some(Terms { agent, limits }) = renewed {
                message.agent = Some(Arc::new(agent));
                message.limits = Some(limits);
            }
        }
        let answer = self.drivers.command(&key, what).await;
        let answer = answer.map_err(|error| status::command(&error, key.id()))?;
        let mut done = done(key.id().to_owned(), answer.seq, answer.loop_id);
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

    /// Where the session stands, if there is one.
    pub(super) async fn known(&self, key: &StreamKey) -> Result<Option<Arc<Digest>>, Status> {
        let known = self.index.digest(key).await;
        let known = known.map_err(|error| status::index(&error))?;
        match known.as_ref().and_then(|known| known.damage.clone()) {
            Some(damage) => Err(status::log(&LogError::Corrupt(damage))),
            None => Ok(known),
        }
    }

    /// What the driver is given: the session as it would be created, and the loop.
    async fn inputs(
        &self,
        order: &Order,
        start: Start,
        known: Option<&Digest>,
    ) -> Result<(Create, StartLoop), Status> {
        let Start {
            key,
            by,
            parts,
            labels,
            mut terms,
            mut brings_agent,
        } = start;
        let mut tools = Arc::default();
        match known {
            Some(known) if !brings_agent => {
                let (agent, limits) = (&known.state.agent, &known.state.limits);
                self.check_models(agent)?;
                let renewed = self.renewed(&key, agent, limits).await?;
                brings_agent = renewed.is_some();
                terms = renewed.unwrap_or_else(|| Terms {
                    agent: Agent::clone(agent),
                    limits: Arc::clone(limits),
                });
            }
            _ => {
                self.settle_model(&mut terms)?;
                self.settle_budgets(&key, &mut terms).await?;
                tools = self.tools(&key, &terms.agent)?;
            }
        }
        let (agent, limits) = (Arc::new(terms.agent), terms.limits);
        let create = Create {
            by: by.clone(),
            session: key.id().to_owned(),
            namespace: key.namespace().to_owned(),
            agent: Arc::clone(&agent),
            limits: Arc::clone(&limits),
            labels,
            tools,
        };
        let start = StartLoop {
            by,
            parts,
            agent: brings_agent.then_some(agent),
            limits: brings_agent.then_some(limits),
            traceparent: order.traceparent.clone(),
        };
        Ok((create, start))
    }

    /// Names the model that an empty name stands for, and checks that each can be called.
    fn settle_model(&self, terms: &mut Terms) -> Result<(), Status> {
        self.check_models(&terms.agent)?;
        let facts = self.models.check(&terms.agent.model);
        let facts = facts.map_err(status::no_model)?;
        if terms.agent.model.is_empty() {
            terms.agent.model = facts.name;
        }
        if let Some(context) = &mut Arc::make_mut(&mut terms.limits).context
            && let Some(writer) = &mut context.recap_by_model
        {
            if writer.is_empty() {
                writer.clone_from(&terms.agent.model);
            }
            self.models.check(writer).map_err(status::no_model)?;
        }
        let window = self.window(&terms.agent)?;
        if let Some((window, context)) =
            window.zip(Arc::make_mut(&mut terms.limits).context.as_mut())
        {
            context.max_tokens = context.max_tokens.min(window);
        }
        let asked = terms.limits.max_output_tokens;
        let most = [facts.max_output, window];
        let most = most.into_iter().flatten().min();
        if let Some(most) = most.filter(|most| *most < asked) {
            let limits = Arc::make_mut(&mut terms.limits);
            limits.max_output_tokens = most;
            limits.max_output_asked = false;
        }
        Ok(())
    }

    /// The smallest window of the agent's models that is known: each may be shown the same conversation.
    fn window(&self, agent: &Agent) -> Result<Option<u64>, Status> {
        let mut least = None;
        for model in [&agent.model].into_iter().chain(&agent.fallbacks) {
            let facts = self.models.check(model).map_err(status::no_model)?;
            least = [least, facts.context_window].into_iter().flatten().min();
        }
        Ok(least)
    }

    fn check_models(&self, agent: &Agent) -> Result<(), Status> {
        for model in [&agent.model].into_iter().chain(&agent.fallbacks) {
            self.models.check(model).map_err(status::no_model)?;
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
    async fn check_same(&self, start: &Start, seq: Seq) -> Result<(), Status> {
        let entry = self.entry_at(&start.key, seq).await?;
        match Input::from_entry(Timestamp(0), &entry).map(|input| input.what) {
            Ok(What::StartLoop(first)) if first.parts == start.parts => Ok(()),
            // The kinds that are taken out may have become more meanwhile.
            Ok(What::StartLoop(first))
                if Redaction::from(&*self.config).parts(first.parts.clone()) == start.parts =>
            {
                Ok(())
            }
            _ => Err(status::request_id_reused(&start.by.request_id)),
        }
    }

    /// Whether the message of this entry waits for a loop of its own.
    async fn is_queued(&self, key: &StreamKey, seq: Seq) -> Result<bool, Status> {
        let entry = self.entry_at(key, seq).await?;
        Ok(entry.events.iter().any(
            |event| matches!(event, Event::MessageAdded(added) if added.origin == Origin::Queue),
        ))
    }

    /// The entry of a seq.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub(in crate::service) async fn entry_at(
        &self,
        key: &StreamKey,
        seq: Seq,
    ) -> Result<Entry, Status> {
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

fn done(session: String, seq: Seq, id: LoopId) -> Done {
    let loop_id = if id == LoopId(0) {
        String::new()
    } else {
        id.to_string()
    };
    Done {
        session,
        seq,
        loop_id,
    }
}

/// The core keeps labels of sessions alone: a session that exists has those that it was made with.
fn check_labels(known: &Digest, asked: &BTreeMap<String, String>) -> Result<(), Status> {
    let kept = known.state.session.as_ref().map(|head| &head.labels);
    let has = |key: &String, value: &String| kept.and_then(|kept| kept.get(key)) == Some(value);
    match asked.iter().find(|(key, value)| !has(key, value)) {
        None => Ok(()),
        Some((key, _)) => Err(status::invalid_field(
            "labels",
            format!(
                "{key:?} is not among the labels that the session was created with, and labels of \
                 single loops do not act in this version yet; leave it out"
            ),
        )),
    }
}

/// The tool that the agent must call, where it names one.
fn forced_tool(agent: &Agent) -> Option<String> {
    agent
        .tool_choice
        .clone()
        .filter(|choice| choice.contains("__"))
}
