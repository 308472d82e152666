//! Sidecars: who is registered, what tools they offer, and how a call reaches them.
//!
//! Boundary: everything between the server and the processes that serve tools; sessions come in as
//! names only. Invariants: what is registered is a fold of a durable stream per namespace
//! (`book`); a name belongs to one identity; namespaces do not see each other; a call that could
//! not be sent is told apart from one that may have run.

mod alike;
mod book;
mod catalog;
pub(crate) mod channel;
mod describe;
mod endpoint;
mod error;
mod journal;
mod keeper;
mod live;
mod registry;
pub(crate) mod schema;
mod view;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use futures_util::future::BoxFuture;
use loopwright_core::Instances;
use loopwright_core::agent::{ToolSet, ToolSpec};
use loopwright_core::ids::{CallId, Timestamp};
use loopwright_core::message::{Part, ToolOutput};
use loopwright_core::outcome::{LookupAnswer, ToolFailure, Verdict};
use loopwright_core::prompt::ToolRequest;
use loopwright_log::{Id, Log, Seq, StreamKey, StreamKind};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::config::Config;
use crate::effects::progress::ProgressSink;
use crate::effects::{CallTrace, tool};
use crate::redaction::Redaction;
use crate::telemetry::{Tally, Telemetry};

pub use error::{FieldProblem, SidecarError};
pub use live::Phase;
pub use registry::{Registered, Registration, Target, Who};
pub use view::{SidecarView, ToolStanding, ToolView};

pub(crate) use describe::split as split_tool_name;

use book::Book;
use channel::Link;
use describe::Terms;
use endpoint::AllowList;
use live::Live;
use schema::Schemas;

/// The id of a namespace's stream of registrations.
const STREAM_ID: &str = "sidecars";

/// Names the session that calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRef {
    /// Its tenant.
    pub namespace: Arc<str>,
    /// Its id.
    pub session: Arc<str>,
    /// When it came to be under its id: created, forked or imported. What tells it from one that had the
    /// id before.
    pub born_at: Timestamp,
}

impl SessionRef {
    /// What a sidecar recognises a call by. A session that is created under the id of a deleted one
    /// does not meet what the other's calls did.
    pub(crate) fn key_of(&self, call: CallId) -> String {
        let (namespace, session) = (&self.namespace, &self.session);
        let Timestamp(born) = self.born_at;
        format!("{namespace}/{session}@{born}/{call}")
    }
}

/// All sidecars of the server.
pub struct Sidecars {
    log: Arc<dyn Log>,
    telemetry: Telemetry,
    allow: AllowList,
    terms: Terms,
    lease_ttl: Duration,
    keepalive: Duration,
    limits: CallLimits,
    tenants: RwLock<BTreeMap<String, Tenant>>,
    /// Held from a look at the book to the end of the append that follows from it.
    writer: tokio::sync::Mutex<()>,
    /// Rises when what is offered changed.
    generation: watch::Sender<u64>,
    /// Rises when a sidecar came or went: calls that wait for one look again.
    presence: watch::Sender<u64>,
    schemas: Schemas,
    catalog: catalog::Catalog,
}

/// The limits of a call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallLimits {
    /// How long a call waits for its sidecar.
    pub sidecar_wait: Duration,
    /// How long a sidecar may take to say what became of a call.
    pub lookup_timeout: Duration,
    /// Largest message that is taken from a sidecar, bytes.
    pub max_result_bytes: usize,
    /// Characters of a result that the model sees.
    pub max_output_chars: usize,
    /// What is taken out of results and errors before anybody sees them.
    pub redaction: Redaction,
}

/// One namespace.
struct Tenant {
    key: StreamKey,
    book: Book,
    /// Seq of the last fact of the stream; `None` where it has to be asked for.
    tail: Option<Seq>,
    members: BTreeMap<String, Member>,
    /// Gone, with calls that still run.
    draining: Vec<Arc<Live>>,
}

struct Member {
    live: Arc<Live>,
    _keeper: AbortOnDropHandle<()>,
    _counted: Tally,
}

impl Sidecars {
    /// No sidecars yet; [`Self::recover`] brings back those of the log.
    #[must_use]
    pub fn new(config: &Config, log: Arc<dyn Log>, telemetry: Telemetry) -> Arc<Self> {
        let tools = &config.tools;
        Arc::new(Self {
            log,
            telemetry,
            allow: AllowList::new(tools),
            terms: Terms {
                timeout: tools.timeout.get(),
                absolute_cap: tools.absolute_cap.get(),
                on_change: tools.on_change,
            },
            lease_ttl: tools.lease_ttl.get(),
            keepalive: config.server.keepalive_interval.get(),
            limits: CallLimits {
                sidecar_wait: tools.sidecar_wait.get(),
                lookup_timeout: tools.lookup_timeout.get(),
                max_result_bytes: tools.max_result_bytes.as_usize(),
                max_output_chars: usize::try_from(config.context.max_tool_output_chars)
                    .unwrap_or(usize::MAX),
                redaction: Redaction::from(config),
            },
            tenants: RwLock::default(),
            writer: tokio::sync::Mutex::default(),
            generation: watch::Sender::new(0),
            presence: watch::Sender::new(0),
            schemas: Schemas::default(),
            catalog: catalog::Catalog::default(),
        })
    }

