//! Five tools, of each effect class, that write down what they did.
//!
//! Boundary: tools and the moments of their effects; how they are served is the rigs' own. Invariant:
//! one line for each real effect, in the file before the answer leaves.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Result;
use loopwright_proto::v1::{CallToolRequest, EffectClass, ToolSpec, call_tool_response::Kind};
use loopwright_tests::{
    rig::{
        Chance,
        effects::{Effect, Effects},
        sidecar::{self, Acting, refused},
    },
    sidecar::said,
};
use tokio::sync::Notify;

/// The name that it registers by.
pub(super) const NAME: &str = "rig";
/// Longest pause of a call before its effect, and again after it, milliseconds.
const LONGEST_PAUSE_MS: u64 = 25;
/// The tools, by name; and whether the sidecar can say what became of a call.
pub(super) const TOOLS: [(&str, EffectClass, bool); 5] = [
    ("look", EffectClass::ReadOnly, false),
    ("set", EffectClass::Idempotent, false),
    ("charge", EffectClass::Deduplicated, false),
    ("send", EffectClass::AtMostOnce, false),
    ("mail", EffectClass::AtMostOnce, true),
];

/// The sidecar.
#[derive(Clone)]
pub(super) struct Tools(Arc<Shared>);

struct Shared {
    effects: Effects,
    chance: Mutex<Chance>,
    /// Told at every effect.
    had_effect: Arc<Notify>,
}

impl Tools {
    /// Tools that write to `path` and tell `had_effect`.
    pub(super) fn new(path: &Path, chance: Chance, had_effect: Arc<Notify>) -> Result<Self> {
        Ok(Self(Arc::new(Shared {
            effects: Effects::new(path)?,
            chance: Mutex::new(chance),
            had_effect,
        })))
    }

    /// Serves them; answers where.
    pub(super) async fn serve(&self) -> Result<String> {
        Ok(format!("http://{}", sidecar::serve(self.clone()).await?))
    }

    /// Every effect so far, as the file has it.
    pub(super) fn effects(&self) -> Result<Vec<Effect>> {
        self.0.effects.all()
    }

    async fn pause(&self) {
        let chance = self.0.chance.lock();
        let pause = chance
            .unwrap_or_else(PoisonError::into_inner)
            .below(LONGEST_PAUSE_MS);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}

impl Acting for Tools {
    fn tools(&self) -> Vec<ToolSpec> {
        TOOLS
            .map(|(name, class, lookup)| sidecar::tool(name, class, lookup))
            .to_vec()
    }

    fn effects(&self) -> &Effects {
        &self.0.effects
    }

    async fn run(&self, request: &CallToolRequest) -> Option<Kind> {
        let running = match self.0.effects.begin(request) {
            Ok(running) => running,
            Err(reason) => return Some(refused(reason)),
        };
        self.pause().await;
        let tool = TOOLS.iter().find(|(name, _, _)| *name == request.tool);
        let class = tool.map_or(EffectClass::AtMostOnce, |(_, class, _)| *class);
        let done = self.0.effects.act(request, class);
        self.0.had_effect.notify_waiters();
        self.pause().await;
        drop(running);
        Some(match done {
            Ok(text) => Kind::Result(said(text)),
            Err(reason) => refused(reason),
        })
    }
}
