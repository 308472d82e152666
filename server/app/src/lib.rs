//! Loopwright.

pub mod config;
pub mod telemetry;
