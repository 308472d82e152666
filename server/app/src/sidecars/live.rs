//! One registered sidecar while it is: its connection, its lease, its tools, the calls on it.
//!
//! Boundary: state in memory, shared by the one task that keeps it and all calls. Invariant: locks
//! are held for a look or a change, never over an await.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use loopwright_log::Id;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use super::book::SidecarRegistered;
use super::channel::Link;
use super::describe::{Described, KnownTool};

/// How a sidecar is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Known, and dialled for the first time or again; its tools are still offered.
    Connecting,
    /// Reachable and serving.
    Healthy,
    /// Not reachable for longer than calls wait, or it says that it does not serve; dialled again.
    Unhealthy,
    /// Its lease ran out or it was taken out; running calls may end.
    Draining,
}

/// A registered sidecar.
#[derive(Debug)]
pub(crate) struct Live {
    /// Its tenant.
    pub namespace: Id,
    /// Its registration.
    pub registered: SidecarRegistered,
    lease_until: watch::Sender<Instant>,
    state: Mutex<State>,
    running: AtomicU32,
}

/// What changes.
#[derive(Debug)]
struct State {
    phase: Phase,
    detail: String,
    link: Option<Link>,
    version: String,
    tools: BTreeMap<String, Arc<Served>>,
}

/// A tool, and the slots for calls of it.
#[derive(Debug)]
pub(crate) struct Served {
    /// What the sidecar says of it.
    pub tool: KnownTool,
    slots: Option<Arc<Semaphore>>,
}

/// How a sidecar is, in a form to be shown.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    pub phase: Phase,
    pub detail: String,
    pub version: String,
    pub tools: Vec<Arc<Served>>,
}

/// Counts a call for as long as it runs.
pub(crate) struct Running(Arc<Live>);

impl Live {
    /// A sidecar that is not connected yet, with what is known of its tools.
    pub(crate) fn new(
        namespace: Id,
        registered: SidecarRegistered,
        described: &Described,
        lease_until: Instant,
    ) -> Arc<Self> {
        let state = State {
            phase: Phase::Connecting,
            detail: "dialling".to_owned(),
            link: None,
            version: described.version.clone(),
            tools: served(described, &BTreeMap::new()),
        };
        let (lease_until, state) = (watch::Sender::new(lease_until), Mutex::new(state));
        let running = AtomicU32::new(0);
        Arc::new(Self {
            namespace,
            registered,
            lease_until,
            state,
            running,
        })
    }

    /// Moves the end of the lease.
    pub(crate) fn renew(&self, until: Instant) {
        self.lease_until.send_replace(until);
    }

    /// When the lease ends.
    pub(crate) fn lease_until(&self) -> Instant {
        *self.lease_until.borrow()
    }

    /// Ends when the lease has run out.
    pub(crate) async fn lease_ran_out(&self) {
        let mut renewed = self.lease_until.subscribe();
        loop {
            let until = *renewed.borrow_and_update();
            tokio::select! {
                () = tokio::time::sleep_until(until) => return,
                // The sender lives in self.
                _ = renewed.changed() => {}
            }
        }
    }

    /// It is connected and serves this. Says whether what is offered changed.
    pub(crate) fn up(&self, link: Link, described: &Described) -> bool {
        let mut state = self.state();
        let tools = served(described, &state.tools);
        let same = |a: &BTreeMap<String, Arc<Served>>, b: &BTreeMap<String, Arc<Served>>| {
            a.values().map(|s| &s.tool).eq(b.values().map(|s| &s.tool))
        };
        let changed = !state.phase.is_offered() || !same(&state.tools, &tools);
        state.phase = Phase::Healthy;
        state.detail.clear();
        state.link = Some(link);
        state.version.clone_from(&described.version);
        state.tools = tools;
        changed
    }

    /// It is not connected, or not serving. Says whether what is offered changed.
    pub(crate) fn down(&self, phase: Phase, detail: String) -> bool {
        let mut state = self.state();
        let changed = state.phase.is_offered() != phase.is_offered();
        state.phase = phase;
        state.detail = detail;
        state.link = None;
        changed
    }

    /// The connection, where there is one that serves, else how it stands.
    pub(crate) fn link(&self) -> Result<Link, String> {
        let state = self.state();
        match (&state.link, state.phase) {
            (Some(link), Phase::Healthy) => Ok(link.clone()),
            _ => Err(state.detail.clone()),
        }
    }

    /// The tool of this own name.
    pub(crate) fn tool(&self, name: &str) -> Option<Arc<Served>> {
        self.state().tools.get(name).cloned()
    }

    /// How it is.
    pub(crate) fn standing(&self) -> Standing {
        let state = self.state();
        Standing {
            phase: state.phase,
            detail: state.detail.clone(),
            version: state.version.clone(),
            tools: state.tools.values().cloned().collect(),
        }
    }

    /// Counts a call until the answer is dropped.
    pub(crate) fn enter(self: &Arc<Self>) -> Running {
        self.running.fetch_add(1, Ordering::Relaxed);
        Running(Arc::clone(self))
    }

    /// Calls that run on it now.
    pub(crate) fn running(&self) -> u32 {
        self.running.load(Ordering::Relaxed)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Phase {
    /// Whether the tools of such a sidecar are offered.
    pub(crate) fn is_offered(self) -> bool {
        matches!(self, Self::Connecting | Self::Healthy)
    }
}

impl Served {
    /// A slot for one call, at once where there is no limit.
    pub(crate) async fn slot(&self) -> Option<OwnedSemaphorePermit> {
        let slots = Arc::clone(self.slots.as_ref()?);
        // Never closed, so an error cannot come; no slot would mean no limit.
        slots.acquire_owned().await.ok()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Slots of a tool whose limit is as before stay: calls that run keep counting.
fn served(
    described: &Described,
    before: &BTreeMap<String, Arc<Served>>,
) -> BTreeMap<String, Arc<Served>> {
    let serve = |tool: &KnownTool| {
        let name = tool.own_name().to_owned();
        let old = before
            .get(&name)
            .filter(|old| old.tool.max_concurrency == tool.max_concurrency);
        let slots = match (old, tool.max_concurrency) {
            (Some(old), _) => old.slots.clone(),
            (None, 0) => None,
            (None, limit) => {
                let limit = usize::try_from(limit).unwrap_or(usize::MAX);
                Some(Arc::new(Semaphore::new(limit.min(Semaphore::MAX_PERMITS))))
            }
        };
        (
            name,
            Arc::new(Served {
                tool: tool.clone(),
                slots,
            }),
        )
    };
    described.tools.iter().map(serve).collect()
}
