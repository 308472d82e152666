//! A sidecar that a test serves itself: it counts what runs, and lets go when it is told to.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use futures_util::{StreamExt as _, stream};
use loopwright_proto::v1::{
    CallToolRequest, CallToolResponse, EffectClass, NotExecuted, ToolSpec, call_tool_response::Kind,
};
use tokio::sync::{Semaphore, watch};
use tonic::{Request, Status};

use crate::{
    scene::PATIENCE,
    sidecar::{self, Answers, Plain, said},
};

/// The sidecar. Its tools are `note` (answers at once), `hold` (answers once there is a permit),
/// `flaky` (is not executed the first time) and `closed` (never is, and says that it is of no use);
/// and two that must not run twice: `lost` (a session's first call of it ends without a word on
/// whether it ran) and `wipe` (destroys, and answers once there is a permit).
#[derive(Clone, Debug)]
pub struct Probe {
    /// `http://127.0.0.1:PORT`.
    pub endpoint: String,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    counts: watch::Sender<Counts>,
    permits: Semaphore,
    calls: Mutex<Vec<CallToolRequest>>,
}

/// How many calls there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// That came.
    pub came: usize,
    /// That run now.
    pub running: usize,
    /// That ran at once.
    pub most: usize,
}

/// One call that runs, until it is dropped.
struct Run(Arc<Shared>);

impl Probe {
    /// Serves it on a free port, until the runtime ends.
    ///
    /// # Errors
    /// Where it cannot listen.
    pub async fn serve() -> Result<Self> {
        let shared = Arc::new(Shared {
            counts: watch::Sender::default(),
            permits: Semaphore::new(0),
            calls: Mutex::default(),
        });
        let endpoint = sidecar::serve(Arc::clone(&shared)).await?;
        Ok(Self { endpoint, shared })
    }

    /// Lets so many calls of `hold` answer.
    pub fn let_go(&self, calls: usize) {
        self.shared.permits.add_permits(calls);
    }

    /// Waits until the counts are as wanted.
    ///
    /// # Errors
    /// Where they are not within [`PATIENCE`].
    pub async fn until(&self, wanted: impl Fn(&Counts) -> bool) -> Result<Counts> {
        let mut counts = self.shared.counts.subscribe();
        let reached = tokio::time::timeout(PATIENCE, counts.wait_for(|now| wanted(now))).await;
        let reached = reached.map(|counts| counts.map(|counts| *counts));
        Ok(reached.with_context(|| format!("the sidecar has {:?}", self.counts()))??)
    }

    /// The counts now.
    #[must_use]
    pub fn counts(&self) -> Counts {
        *self.shared.counts.borrow()
    }

    /// The calls that came, in order.
    #[must_use]
    pub fn calls(&self) -> Vec<CallToolRequest> {
        self.shared.calls()
    }
}

impl Shared {
    fn calls(&self) -> Vec<CallToolRequest> {
        let calls = self.calls.lock();
        calls.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Calls of this tool that this session has made.
    fn calls_of(&self, request: &CallToolRequest) -> usize {
        let is_same = |call: &&CallToolRequest| {
            (&call.session_id, &call.tool) == (&request.session_id, &request.tool)
        };
        self.calls().iter().filter(is_same).count()
    }
}

impl Run {
    fn begin(shared: &Arc<Shared>, request: &CallToolRequest) -> Self {
        let calls = shared.calls.lock();
        calls
            .unwrap_or_else(PoisonError::into_inner)
            .push(request.clone());
        shared.counts.send_modify(|counts| {
            counts.came += 1;
            counts.running += 1;
            counts.most = counts.most.max(counts.running);
        });
        Self(Arc::clone(shared))
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.0.counts.send_modify(|counts| counts.running -= 1);
    }
}

#[tonic::async_trait]
impl Plain for Arc<Shared> {
    fn tools(&self) -> Vec<ToolSpec> {
        ["note", "hold", "flaky", "closed", "lost", "wipe"]
            .map(spec)
            .to_vec()
    }

    async fn call(&self, request: Request<CallToolRequest>) -> Result<Answers, Status> {
        let request = request.into_inner();
        let shared = Arc::clone(self);
        let run = Run::begin(&shared, &request);
        if request.tool == "lost" && self.calls_of(&request) == 1 {
            return Err(Status::internal("something broke"));
        }
        let answer = async move {
            if ["hold", "wipe"].contains(&request.tool.as_str()) {
                let permit = shared.permits.acquire().await;
                permit
                    .map_err(|closed| Status::internal(closed.to_string()))?
                    .forget();
            }
            drop(run);
            let kind = Some(match (request.tool.as_str(), request.attempt) {
                ("flaky", 1) => not_executed(Some(Duration::from_millis(1))),
                ("closed", _) => not_executed(None),
                _ => Kind::Result(said(format!("{} {}", request.tool, request.attempt))),
            });
            Ok(CallToolResponse { kind })
        };
        Ok(stream::once(answer).boxed())
    }
}

fn spec(name: &str) -> ToolSpec {
    let effect = match name {
        "lost" | "wipe" => EffectClass::AtMostOnce,
        _ => EffectClass::ReadOnly,
    };
    ToolSpec {
        name: name.to_owned(),
        description: format!("Does {name}."),
        input_schema_json: r#"{"type":"object"}"#.to_owned(),
        effect_class: effect.into(),
        destructive: name == "wipe",
        ..ToolSpec::default()
    }
}

fn not_executed(retry_after: Option<Duration>) -> Kind {
    Kind::NotExecuted(NotExecuted {
        reason: "not now".to_owned(),
        retry_after: retry_after.map(Into::into),
    })
}
