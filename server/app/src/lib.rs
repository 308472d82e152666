//! Loopwright.

pub mod config;
pub mod drain;
pub mod driver;
pub mod effects;
pub mod index;
pub mod service;
pub mod sidecars;
pub mod telemetry;
