//! Loopwright.

pub mod config;
