//! Events as a person reads them: pure functions from what came over the wire to lines of text.
//!
//! ```text
//! RunView    WatchEvent -> pieces: reply text as it comes, tools as lines, one line at the end
//! log lines  Entry -> one line an event, for `log show`
//! ```
//!
//! Boundary: reads the contract's messages and writes text; no clock, no terminal, no connection.
//! Invariant: the same events give the same text, whenever and wherever they are rendered.

mod budget;
mod ending;
mod event;
mod integrity;
mod log;
mod summary;
mod table;
mod view;
mod wait;
mod words;

pub use budget::{amount_words, budget_lines};
pub use ending::{end_words, summary_line};
pub use event::describe;
pub use integrity::{bytes_words, integrity_lines};
pub use log::{entry_lines, message_lines};
pub use summary::{loop_doing, loop_words};
pub use table::table;
pub use view::{Piece, RunView, Style};
pub use wait::{Answering, Waits, until_words};
pub use words::{
    age_words, cached_words, cost_words, read_tokens, time_words, timestamp_words, token_words,
};

#[cfg(test)]
pub(crate) mod tests;
