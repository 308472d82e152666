//! Arguments of a tool that has fields to hide.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| loopwright_server::fuzzing::fields(bytes));
