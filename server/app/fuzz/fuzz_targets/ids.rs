//! Ids of sessions, streams, loops and calls.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| loopwright_server::fuzzing::ids(bytes));
