//! See `src/wsmux.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| adit_fuzz::wsmux::check(data));
