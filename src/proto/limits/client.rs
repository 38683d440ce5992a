//! What a client does to notice a dead relay and to come back.

use std::time::Duration;

/// Between two pings of the client on its control socket.
pub const PING_EVERY: Duration = Duration::from_secs(10);
/// No pong within this: the relay is taken as gone.
pub const PONG_WAIT: Duration = Duration::from_secs(10);
/// A relay may ask for more pings than that, but not for more than one in this time.
pub const LEAST_PING_EVERY: Duration = Duration::from_secs(1);
/// A relay may ask for pongs sooner, but a way around the world and a busy machine have this long.
pub const LEAST_PONG_WAIT: Duration = Duration::from_secs(2);
/// After a jump of the wall clock (sleep), a pong must come within this.
pub const WAKE_PONG_WAIT: Duration = Duration::from_secs(2);
/// A wall clock this far ahead of the monotonic one means that the machine slept.
pub const SLEEP_JUMP: Duration = Duration::from_secs(5);
/// The first try after a loss comes within this.
pub const FIRST_RETRY: Duration = Duration::from_secs(1);
/// Tries are at most this far apart in the first minute.
pub const EARLY_RETRY: Duration = Duration::from_secs(10);
/// Tries are at most this far apart after the first minute.
pub const LATE_RETRY: Duration = Duration::from_secs(30);
/// A relay that says when to come back is believed up to this.
pub const RETRY_AFTER: Duration = Duration::from_secs(300);
/// Connecting to the relay, TLS and the WebSocket handshake together.
pub const CONNECT_WAIT: Duration = Duration::from_secs(10);
/// One REST call.
pub const REST_WAIT: Duration = Duration::from_secs(15);
/// Connecting to the target.
pub const TARGET_WAIT: Duration = Duration::from_secs(5);
/// After the relay has said that it closes, the close frame must come within this.
pub const CLOSED_WAIT: Duration = Duration::from_secs(2);
/// Standby data sockets of one session, whatever the relay asks for: each costs a descriptor on both sides.
pub const STANDBY: usize = 8;
/// Bytes of one control message of a relay of level two, which names its own limit only in the first one. Base
/// relays are held to 64 KiB.
pub const CONTROL_MESSAGE_BYTES: usize = 1024 * 1024;
/// A draining relay cuts what runs at its own deadline; this much later we end the session ourselves.
pub const DRAIN_MARGIN: Duration = Duration::from_secs(10);
/// No number of a relay makes us wait for longer than this: sums of times must not overflow.
pub const LONGEST: Duration = Duration::from_secs(24 * 3600);
