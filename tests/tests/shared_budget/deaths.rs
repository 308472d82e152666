//! SIGKILL of the real process at each point between a reservation and its settlement: nothing leaks,
//! and a call that was cut counts whole.
//!
//! The points between two records are hit by a small library in C that is compiled here and preloaded:
//! it kills the process when a record has become durable, before anybody is told, and what was written
//! behind it in the same batch is cut off, as by a death in the midst of the write (`death.c`). A call
//! that is under way is hit from outside. That every other write can be the last one is tried in
//! process (`service::budgets::tests::crashes`).

use std::{path::PathBuf, process::Command};

use anyhow::{Context as _, Result, ensure};
use loopwright_client::Client;
use loopwright_proto::v1::{
    Agent, BudgetAmount, BudgetLimits, BudgetTerms, CreateBudgetRequest, EndReason,
    StartLoopRequest, event::Kind,
};
use loopwright_tests::{
    install,
    kit::{Options, Server},
    scene::{self, Stage, ask, end_of, kinds},
};

use super::ledger::Ledger;

const SHIM: &str = include_str!("death.c");
/// One reply, which takes its time, so that a kill finds the call under way.
const SCRIPT: &str = "turns:
- { text: a reply that takes a while, usage: { input: 300, output: 20 }, chunk: { chars: 1, delay_ms: 15 } }
";

/// Where the process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Point {
    /// The ledger has the reservation, the session does not know it.
    Reserved,
    /// The session has the licence of the call, which is not made.
    Licensed,
    /// The call is under way.
    Calling,
    /// The session has the reply, the ledger not its settlement.
    Replied,
    /// The ledger has the settlement, the session does not know it.
    Settled,
}

impl Point {
    /// Stream and fact of the record that is the last one; none for what is hit from outside.
    fn record(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Reserved => Some(("ledger/", "\"BudgetReserved\"")),
            Self::Licensed => Some(("session/", "\"ModelCallStarted\"")),
            Self::Calling => None,
            Self::Replied => Some(("session/", "\"ModelCallCompleted\"")),
            Self::Settled => Some(("ledger/", "\"BudgetSettled\"")),
        }
    }

    /// Whether it cuts a call that may have run.
    fn cuts(self) -> bool {
        matches!(self, Self::Licensed | Self::Calling)
    }
}

/// The library, compiled.
fn shim() -> Option<PathBuf> {
    let version = format!("{:08x}", crc32c::crc32c(SHIM.as_bytes()));
    let dir = install::tool("death", &version, |dir| {
        let source = dir.join("death.c");
        std::fs::write(&source, SHIM)?;
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]);
        cc.arg(dir.join("death.so")).arg(&source).arg("-ldl");
        install::output(&mut cc).map(drop)
    })?;
    Some(dir.join("death.so"))
}

fn request() -> StartLoopRequest {
    let mut request = ask("m");
    request.agent = request.agent.map(|agent| Agent {
        budgets: vec!["team".to_owned()],
        ..agent
    });
    StartLoopRequest {
        request_id: "go".to_owned(),
        session_id: "s".to_owned(),
        ..request
    }
}

async fn create(client: &Client) -> Result<()> {
    let limits = BudgetLimits {
        max_total_tokens: Some(100_000),
        ..BudgetLimits::default()
    };
    let terms = Some(BudgetTerms {
        limits: Some(limits),
        ..BudgetTerms::default()
    });
    let name = "team".to_owned();
    client
        .create_budget(CreateBudgetRequest { name, terms })
        .await?;
    Ok(())
}

/// Runs the loop until the process dies at its point.
async fn die(mut server: Server, point: Point) -> Result<()> {
    let client = scene::client(&server.url, None)?;
    create(&client).await?;
    let started = client.start_loop(request()).await;
    if point == Point::Calling {
        started?;
        let begun = |kind: &Kind| matches!(kind, Kind::ModelCallStarted(_));
        scene::until(&client, "s", |entry| scene::has(entry, begun)).await?;
        return server.kill();
    }
    let ended = async {
        loop {
            if let Some(status) = server.ended()? {
                return Ok(status);
            }
            // Between two looks at a process, which calls nobody.
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    let status: Result<_> = tokio::time::timeout(scene::PATIENCE, ended).await?;
    let status = status?;
    ensure!(status.code().is_none(), "{status}: {}", server.stderr());
    Ok(())
}

/// The life of one loop whose process dies there; what the budget was charged with.
async fn dies_at(point: Point, shim: &str) -> Result<BudgetAmount> {
    let stage = Stage::new(&[("m", SCRIPT)])?;
    let temp = tempfile::tempdir()?;
    let healthy: Options = stage.options.clone();
    let mut mortal = healthy.clone();
    if let Some((stream, fact)) = point.record() {
        let told = [
            ("LD_PRELOAD", shim),
            ("RIG_DEATH_STREAM", stream),
            ("RIG_DEATH_FACT", fact),
        ];
        let told = told.map(|(name, value)| (name.to_owned(), value.to_owned()));
        mortal.env.extend(told);
    }
    die(mortal.start_in(temp.path())?, point).await?;

    let mut server = healthy.start_in(temp.path())?;
    let client = scene::client(&server.url, None)?;
    // It may not have been answered.
    let started = client.start_loop(request()).await?;
    let entries = scene::to_end(&client, "s", &started.loop_id).await?;
    let end = end_of(&entries)?;
    ensure!(end.reason() == EndReason::Completed, "{end:?}");
    scene::eventually("nothing is set aside", async || {
        Ok(client.get_budget("team").await?.open_reservations == 0)
    })
    .await?;
    let team = client.get_budget("team").await?;
    let reserved = team.reserved.unwrap_or_default();
    ensure!(
        (reserved.input_tokens, reserved.output_tokens) == (0, 0),
        "{reserved:?}"
    );
    let attempts = kinds(&entries).filter(|kind| matches!(kind, Kind::ModelCallStarted(_)));
    let attempts = attempts.count();
    ensure!(
        attempts == if point.cuts() { 2 } else { 1 },
        "{attempts} attempts"
    );
    let settled = team.settled.context("what was used")?;
    let told = end.totals.unwrap_or_default().usage;
    let told = told.context("what the session says")?;
    ensure!(
        (settled.input_tokens, settled.output_tokens) == (told.input_tokens, told.output_tokens),
        "{settled:?} is charged, {told:?} was used"
    );
    ensure!(settled.model_calls == u64::try_from(attempts)?);
    server.terminate()?;
    let ledger = Ledger::read(temp.path())?;
    ensure!(ledger.open().is_empty(), "{ledger:?}");
    let whole: Vec<u32> = ledger
        .whole
        .iter()
        .map(|(_, _, attempt)| *attempt)
        .collect();
    ensure!(
        whole == if point.cuts() { vec![1] } else { vec![] },
        "{whole:?} count whole"
    );
    Ok(settled)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_dies_between_reserve_and_settle_leaks_nothing() -> Result<()> {
    let Some(shim) = shim() else { return Ok(()) };
    let shim = shim.to_str().context("a plain path")?;
    for point in [
        Point::Reserved,
        Point::Licensed,
        Point::Calling,
        Point::Replied,
        Point::Settled,
    ] {
        let settled = dies_at(point, shim).await;
        let settled = settled.with_context(|| format!("dead at {point:?}"))?;
        let used = (settled.input_tokens, settled.output_tokens);
        if point.cuts() {
            ensure!(used.1 > 4_096, "a call of 4,096 was cut: {used:?}");
        } else {
            ensure!(used == (300, 20), "{point:?}: {used:?}");
        }
    }
    Ok(())
}
