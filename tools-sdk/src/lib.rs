//! Write a sidecar, a process that serves tools to Loopwright, in about twenty lines.
//!
//! ```no_run
//! use loopwright_tools::schemars::JsonSchema;
//! use loopwright_tools::serde::Deserialize;
//! use loopwright_tools::{ServeError, Sidecar, Tool, ToolContext};
//!
//! #[derive(Deserialize, JsonSchema)]
//! #[serde(crate = "loopwright_tools::serde", deny_unknown_fields)]
//! #[schemars(crate = "loopwright_tools::schemars")]
//! struct Greet {
//!     /// Whom to greet.
//!     name: String,
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), ServeError> {
//!     let greet = |ctx: ToolContext, args: Greet| async move {
//!         ctx.progress(0.5, "thinking of a greeting");
//!         Ok(format!("Hello, {}!", args.name))
//!     };
//!     Sidecar::new("hello")
//!         .tool(Tool::new("greet", "Greets a person by name.", greet).read_only())
//!         .serve()
//!         .await
//! }
//! ```
//!
//! The sidecar listens on a free loopback port, registers itself with the server named by
//! `LOOPWRIGHT_SERVER` (default `http://127.0.0.1:7070`), and serves until SIGTERM or Ctrl-C.
//!
//! What holds, whatever a tool does:
//! - Arguments that do not fit the tool's schema never reach it: the call is *not executed*, and the
//!   answer names the field.
//! - A tool that says nothing about repeats is *at most once*. A [`Tool::deduplicated`] one runs once for
//!   a key, however often the key is sent, until its retention is over; with [`Sidecar::remember_in`] also
//!   across restarts.
//! - A server that lost the outcome of an at-most-once or deduplicated call can ask what became of it: the
//!   SDK answers with the result, lets it rejoin the call while it runs, or promises that the call never
//!   started and never will. What it may have forgotten ([`Tool::remembered_for`]), and what an earlier
//!   process may have run, it does not claim to know; no clocks are compared for that. A server that dies does not stop such a call; one that cancels it does.
//! - Calls, remembered keys, messages and answers are bounded; what goes beyond is refused in words.
//!
//! The crate knows the wire contract and no server crate.

mod answer;
mod connection;
mod context;
mod endpoint;
mod error;
mod inquiry;
mod keyfile;
mod listen;
mod memory;
mod name;
mod registration;
mod remote;
mod running;
mod schema;
mod serve;
mod service;
mod sidecar;
mod tool;
mod toolbox;
mod wire;

pub use answer::{Answer, IntoAnswer, Json, Outcome, ToolError};
pub use context::{Progress, ToolContext};
pub use error::{DefinitionError, RemoteError, ServeError};
pub use listen::Listen;
pub use remote::{RemoteSidecar, RemoteTool};
pub use serve::Serving;
pub use sidecar::Sidecar;
pub use tool::{Effect, NoArgs, Tool};

/// Derive `JsonSchema` for argument types from this, the version that the SDK reads.
pub use schemars;
/// Derive `Deserialize` and `Serialize` from this where the own crate has no serde.
pub use serde;
/// The JSON type of arguments and structured answers.
pub use serde_json;

#[cfg(test)]
mod tests;
