//! A session whose loop waits for a person, and how it is asked about and answered.

use anyhow::{Context as _, Result};
use loopwright_client::{Client, Error};
use loopwright_proto::v1::{
    Entry, GetLoopRequest, LoopState, LoopSummary, Part, PendingCall, PendingState,
    ResolveApprovalRequest, ResolveApprovalResponse, ResolveUnknownRequest, StartLoopRequest,
    ToolResult, UnknownPolicy, UnknownResolution, event::Kind, part,
};
use loopwright_tests::{
    kit,
    probe::Probe,
    scene::{Scene, Stage, has, until},
};

/// Asks for a call that is lost, then for the same again, then says what came of it.
pub(super) const TWICE: &str = "
- {tool_calls: [{tool: probe__lost, arguments: {n: 1}}]}
- {tool_calls: [{tool: probe__lost, arguments: {n: 1}}]}
- {text: \"{{last_result}}\"}
";
/// Destroys something, then says what came of it.
pub(super) const WIPE: &str = "
- {tool_calls: [{tool: probe__wipe, arguments: {path: all}}]}
- {text: \"{{last_result}}\"}
";

/// A server with a sidecar.
pub(super) struct Set {
    pub(super) scene: Scene,
    pub(super) probe: Probe,
}

/// A loop that waits.
#[derive(Clone, Debug)]
pub(super) struct Wait {
    pub(super) session: String,
    pub(super) call: String,
}

impl Set {
    pub(super) async fn with(models: &[(&str, &str)], keys: &[(&str, &str)]) -> Result<Self> {
        let mut stage = Stage::new(models)?;
        for (key, value) in keys {
            stage = stage.set(key, *value);
        }
        let scene = stage.start()?;
        let probe = Probe::serve().await?;
        kit::register(&scene.server.url, "probe", &probe.endpoint).await?;
        kit::wait_for_tools(&scene.client, &["probe__lost", "probe__wipe"]).await?;
        Ok(Self { scene, probe })
    }

    pub(super) fn client(&self) -> &Client {
        &self.scene.client
    }

    /// Starts a loop that comes to wait for approval.
    pub(super) async fn held(&self, request: StartLoopRequest) -> Result<Wait> {
        let session = self.client().start_loop(request).await?.session_id;
        self.wait(session, |kind| match kind {
            Kind::ApprovalRequested(e) => Some(e.call.clone()),
            _ => None,
        })
        .await
    }

    /// The call that the session's loop asks about.
    pub(super) async fn asked(&self, session: &str) -> Result<Wait> {
        self.wait(session.to_owned(), |kind| match kind {
            Kind::ToolCallUnknown(e) if e.policy() == UnknownPolicy::Ask => Some(e.call.clone()),
            _ => None,
        })
        .await
    }

    async fn wait(&self, session: String, of: impl Fn(&Kind) -> Option<String>) -> Result<Wait> {
        let waits = |entry: &Entry| has(entry, |kind| of(kind).is_some());
        let entries = until(self.client(), &session, waits).await?;
        let call = loopwright_tests::scene::kinds(&entries).find_map(of);
        let call = call.context("the call that waits")?;
        Ok(Wait { session, call })
    }

    /// Where the loop of the session stands.
    pub(super) async fn standing(&self, session: &str) -> Result<LoopSummary> {
        let request = GetLoopRequest {
            session_id: session.to_owned(),
            ..GetLoopRequest::default()
        };
        let response = self.client().get_loop(request).await?;
        response.r#loop.context("a loop")
    }

    /// The one call that is pending of a loop that waits.
    pub(super) async fn pending(&self, session: &str, state: PendingState) -> Result<PendingCall> {
        let standing = self.standing(session).await?;
        anyhow::ensure!(standing.state() == LoopState::Waiting, "{standing:?}");
        let [pending] = &standing.pending_calls[..] else {
            anyhow::bail!("{standing:?}");
        };
        anyhow::ensure!(pending.state() == state, "{pending:?}");
        Ok(pending.clone())
    }
}

impl Wait {
    /// Allows or denies it.
    pub(super) fn verdict(&self, allow: bool, reason: &str) -> ResolveApprovalRequest {
        ResolveApprovalRequest {
            session_id: self.session.clone(),
            call: self.call.clone(),
            allow,
            reason: reason.to_owned(),
            ..ResolveApprovalRequest::default()
        }
    }

    /// Says what it did.
    pub(super) fn did(&self, resolution: UnknownResolution) -> ResolveUnknownRequest {
        ResolveUnknownRequest {
            session_id: self.session.clone(),
            call: self.call.clone(),
            resolution: resolution.into(),
            ..ResolveUnknownRequest::default()
        }
    }
}

pub(super) type Answer = Result<ResolveApprovalResponse, Error>;

/// A result of one line.
pub(super) fn said(text: &str) -> ToolResult {
    let part = Part {
        kind: Some(part::Kind::Text(text.to_owned())),
        ..Part::default()
    };
    ToolResult {
        parts: vec![part],
        ..ToolResult::default()
    }
}
