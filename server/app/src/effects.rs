//! What the core wants done outside, done: models over HTTP, tools over gRPC, timers.

pub(crate) mod budget;
pub mod flight;
pub mod model;
pub mod progress;
pub(crate) mod tool;

/// The trace that an effect belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallTrace {
    /// W3C `traceparent` to send along, where tracing is on or the client sent one.
    pub traceparent: Option<String>,
}
