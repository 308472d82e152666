//! The register: who drives which session, and when one is attached again.

mod hold;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::StreamExt;
use loopwright_core::{Entry, Event, What, input::Create, input::StartLoop};
use loopwright_log::{AppendError, KeyQuery, LogError, Seq, StreamKey, StreamKind};
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::TaskTracker;

use super::{
    Answer, CommandError, Delivery, End, Order, Reply, name_of, run::drive, wake::Wake,
    world::World,
};

pub use hold::{Hold, ReleaseError};

/// Commands that wait for one driver before their senders do.
const INBOX: usize = 64;
/// Deliveries that a command survives being handed back; each means that a driver let go just then.
const DELIVERIES: usize = 8;
/// Attempts in a row to attach a session whose driver was lost; after that it waits for a command. A
/// log that is not available is waited for without end.
const MAX_RESTARTS: u32 = 8;
/// First wait before a lost driver is replaced; doubles each time, up to the longest.
const RESTART_WAIT: Duration = Duration::from_millis(200);
const LONGEST_RESTART_WAIT: Duration = Duration::from_secs(30);
/// Sessions looked at together at start.
const RECOVERED_AT_ONCE: usize = 16;
/// Keys listed together at start.
const PAGE: usize = 1_000;

/// The sessions that this server drives.
pub struct Drivers {
    world: Arc<World>,
    slots: Mutex<Slots>,
    wake: Wake,
    tasks: TaskTracker,
}

#[derive(Default)]
struct Slots {
    by_key: HashMap<StreamKey, Slot>,
    /// Drivers lost in a row, by session; gone once one ended in order.
    restarts: HashMap<StreamKey, u32>,
    /// Sessions that nobody may drive now.
    held: HashMap<StreamKey, hold::Held>,
    next_id: u64,
}

struct Slot {
    id: u64,
    inbox: mpsc::Sender<Delivery>,
}

impl Drivers {
    /// A register that drives nothing yet.
    #[must_use]
    pub fn new(world: Arc<World>) -> Arc<Self> {
        let drivers = Arc::new(Self {
            world,
            slots: Mutex::default(),
            wake: Wake::default(),
            tasks: TaskTracker::new(),
        });
        let waker = Arc::downgrade(&drivers);
        tokio::spawn(async move {
            while let Some(drivers) = waker.upgrade() {
                let next = drivers.wake.next(drivers.world.clock);
                drop(drivers);
                let key = next.await;
                if let (Some(drivers), Some(key)) = (waker.upgrade(), key) {
                    drivers.attach(&key);
                }
            }
        });
        drivers
    }

