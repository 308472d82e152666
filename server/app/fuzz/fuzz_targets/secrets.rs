//! Texts and JSON with secrets in them.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| loopwright_server::fuzzing::secrets(bytes));
