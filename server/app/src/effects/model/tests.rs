#![expect(clippy::unwrap_used, reason = "tests")]

mod bound;
mod scripted;
mod session;
mod transcript;
mod usage;
