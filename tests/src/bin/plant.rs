//! A sidecar of the SDK's that tests kill, with one tool that must not run twice.
//!
//! `plant SOCKET EFFECTS GATE [KEYS]`: it serves at the unix socket SOCKET, where its next process is found
//! too. Each run of `press` adds a line to the file EFFECTS and answers once there is a file GATE; in KEYS
//! it remembers its calls.

use std::{fs::OpenOptions, io::Write as _, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use loopwright_tools::{Listen, NoArgs, Sidecar, Tool, ToolContext, ToolError};

/// Time between two looks for the gate.
const LOOK_EVERY: Duration = Duration::from_millis(10);

#[tokio::main]
async fn main() -> Result<()> {
    let mut paths = std::env::args_os().skip(1).map(PathBuf::from);
    let socket = paths.next().context("no SOCKET")?;
    let effects = paths.next().context("no EFFECTS")?;
    let gate = paths.next().context("no GATE")?;
    let press = move |_: ToolContext, _: NoArgs| {
        let (effects, gate) = (effects.clone(), gate.clone());
        async move {
            let mut file = OpenOptions::new().append(true).create(true).open(effects)?;
            writeln!(file, "pressed")?;
            while !gate.exists() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            Ok::<_, ToolError>("the plate is pressed".to_owned())
        }
    };
    let mut plant = Sidecar::new("plant")
        .listen(Listen::Unix(socket))
        .tool(Tool::new("press", "Presses a plate.", press));
    if let Some(keys) = paths.next() {
        plant = plant.remember_in(keys);
    }
    plant.serve().await?;
    Ok(())
}
