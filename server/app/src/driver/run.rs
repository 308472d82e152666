//! One driver: from the fold of the log to its end.

use std::{
    collections::BTreeMap,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use loopwright_core::{
    Entry, Rejection, State, What,
    agent::ToolSet,
    decide,
    effect::{EffectKey, wanted},
    event::BudgetWarning,
    ids::{Attempt, CallId, Seq},
    input::Command,
    replay::newer_kinds,
};
use loopwright_log::{LogError, ReadItem, ReadMode, StreamKey};
use tokio::sync::mpsc;

use super::{
    Answer, CommandError, Delivery, End, LoopOpen, Order, Reply,
    commit::Committed,
    effect::{Effect, Running},
    name_of,
    observe::LoopSpans,
    world::World,
};
use crate::effects::{budget::Asked, model::Transcript};

/// How long a driver without work waits for more before it lets go.
const LINGER: Duration = Duration::from_secs(5);

/// One session's driver.
pub(super) struct Driver {
    pub(super) world: Arc<World>,
    pub(super) key: StreamKey,
    pub(super) state: State,
    pub(super) transcript: Transcript,
    pub(super) running: BTreeMap<EffectKey, Running>,
    pub(super) effects: FuturesUnordered<Effect>,
    /// Settlements that named budgets have taken, and that are not written down yet.
    pub(super) taken: Vec<(CallId, Attempt)>,
    /// What those brought to the warning share of a shared budget.
    pub(super) warnings: Vec<BudgetWarning>,
    /// A reservation that was asked for while the entry that says so was written.
    pub(super) early: Option<((CallId, Attempt), Asked)>,
    /// Where each attempt under way was licensed.
    pub(super) anchors: BTreeMap<(CallId, Attempt), Seq>,
    /// Bytes of the session's log, as near as the driver can tell.
    pub(super) bytes: u64,
    /// Whether it wrote anything but that it is there.
    pub(super) progressed: Arc<AtomicBool>,
    pub(super) spans: LoopSpans,
    /// The running loop's trace, to be written when it ends.
    pub(super) traceparent: Option<String>,
}

/// Runs a driver until it ends; a broken invariant ends this driver alone. Says whether it wrote
/// anything but that it was there.
pub(super) async fn drive(
    world: Arc<World>,
    key: StreamKey,
    mut inbox: mpsc::Receiver<Delivery>,
) -> (End, bool) {
    let progressed = Arc::new(AtomicBool::new(false));
    let life = live(world, key, &mut inbox, Arc::clone(&progressed));
    let end = match AssertUnwindSafe(life).catch_unwind().await {
        Ok(end) => end,
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
            let payload = text.unwrap_or_default();
            End::Panicked { payload }
        }
    };
    match &end {
        // The next driver might panic over the same command.
        End::Panicked { .. } => refuse_all(&mut inbox, &end.as_command_error()),
        _ => hand_back(&mut inbox),
    }
    (end, progressed.load(Ordering::Relaxed))
}

async fn live(
    world: Arc<World>,
    key: StreamKey,
    inbox: &mut mpsc::Receiver<Delivery>,
    progressed: Arc<AtomicBool>,
) -> End {
    let (state, bytes) = match fold(&world, &key).await {
        Ok(folded) => folded,
        Err(error) => {
            refuse_all(inbox, &error);
            return match error {
                CommandError::Read(LogError::Unavailable { reason }) => End::Unavailable { reason },
                // Whoever takes the name next has nothing to do with it.
                CommandError::Read(LogError::Removed) => End::NotCreated,
                other => End::Undrivable {
                    reason: other.to_string(),
                },
            };
        }
    };
    let mut driver = Driver {
        spans: LoopSpans::new(&world.telemetry),
        traceparent: None,
        world,
        key,
        state,
        transcript: Transcript::default(),
        running: BTreeMap::new(),
        effects: FuturesUnordered::new(),
        taken: Vec::new(),
        warnings: Vec::new(),
        early: None,
        anchors: BTreeMap::new(),
        bytes,
        progressed,
    };
    let first = match driver.first_delivery(inbox).await {
        Ok(first) => first,
        Err(end) => return end,
    };
    if let Err(end) = driver.attach().await {
        if let Some(delivery) = first {
            let _ = delivery
                .reply
                .send(Reply::Answered(Err(end.as_command_error())));
        }
        return end;
    }
    driver.main_loop(inbox, first).await
}

impl Driver {
    /// Takes the session. A loop that goes on is offered what the catalog has come to hold while
    /// nobody drove it.
    async fn attach(&mut self) -> Result<(), End> {
        let epoch = self.state.epoch.saturating_add(1);
        let cut_bytes = self.world.cut.get(&self.key);
        self.commit(What::Attach {
            epoch,
            cut_bytes,
            server: env!("CARGO_PKG_VERSION").to_owned(),
        })
        .await?;
        self.world.cut.told(&self.key);
        if self.state.active.is_some() {
            self.offer_new_tools().await?;
        }
        Ok(())
    }

