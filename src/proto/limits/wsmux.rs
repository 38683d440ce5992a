//! Sessions of wsmux: streams in one WebSocket. What is not explained is the other implementation's own number.

use std::time::Duration;

/// Bytes of one stream that may be on their way or wait here. Clients since version 94 have 4 MiB, and take as much
/// for themselves without asking; memory is only taken for what has come.
pub const WINDOW: u32 = 4 * 1024 * 1024;
/// Bytes that wait here in all streams of a session: 128 windows. Beyond it nothing more is read until some were taken.
pub const HELD: usize = 512 * 1024 * 1024;
/// Whoever takes nothing for this long while all the others have to wait for room stands still, and is broken.
pub const ROOM_WAIT: Duration = Duration::from_secs(1);
/// And whoever holds the most, however little is taken of it, when the others had to wait for so long.
pub const FULL_WAIT: Duration = Duration::from_secs(10);
/// Streams of one session. A stream without anything waiting costs a few hundred bytes.
pub const STREAMS: usize = 1024;
/// Streams that the other end opened and nobody has accepted yet; one more ends the session.
pub const UNACCEPTED: usize = 200;
/// Streams that we opened and the other end has not accepted yet. The next ones wait: the other end breaks at 200.
pub const UNANSWERED: usize = 128;
/// Payload of one DAT frame: it is also how long a stream has to wait for each of the others.
pub const FRAME: usize = 32 * 1024;
/// Bytes of one stream that were written and wait to be sent: some for the frame under way, some behind it.
pub const UNSENT: usize = 128 * 1024;
/// What was taken is told at the latest after so many bytes, or half the window, or when nothing waits any more.
pub const TOLD_AFTER: u32 = 128 * 1024;
/// Pieces of at least this size are kept as they came; smaller ones are gathered, as each keeps all that was read with
/// it in memory.
pub const KEPT_AS_IT_CAME: usize = 16 * 1024;
/// Bytes read at one go, which is also what one piece can keep in memory, while little waits: as much as of a data
/// socket, as that is what makes it quick.
pub const READ: usize = 1024 * 1024;
/// And while more than the part [`LITTLE`] of what may be held waits: four times the smallest piece that is kept.
pub const READ_BESIDE_MUCH: usize = 64 * 1024;
/// Pieces out of large reads can keep no more in memory than may be held anyway.
pub const LITTLE: usize = 64;
/// Between two pings.
pub const PING_EVERY: Duration = Duration::from_secs(20);
/// An end that sends, but no pong in so many pings, is not taken for alive any more: its pongs may be behind megabytes
/// of its data, but not for ever.
pub const PINGS_UNANSWERED: u32 = 3;
/// For a stream to be accepted.
pub const OPEN_WAIT: Duration = Duration::from_secs(30);
/// A WebSocket that takes nothing for this long is dead: a way around the world and a busy machine are far below.
pub const WRITE_WAIT: Duration = Duration::from_secs(20);
/// For a stream that nobody holds any more to send what is left, and to hear the end of the other direction.
pub const LINGER: Duration = Duration::from_secs(60);
/// For what is left of all streams when a session is closed.
pub const DRAIN: Duration = Duration::from_secs(5);
/// For the close handshake.
pub const CLOSE_WAIT: Duration = Duration::from_secs(2);
/// No time that is asked for is shorter than this, as a session would do nothing but look at its clock,
pub const SHORTEST: Duration = Duration::from_millis(1);
/// or longer than this: sums of times must not overflow.
pub const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);
/// Whoever looks at the time so much too late was stopped itself, and does not hold it against the other end.
pub const LATE: Duration = Duration::from_secs(5);
/// What the relay holds of one session, in place of [`HELD`]: 32 viewers of one worker that all stand still.
pub const RELAY_HELD: usize = 128 * 1024 * 1024;
/// And of all its sessions: beyond it each is full from two windows on, so that what strangers do not read is bounded
/// however many workers there are.
pub const RELAY_HELD_IN_ALL: usize = 512 * 1024 * 1024;
/// For what is left of the streams of a session that the relay closes: its stop waits for 3 s, the close handshake included.
pub const RELAY_DRAIN: Duration = Duration::from_millis(900);
/// What runs in the streams of a session whose place another one took may go on for this long: its client may be another
/// process that lives.
pub const REPLACED_WAIT: Duration = Duration::from_secs(60);
/// How often it is looked whether it has ended.
pub const REPLACED_LOOK_EVERY: Duration = Duration::from_millis(200);
