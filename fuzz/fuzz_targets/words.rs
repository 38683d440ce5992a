//! Names and durations as strangers write them.
#![no_main]

use adit::proto::duration;
use adit::proto::name::Name;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(name) = Name::parse(text) {
        assert_eq!(Name::parse(name.as_str()), Ok(name));
    }
    if let Ok(parsed) = duration::parse(text) {
        assert!(duration::parse(&duration::format(parsed)).is_ok());
    }
});
