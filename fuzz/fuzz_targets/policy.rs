//! See `src/policy.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| adit_fuzz::policy::check(data));
