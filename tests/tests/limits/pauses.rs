//! A loop that a client pauses: what runs ends and is recorded, nothing starts until it goes on, and
//! neither a crash nor a command to somebody else changes that.

use anyhow::{Context as _, Result, ensure};
use loopwright_client::{ConverseEvent, Opening};
use loopwright_proto::v1::{
    CancelLoopRequest, EndReason, Entry, GetLoopRequest, LoopState, PauseLoopRequest, PauseReason,
    PendingState, ResumeLoopRequest, StartLoopResponse, event::Kind,
};
use loopwright_tests::{
    kit,
    probe::Probe,
    scene::{self, Scene, Stage, ask, end_of, has, kinds, log, refusal, to_end, until},
};
use tonic::Code;

/// Calls a tool that answers when it is let go, then ends.
const HOLDS: &str = "
- {tool_calls: [{tool: probe__hold, arguments: {n: 1}}]}
- {text: \"{{last_result}}\"}
";

struct Set {
    scene: Scene,
    probe: Probe,
    started: StartLoopResponse,
}

impl Set {
    /// A loop whose tool call runs.
    async fn in_mid_call() -> Result<Self> {
        let scene = Stage::new(&[("m", HOLDS)])?.start()?;
        let probe = Probe::serve().await?;
        kit::register(&scene.server.url, "probe", &probe.endpoint).await?;
        kit::wait_for_tools(&scene.client, &["probe__hold"]).await?;
        let started = scene.client.start_loop(ask("m")).await?;
        probe.until(|counts| counts.running == 1).await?;
        Ok(Self {
            scene,
            probe,
            started,
        })
    }

    fn pause(&self) -> PauseLoopRequest {
        PauseLoopRequest {
            session_id: self.started.session_id.clone(),
            ..PauseLoopRequest::default()
        }
    }

    fn resume(&self) -> ResumeLoopRequest {
        ResumeLoopRequest {
            session_id: self.started.session_id.clone(),
            ..ResumeLoopRequest::default()
        }
    }

    async fn state(&self) -> Result<LoopState> {
        let request = GetLoopRequest {
            session_id: self.started.session_id.clone(),
            ..GetLoopRequest::default()
        };
        let shown = self.scene.client.get_loop(request).await?;
        Ok(shown.r#loop.context("a loop")?.state())
    }

    async fn to_end(&self) -> Result<Vec<Entry>> {
        to_end(
            &self.scene.client,
            &self.started.session_id,
            &self.started.loop_id,
        )
        .await
    }

    /// `loopwright ARGS SESSION`: its exit code and what it said.
    fn command(&self, args: &[&str]) -> Result<(i32, String)> {
        let mut command = scene::loopwright(self.scene.server.dir(), args)?;
        let session = &self.started.session_id;
        let output = command
            .args([session, "--server", &self.scene.server.url])
            .output()?;
        let code = output.status.code().context("ended by a signal")?;
        let said = [output.stdout, output.stderr].concat();
        Ok((code, String::from_utf8(said)?))
    }
}

fn model_calls(entries: &[Entry]) -> usize {
    let started = |kind: &&Kind| matches!(kind, Kind::ModelCallStarted(_));
    kinds(entries).filter(started).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_runs_ends_and_no_model_is_called_until_it_goes_on() -> Result<()> {
    let set = Set::in_mid_call().await?;
    let (code, said) = set.command(&["pause"])?;
    ensure!(code == 0 && said.contains("paused l1"), "{said}");
    set.probe.let_go(1);
    let completed = |kind: &Kind| matches!(kind, Kind::ToolCallCompleted(_));
    let session = &set.started.session_id;
    let entries = until(&set.scene.client, session, |e| has(e, completed)).await?;
    assert_eq!(set.state().await?, LoopState::Paused);
    let paused = kinds(&entries).find_map(|kind| match kind {
        Kind::LoopPaused(e) => Some((e.reason(), e.by.clone())),
        _ => None,
    });
    let by = "local".to_owned();
    assert_eq!(paused, Some((PauseReason::Requested, by)));
    let again = refusal(set.scene.client.pause_loop(set.pause()).await)?;
    assert_eq!(
        (again.code, again.reason.as_str()),
        (Code::FailedPrecondition, "LOOP_PAUSED")
    );
    // An answer that needs the driver shows that it has nothing else to do.
    let entries = log(&set.scene.client, session).await?;
    assert_eq!(model_calls(&entries), 1);
    let (code, said) = set.command(&["resume"])?;
    ensure!(code == 0 && said.contains("resumed l1"), "{said}");
    let entries = set.to_end().await?;
    assert_eq!(end_of(&entries)?.reason(), EndReason::Completed);
    assert_eq!(end_of(&entries)?.result_text, "hold 1");
    assert_eq!(model_calls(&entries), 2);
    let (code, said) = set.command(&["resume"])?;
    ensure!(code != 0 && said.contains("no loop is running"), "{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_it_is_paused_it_is_paused_and_repeats_nothing() -> Result<()> {
    let mut set = Set::in_mid_call().await?;
    set.scene.client.pause_loop(set.pause()).await?;
    set.scene.server.kill()?;
    set.probe.until(|counts| counts.running == 0).await?;
    set.scene.server.restart()?;
    kit::register(&set.scene.server.url, "probe", &set.probe.endpoint).await?;
    kit::wait_for_tools(&set.scene.client, &["probe__hold"]).await?;
    assert_eq!(set.state().await?, LoopState::Paused);
    // A command makes sure that a driver has attached and looked.
    let session = set.started.session_id.clone();
    let again = refusal(set.scene.client.pause_loop(set.pause()).await)?;
    assert_eq!(again.reason, "LOOP_PAUSED");
    assert_eq!(set.probe.counts().came, 1, "the call is not repeated");
    set.scene.client.resume_loop(set.resume()).await?;
    set.probe.until(|counts| counts.running == 1).await?;
    set.probe.let_go(1);
    let entries = set.to_end().await?;
    assert_eq!(end_of(&entries)?.result_text, "hold 2");
    let pauses = |kind: &&Kind| matches!(kind, Kind::LoopPaused(_) | Kind::LoopResumed(_));
    assert_eq!(kinds(&entries).filter(pauses).count(), 2);
    let calls = set.probe.calls();
    ensure!(
        calls.len() == 2 && calls[1].attempt == 2 && calls[1].session_id == session,
        "{calls:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_loop_is_cancelled_like_any_other() -> Result<()> {
    let set = Set::in_mid_call().await?;
    set.scene.client.pause_loop(set.pause()).await?;
    let request = CancelLoopRequest {
        session_id: set.started.session_id.clone(),
        ..CancelLoopRequest::default()
    };
    set.scene.client.cancel_loop(request).await?;
    let entries = set.to_end().await?;
    assert_eq!(end_of(&entries)?.reason(), EndReason::Cancelled);
    set.probe.until(|counts| counts.running == 0).await?;
    assert_eq!(set.state().await?, LoopState::Ended);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn on_its_channel_a_client_pauses_and_goes_on() -> Result<()> {
    let set = Set::in_mid_call().await?;
    let request = GetLoopRequest {
        session_id: set.started.session_id.clone(),
        ..GetLoopRequest::default()
    };
    let shown = set.scene.client.get_loop(request).await?.r#loop;
    let pending = shown.context("a loop")?.pending_calls;
    assert_eq!(pending[0].state(), PendingState::Dispatched);
    let mut talk = set.scene.client.converse(Opening::Attach {
        session_id: set.started.session_id.clone(),
        after_seq: 0,
        after_mark: None,
    });
    let paused = talk.pause()?;
    let mut resumed = None;
    while let Some(event) = talk.next().await {
        let ConverseEvent::Reply(reply) = event? else {
            continue;
        };
        let accepted = reply.result?;
        if reply.request_id == paused {
            assert_eq!(accepted.loop_id, "l1");
            assert_eq!(set.state().await?, LoopState::Paused);
            resumed = Some(talk.resume()?);
        } else if resumed.as_ref() == Some(&reply.request_id) {
            break;
        }
    }
    assert_eq!(set.state().await?, LoopState::Running);
    set.probe.let_go(1);
    assert_eq!(end_of(&set.to_end().await?)?.reason(), EndReason::Completed);
    Ok(())
}
