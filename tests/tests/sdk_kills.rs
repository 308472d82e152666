//! The server and a sidecar built with the SDK, each killed in the middle of a call that must not run
//! twice: it has its effect once, and its end is the true one or unknown.

use std::{
    fs,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use loopwright_proto::v1::{EndReason, Entry, ToolCallUnknown, event::Kind, part};
use loopwright_tests::{
    kit::{self, Server},
    scene::{Scene, Stage, ask, end_of, eventually, has, kinds, to_end, until},
};

/// Has a plate pressed, then says what came of it.
const PRESS: &str = "
- {tool_calls: [{tool: plant__press, arguments: {}}]}
- {text: \"{{last_result}}\"}
";

/// What the sidecar's processes share.
struct Floor(tempfile::TempDir);

/// A process of the sidecar. Dropped, it is killed.
struct Plant(Child);

/// A loop whose one call runs.
struct Pressing {
    session: String,
    of: String,
}

impl Floor {
    fn new() -> Result<Self> {
        Ok(Self(tempfile::tempdir()?))
    }

    /// Starts the sidecar, with a file to remember its calls in or without.
    fn plant(&self, server: &Server, keys: bool) -> Result<Plant> {
        let path = |name| self.0.path().join(name);
        let mut command = Command::new(env!("CARGO_BIN_EXE_plant"));
        kit::without_loopwright(&mut command);
        command.env("LOOPWRIGHT_SERVER", &server.url);
        let socket = server.dir().join("plant.sock");
        command.args([socket, path("effects"), path("gate")]);
        if keys {
            command.arg(path("keys.jsonl"));
        }
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(fs::File::create(path("stderr.log"))?);
        Ok(Plant(command.spawn()?))
    }

    fn effects(&self) -> usize {
        let lines = fs::read_to_string(self.0.path().join("effects")).unwrap_or_default();
        lines.lines().count()
    }

    /// Lets the calls end that run, now and later.
    fn let_go(&self) -> Result<()> {
        Ok(fs::write(self.0.path().join("gate"), "")?)
    }

    /// Starts a loop, and returns once its call has had its effect.
    async fn pressing(&self, scene: &Scene) -> Result<Pressing> {
        kit::wait_for_tools(&scene.client, &["plant__press"]).await?;
        let started = scene.client.start_loop(ask("m")).await?;
        eventually("the plate is pressed", || async { Ok(self.effects() > 0) }).await?;
        Ok(Pressing {
            session: started.session_id,
            of: started.loop_id,
        })
    }
}

impl Drop for Plant {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Pressing {
    async fn to_end(&self, scene: &Scene) -> Result<Vec<Entry>> {
        to_end(&scene.client, &self.session, &self.of).await
    }
}

fn is_in_doubt(kind: &Kind) -> bool {
    matches!(kind, Kind::ToolCallInDoubt(_))
}

/// The instances that its dispatches name.
fn dispatches(entries: &[Entry]) -> Vec<&str> {
    let named = kinds(entries).filter_map(|kind| match kind {
        Kind::ToolCallStarted(started) => Some(started.sidecar_instance()),
        _ => None,
    });
    named.collect()
}

fn answer(entries: &[Entry]) -> Option<&str> {
    let result = kinds(entries).find_map(|kind| match kind {
        Kind::ToolCallCompleted(completed) => completed.result.as_ref(),
        _ => None,
    });
    result?.parts.iter().find_map(|part| match &part.kind {
        Some(part::Kind::Text(text)) => Some(text.as_str()),
        _ => None,
    })
}

fn unknown(entries: &[Entry]) -> Option<&ToolCallUnknown> {
    kinds(entries).find_map(|kind| match kind {
        Kind::ToolCallUnknown(unknown) => Some(unknown),
        _ => None,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_hears_from_the_sidecar_how_its_call_ended() -> Result<()> {
    for ends_meanwhile in [true, false] {
        let mut scene = Stage::new(&[("m", PRESS)])?.start()?;
        let floor = Floor::new()?;
        let _plant = floor.plant(&scene.server, true)?;
        let pressing = floor.pressing(&scene).await?;
        scene.server.kill()?;
        if ends_meanwhile {
            floor.let_go()?;
        }
        scene.server.restart()?;
        if !ends_meanwhile {
            let in_doubt = |entry: &Entry| has(entry, is_in_doubt);
            until(&scene.client, &pressing.session, in_doubt).await?;
            floor.let_go()?;
        }
        let entries = pressing.to_end(&scene).await?;
        assert_eq!(
            answer(&entries),
            Some("the plate is pressed"),
            "{entries:#?}"
        );
        assert_eq!(unknown(&entries), None);
        let dispatches = dispatches(&entries);
        ensure!(
            dispatches.len() == 1 && !dispatches[0].is_empty(),
            "{dispatches:?}"
        );
        assert_eq!(end_of(&entries)?.reason(), EndReason::Completed);
        assert_eq!(floor.effects(), 1);
    }
    Ok(())
}

/// Kills the sidecar in the middle of a call and starts it again: how the loop went on.
async fn sidecar_killed(keys: bool, on_unknown: &str) -> Result<Vec<Entry>> {
    let stage = Stage::new(&[("m", PRESS)])?;
    let scene = stage.set("tools.on_unknown", on_unknown).start()?;
    let floor = Floor::new()?;
    let plant = floor.plant(&scene.server, keys)?;
    let pressing = floor.pressing(&scene).await?;
    drop(plant);
    let _again = floor.plant(&scene.server, keys)?;
    let entries = pressing.to_end(&scene).await?;
    assert_eq!(floor.effects(), 1, "{entries:#?}");
    assert_eq!(dispatches(&entries).len(), 1);
    Ok(entries)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_sidecar_with_a_file_says_that_it_was_interrupted() -> Result<()> {
    let entries = sidecar_killed(true, "tell_model").await?;
    let unknown = unknown(&entries).context("an unknown outcome")?;
    let said = "The sidecar stopped in the middle of this call";
    ensure!(unknown.reason.contains(said), "{unknown:?}");
    let end = end_of(&entries)?;
    assert_eq!(end.reason(), EndReason::Completed);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_sidecar_without_a_file_does_not_know_and_does_not_claim_to() -> Result<()> {
    let entries = sidecar_killed(false, "end").await?;
    let unknown = unknown(&entries).context("an unknown outcome")?;
    let said = "an earlier process of this sidecar";
    ensure!(unknown.reason.contains(said), "{unknown:?}");
    assert_eq!(end_of(&entries)?.reason(), EndReason::UnknownOutcome);
    Ok(())
}
