//! What the mock saw before and after the server was killed: which loops have asked again.

use std::time::Instant;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::{Workload, mock::Loops};

/// How loops stand at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// Model calls answered so far.
    pub model_calls: u32,
    /// Loops that have had their last reply.
    pub done: u32,
    /// Loops that had not when the mark was set, and have made a call since.
    pub resumed: u32,
    /// Loops that had not, and have made none.
    pub silent: u32,
    /// From the mark to the last first call of a loop, seconds.
    pub seconds: f64,
}

/// A range of loops.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Which {
    pub(super) base: u32,
    pub(super) loops: u32,
}

/// When the mark was set, and what a loop did since.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Since {
    /// It had its last reply before the mark.
    pub(super) was_done: bool,
    /// Its first call since.
    pub(super) first: Option<Instant>,
}

impl Loops {
    /// From here on, first calls are counted anew.
    pub(super) fn mark(&mut self) {
        self.marked = Some(Instant::now());
        for one in self.by_number.values_mut() {
            one.since = Since {
                was_done: one.done,
                first: None,
            };
        }
    }

    pub(super) fn standing(&self, which: Which) -> Standing {
        let range = which.base..which.base + which.loops;
        let mut standing = Standing::default();
        for number in range {
            let Some(one) = self.by_number.get(&number) else {
                standing.silent += 1;
                continue;
            };
            standing.model_calls += one.step;
            standing.done += u32::from(one.done);
            match (one.since.was_done, one.since.first, self.marked) {
                (false, Some(first), Some(marked)) => {
                    standing.resumed += 1;
                    let after = first.duration_since(marked).as_secs_f64();
                    standing.seconds = standing.seconds.max(after);
                }
                (false, None, _) => standing.silent += 1,
                _ => {}
            }
        }
        standing
    }
}

/// The mock, as the bench asks it.
#[derive(Clone, Debug)]
pub struct Witness {
    pub(super) model: String,
    pub(super) http: reqwest::Client,
    pub(super) base: u32,
    pub(super) work: Workload,
}

impl Witness {
    /// Counts first calls anew from now on.
    ///
    /// # Errors
    /// Where the mock has gone.
    pub async fn mark(&self) -> Result<()> {
        let url = format!("{}/mark", self.model);
        self.http.post(url).send().await?.error_for_status()?;
        Ok(())
    }

    /// How the loops stand now.
    ///
    /// # Errors
    /// Where the mock has gone.
    pub async fn look(&self) -> Result<Standing> {
        let (base, loops) = (self.base, self.work.loops);
        let url = format!("{}/standing?base={base}&loops={loops}", self.model);
        let answer = self.http.get(url).send().await?.error_for_status()?;
        let body = answer.bytes().await?;
        serde_json::from_slice(&body).context("the mock's word")
    }
}
