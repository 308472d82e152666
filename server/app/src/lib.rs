//! The Loopwright server: a library, and the one binary `loopwright` made of it.
//!
//! `app` is the composition root; `driver` moves sessions, `effects` reaches outside, `service` is
//! what clients see. What a session is and does stands in `loopwright-core`, where it is kept in
//! `loopwright-log`.

pub mod app;
pub mod cli;
pub mod config;
pub mod drain;
pub mod driver;
pub mod effects;
#[cfg(test)]
mod faulty;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod index;
pub mod ledger;
pub mod redaction;
pub mod service;
pub mod sidecars;
pub mod telemetry;
