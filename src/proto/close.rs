//! WebSocket close codes and what each means between relay and client (`protocol.md`, section "Close codes").

/// The tunnel is over (expired, deleted, replaced): the client stops for good.
pub const DONE: u16 = 1000;
/// The relay is going away or the session went stale: the client reconnects.
pub const GOING_AWAY: u16 = 1001;
/// A frame broke RFC 6455.
pub const PROTOCOL_ERROR: u16 = 1002;
/// A kind of message that is not taken.
pub const UNSUPPORTED: u16 = 1003;
/// A text message was no UTF-8 (RFC 6455, section 8.1).
pub const NOT_TEXT: u16 = 1007;
/// The key behind the session was revoked.
pub const POLICY: u16 = 1008;
/// A message was larger than the limit.
pub const TOO_BIG: u16 = 1009;
/// The relay failed.
pub const INTERNAL: u16 = 1011;
/// The relay restarts: the client reconnects.
pub const RESTART: u16 = 1012;
