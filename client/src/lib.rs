//! The Rust client of Loopwright: typed commands, a watch and a conversation that reconnect by cursor.
//!
//! ```text
//! Client --command, with request_id--> server        retried on UNAVAILABLE, always with the same id
//! Client --watch(session, after seq)--> Watch        entries once and in order; text never doubled
//! Client --watch_loops(filters)----> LoopsWatch   where every loop stands, then what changes
//! Client --converse(start | attach)---> Conversation commands up; entries, deltas and replies down
//! ```
//!
//! Boundary: knows the wire contract (`loopwright-proto`) and no crate of the server. Invariant: whatever
//! breaks in between, a reader gets every entry exactly once, or an error that says why it cannot.
//! With the feature `cli`: the commands of the `loopwright` binary that speak to a server, and how they
//! print.

mod budgets;
mod client;
mod converse;
mod error;
mod link;
mod options;
mod overview;
mod read;
mod reader;
mod sessions;
mod text;
mod watch;

#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "cli")]
pub mod render;

pub use client::Client;
pub use converse::{Accepted, CommandReply, Conversation, ConverseEvent, Opening};
pub use error::{Error, FieldViolation, Rejection};
pub use loopwright_proto::v1;
pub use options::{ClientOptions, DEFAULT_URL};
pub use overview::{LoopsEvent, LoopsWatch};
pub use read::ReadEntries;
pub use reader::EntryMark;
pub use sessions::Export;
pub use text::TextAssembler;
pub use watch::{Watch, WatchEvent, WatchOptions};

#[cfg(test)]
mod tests;
