//! Control messages: neither end of a session dies of what the other says.

use std::time::{Duration, Instant};

use adit::proto::control::client::ClientEnd;
use adit::proto::control::relay::{RelayEnd, Timing};
use adit::proto::message::{Level, ToClient, ToRelay, Welcome};

/// See the top.
pub fn check(data: &[u8]) {
    let message = ToClient::from_json(data);
    if message != ToClient::Unknown {
        assert_eq!(ToClient::from_json(message.to_json().as_bytes()), message);
    }
    if let Ok(message) = ToRelay::from_json(data) {
        assert_eq!(ToRelay::from_json(message.to_json().as_bytes()), Ok(message));
    }
    #[allow(clippy::disallowed_methods, reason = "any time is as good as another")]
    let now = Instant::now();
    let timing = Timing { ping_every: Duration::from_secs(30), pong_wait: Duration::from_secs(60) };
    for level in [Level::Base, Level::Two] {
        let mut client = ClientEnd::new(now, level);
        let mut relay = RelayEnd::new(now, level, timing, Welcome::default());
        for line in data.split(|byte| *byte == b'\n') {
            let _ = client.heard(now, line);
            let _ = relay.heard(line);
        }
        while client.output().is_some() || relay.output().is_some() {}
        assert_eq!(relay.ended(), None);
    }
}
