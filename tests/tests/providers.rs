//! The providers against strict mocks over real HTTP: replies, failures, and what is on the wire.

#![expect(clippy::unwrap_used, reason = "tests")]

mod providers {
    mod failures;
    mod replies;
    mod streams;
    mod talk;
    mod wire;
}
