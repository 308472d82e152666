//! Two sidecars that are useful as they are and show how to write one: `files` reads, lists, searches and
//! writes beneath one folder, `calc` evaluates arithmetic. [`run`] is the command `loopwright sidecar`.
//!
//! The crate knows the SDK and nothing else of Loopwright.

mod calc;
mod command;
mod files;

pub use calc::calc;
pub use command::{CallArgs, CommandError, FilesArgs, ServeArgs, SidecarCommand, run};
pub use files::{FilesOptions, files};