    /// Starts a loop; creates the session first where it does not exist. A repeat of the request
    /// gets the same answer.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub async fn start_loop(
        self: &Arc<Self>,
        key: &StreamKey,
        create: Create,
        mut start: StartLoop,
    ) -> Result<Answer, CommandError> {
        start.traceparent = self
            .world
            .telemetry
            .begin_loop(start.traceparent.as_deref());
        self.deliver(key, What::StartLoop(start), Some(create))
            .await
    }

    /// Carries out SendMessage or CancelLoop on an existing session.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub async fn command(
        self: &Arc<Self>,
        key: &StreamKey,
        mut what: What,
    ) -> Result<Answer, CommandError> {
        if let What::SendMessage(message) = &mut what {
            let caller = message.traceparent.take();
            message.traceparent = self.world.telemetry.begin_loop(caller.as_deref());
        }
        self.deliver(key, what, None).await
    }

    /// Sessions driven here now.
    #[must_use]
    pub fn active(&self) -> usize {
        self.slots().by_key.len()
    }

    /// Drivers of a session lost in a row; 0 for one that is well.
    #[must_use]
    pub fn restarts(&self, key: &StreamKey) -> u32 {
        self.slots().restarts.get(key).copied().unwrap_or(0)
    }

    /// Attaches every session whose loop had not ended, at once and in parallel.
    ///
    /// # Errors
    /// Where the log cannot list its sessions; one that cannot be read is reported and left alone.
    pub async fn recover(self: &Arc<Self>) -> Result<usize, LogError> {
        let mut found = 0;
        let mut after = None;
        loop {
            let kind = StreamKind::Session;
            let query = KeyQuery {
                namespace: None,
                kind,
                after: after.take(),
                limit: PAGE,
            };
            let page = self.world.log.keys(query).await?;
            let last = page.keys.last().cloned();
            let open = futures_util::stream::iter(page.keys)
                .map(|key| async move { self.has_open_loop(&key).await.then_some(key) })
                .buffer_unordered(RECOVERED_AT_ONCE)
                .filter_map(std::future::ready);
            let mut open = std::pin::pin!(open);
            while let Some(key) = open.next().await {
                found += 1;
                self.attach(&key);
            }
            if !page.more {
                return Ok(found);
            }
            after = last;
        }
    }

    /// Waits until every driver has let go. The drain signal must have fired.
    pub async fn drained(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Sees to it that a driver has the session.
    pub(super) fn attach(self: &Arc<Self>, key: &StreamKey) {
        if self.world.drain.is_draining() {
            return;
        }
        let mut slots = self.slots();
        if let Some(held) = slots.held.get_mut(key) {
            held.wanted = true;
        } else if !slots.by_key.contains_key(key) {
            self.spawn(&mut slots, key, None);
        }
    }

    async fn deliver(
        self: &Arc<Self>,
        key: &StreamKey,
        what: What,
        create: Option<Create>,
    ) -> Result<Answer, CommandError> {
        let mut todo = (what, create);
        for _ in 0..DELIVERIES {
            let (reply, answer) = oneshot::channel();
            let (what, create) = todo;
            let order = Order {
                what,
                create,
                reply,
            };
            self.hand_over(key, order).await?;
            match answer.await {
                Ok(Reply::Answered(answer)) => return answer,
                Ok(Reply::Detached(back)) => todo = *back,
                Err(_) => break,
            }
        }
        let reason = "the session's driver ended before it answered".to_owned();
        Err(CommandError::Log(AppendError::Unavailable {
            reason,
            ambiguous: true,
        }))
    }

    /// Gives a command to the session's driver, a new one where there is none, once nobody holds the
    /// session.
    async fn hand_over(
        self: &Arc<Self>,
        key: &StreamKey,
        order: Order,
    ) -> Result<(), CommandError> {
        let mut delivery = Delivery::Command(order);
        let inbox = loop {
            if self.world.drain.is_draining() {
                return Err(CommandError::Draining);
            }
            let free = {
                let mut slots = self.slots();
                if let Some(held) = slots.held.get(key) {
                    held.free.clone()
                } else {
                    match slots.by_key.get(key).map(|slot| slot.inbox.clone()) {
                        Some(inbox) => match inbox.try_send(delivery) {
                            Ok(()) => return Ok(()),
                            Err(mpsc::error::TrySendError::Full(back)) => {
                                delivery = back;
                                break inbox;
                            }
                            Err(mpsc::error::TrySendError::Closed(back)) => {
                                self.spawn(&mut slots, key, Some(back));
                                return Ok(());
                            }
                        },
                        None if slots.by_key.len() >= self.world.max_active => {
                            return Err(CommandError::TooManySessions {
                                limit: self.world.max_active,
                            });
                        }
                        None => {
                            self.spawn(&mut slots, key, Some(delivery));
                            return Ok(());
                        }
                    }
                }
            };
            hold::let_go(free).await;
        };
        if let Err(mpsc::error::SendError(Delivery::Command(order))) = inbox.send(delivery).await {
            // It let go while we waited for room: as if it had handed the command back. The caller
            // waits for it on the other end.
            let back = Box::new((order.what, order.create));
            let _ = order.reply.send(Reply::Detached(back));
        }
        Ok(())
    }

    fn spawn(self: &Arc<Self>, slots: &mut Slots, key: &StreamKey, first: Option<Delivery>) {
        let (inbox, receiver) = mpsc::channel(INBOX);
        if let Some(first) = first {
            // The channel is new and has room.
            let _ = inbox.try_send(first);
        }
        slots.next_id += 1;
        let id = slots.next_id;
        slots.by_key.insert(key.clone(), Slot { id, inbox });
        let (drivers, world, key) = (Arc::clone(self), Arc::clone(&self.world), key.clone());
        self.tasks.spawn(async move {
            let end = Box::pin(drive(world, key.clone(), receiver)).await;
            drivers.ended(&key, id, end);
        });
    }

    fn ended(self: &Arc<Self>, key: &StreamKey, id: u64, end: End) {
        let mut slots = self.slots();
        if slots.by_key.get(key).is_some_and(|slot| slot.id == id) {
            slots.by_key.remove(key);
        }
        match end {
            End::Idle { wake_at } => {
                slots.restarts.remove(key);
                if let Some(at) = wake_at {
                    self.wake.set(key.clone(), at);
                }
            }
            End::Drained | End::NotCreated => {
                slots.restarts.remove(key);
            }
            End::Undrivable { reason } => {
                tracing::error!(session = name_of(key), %reason, "the session cannot be driven");
            }
            End::Lost { reason } => self.restart(&mut slots, key, &reason, MAX_RESTARTS),
            End::Unavailable { reason } => self.restart(&mut slots, key, &reason, u32::MAX),
        }
    }

    /// Has the session looked at again after a while, unless its drivers were lost `most` times.
    fn restart(&self, slots: &mut Slots, key: &StreamKey, reason: &str, most: u32) {
        let restarts = slots.restarts.entry(key.clone()).or_default();
        *restarts = restarts.saturating_add(1);
        let restarts = *restarts;
        tracing::warn!(session = name_of(key), %reason, restarts, "a driver was lost");
        if restarts <= most && self.world.log.failed().is_none() {
            let wait = RESTART_WAIT.saturating_mul(1 << restarts.min(16));
            let wait = wait.min(LONGEST_RESTART_WAIT);
            let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            let now = self.world.clock.now();
            self.wake.set(key.clone(), now.plus(wait));
        }
    }

    /// Whether a loop of the session has begun and not ended, read from its tail back.
    async fn has_open_loop(&self, key: &StreamKey) -> bool {
        let mut records = self.world.log.read_back(key, Seq::MAX);
        while let Some(record) = records.next().await {
            let entry = record.map_err(|error| error.to_string()).and_then(|r| {
                serde_json::from_slice::<Entry>(&r.body()).map_err(|e| e.to_string())
            });
            match entry {
                Err(reason) => {
                    tracing::error!(session = name_of(key), %reason, "the session cannot be read");
                    return false;
                }
                // An unfinished copy is nobody's to drive, whatever was open where it was copied.
                Ok(entry) if entry.copied => return false,
                Ok(entry) => match entry.events.iter().rev().find_map(opens_or_ends) {
                    Some(open) => return open,
                    None => continue,
                },
            }
        }
        false
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether an event says that a loop is open, or that it has ended; most say neither.
fn opens_or_ends(event: &Event) -> Option<bool> {
    match event {
        Event::LoopEnded(_) => Some(false),
        Event::LoopStarted(_)
        | Event::ModelCallStarted(_)
        | Event::ModelCallCompleted(_)
        | Event::ToolCallStarted(_)
        | Event::ToolCallCompleted(_) => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
