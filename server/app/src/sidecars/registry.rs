//! Registering, renewing, deregistering, and the stream that keeps it.
//!
//! Boundary: commands of ToolService come in here, already with their caller. Invariant: what is
//! acknowledged is in the log first; commands that write are one after the other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use loopwright_log::{AppendError, Id};
use loopwright_proto::v1::DescribeResponse;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::book::{Fact, GoneReason, MAX_NAMES, SidecarRegistered};
use super::channel::Link;
use super::describe::{Described, Quarantine, bad_sidecar_name};
use super::endpoint::{Address, EndpointError};
use super::error::{FieldProblem, SidecarError};
use super::live::Live;
use super::view::ToolView;
use super::{Member, Sidecars, keeper, view};

/// Labels of one sidecar.
const MAX_LABELS: usize = 32;
/// Characters of a label's value.
const MAX_LABEL_VALUE: usize = 256;
/// Characters of a request id.
const MAX_REQUEST_ID: usize = 128;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// Its tenant.
    pub namespace: Id,
    /// Its name.
    pub principal: String,
    /// Whether it may act on what others own.
    pub admin: bool,
}

/// A sidecar that wants to be offered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registration {
    /// Its name.
    pub name: String,
    /// Where it serves.
    pub endpoint: String,
    /// The client's id of the request; the same one gets the same lease.
    pub request_id: String,
    /// Labels to find it by.
    pub labels: BTreeMap<String, String>,
}

/// A registration that stands.
#[derive(Clone, Debug)]
pub struct Registered {
    /// The lease to renew.
    pub lease_id: String,
    /// How long it lives without being renewed.
    pub lease_ttl: Duration,
    /// Its tools, offered or not.
    pub tools: Vec<ToolView>,
}

/// Which sidecar to take out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The one with this lease: it goes by itself, its name stays its owner's.
    Lease(String),
    /// The one of this name: name and what was first seen of its tools are given up.
    Name(String),
}

impl Sidecars {
    /// Dials the sidecar, checks what it serves, writes it down and offers it.
    ///
    /// # Errors
    /// See [`SidecarError`].
    pub async fn register(
        self: &Arc<Self>,
        who: &Who,
        asked: Registration,
    ) -> Result<Registered, SidecarError> {
        let address = self.checked(&asked)?;
        if let Some(registered) = self.same_request(who, &asked) {
            return Ok(registered);
        }
        self.refuse_taken(who, &asked)?;
        let unreachable = |why: String| SidecarError::Unreachable {
            name: asked.name.clone(),
            endpoint: asked.endpoint.clone(),
            why,
        };
        let link = Link::dial(&address, &self.allow, self.keepalive)
            .await
            .map_err(unreachable)?;
        let invalid = |why| SidecarError::Invalid {
            name: asked.name.clone(),
            why,
        };
        let answer = link.describe().await.map_err(invalid)?;
        if link.says_not_serving().await {
            return Err(unreachable("it says that it does not serve".to_owned()));
        }

        let (sidecars, who) = (Arc::clone(self), who.clone());
        to_its_end(async move { sidecars.commit(&who, asked, link, answer).await }).await
    }

    async fn commit(
        self: &Arc<Self>,
        who: &Who,
        asked: Registration,
        link: Link,
        answer: DescribeResponse,
    ) -> Result<Registered, SidecarError> {
        let invalid = |why| SidecarError::Invalid {
            name: asked.name.clone(),
            why,
        };
        let _writing = self.writer.lock().await;
        self.refuse_taken(who, &asked)?;
        let (described, news) = self
            .judge(&who.namespace, &asked.name, answer)
            .map_err(invalid)?;
        refuse_unusable(&described).map_err(invalid)?;
        let registered = SidecarRegistered {
            name: asked.name,
            endpoint: asked.endpoint,
            owner: who.principal.clone(),
            lease: uuid::Uuid::now_v7().simple().to_string(),
            request_id: asked.request_id,
            at_ms: now_ms(),
            labels: asked.labels,
        };
        let mut facts = vec![Fact::SidecarRegistered(registered.clone())];
        facts.extend(news);
        self.append(&who.namespace, facts).await?;
        let live = self.start(&who.namespace, registered, &described, Some(link));
        tracing::info!(sidecar = %live.registered.name, endpoint = %live.registered.endpoint,
            namespace = %who.namespace, tools = described.tools.len(), "sidecar registered");
        Ok(self.answer(&live))
    }

    /// Starts the lease anew.
    ///
    /// # Errors
    /// [`SidecarError::LeaseNotFound`].
    pub fn renew(&self, namespace: &Id, lease: &str) -> Result<Duration, SidecarError> {
        let tenants = self.read();
        let mut members = tenants
            .get(namespace.as_str())
            .into_iter()
            .flat_map(|t| t.members.values());
        match members.find(|member| member.live.registered.lease == lease) {
            Some(member) => {
                member.live.renew(Instant::now() + self.lease_ttl);
                Ok(self.lease_ttl)
            }
            None => Err(SidecarError::LeaseNotFound {
                lease: shown(lease),
            }),
        }
    }

