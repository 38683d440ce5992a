//! Workers, which are reached by streams in one WebSocket.

use std::time::Duration;

/// Streams of one session. The relay opens one for each request, and more of them end the session, so there are as many
/// as this machine may well have connections for.
pub const STREAMS: usize = 4096;
/// The relay has ended its direction of a stream, and the target says nothing for so long: both have ended. The wire
/// cannot say that a viewer has gone for good, and a target that answers nobody would keep its stream for ever.
pub const ANSWER_WAIT: Duration = Duration::from_secs(60);
/// The same where the target has ended and the relay says nothing, whose viewer may have a whole window yet to take over
/// a slow line.
pub const TAKEN_WAIT: Duration = Duration::from_secs(600);
/// At a stop, for streams under way: that long Taskcluster's client gives them, too.
pub const STOP_WAIT: Duration = Duration::from_secs(2);
/// A session that the relay has ended within this was no good one.
pub const SHORT_SESSION: Duration = Duration::from_secs(10);
/// So many of them in a row mean that somebody else registers under the same id.
pub const SHORT_SESSIONS: u32 = 2;
/// Whoever fights over an id waits longer each time, up to this.
pub const LONGEST_RETRY: Duration = Duration::from_secs(300);
/// Bytes of one line that holds a token: more than any relay takes.
pub const LINE: usize = 16 * 1024;
