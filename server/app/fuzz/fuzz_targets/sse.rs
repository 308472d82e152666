//! Bytes of a provider's stream, cut where the first bytes say.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| loopwright_server::fuzzing::sse(bytes));
