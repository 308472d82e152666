//! Loopwright.

pub mod config;
pub mod drain;
pub mod effects;
pub mod sidecars;
pub mod telemetry;
