//! `loopwright log replay --model`: a recorded session run again with another model, which is given the
//! recorded results of tools.
//!
//! ```text
//! source -> Recording (what was said, what tools answered) -> machine (the core, Models) -> two trails
//! ```
//!
//! Boundary: models are called by the server's own providers, from its configuration. Nothing here knows
//! a sidecar, so that no tool can be called. Invariant: a tool call of the new run gets the recorded
//! result of the same tool and arguments, each recorded one once; where there is none, the run ends.

mod machine;
mod recording;
mod report;
mod trail;

use std::process::ExitCode;

use anyhow::Context as _;
use futures_util::StreamExt as _;
use loopwright_client::cli::{Exit, LogReplay, Terminal};

use super::source::{self, Source};
use crate::{
    cli::Where,
    effects::model::{Models, ModelsOptions},
};

use machine::Machine;
use recording::Recording;
use report::Report;

/// Runs the command: 0 where the new run came to its end, or to where the two part.
pub(super) async fn run(
    command: &LogReplay,
    model: &str,
    place: &Where,
) -> anyhow::Result<ExitCode> {
    let mut terminal = Terminal::stdio();
    let (loaded, env) = place.load()?;
    let models = Models::new(&loaded.config, &env, ModelsOptions::default())?;
    let facts = models.check(model).with_context(|| {
        format!("--model {model}: the model is called from here, with this configuration")
    })?;
    let Source { name, mut lines } = source::open(command).await?;
    let mut recording = Recording::default();
    while let Some(line) = lines.next().await {
        let line = line.map_err(|error| error.context(name.clone()))?;
        recording.take(&line).with_context(|| name.clone())?;
    }
    let mut machine = Machine::new(&models, &facts, &recording).with_context(|| name.clone())?;
    while let Some(step) = machine.go_on().await? {
        if !command.json {
            terminal.note(&format!("  {step}"))?;
        }
    }
    let report = Report::new(&name, &facts, &recording.trail, &machine);
    if command.json {
        terminal.line(&report.json())?;
    } else {
        for line in report.lines() {
            terminal.line(&line)?;
        }
    }
    // What the model's provider refuses is no finding about the two runs.
    Ok(match machine.failed() {
        Some(_) => Exit::Error.into(),
        None => Exit::Completed.into(),
    })
}

#[cfg(test)]
mod tests;
