//! Control messages: a client never dies of what a relay says.
#![no_main]

use adit::proto::message::ToClient;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let message = ToClient::from_json(data);
    if message != ToClient::Unknown {
        assert_eq!(ToClient::from_json(message.to_json().as_bytes()), message);
    }
});
