//! The tools on offer, as sets that sessions share.
//!
//! Boundary: reads the live sidecars, keeps nothing that cannot be made again. Invariant: the same
//! sidecars give the same set, byte for byte, whatever the order in which they came; while the set
//! does not change, the same allocation is handed out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use loopwright_core::agent::{READ_OUTPUT, ToolSet, ToolSpec};

use super::Sidecars;
use super::describe::split;
use crate::effects::tool::read_output;

/// Sets kept; past that all are dropped and made again as they are asked for.
const MAX_SETS: usize = 1024;

type Key = (String, Option<Vec<String>>);

/// Sets by namespace and selection, each with the generation that it was made in.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    sets: Mutex<HashMap<Key, (u64, Arc<ToolSet>)>>,
}

impl Catalog {
    pub(super) fn tools(
        &self,
        sidecars: &Sidecars,
        namespace: &str,
        selection: Option<&[String]>,
    ) -> Arc<ToolSet> {
        // Read before the sidecars are: a change in between makes this set stale, not lost.
        let generation = *sidecars.generation.borrow();
        let key = (namespace.to_owned(), selection.map(<[String]>::to_vec));
        let before = {
            let sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
            sets.get(&key).cloned()
        };
        if let Some((made, set)) = &before
            && *made == generation
        {
            return Arc::clone(set);
        }
        let mut tools = offered(sidecars, namespace, selection);
        tools.extend(built_in(&tools, selection));
        let fresh = ToolSet::new(tools);
        let set = match before {
            Some((_, set)) if set == fresh => set,
            _ => fresh,
        };
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        if sets.len() >= MAX_SETS {
            sets.clear();
        }
        sets.insert(key, (generation, Arc::clone(&set)));
        set
    }
}

fn offered(sidecars: &Sidecars, namespace: &str, selection: Option<&[String]>) -> Vec<ToolSpec> {
    let tenants = sidecars.read();
    let Some(tenant) = tenants.get(namespace) else {
        return Vec::new();
    };
    let mut tools = Vec::new();
    for member in tenant.members.values() {
        let standing = member.live.standing();
        if !standing.phase.is_offered() {
            continue;
        }
        let usable = standing
            .tools
            .iter()
            .filter(|served| served.tool.quarantined.is_none());
        let chosen = usable.filter(|served| is_selected(&served.tool.spec.name, selection));
        tools.extend(chosen.map(|served| served.tool.spec.clone()));
    }
    tools
}

/// What the server serves itself: where there are tools whose results may be read back, unless a
/// selection leaves it out. It depends on nothing that changes within a loop, so that the prompt's
/// prefix stays as it is.
fn built_in(served: &[ToolSpec], selection: Option<&[String]>) -> Option<ToolSpec> {
    let wanted = match selection {
        None => !served.is_empty(),
        Some(_) => is_selected(READ_OUTPUT, selection),
    };
    wanted.then(read_output::spec)
}

fn is_selected(wire_name: &str, selection: Option<&[String]>) -> bool {
    let Some(selection) = selection else {
        return true;
    };
    let sidecar = split(wire_name).map_or(wire_name, |(sidecar, _)| sidecar);
    selection
        .iter()
        .any(|chosen| chosen == wire_name || chosen == sidecar)
}