    async fn main_loop(
        &mut self,
        inbox: &mut mpsc::Receiver<Delivery>,
        mut next: Option<Order>,
    ) -> End {
        let mut drain = self.world.drain.clone();
        let mut catalog = self.world.sidecars.changes();
        loop {
            self.reconcile();
            match self.tell_taken().await {
                Ok(false) => {}
                Ok(true) => continue,
                Err(end) => return end,
            }
            let idle = !self.running.keys().any(|key| !key.is_timer());
            let step = if let Some(order) = next.take() {
                self.deliver(order).await
            } else {
                tokio::select! {
                    biased;
                    Some(done) = self.effects.next(), if !self.effects.is_empty() => {
                        self.outcome(done).await
                    }
                    delivery = inbox.recv() => match delivery {
                        Some(Delivery::Command(order)) => self.deliver(order).await,
                        Some(Delivery::Release(refusal)) if self.state.active.is_some() => {
                            // Who asked may have gone.
                            let _ = refusal.send(LoopOpen);
                            Ok(())
                        }
                        Some(Delivery::Release(_)) | None => Err(self.idle_end()),
                    },
                    Ok(()) = catalog.changed(), if !idle => self.offer_new_tools().await,
                    () = drain.wait() => {
                        // Best effort: the next attach does not need it.
                        let _ = self.commit(What::Detach).await;
                        Err(End::Drained)
                    }
                    () = tokio::time::sleep(LINGER), if idle => Err(self.idle_end()),
                }
            };
            let step = match step {
                Ok(()) => self.end_if_full().await,
                Err(end) => Err(end),
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    /// Ends the loop of a session whose log has reached its limit, while there is room to say so.
    async fn end_if_full(&mut self) -> Result<(), End> {
        let limit = self.world.session_bytes;
        if self.bytes < limit || self.state.active.is_none() {
            return Ok(());
        }
        let by = Command {
            request_id: String::new(),
            principal: "loopwright".to_owned(),
        };
        let reason = format!("the session's log has reached limits.session_bytes = {limit} bytes");
        self.commit(What::CancelLoop {
            by,
            guard: None,
            reason,
        })
        .await
    }

    /// Whether there is something to do now: a session that only waits is left alone.
    fn has_work(&self) -> bool {
        let now = self.world.clock.now();
        let is_now = |key: &EffectKey| match key {
            EffectKey::Timer { at, .. } => *at <= now,
            _ => true,
        };
        wanted(&self.state).iter().any(is_now)
    }

    fn idle_end(&self) -> End {
        End::Idle {
            wake_at: self.state.wake_at(),
        }
    }

    /// Waits for the first command where the session waits for one: a session that has nothing to do
    /// is not attached for a command that it would refuse.
    async fn first_delivery(
        &mut self,
        inbox: &mut mpsc::Receiver<Delivery>,
    ) -> Result<Option<Order>, End> {
        loop {
            if self.state.session.is_some() && self.has_work() {
                return Ok(None);
            }
            let Ok(Delivery::Command(mut delivery)) = inbox.try_recv() else {
                return Err(match self.state.session {
                    Some(_) => self.idle_end(),
                    None => End::NotCreated,
                });
            };
            if self.state.session.is_none() {
                let Some(create) = delivery.create.take() else {
                    let _ = delivery
                        .reply
                        .send(Reply::Answered(Err(CommandError::NotFound)));
                    continue;
                };
                let refused = match self.commit_command(What::Create(create)).await {
                    Ok(Committed::Appended | Committed::Nothing) => None,
                    Ok(Committed::Refused(error)) => Some((error, None)),
                    Err(end) => Some((end.as_command_error(), Some(end))),
                };
                if let Some((error, end)) = refused {
                    // A caller that has gone needs no answer.
                    let _ = delivery.reply.send(Reply::Answered(Err(error)));
                    match end {
                        Some(end) => return Err(end),
                        None => continue,
                    }
                }
            }
            let at = self.world.clock.now();
            match decide(&self.state, super::input(at, delivery.what.clone())) {
                Ok(events) if events.is_empty() => {
                    let answer = self.answer_to(&delivery.what);
                    let _ = delivery.reply.send(Reply::Answered(answer));
                }
                Ok(_) => return Ok(Some(delivery)),
                Err(rejection) => {
                    let _ = delivery.reply.send(Reply::Answered(Err(rejection.into())));
                }
            }
        }
    }

    async fn deliver(&mut self, delivery: Order) -> Result<(), End> {
        if self.state.active.is_none() {
            self.offer_current_tools(&delivery.what).await?;
        }
        let committed = self.commit_command(delivery.what.clone()).await;
        let (answer, end) = match committed {
            Ok(Committed::Appended | Committed::Nothing) => (self.answer_to(&delivery.what), None),
            Ok(Committed::Refused(error)) => (Err(error), None),
            Err(end) => (Err(end.as_command_error()), Some(end)),
        };
        // A caller that has gone needs no answer.
        let _ = delivery.reply.send(Reply::Answered(answer));
        end.map_or(Ok(()), Err)
    }

    /// The answer to a command that was carried out, now or at an earlier delivery.
    fn answer_to(&self, what: &What) -> Result<Answer, CommandError> {
        let by = match what {
            What::StartLoop(start) => &start.by,
            What::SendMessage(message) => &message.by,
            What::CancelLoop { by, .. }
            | What::PauseLoop { by, .. }
            | What::ResumeLoop { by, .. }
            | What::UpdateLimits { by, .. }
            | What::ResolveApproval { by, .. }
            | What::ResolveUnknown { by, .. } => by,
            _ => return Err(CommandError::Rejected(Rejection::SessionNotFound)),
        };
        let known = self.state.answer(&by.request_id);
        Ok(known.map_or_else(
            || Answer {
                seq: self.state.seq,
                loop_id: self.state.current_loop(),
            },
            |known| Answer {
                seq: known.seq,
                loop_id: known.loop_id,
            },
        ))
    }

    /// Before a loop starts: the tools are exactly those of the catalog that its agent selects, which
    /// is the agent that the command brings, where it brings one.
    async fn offer_current_tools(&mut self, what: &What) -> Result<(), End> {
        let agent = match what {
            What::StartLoop(start) if self.state.answer(&start.by.request_id).is_none() => {
                start.agent.as_ref().unwrap_or(&self.state.agent)
            }
            What::SendMessage(_) => &self.state.agent,
            _ => return Ok(()),
        };
        let selection = agent.tools.as_deref();
        let tools = self.world.sidecars.tools(self.key.namespace(), selection);
        self.offer(tools).await
    }

    /// In mid-loop: tools are added and updated, never withdrawn. A tool whose sidecar has gone is
    /// refused at dispatch, so that the prompt's prefix stays what the provider has cached.
    async fn offer_new_tools(&mut self) -> Result<(), End> {
        let selection = self.state.agent.tools.as_deref();
        let catalog = self.world.sidecars.tools(self.key.namespace(), selection);
        let gone = self
            .state
            .tools
            .iter()
            .filter(|tool| catalog.get(&tool.name).is_none());
        let merged = catalog.iter().chain(gone).cloned().collect();
        self.offer(ToolSet::new(merged)).await
    }

    /// Offers these tools from now on. Where they are more than an entry holds, the session keeps
    /// those that it has: it must not become one that nobody can drive.
    async fn offer(&mut self, tools: Arc<ToolSet>) -> Result<(), End> {
        if tools == self.state.tools {
            return Ok(());
        }
        if let Committed::Refused(error) = self.commit_command(What::ToolsChanged(tools)).await? {
            tracing::warn!(
                session = name_of(&self.key), %error,
                "the tools are too many for one session; select some in the agent"
            );
        }
        Ok(())
    }
}

/// The state that the log says, from its first record to its last.
async fn fold(world: &World, key: &StreamKey) -> Result<(State, u64), CommandError> {
    let (mut state, mut bytes) = (State::default(), 0_u64);
    let mut records = world.log.read(key, 0, ReadMode::ToTail);
    while let Some(item) = records.next().await {
        let ReadItem::Fact(record) = item? else {
            continue;
        };
        let entry: Entry = serde_json::from_slice(&record.body()).map_err(|error| {
            CommandError::Read(LogError::Corrupt(loopwright_log::Corruption {
                stream: key.clone(),
                good_through: state.seq,
                reason: format!("seq {} is not an entry: {error}", record.seq),
            }))
        })?;
        if let Some(kind) = newer_kinds(&entry).next() {
            return Err(CommandError::Newer {
                kind: kind.to_owned(),
            });
        }
        state.apply_entry(record.seq, &entry);
        bytes = bytes.saturating_add(record.stored_bytes());
    }
    Ok((state, bytes))
}

/// Closes the inbox and gives back what nobody looked at, to be delivered to the next driver.
fn hand_back(inbox: &mut mpsc::Receiver<Delivery>) {
    inbox.close();
    while let Ok(delivery) = inbox.try_recv() {
        let Delivery::Command(order) = delivery else {
            continue;
        };
        let Order {
            what,
            create,
            reply,
        } = order;
        // The caller waits for it on the other end, or has gone.
        let _ = reply.send(Reply::Detached(Box::new((what, create))));
    }
}

fn refuse_all(inbox: &mut mpsc::Receiver<Delivery>, error: &CommandError) {
    inbox.close();
    while let Ok(delivery) = inbox.try_recv() {
        if let Delivery::Command(order) = delivery {
            let _ = order.reply.send(Reply::Answered(Err(error.clone())));
        }
    }
}
