//! See `src/http1.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| adit_fuzz::http1::check(data));
