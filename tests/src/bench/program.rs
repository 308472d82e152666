//! A bench as a program: the roles of its processes, its size, and what it says.

use std::io::Write as _;

use anyhow::Result;

use super::{
    mock,
    process::ROLE,
    rig::{Rig, floor_child},
};
use crate::kit::{self, Build};

/// Runs this process in its role: as the mock, as the floor, or as the bench that starts both.
///
/// # Errors
/// Where the role fails.
pub fn run<Bench: Future<Output = Result<()>>>(bench: impl FnOnce() -> Bench) -> Result<()> {
    // A provider can be installed once; a second time it is there already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    match std::env::var(ROLE).as_deref() {
        Ok("mock") => runtime.block_on(mock::run()),
        Ok("floor") => runtime.block_on(floor_child()),
        _ => runtime.block_on(bench()),
    }
}

/// Whether `LOOPWRIGHT_BENCH` asks for the full size; without it, the size is the smoke size.
#[must_use]
pub fn is_full() -> bool {
    std::env::var("LOOPWRIGHT_BENCH").is_ok_and(|size| size == "full")
}

/// The rig, and before it the binary that it serves.
///
/// # Errors
/// Where the binary cannot be built, or the mock does not come up.
pub fn rig() -> Result<Rig> {
    say("building the release binary, if it is not there yet")?;
    kit::binary(Build::Release)?;
    Rig::start()
}

/// Prints one line.
///
/// # Errors
/// Where nobody reads it any more.
pub fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
