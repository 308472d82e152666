//! The whole rig, and its line.

use std::{pin::pin, sync::Arc};

use anyhow::{Context as _, Result, ensure};
use futures_util::{StreamExt as _, stream};
use loopwright_log::simulation;
use loopwright_tests::rig::{self, Outcome, clients, history::COUNTS};

use super::{bits, lines, room, syncs::Shim};

/// Lives of the simulated disk, in CI and in full: neither is ever skipped.
const SEEDS: [u64; 2] = [5_000, 50_000];
/// Servers at a time.
const SIDE_BY_SIDE: usize = 4;

#[test]
fn whatever_is_done_to_the_log_is_found_and_nothing_acknowledged_is_lost() -> Result<()> {
    let seed = rig::seed()?;
    let mut outcome = Outcome::new("torture", seed);
    std::thread::scope(|scope| {
        let lines = scope.spawn(move || lines::run(seed));
        let bits = scope.spawn(move || bits::run(seed));
        for (part, done) in [("lines", lines.join()), ("bits", bits.join())] {
            let done = done.ok().with_context(|| format!("{part} panicked"))?;
            outcome.absorb(done.with_context(|| part.to_owned())?);
        }
        anyhow::Ok(())
    })?;
    outcome.absorb(simulate(seed)?);
    for count in COUNTS {
        outcome.count(count, 0);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(servers(seed, &mut outcome))?;
    let of = [
        "flips",
        "cuts",
        "paddings",
        "line_changes",
        "rooms",
        "failed_syncs",
    ];
    let runs = of.iter().map(|what| outcome.counted(what)).sum();
    outcome.finish(runs)
}

/// Worlds of a simulated disk that loses, tears, flips, fills up and fails, each made from its seed.
fn simulate(seed: u64) -> Result<Outcome> {
    let mut outcome = Outcome::new("torture", seed);
    let worlds = SEEDS[usize::from(rig::is_full())];
    let first = seed << 20;
    // It prints the seed of a world whose promise is broken, and panics.
    let lived = std::panic::catch_unwind(|| simulation::run(first..first + worlds));
    let Ok(met) = lived else {
        outcome.wrong("a simulated disk has broken a promise; its seed stands above");
        return Ok(outcome);
    };
    let counts = [
        ("simulated", met.worlds),
        ("simulated_power_cuts", met.power_cuts),
        ("simulated_failures", met.failed),
        ("simulated_flips", met.flips),
    ];
    for (what, count) in counts {
        outcome.count(what, count);
        outcome.expect(count >= worlds / 50, || format!("{what}={count} only"));
    }
    Ok(outcome)
}

/// What is done to real servers.
async fn servers(seed: u64, outcome: &mut Outcome) -> Result<()> {
    let temp = tempfile::tempdir()?;
    let options = clients::options(temp.path())?;
    if let Some(why) = room::refused() {
        outcome.must_not_skip("no-room", &why);
    } else {
        let lives = stream::iter(room::rooms()).map(|room| {
            let options = options.clone();
            async move {
                let mut part = Outcome::new("torture", seed);
                room::run(room, &options, &mut part).await;
                part
            }
        });
        let mut lives = pin!(lives.buffer_unordered(SIDE_BY_SIDE));
        while let Some(part) = lives.next().await {
            outcome.absorb(part);
        }
    }
    let shim = match Shim::build(temp.path()) {
        Ok(shim) => Arc::new(shim),
        Err(error) => {
            outcome.must_not_skip("failed-syncs", &format!("{error:#}"));
            return Ok(());
        }
    };
    let lives = stream::iter(shim.calls(seed).await?).map(|call| {
        let shim = Arc::clone(&shim);
        async move {
            let mut part = Outcome::new("torture", seed);
            shim.fail(call, &mut part).await;
            part
        }
    });
    let mut lives = pin!(lives.buffer_unordered(SIDE_BY_SIDE));
    while let Some(part) = lives.next().await {
        outcome.absorb(part);
    }
    Ok(())
}

/// The rig would see it: of a sync that answers as if it had been good, and was not, what was
/// acknowledged is missed.
#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_lies_is_caught() -> Result<()> {
    let temp = tempfile::tempdir()?;
    let Ok(shim) = Shim::build(temp.path()) else {
        // The rig itself says that it cannot run here.
        return Ok(());
    };
    let mut outcome = Outcome::new("torture", rig::seed()?);
    let call = shim.call_of_journal(&mut outcome).await?;
    ensure!(outcome.is_ok(), "without a failure: {:?}", outcome.wrongs());
    shim.lying().fail(call, &mut outcome).await;
    let missed = |wrong: &String| wrong.contains("was acknowledged");
    ensure!(
        outcome.wrongs().iter().any(missed),
        "not caught: {:?}",
        outcome.wrongs()
    );
    Ok(())
}
