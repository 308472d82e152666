//! Sidecars and tools as they are listed.

use std::collections::BTreeMap;
use std::sync::Arc;

use loopwright_core::agent::ToolSpec;
use tokio::time::Instant;

use super::Sidecars;
use super::describe::KnownTool;
use super::live::{Live, Phase};
use super::registry::now_ms;

/// A sidecar, to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SidecarView {
    /// Its name.
    pub name: String,
    /// Where it serves.
    pub endpoint: String,
    /// How it is.
    pub phase: Phase,
    /// Why, where it is not healthy.
    pub detail: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// When it was registered, Unix milliseconds.
    pub registered_at_ms: u64,
    /// When its lease ends, Unix milliseconds.
    pub lease_expires_at_ms: u64,
    /// Tools on offer.
    pub tools: u32,
    /// Tools in quarantine.
    pub quarantined: u32,
    /// Calls that run on it.
    pub running_calls: u32,
    /// Its version, in its own words.
    pub version: String,
}

/// Whether a tool is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToolStanding {
    /// It is.
    Healthy,
    /// Its sidecar is not healthy now.
    Unavailable,
    /// It changed, or cannot be used.
    Quarantined,
}

/// A tool, to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolView {
    /// The sidecar that serves it.
    pub sidecar: String,
    /// Its own name, without the sidecar's.
    pub own_name: String,
    /// As a model is offered it, its name on the wire.
    pub spec: ToolSpec,
    /// Schema of its structured results; empty where it has none.
    pub output_schema: String,
    /// Most calls at a time; 0: no limit.
    pub max_concurrency: u32,
    /// Whether a cancelled call stops the work.
    pub supports_cancel: bool,
    /// Whether a running call can be rejoined.
    pub supports_attach: bool,
    /// Whether it is offered.
    pub standing: ToolStanding,
    /// Why not, where it is not.
    pub detail: String,
}

impl Sidecars {
    /// The sidecars of a namespace, by name; those that drain come after one of the same name.
    #[must_use]
    pub fn list(&self, namespace: &str) -> Vec<SidecarView> {
        let mut views: Vec<_> = self.all(namespace, true).iter().map(view).collect();
        views.sort_by(|a, b| (&a.name, a.phase).cmp(&(&b.name, b.phase)));
        views
    }

    /// The tools of a namespace, by name.
    #[must_use]
    pub fn list_tools(&self, namespace: &str) -> Vec<ToolView> {
        let mut views: Vec<_> = self
            .all(namespace, false)
            .iter()
            .flat_map(tools_of)
            .collect();
        views.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
        views
    }

    fn all(&self, namespace: &str, draining: bool) -> Vec<Arc<Live>> {
        let tenants = self.read();
        let Some(tenant) = tenants.get(namespace) else {
            return Vec::new();
        };
        let members = tenant.members.values().map(|member| &member.live);
        let gone = tenant
            .draining
            .iter()
            .filter(|live| draining && live.running() > 0);
        members.chain(gone).cloned().collect()
    }
}

/// The tools of one sidecar, by name.
pub(super) fn tools_of(live: &Arc<Live>) -> impl Iterator<Item = ToolView> {
    let standing = live.standing();
    let sidecar = live.registered.name.clone();
    let (phase, detail) = (standing.phase, standing.detail);
    standing.tools.into_iter().map(move |served| {
        let KnownTool {
            spec,
            output_schema,
            max_concurrency,
            cancel,
            attach,
            ..
        } = &served.tool;
        let (standing, detail) = match (&served.tool.quarantined, phase) {
            (Some(why), _) => (ToolStanding::Quarantined, why.why(&sidecar)),
            (None, Phase::Healthy) => (ToolStanding::Healthy, String::new()),
            (None, _) => (
                ToolStanding::Unavailable,
                format!("sidecar `{sidecar}`: {detail}"),
            ),
        };
        ToolView {
            sidecar: sidecar.clone(),
            own_name: served.tool.own_name().to_owned(),
            spec: spec.clone(),
            output_schema: output_schema.clone(),
            max_concurrency: *max_concurrency,
            supports_cancel: *cancel,
            supports_attach: *attach,
            standing,
            detail,
        }
    })
}

fn view(live: &Arc<Live>) -> SidecarView {
    let standing = live.standing();
    let quarantined = standing
        .tools
        .iter()
        .filter(|s| s.tool.quarantined.is_some())
        .count();
    let offered = if standing.phase.is_offered() {
        standing.tools.len() - quarantined
    } else {
        0
    };
    let left = live.lease_until().saturating_duration_since(Instant::now());
    let left = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    SidecarView {
        name: live.registered.name.clone(),
        endpoint: live.registered.endpoint.clone(),
        phase: standing.phase,
        detail: standing.detail,
        labels: live.registered.labels.clone(),
        registered_at_ms: live.registered.at_ms,
        lease_expires_at_ms: now_ms().saturating_add(left),
        tools: count(offered),
        quarantined: count(quarantined),
        running_calls: live.running(),
        version: standing.version,
    }
}