    /// Takes a sidecar out: no new calls, running ones may end. Twice is no error.
    ///
    /// # Errors
    /// See [`SidecarError`].
    pub async fn deregister(
        self: &Arc<Self>,
        who: &Who,
        target: Target,
    ) -> Result<(), SidecarError> {
        let (sidecars, who) = (Arc::clone(self), who.clone());
        to_its_end(async move { sidecars.take_out(&who, &target).await }).await
    }

    async fn take_out(&self, who: &Who, target: &Target) -> Result<(), SidecarError> {
        let _writing = self.writer.lock().await;
        let Some((name, reason)) = self.targeted(who, target)? else {
            return Ok(());
        };
        let gone = Fact::SidecarDeregistered {
            name: name.clone(),
            reason,
        };
        self.append(&who.namespace, vec![gone]).await?;
        self.remove(&who.namespace, &name);
        let namespace = &who.namespace;
        tracing::info!(sidecar = %name, %namespace, ?reason, "sidecar deregistered");
        Ok(())
    }

    /// Which name goes, and why; `None` where it is gone already.
    fn targeted(
        &self,
        who: &Who,
        target: &Target,
    ) -> Result<Option<(String, GoneReason)>, SidecarError> {
        let tenants = self.read();
        let book = tenants
            .get(who.namespace.as_str())
            .map(|tenant| &tenant.book);
        match target {
            Target::Lease(lease) => match book.and_then(|book| book.by_lease(lease)) {
                Some(noted) if noted.live => {
                    Ok(Some((noted.registered.name.clone(), GoneReason::Left)))
                }
                Some(_) => Ok(None),
                None => Err(SidecarError::LeaseNotFound {
                    lease: shown(lease),
                }),
            },
            Target::Name(name) => match book.and_then(|book| book.get(name)) {
                Some(noted) if noted.registered.owner != who.principal && !who.admin => {
                    let owner = noted.registered.owner.clone();
                    Err(SidecarError::NotOwner {
                        name: name.clone(),
                        owner,
                    })
                }
                Some(_) => Ok(Some((name.clone(), GoneReason::Released))),
                None if book.is_some_and(|book| book.knows(name)) => Ok(None),
                None => Err(SidecarError::SidecarNotFound { name: shown(name) }),
            },
        }
    }

    /// Ends a registration whose lease has run out, unless it was renewed meanwhile; says whether it
    /// is at its end, which it is where it was replaced too.
    pub(super) async fn end(&self, live: &Arc<Live>) -> bool {
        let _writing = self.writer.lock().await;
        if !self.is_current(live) {
            return true;
        }
        if live.lease_until() > Instant::now() {
            return false;
        }
        let reason = GoneReason::LeaseRanOut;
        let name = live.registered.name.clone();
        tracing::warn!(sidecar = %name, namespace = %live.namespace, ?reason, "sidecar gone");
        let gone = Fact::SidecarDeregistered {
            name: name.clone(),
            reason,
        };
        if let Err(error) = self.append(&live.namespace, vec![gone]).await {
            tracing::warn!(sidecar = %name, %error, "its end could not be written down");
        }
        self.remove(&live.namespace, &name);
        true
    }

    /// Whether this is the registration that stands under its name.
    pub(super) fn is_current(&self, live: &Arc<Live>) -> bool {
        let tenants = self.read();
        let member = tenants
            .get(live.namespace.as_str())
            .and_then(|tenant| tenant.members.get(&live.registered.name));
        member.is_some_and(|member| Arc::ptr_eq(&member.live, live))
    }

    /// Puts a registration among the living, in the place of one of the same name.
    pub(super) fn start(
        self: &Arc<Self>,
        namespace: &Id,
        registered: SidecarRegistered,
        described: &Described,
        link: Option<Link>,
    ) -> Arc<Live> {
        let until = Instant::now() + self.lease_ttl;
        let live = Live::new(namespace.clone(), registered, described, until);
        if let Some(link) = &link {
            live.up(link.clone(), described);
        }
        let keeper = keeper::keep(Arc::downgrade(self), Arc::clone(&live), link);
        let keeper = AbortOnDropHandle::new(tokio::spawn(keeper));
        let counted = self.telemetry.metrics().sidecar();
        let member = Member {
            live: Arc::clone(&live),
            _keeper: keeper,
            _counted: counted,
        };
        if let Some(tenant) = self.write().get_mut(namespace.as_str()) {
            tenant.insert(member);
        }
        self.announce(true);
        live
    }

    fn remove(&self, namespace: &Id, name: &str) {
        if let Some(tenant) = self.write().get_mut(namespace.as_str())
            && let Some(member) = tenant.members.remove(name)
        {
            tenant.drain(member);
        }
        self.announce(true);
    }

    /// The answer that the same request got before, its lease renewed.
    fn same_request(&self, who: &Who, asked: &Registration) -> Option<Registered> {
        let tenants = self.read();
        let live = Arc::clone(
            &tenants
                .get(who.namespace.as_str())?
                .members
                .get(&asked.name)?
                .live,
        );
        drop(tenants);
        let before = &live.registered;
        let same = !asked.request_id.is_empty()
            && before.request_id == asked.request_id
            && before.endpoint == asked.endpoint
            && before.owner == who.principal;
        same.then(|| {
            live.renew(Instant::now() + self.lease_ttl);
            self.answer(&live)
        })
    }

