//! Limits of the bridge from WebSockets to TCP.

use std::time::Duration;

/// Buffers of one direction of a session grow to this.
pub const BUFFER: usize = 256 * 1024;
/// Payload bytes of one message to a viewer.
pub const MESSAGE: usize = 256 * 1024;
/// Bytes of a viewer that are kept before its target is reached: what lets it be seen that it leaves meanwhile. With more
/// it waits, and so does its leaving.
pub const AHEAD: usize = 64 * 1024;
/// Marks of `--traffic` that wait to be printed; what comes while nobody reads them is left out.
pub const TRAFFIC_QUEUE: usize = 4 * 1024;
/// Bytes of a recording that are written at one go: what a small write costs is mostly the same.
pub const RECORDING_AT_ONCE: usize = 8 * 1024;
/// Those of one that wait for its disk: a second of a busy desktop. With more the recording ends, as one with a gap replays
/// nothing.
pub const RECORDING_WAITS: usize = 8 * 1024 * 1024;
/// Bytes that wait to be sent beyond which only the newest ping is answered.
pub const PONGS: usize = 4 * 1024;
/// From the accept to the end of the request's head, of TLS and of a PROXY header; and between two requests.
pub const HANDSHAKE: Duration = Duration::from_secs(10);
/// To be connected to a target.
pub const CONNECT: Duration = Duration::from_secs(10);
/// Bytes of a data frame when nothing else is said. Frames are never held whole, so this is no matter of memory: no honest
/// viewer sends more.
pub const FRAME: u64 = 1 << 40;
/// After the end of the target's direction, the viewer's still flows so long.
pub const HALF_CLOSE: Duration = Duration::from_secs(2);
/// For the viewer to answer our close frame, after which what it was sent may be lost in a reset.
pub const GOODBYE: Duration = Duration::from_secs(2);
/// For the last bytes to be taken by a viewer or a target that goes.
pub const LAST_BYTES: Duration = Duration::from_secs(30);
/// A session in which nothing moves for so long gives its buffers back.
pub const REST_AFTER: Duration = Duration::from_secs(5);
/// Pings of a heartbeat that may go unanswered: the next one ends the session.
pub const PONGS_MISSED: u32 = 2;
/// Bytes of a request's head.
pub const HEAD: usize = 64 * 1024;
/// The same in HTTP/2, by RFC 9113's count.
pub const H2_HEAD: u32 = 64 * 1024;
/// Descriptors that one session takes: the viewer's and the target's.
pub const DESCRIPTORS: usize = 2;
/// A connection at which there is no session, no request and no part of a file that is taken, once there was a request. Of
/// HTTP/1 that is a viewer which stopped taking a file; between two requests it has the time of the handshake.
pub const UNUSED: Duration = Duration::from_secs(60);
/// Bytes that may wait here for one stream of HTTP/2: as much as of one session otherwise.
pub const H2_STREAM_WINDOW: u32 = 256 * 1024;
/// Those of all streams of a connection: a viewer whose sessions stand still holds up no other viewer.
pub const H2_WINDOW: u32 = 1024 * 1024;
/// Bytes that wait for the viewer of one stream.
pub const H2_SEND_BUFFER: usize = 256 * 1024;
/// Between two pings of a connection of HTTP/2.
pub const H2_PING_EVERY: Duration = Duration::from_secs(30);
/// For their answer.
pub const H2_PONG_WAIT: Duration = Duration::from_secs(10);
/// After the end of all sessions was asked for: for them to say goodbye.
pub const LAST_GOODBYES: Duration = Duration::from_secs(5);
/// Frames without payload that are read at one go. A peer that sends nothing else must not hold whoever reads.
pub const EMPTY_AT_ONCE: usize = 64;
/// Between two looks at the files of a certificate: a renewed one is for the next viewer, and a crowd of them costs no reads.
pub const CERTIFICATE_LOOK_EVERY: Duration = Duration::from_secs(1);
/// For the process in the background to serve, or to say why it does not.
pub const BACKGROUND: Duration = Duration::from_secs(10);

/// Tokens that lead a bridge to its targets.
pub mod tokens {
    use std::time::Duration;

    /// A look-up, wherever the tokens are: longer than that no browser's user waits.
    pub const LOOK_UP_WAIT: Duration = Duration::from_secs(10);
    /// Bytes of one file with tokens: some 300,000 of them.
    pub const FILE_BYTES: u64 = 16 * 1024 * 1024;
    /// Files of one directory with tokens.
    pub const FILES: usize = 4096;
    /// Bad lines of one reading that are told one by one.
    pub const COMPLAINTS: usize = 10;
    /// Bytes of what a server answers that is asked for a target.
    pub const ANSWER_BYTES: usize = 64 * 1024;
    /// Bytes of a file that holds the target of one token: a path has 4096 at most.
    pub const ONE_FILE_BYTES: u64 = 8 * 1024;
    /// Bytes of a line of Redis that is no text of its own: a length, or an error.
    pub const REDIS_LINE_BYTES: u64 = 1024;
    /// Between two looks at the files, where sessions end with their tokens.
    pub const LOOK_EVERY: Duration = Duration::from_secs(1);
}

/// Who may use a bridge.
pub mod admit {
    use std::time::Duration;

    /// Wrong passwords that one address may send at once: a page with an old one in its address asks for all its files.
    pub const GUESSES: u64 = 20;
    /// After these it has one more in so much time: at best 17,280 guesses a day.
    pub const GUESS_EVERY: Duration = Duration::from_secs(5);
}

/// Files that a bridge serves.
pub mod web {
    use std::time::Duration;

    /// Entries of a directory that are listed.
    pub const LISTED: usize = 10_000;
    /// A file system that does not answer for so long (a network's, a tape's) gives its visitor a 503.
    pub const OPEN_WAIT: Duration = Duration::from_secs(30);
}

/// Routes of a bridge.
pub mod routes {
    /// Bytes of one compiled pattern: more than any that somebody has written by hand.
    pub const PATTERN_BYTES: usize = 1024 * 1024;
}

/// Programs that a bridge runs.
pub mod spawn {
    use std::time::Duration;

    /// From the signal that asks a program to end to the one that ends it: as long as a service manager's users would wait.
    pub const END: Duration = Duration::from_secs(5);
    /// From one start of a backend to the next, at least: one that cannot run must not take the machine.
    pub const RESTART: Duration = Duration::from_secs(1);
    /// Connections that may wait for a backend to accept them, as for lighttpd's, unless the file says otherwise.
    pub const BACKLOG: i32 = 1024;
    /// Processes of one backend at most: more is a slip.
    pub const PROCS: i64 = 1000;
}

/// Configurations of lighttpd that are translated.
pub mod lighttpd {
    /// Bytes of one value: a variable that is added to itself doubles with each line.
    pub const VALUE_BYTES: usize = 64 * 1024;
    /// Blocks and lists within each other, at most: nobody writes more, and each is a call of its own here.
    pub const DEPTH: usize = 32;
}

/// Programs that a bridge wraps.
pub mod wrap {
    use std::time::Duration;

    /// So long ago has to be the mean of the last three starts: websockify's rule.
    pub const MEAN: Duration = Duration::from_secs(10);
    /// Ports that are tried until one is free at both loopback addresses.
    pub const PORTS: usize = 16;
}
