//! The sidecar of one lane: one tool, which stops where it is told to.
//!
//! Boundary: the moments of a call; how it is served is the rigs' own. Invariant: a call that has come to
//! its point stops there until its fate is known.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::{Context as _, Result};
use loopwright_proto::v1::{CallToolRequest, ToolSpec, call_tool_response::Kind};
use loopwright_tests::{
    rig::{
        effects::Effects,
        sidecar::{self, Acting, refused},
        valve::Valve,
    },
    sidecar::said,
};
use tokio::sync::watch;

use super::lanes::{Fate, Lane, Point};

/// Where a session's first call is to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    /// It has not come.
    Armed(Point),
    /// It has come, and waits.
    Reached,
    Released(Fate),
}

/// The sidecar; clones are the same.
#[derive(Clone)]
pub(super) struct Sidecar(Arc<Shared>);

struct Shared {
    lane: Lane,
    effects: Effects,
    gates: watch::Sender<BTreeMap<String, Gate>>,
}

impl Sidecar {
    /// Serves it behind a proxy of its own.
    pub(super) async fn serve(lane: Lane, effects: &Effects) -> Result<(Self, Valve)> {
        let sidecar = Self(Arc::new(Shared {
            lane,
            effects: effects.clone(),
            gates: watch::Sender::default(),
        }));
        let valve = Valve::start(sidecar::serve(sidecar.clone()).await?).await?;
        Ok((sidecar, valve))
    }

    /// The first call of this session is to stop there.
    pub(super) fn arm(&self, session: &str, point: Point) {
        self.set(session, Gate::Armed(point));
    }

    /// Waits until it has.
    pub(super) async fn until_reached(&self, session: &str) -> Result<()> {
        let mut gates = self.0.gates.subscribe();
        let reached = |gates: &BTreeMap<String, Gate>| gates.get(session) == Some(&Gate::Reached);
        gates.wait_for(reached).await.context("a gate")?;
        Ok(())
    }

    /// Says what becomes of it.
    pub(super) fn release(&self, session: &str, fate: Fate) {
        self.set(session, Gate::Released(fate));
    }

    fn set(&self, session: &str, gate: Gate) {
        self.0.gates.send_modify(|gates| {
            gates.insert(session.to_owned(), gate);
        });
    }

    /// Stops a call that is to stop here; false where it is lost.
    async fn pass(&self, request: &CallToolRequest, point: Point) -> bool {
        let session = &request.session_id;
        let stops = self.0.gates.send_if_modified(|gates| {
            let gate = gates.get_mut(session);
            let armed = gate.filter(|gate| **gate == Gate::Armed(point) && request.attempt == 1);
            armed.map(|gate| *gate = Gate::Reached).is_some()
        });
        if !stops {
            return true;
        }
        let mut gates = self.0.gates.subscribe();
        let released = |gates: &BTreeMap<String, Gate>| gates.get(session) != Some(&Gate::Reached);
        let gates = gates.wait_for(released).await;
        gates.is_ok_and(|gates| gates.get(session) != Some(&Gate::Released(Fate::Lost)))
    }
}

impl Acting for Sidecar {
    fn tools(&self) -> Vec<ToolSpec> {
        let Lane { class, lookup, .. } = self.0.lane;
        vec![sidecar::tool("act", class, lookup)]
    }

    fn effects(&self) -> &Effects {
        &self.0.effects
    }

    async fn run(&self, request: &CallToolRequest) -> Option<Kind> {
        let running = match self.0.effects.begin(request) {
            Ok(running) => running,
            Err(reason) => return Some(refused(reason)),
        };
        if !self.pass(request, Point::AfterSend).await {
            self.0.effects.forget(&request.key);
            return None;
        }
        let done = self.0.effects.act(request, self.0.lane.class);
        let is_kept = self.pass(request, Point::AfterEffect).await;
        if !is_kept {
            self.0.effects.forget(&request.key);
        }
        drop(running);
        match done {
            Ok(text) => is_kept.then(|| Kind::Result(said(text))),
            Err(reason) => Some(refused(reason)),
        }
    }
}