    fn answer(&self, live: &Arc<Live>) -> Registered {
        Registered {
            lease_id: live.registered.lease.clone(),
            lease_ttl: self.lease_ttl,
            tools: view::tools_of(live).collect(),
        }
    }

    fn refuse_taken(&self, who: &Who, asked: &Registration) -> Result<(), SidecarError> {
        let tenants = self.read();
        let Some(tenant) = tenants.get(who.namespace.as_str()) else {
            return Ok(());
        };
        let name = asked.name.clone();
        let Some(noted) = tenant.book.get(&name) else {
            let full = tenant.book.len() >= MAX_NAMES;
            return if full {
                Err(SidecarError::TooMany { limit: MAX_NAMES })
            } else {
                Ok(())
            };
        };
        let owner = &noted.registered.owner;
        if *owner != who.principal {
            let why = format!(
                "the name belongs to `{owner}`, who may give it up with DeregisterSidecar by name; \
                 or choose another name"
            );
            return Err(SidecarError::NameTaken {
                name,
                why,
                retry_after: None,
            });
        }
        match tenant.members.get(&name) {
            // One that does not answer has made room: its process may be this one, started anew.
            Some(Member { live, .. })
                if live.registered.endpoint != asked.endpoint && live.link().is_ok() =>
            {
                let left = live.lease_until().saturating_duration_since(Instant::now());
                let why = format!(
                    "one is registered at {} with a lease of {}s left; stop it, take it out with \
                     DeregisterSidecar, or choose another name",
                    live.registered.endpoint,
                    left.as_secs()
                );
                Err(SidecarError::NameTaken {
                    name,
                    why,
                    retry_after: Some(left),
                })
            }
            _ => Ok(()),
        }
    }

    /// Everything that is wrong with the request at once, or where to dial.
    fn checked(&self, asked: &Registration) -> Result<Address, SidecarError> {
        let mut problems = Vec::new();
        let mut wrong = |field, problem: String| problems.push(FieldProblem { field, problem });
        if let Some(problem) = bad_sidecar_name(&asked.name) {
            let shown: String = asked.name.chars().take(80).collect();
            wrong("name", format!("{shown:?}: {problem}"));
        }
        let printable = asked
            .request_id
            .bytes()
            .all(|b| b.is_ascii_graphic() || b == b' ');
        if !printable || asked.request_id.len() > MAX_REQUEST_ID {
            wrong(
                "request_id",
                format!("expected at most {MAX_REQUEST_ID} printable ASCII characters"),
            );
        }
        if asked.labels.len() > MAX_LABELS {
            let count = asked.labels.len();
            wrong(
                "labels",
                format!("{count} labels, over the limit of {MAX_LABELS}"),
            );
        }
        for (key, value) in asked.labels.iter().take(MAX_LABELS) {
            if !good_label(key) || value.chars().count() > MAX_LABEL_VALUE {
                let shown: String = key.chars().take(80).collect();
                wrong(
                    "labels",
                    format!(
                        "{shown:?}: keys match [a-z0-9][a-z0-9._/-]{{0,62}}, values \
                    have at most {MAX_LABEL_VALUE} characters"
                    ),
                );
            }
        }
        let address = match self.allow.address(&asked.endpoint) {
            Ok(address) => Some(address),
            Err(EndpointError::NotAllowed(why)) if problems.is_empty() => {
                return Err(SidecarError::EndpointNotAllowed(why));
            }
            Err(EndpointError::NotAllowed(problem) | EndpointError::Malformed(problem)) => {
                problems.push(FieldProblem {
                    field: "endpoint",
                    problem,
                });
                None
            }
        };
        address
            .filter(|_| problems.is_empty())
            .ok_or(SidecarError::Fields(problems))
    }
}

/// Where no tool can be offered for faults of its own, nothing is registered.
fn refuse_unusable(described: &Described) -> Result<(), String> {
    let mut faults = Vec::new();
    for tool in &described.tools {
        match &tool.quarantined {
            Some(Quarantine::Unusable(why)) => faults.push((tool.own_name(), why)),
            Some(Quarantine::Changed) | None => return Ok(()),
        }
    }
    let told = faults
        .iter()
        .take(5)
        .map(|(name, why)| format!("tool `{name}`: {why}"));
    Err(told.collect::<Vec<_>>().join("; "))
}

fn good_label(key: &str) -> bool {
    let bytes = key.as_bytes();
    bytes
        .first()
        .is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        && bytes.len() <= 63
        && bytes
            .iter()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'/' | b'-'))
}

/// Runs to its end even where the caller goes away: the book must hear of every record written.
async fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, SidecarError>> + Send + 'static,
) -> Result<T, SidecarError> {
    tokio::spawn(work).await.unwrap_or_else(|lost| {
        Err(SidecarError::Log(AppendError::Unavailable {
            reason: lost.to_string(),
            ambiguous: true,
        }))
    })
}

fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
