//! The client against a small server in this process that cuts connections where it is told to.

#![expect(clippy::unwrap_used, reason = "tests")]

#[cfg(feature = "cli")]
mod cli;
mod commands;
mod converse;
pub(crate) mod fake;
mod overview;
pub(crate) mod session;
mod watch;
