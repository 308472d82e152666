#![expect(clippy::unwrap_used, reason = "tests")]

mod scripted;
mod session;
mod transcript;
mod usage;
