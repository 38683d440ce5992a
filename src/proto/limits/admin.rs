//! The admin listener and its dashboard.

use std::time::Duration;

/// Connections at the same time. Probes, scrapers and the pages of some operators are a few dozen; those beyond wait
/// to be accepted.
pub const CONNECTIONS: usize = 512;
/// Streams of live figures: each open page has one.
pub const STREAMS: usize = 100;
/// Between two messages of such a stream.
pub const EVERY: Duration = Duration::from_secs(1);
/// The rows of lists are kept for so long: less than between two messages, or each other one would have the same again.
pub const KEPT: Duration = Duration::from_millis(900);
/// Whoever takes none of what it is sent for so long is cut off.
pub const WRITE_WAIT: Duration = Duration::from_secs(10);
/// Bytes of one connection that are read ahead, or not written yet: a page of 50 rows has about 25 KiB.
pub const BUFFER: usize = 64 * 1024;
/// For the body of a request.
pub const BODY_WAIT: Duration = Duration::from_secs(10);
/// Bytes of such a body: a password, or a few fields of JSON.
pub const BODY_BYTES: usize = 16 * 1024;
/// Operators that are logged in at the same time. A further one takes the place of who was idle longest.
pub const SESSIONS: usize = 1_000;
/// A login that is not used ends after this.
pub const SESSION: Duration = Duration::from_secs(12 * 3600);
/// A link that logs in is good for this long, once.
pub const LINK: Duration = Duration::from_secs(10 * 60);
/// Links that are good at the same time; the newest stay.
pub const LINKS: usize = 4;
/// Passwords that one address may try at once.
pub const TRIES: u32 = 5;
/// After these it has one more in so much time: at best 43,200 guesses a day.
pub const TRY_EVERY: Duration = Duration::from_secs(2);
/// Passwords that all addresses together may try at once. Each takes some 50 ms of a core.
pub const TRIES_OF_ALL: u32 = 20;
/// After these all have one more in so much time.
pub const TRY_OF_ALL_EVERY: Duration = Duration::from_millis(500);
/// Characters of a password, at least.
pub const PASSWORD_CHARS: usize = 8;
/// Rows of a page, unless another number is asked for, and at most.
pub const ROWS: [usize; 2] = [50, 200];
/// Characters that are searched for.
pub const SEARCH_CHARS: usize = 200;
/// Lists that are made at the same time: they take milliseconds of a core, which viewers need, too.
pub const AT_ONCE: usize = 2;
/// Orders of rows that are remembered as long as the rows are.
pub const ORDERS: usize = 32;
/// Events that one message of a stream has at most: the newest, as the first message has those from before it.
pub const EVENTS: usize = 50;
