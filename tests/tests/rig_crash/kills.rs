//! Killing the server at moments of chance, and starting it again.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use loopwright_tests::{kit::Server, rig::Chance};
use tokio::sync::Notify;

use super::plan::Plan;

/// Longest wait for something to happen before the server is killed all the same.
const PATIENCE: Duration = Duration::from_secs(2);

/// What there is to wait for.
#[derive(Clone, Default)]
pub(super) struct Moments {
    /// A tool had an effect.
    pub(super) effect: Arc<Notify>,
    /// A client was sent an entry.
    pub(super) entry: Arc<Notify>,
}

/// Kills the server as often as the plan says.
pub(super) async fn kill_and_restart(
    server: &mut Server,
    plan: &Plan,
    moments: &Moments,
) -> Result<()> {
    let mut chance = plan.chance(1 << 32);
    for kill in 1..=plan.kills {
        wait_for_a_moment(&mut chance, moments).await;
        tokio::task::block_in_place(|| {
            server.kill()?;
            server.restart()
        })
        .with_context(|| format!("kill {kill} of {}", plan.kills))?;
    }
    Ok(())
}

/// While it recovers, some time later, right after an effect, or right after an acknowledgement.
async fn wait_for_a_moment(chance: &mut Chance, moments: &Moments) {
    match chance.below(4) {
        0 => tokio::time::sleep(Duration::from_millis(chance.below(60))).await,
        1 => tokio::time::sleep(Duration::from_millis(60 + chance.below(500))).await,
        2 => nth(&moments.effect, 1 + chance.below(12)).await,
        _ => nth(&moments.entry, 1 + chance.below(60)).await,
    }
}

async fn nth(moment: &Notify, times: u64) {
    let all = async {
        for _ in 0..times {
            moment.notified().await;
        }
    };
    // Where nothing happens, the kill is a restart.
    let _ = tokio::time::timeout(PATIENCE, all).await;
}