    /// The tools that a new step of a session is offered, ordered by name: those of each sidecar of
    /// the namespace that is healthy, or lost for no longer than a call would wait for it, and the
    /// built-in one. A `selection` names tools (`<sidecar>__<tool>`) or whole sidecars; `None` is all
    /// of them.
    #[must_use]
    pub fn tools(&self, namespace: &str, selection: Option<&[String]>) -> Arc<ToolSet> {
        self.catalog.tools(self, namespace, selection)
    }

    /// Which instance each sidecar of the namespace is that is connected and says so.
    #[must_use]
    pub fn instances(&self, namespace: &str) -> Instances {
        let tenants = self.read();
        let Some(tenant) = tenants.get(namespace) else {
            return Instances::default();
        };
        let named = tenant.members.iter().filter_map(|(name, member)| {
            let link = member.live.link().ok()?;
            let instance = link.instance().filter(|instance| !instance.is_empty())?;
            Some((name.clone(), instance.to_owned()))
        });
        Instances::Present(Arc::new(named.collect()))
    }

    /// Changes when [`Self::tools`] may answer something else.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// What the edge finds of each tool call among `parts`, in their order: the hash of its
    /// arguments, and why they do not fit the schema that `tools` holds, in one sentence.
    #[must_use]
    pub fn verdicts(&self, tools: &ToolSet, parts: &[Part]) -> Vec<Verdict> {
        self.schemas.verdicts(tools, parts)
    }

    /// One attempt of a tool call. Dropping the future cancels it at the sidecar.
    ///
    /// `spec` is the tool as the session was offered it; its deadlines hold.
    pub fn call(
        self: &Arc<Self>,
        session: SessionRef,
        request: ToolRequest,
        spec: ToolSpec,
        trace: CallTrace,
        sink: ProgressSink,
    ) -> BoxFuture<'static, Result<ToolOutput, ToolFailure>> {
        let sidecars = Arc::clone(self);
        Box::pin(async move {
            let call = tool::Call {
                session: &session,
                request: &request,
                spec: &spec,
            };
            tool::run(&sidecars, call, trace, sink).await
        })
    }

    /// What became of a call whose outcome was lost, `passed` after its first dispatch: its sidecar
    /// is asked, and where the call still runs it is rejoined and waited for. Dropping the future
    /// cancels a call that was rejoined.
    pub fn look_up(
        self: &Arc<Self>,
        session: SessionRef,
        request: ToolRequest,
        spec: ToolSpec,
        passed: Duration,
        trace: CallTrace,
        sink: ProgressSink,
    ) -> BoxFuture<'static, LookupAnswer> {
        let sidecars = Arc::clone(self);
        Box::pin(async move {
            let call = tool::Call {
                session: &session,
                request: &request,
                spec: &spec,
            };
            tool::look_up(&sidecars, call, passed, trace, sink).await
        })
    }

    pub(crate) fn limits(&self) -> CallLimits {
        self.limits
    }

    pub(crate) fn log(&self) -> &Arc<dyn Log> {
        &self.log
    }

    /// The connection to a sidecar, waited for as long as calls wait.
    ///
    /// # Errors
    /// It did not come (back) in time; how it stands, in words.
    pub(crate) async fn reach(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<(Arc<Live>, Link), String> {
        if let Ok(found) = self.find(namespace, name) {
            return Ok(found);
        }
        let mut came = self.presence.subscribe();
        let wait = self.limits.sidecar_wait;
        let found = tokio::time::timeout(wait, async {
            loop {
                match self.find(namespace, name) {
                    Ok(found) => return found,
                    // The sender lives in self.
                    Err(_) => drop(came.changed().await),
                }
            }
        });
        match found.await {
            Ok(found) => Ok(found),
            Err(_) => {
                let how = self.find(namespace, name).err().unwrap_or_default();
                Err(format!(
                    "{how}; waited {wait:?} for it (tools.sidecar_wait)"
                ))
            }
        }
    }

    fn find(&self, namespace: &str, name: &str) -> Result<(Arc<Live>, Link), String> {
        let live = {
            let tenants = self.read();
            let member = tenants
                .get(namespace)
                .and_then(|tenant| tenant.members.get(name));
            member.map(|member| Arc::clone(&member.live))
        };
        let live = live.ok_or("it is not registered")?;
        let link = live.link()?;
        Ok((live, link))
    }

    /// Wakes calls that wait, and, where `offer` changed, drivers.
    fn announce(&self, offer: bool) {
        if offer {
            self.generation.send_modify(|generation| *generation += 1);
        }
        self.presence.send_modify(|count| *count += 1);
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<String, Tenant>> {
        self.tenants.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<String, Tenant>> {
        self.tenants.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tenant {
    fn new(namespace: &Id) -> Self {
        let id = Id::parse(STREAM_ID).expect("a constant that is an id");
        Self {
            key: StreamKey::new(StreamKind::Registry, namespace, &id),
            book: Book::default(),
            tail: None,
            members: BTreeMap::new(),
            draining: Vec::new(),
        }
    }

    fn insert(&mut self, member: Member) {
        let name = member.live.registered.name.clone();
        if let Some(old) = self.members.insert(name, member) {
            self.drain(old);
        }
    }

    /// Forgets a sidecar that is gone; it is shown for as long as calls run on it.
    fn drain(&mut self, member: Member) {
        member.live.down(
            Phase::Draining,
            "taken out; running calls may end".to_owned(),
        );
        self.draining.retain(|live| live.running() > 0);
        if member.live.running() > 0 {
            self.draining.push(member.live);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
