//! Where the wire meets the core: the one module that knows both.
//!
//! Requests become inputs of the core with every field violation collected before any is told;
//! what the log holds becomes messages of `loopwright.v1`. Boundary: pure, no I/O and no clock.
//! Invariant: nothing that a client asks for is ignored: a field that this version does not act on
//! is refused by name. A field of a message that the core does not record stays unset.

pub mod agent;
pub mod budget;
pub mod commands;
pub mod context;
pub mod delta;
pub mod entry;
mod event;
pub mod fields;
mod fold;
pub mod kinds;
pub mod limits;
pub mod message;
pub mod moves;
pub mod questions;
pub mod summary;
pub mod tools;
pub mod words;

pub use fold::Fold;

use loopwright_core::ids::Timestamp;
use loopwright_proto::well_known;

#[cfg(test)]
mod tests;

/// An instant on the wire.
#[must_use]
pub fn timestamp(at: Timestamp) -> well_known::Timestamp {
    let seconds = i64::try_from(at.0 / 1_000).unwrap_or(i64::MAX);
    let nanos = i32::try_from(at.0 % 1_000).unwrap_or_default() * 1_000_000;
    well_known::Timestamp { seconds, nanos }
}

/// The instant of a record on the wire.
#[must_use]
pub fn committed_at(at: loopwright_log::Timestamp) -> well_known::Timestamp {
    timestamp(Timestamp(at.unix_ms()))
}

/// A span on the wire.
#[must_use]
pub fn duration(millis: u64) -> well_known::Duration {
    std::time::Duration::from_millis(millis).into()
}
