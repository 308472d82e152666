//! What a dashboard knows: all that it was told, by session and loop.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use loopwright_client::{LoopsEvent, LoopsWatch};
use loopwright_proto::v1::{EndReason, LoopState, LoopSummary, StartLoopRequest};
use loopwright_tests::scene::{self, PATIENCE};

/// The loops that are known.
#[derive(Debug, Default)]
pub(super) struct Board {
    loops: BTreeMap<(String, String), LoopSummary>,
    /// Snapshots that came.
    pub(super) snapshots: u32,
    /// Connections that were lost.
    pub(super) lost: u32,
}

impl Board {
    fn take(&mut self, event: LoopsEvent) {
        let place = |one: &LoopSummary| (one.session_id.clone(), one.loop_id.clone());
        match event {
            LoopsEvent::Snapshot(loops) => {
                self.snapshots += 1;
                self.loops = loops.into_iter().map(|one| (place(&one), one)).collect();
            }
            LoopsEvent::Changed(one) => {
                self.loops.insert(place(&one), *one);
            }
            LoopsEvent::Deleted { session_id } => {
                self.loops.retain(|(session, _), _| *session != session_id);
            }
            LoopsEvent::Interrupted { .. } => self.lost += 1,
            _ => {}
        }
    }

    /// Reads on until what is known is as wanted.
    pub(super) async fn until(
        &mut self,
        watch: &mut LoopsWatch,
        wanted: impl Fn(&Self) -> bool,
    ) -> Result<()> {
        let reading = async {
            while !wanted(self) {
                let event = watch.next().await.context("the watch ended")??;
                self.take(event);
            }
            anyhow::Ok(())
        };
        let read = tokio::time::timeout(PATIENCE, reading).await;
        match read {
            Ok(read) => read,
            Err(_) => bail!("the board does not get there: {self:#?}"),
        }
    }

    /// Loops that are known.
    pub(super) fn len(&self) -> usize {
        self.loops.len()
    }

    /// Loops in a state.
    pub(super) fn count(&self, state: LoopState) -> usize {
        let of = self.loops.values().filter(|one| one.state() == state);
        of.count()
    }

    /// Loops that ended as completed.
    pub(super) fn completed(&self) -> usize {
        let of = self.loops.values();
        of.filter(|one| one.end_reason() == EndReason::Completed)
            .count()
    }

    /// One of them.
    pub(super) fn get(&self, session: &str, of: &str) -> Option<&LoopSummary> {
        self.loops.get(&(session.to_owned(), of.to_owned()))
    }
}

/// Asks a model something, in a session of this name.
pub(super) fn ask_in(session: &str, model: &str) -> StartLoopRequest {
    StartLoopRequest {
        session_id: session.to_owned(),
        ..scene::ask(model)
    }
}
