//! Rules for targets that speak HTTP/2.

use std::time::Duration;

/// Requests at the same time on one connection to a target, also where it takes more: as many as servers commonly do.
pub const STREAMS: usize = 100;
/// Bytes of a response that may wait in the relay for their viewer. The window of a connection is as large as those of
/// all its streams: viewers that do not read must not hold up the others.
pub const WINDOW: u32 = 256 * 1024;
/// Bytes of a request that wait for the target.
pub const SEND_BUFFER: usize = 256 * 1024;
/// Largest frame that a target may send: fewer and larger ones cost less, and one is held whole.
pub const FRAME: u32 = 64 * 1024;
/// Bytes of the headers of a response, by RFC 9113's count; as much as of a head of HTTP/1.
pub const HEAD: u32 = 256 * 1024;
/// Streams that were reset of late and whose frames are still on their way.
pub const RESETS: usize = 1024;
/// Bytes of a request's body that are kept until the response begins: a request that its target refuses unread goes
/// out again. A call of gRPC mostly fits.
pub const KEPT: usize = 64 * 1024;
/// A request goes out again so many times at most, if it has not been processed.
pub const AGAIN: usize = 2;
/// A connection on which nothing came is pinged, on the data socket, after this; gRPC servers close connections that
/// ping them often.
pub const PING_EVERY: Duration = Duration::from_secs(15);
/// One that nothing came over for this long is asked for a sign of life before it gets a request.
pub const PROBE_AFTER: Duration = Duration::from_secs(5);
/// For that sign; then another connection is opened.
pub const PROBE_WAIT: Duration = Duration::from_secs(2);
/// A connection without a request for this long is closed.
pub const IDLE: Duration = Duration::from_secs(55);
