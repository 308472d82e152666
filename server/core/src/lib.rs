//! The session machine of Loopwright, pure: no clock, no chance, no I/O, no hash order.
//!
//! The whole contract:
//!
//! ```text
//! Input --decide(&State)--> Vec<Event> --one Entry, appended--> State::apply_entry --> State
//!                                                                                       |
//!            outcome: an Input that names (call, attempt) <-- Effect <-- wanted(&State) +
//! ```
//!
//! [`decide`] alone may refuse, and writes down all that follows from an input. [`State::apply`]
//! folds; it cannot fail on a log that `decide` wrote. [`wanted`] says what should be running
//! outside, as a set of keys; whoever drives the session starts what is missing and aborts the
//! rest, but only once the entry that licenses it is durable.

pub mod agent;
pub mod budget;
pub mod context;
mod decide;
pub mod effect;
pub mod entry;
pub mod event;
pub mod ids;
pub mod input;
pub mod ledger;
pub mod message;
pub mod outcome;
pub mod prompt;
mod rejection;
pub mod replay;
pub mod retry;
pub mod state;
pub mod usage;

pub use decide::decide;
pub use effect::{EffectKey, wanted};
pub use entry::{Cause, Entry};
pub use event::Event;
pub use input::{Input, Instances, What};
pub use rejection::Rejection;
pub use state::State;
