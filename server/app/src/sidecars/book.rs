//! What the registry's stream says: the fold of one namespace's registrations.
//!
//! Boundary: pure; knows no connection, no clock and no log. Invariant: the book is a function of
//! the facts in their order, so one folded after a restart equals the one that wrote them. A kind
//! that this version does not know is skipped.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::describe::Described;

/// Names that one namespace may own at a time.
pub(crate) const MAX_NAMES: usize = 1000;
/// Released names that are remembered, so that releasing one twice is no error.
const MAX_RELEASED: usize = 1000;

/// The body of one record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Page {
    /// What happened, in order.
    pub events: Vec<serde_json::Value>,
}

/// One fact.
#[expect(
    clippy::enum_variant_names,
    reason = "the names of the events, as the log has them"
)]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Fact {
    /// A sidecar was registered, or registered again.
    SidecarRegistered(SidecarRegistered),
    /// What it serves is not what it was.
    SidecarDescribed {
        /// The sidecar.
        name: String,
        /// What it serves now.
        described: Described,
    },
    /// It was taken out.
    SidecarDeregistered {
        /// The sidecar.
        name: String,
        /// Why.
        reason: GoneReason,
    },
}

/// See [`Fact::SidecarRegistered`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SidecarRegistered {
    /// Its name.
    pub name: String,
    /// Where it serves, as it said.
    pub endpoint: String,
    /// Who registered it.
    pub owner: String,
    /// The lease.
    pub lease: String,
    /// The request that it was registered by; the same one gets the same lease.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub request_id: String,
    /// When, Unix milliseconds.
    pub at_ms: u64,
    /// Its labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// Why a sidecar is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum GoneReason {
    /// It went by itself, by its lease: the name and what was first seen of its tools are kept.
    Left,
    /// Its lease was not renewed: kept as well.
    LeaseRanOut,
    /// It was taken out by name: everything is forgotten.
    Released,
}

/// All names of a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Book {
    names: BTreeMap<String, Noted>,
    released: BTreeSet<String>,
}

/// What is known of one name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Noted {
    /// The latest registration.
    pub registered: SidecarRegistered,
    /// Whether it stands.
    pub live: bool,
    /// What it served when it was last asked.
    pub described: Described,
    /// Fingerprints of its tools by their own name, as they were first offered.
    pub first_seen: BTreeMap<String, String>,
}

impl Page {
    /// A record's body with these facts.
    pub(crate) fn of(facts: &[Fact]) -> serde_json::Result<Self> {
        let events = facts
            .iter()
            .map(serde_json::to_value)
            .collect::<Result<_, _>>()?;
        Ok(Self { events })
    }

    /// The facts that this version knows.
    pub(crate) fn facts(self) -> impl Iterator<Item = Fact> {
        self.events
            .into_iter()
            .filter_map(|event| match serde_json::from_value(event) {
                Ok(fact) => Some(fact),
                Err(error) => {
                    tracing::warn!(%error, "skipped an event of the registry of a later version");
                    None
                }
            })
    }
}

impl Book {
    /// Takes in one fact.
    pub(crate) fn apply(&mut self, fact: Fact) {
        match fact {
            Fact::SidecarRegistered(registered) => {
                self.released.remove(&registered.name);
                let noted = self.names.entry(registered.name.clone()).or_default();
                noted.registered = registered;
                noted.live = true;
            }
            Fact::SidecarDescribed { name, described } => {
                if let Some(noted) = self.names.get_mut(&name) {
                    noted.describe(described);
                }
            }
            Fact::SidecarDeregistered {
                name,
                reason: GoneReason::Released,
            } => {
                self.names.remove(&name);
                self.released.insert(name);
                if self.released.len() > MAX_RELEASED {
                    self.released.pop_first();
                }
            }
            Fact::SidecarDeregistered {
                name,
                reason: GoneReason::Left | GoneReason::LeaseRanOut,
            } => {
                if let Some(noted) = self.names.get_mut(&name) {
                    noted.live = false;
                }
            }
        }
    }

    /// What is known of a name that is owned.
    pub(crate) fn get(&self, name: &str) -> Option<&Noted> {
        self.names.get(name)
    }

    /// Whether this name was ever registered.
    pub(crate) fn knows(&self, name: &str) -> bool {
        self.names.contains_key(name) || self.released.contains(name)
    }

    /// The registration that has, or last had, this lease.
    pub(crate) fn by_lease(&self, lease: &str) -> Option<&Noted> {
        self.names
            .values()
            .find(|noted| noted.registered.lease == lease)
    }

    /// Every name that is owned.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Noted> {
        self.names.values()
    }

    /// How many names are owned.
    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }
}

impl Noted {
    fn describe(&mut self, described: Described) {
        for tool in &described.tools {
            // What is quarantined has not been accepted: the pin stays at what was.
            if tool.quarantined.is_none() {
                let name = tool.own_name().to_owned();
                self.first_seen.insert(name, tool.fingerprint.clone());
            }
        }
        self.described = described;
    }
}
