//! The register: who drives which session, and when one is attached again.

mod hold;
mod losses;
mod start;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use loopwright_core::{What, input::Create, input::StartLoop};
use loopwright_log::{AppendError, StreamKey};
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::TaskTracker;

use super::{
    Answer, CommandError, Delivery, End, Order, Reply, name_of, run::drive, wake::Wake,
    world::World,
};

pub use hold::{Hold, ReleaseError};
pub use losses::FIRST_WAIT;

use losses::Loss;

/// Commands that wait for one driver before their senders do.
const INBOX: usize = 64;
/// Deliveries that a command survives being handed back; each means that a driver let go just then.
const DELIVERIES: usize = 8;

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
    /// Sessions that have something to do and found no room, in the order in which they came.
    waiting: VecDeque<StreamKey>,
    /// What is in `waiting`.
    is_waiting: HashSet<StreamKey>,
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

    /// Whether this session is driven here now.
    #[must_use]
    pub fn is_driven(&self, key: &StreamKey) -> bool {
        self.slots().by_key.contains_key(key)
    }

    /// Drivers of a session lost in a row; 0 for one that is well.
    #[must_use]
    pub fn restarts(&self, key: &StreamKey) -> u32 {
        let trouble = self.world.index.troubles().of(key);
        trouble.map_or(0, |trouble| trouble.losses)
    }

    /// Waits until every driver has let go. The drain signal must have fired.
    pub async fn drained(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Sees to it that a driver has the session, once there is room for one.
    pub(super) fn attach(self: &Arc<Self>, key: &StreamKey) {
        if self.world.drain.is_draining() {
            return;
        }
        let mut slots = self.slots();
        if let Some(held) = slots.held.get_mut(key) {
            held.wanted = true;
        } else if slots.by_key.contains_key(key) {
        } else if slots.by_key.len() >= self.world.max_active {
            if slots.is_waiting.insert(key.clone()) {
                slots.waiting.push_back(key.clone());
            }
        } else {
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
            let life = Box::pin(drive(world, key.clone(), receiver));
            let (end, progressed) = life.await;
            drivers.ended(&key, id, end, progressed);
        });
    }

    fn ended(self: &Arc<Self>, key: &StreamKey, id: u64, end: End, progressed: bool) {
        let next = {
            let mut slots = self.slots();
            if slots.by_key.get(key).is_some_and(|slot| slot.id == id) {
                slots.by_key.remove(key);
            }
            let next = slots.waiting.pop_front();
            if let Some(next) = &next {
                slots.is_waiting.remove(next);
            }
            next
        };
        let index = &self.world.index;
        match end {
            End::Idle { wake_at } => {
                index.troubles().over(key);
                index.refresh(key);
                if let Some(at) = wake_at {
                    self.wake.set(key.clone(), at);
                }
            }
            End::Drained => {
                index.troubles().over(key);
                index.refresh(key);
            }
            End::NotCreated => index.troubles().over(key),
            End::Undrivable { reason } => {
                tracing::error!(session = name_of(key), %reason, "the session cannot be driven");
                index.troubles().undrivable(key, &reason);
            }
            End::Panicked { payload } => {
                let reason = format!("its driver panicked: {payload}");
                self.replace(key, Loss::Panicked, &reason, progressed);
            }
            End::Lost { reason } => self.replace(key, Loss::Lost, &reason, progressed),
            End::Unavailable { reason } => {
                self.replace(key, Loss::Unavailable, &reason, progressed);
            }
        }
        if let Some(next) = next {
            self.attach(&next);
        }
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
pub(super) mod tests;
