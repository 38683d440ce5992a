//! See `src/websocket.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| adit_fuzz::websocket::check(data));
