//! What these tests stand on: a server whose model asks for a tool, and a session that it has recorded.

use std::process::Output;

use anyhow::{Context as _, Result, ensure};
use loopwright_client::Client;
use loopwright_proto::v1::{
    EndReason, Entry, GetSessionRequest, ListSessionsRequest, SessionState, SessionSummary,
    StartLoopRequest,
};
use loopwright_tests::{
    kit::{self, Sidecar},
    scene::{self, Scene, Stage, ask, end_of, loopwright},
};

/// Two calculations, then the answer; the next loop answers at once.
pub(crate) const SCRIPT: &str = "
at_end: repeat
turns:
- {text: let me see, tool_calls: [{tool: calc__evaluate, arguments: {expression: '17 + 23'}}]}
- {text: and once more, tool_calls: [{tool: calc__evaluate, arguments: {expression: '40 * 2'}}]}
- {text: it is 80}
";

/// A server with the sidecar `calc`, and the session `s1` that used it.
pub(crate) struct Recorded {
    pub(crate) scene: Scene,
    pub(crate) entries: Vec<Entry>,
    _calc: Sidecar,
}

impl Recorded {
    pub(crate) async fn new() -> Result<Self> {
        let scene = Stage::new(&[("m", SCRIPT)])?.start()?;
        let calc = Sidecar::start(&scene.server, &["calc"])?;
        kit::wait_for_tools(&scene.client, &["calc__evaluate"]).await?;
        let request = StartLoopRequest {
            session_id: "s1".to_owned(),
            labels: [("team".to_owned(), "blue".to_owned())].into(),
            ..ask("m")
        };
        let entries = scene.run(request).await?;
        ensure!(end_of(&entries)?.reason() == EndReason::Completed);
        Ok(Self {
            scene,
            entries,
            _calc: calc,
        })
    }

    /// As a power cut: whatever was answered must be there afterwards.
    pub(crate) async fn crash(&mut self) -> Result<()> {
        self.scene.server.kill()?;
        self.scene.server.restart()?;
        self.scene.client = scene::client(&self.scene.server.url, None)?;
        Ok(())
    }

    /// `loopwright ARGS --server URL`.
    pub(crate) fn said(&self, args: &[&str]) -> Result<Output> {
        let mut all = args.to_vec();
        all.extend(["--server", &self.scene.server.url]);
        Ok(loopwright(self.scene.server.dir(), &all)?.output()?)
    }

    /// As [`Self::said`], where it goes well: what it writes to standard output.
    pub(crate) fn answer(&self, args: &[&str]) -> Result<String> {
        let output = self.said(args)?;
        let err = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{args:?}: {err}");
        Ok(String::from_utf8(output.stdout)?)
    }
}

/// Starts a loop over a session: how it ended.
pub(crate) async fn goes_on(client: &Client, session: &str) -> Result<EndReason> {
    let started = client
        .start_loop(StartLoopRequest {
            session_id: session.to_owned(),
            ..ask("m")
        })
        .await?;
    let entries = scene::to_end(client, session, &started.loop_id).await?;
    Ok(end_of(&entries)?.reason())
}

/// The sessions that are listed, by id.
pub(crate) async fn listed(client: &Client) -> Result<Vec<String>> {
    let page = client.list_sessions(ListSessionsRequest::default()).await?;
    let mut ids: Vec<_> = page.sessions.into_iter().map(|s| s.session_id).collect();
    ids.sort();
    Ok(ids)
}

/// Where a session stands.
pub(crate) async fn summary(client: &Client, session: &str) -> Result<SessionSummary> {
    let request = GetSessionRequest {
        session_id: session.to_owned(),
    };
    let answer = client.get_session(request).await?;
    answer.session.context("a summary")
}

/// Whether a session stands there at rest.
pub(crate) async fn is_idle(client: &Client, session: &str) -> Result<bool> {
    Ok(summary(client, session).await?.state() == SessionState::Idle)
}
