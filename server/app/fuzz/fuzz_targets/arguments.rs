//! Arguments that a model wrote, against schemas of every kind that is checked by hand.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| loopwright_server::fuzzing::arguments(bytes));
