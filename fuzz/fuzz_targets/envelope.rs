//! `cargo +nightly fuzz run envelope`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| cloister_fuzz::envelope(input));
