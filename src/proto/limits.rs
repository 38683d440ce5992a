//! Every limit and deadline of the relay in one place, each with its reason.

use std::time::Duration;

/// What one relay allows. All of it is configurable; the defaults are the published contract (`protocol.md`,
/// section "Limits").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a viewer's request head (request line and headers). 64 KiB holds the largest cookies and tokens
    /// seen in practice; beyond it the viewer gets 431.
    pub head_bytes: usize,
    /// Header lines of one head; as many as hyper and HAProxy take. Beyond it 431.
    pub headers: usize,
    /// Bytes of a request target, beyond which the viewer gets 414.
    pub target_bytes: usize,
    /// From the first byte of a head to its end; a slower one gets 408.
    pub head_wait: Duration,
    /// A new connection that says nothing is closed after this, without an answer.
    pub first_byte_wait: Duration,
    /// A keep-alive connection may be silent this long after a complete exchange.
    pub keep_alive: Duration,
    /// A client has this long to open its data socket after a notification; then the viewer gets 504.
    pub claim_wait: Duration,
    /// Viewers of one tunnel that may wait for a claim at the same time; the next one gets 503 with Retry-After.
    pub waiting_per_tunnel: usize,
    /// Viewers of a known tunnel wait this long for its client to come back; then 503.
    pub reconnect_wait: Duration,
    /// Standby data sockets that one session is asked for at most; 0 is none.
    pub standby_per_tunnel: usize,
    /// Standby data sockets of all sessions; beyond it only tunnels with traffic get new ones. Each takes a descriptor.
    pub standby: usize,
    /// Bytes of one message on a control socket; a larger one closes it with 1009.
    pub control_message_bytes: usize,
    /// Payload bytes of one data message to a base client: such clients hold each message whole in memory.
    pub data_message_bytes: usize,
    /// Bytes under way in one direction of one stream. The read buffers start at 4 KiB and may grow to this.
    pub in_flight_bytes: usize,
    /// Between two pings on a control socket.
    pub ping_every: Duration,
    /// A control socket without a pong for this long is dead.
    pub pong_wait: Duration,
    /// An exchange on which no byte moves in either direction ends after this.
    pub idle_exchange: Duration,
    /// An upgraded connection (WebSocket and others) on which no byte moves ends after this.
    pub idle_upgraded: Duration,
    /// Bytes of a request body; `None` is no limit. Beyond it the viewer gets a 413 that names the limit.
    pub body_bytes: Option<u64>,
    /// Requests still running at a shutdown may go on for this long.
    pub drain: Duration,
    /// Connections of viewers and clients together, data sockets included; `None` is as many as the process may have
    /// descriptors, less those that it needs itself. More than that there never are.
    pub connections: Option<usize>,
    /// The same of one address, so that no single peer takes all of them. Trusted proxies are excepted: many viewers
    /// come from one.
    pub connections_per_address: Option<usize>,
    /// Tunnels of one key; `None` is no quota.
    pub tunnels_per_key: Option<usize>,
    /// Exchanges and upgraded connections under way at the same time through all tunnels of one key; the next viewer
    /// gets 503 with Retry-After.
    pub viewers_per_key: Option<usize>,
    /// Viewers that wait for a client, or for a claim, at all tunnels of one key; the next one gets 503 with Retry-After.
    pub waiting_per_key: Option<usize>,
    /// New tunnels of one key in a minute, which may all come at once; beyond it 429 with Retry-After.
    pub creations_per_key: Option<usize>,
    /// Bytes a second through all tunnels of one key, both directions together. Beyond it streams slow down.
    pub bandwidth_per_key: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes: 64 * 1024,
            headers: 100,
            target_bytes: 16 * 1024,
            head_wait: Duration::from_secs(10),
            first_byte_wait: Duration::from_secs(10),
            keep_alive: Duration::from_secs(60),
            claim_wait: Duration::from_secs(10),
            waiting_per_tunnel: 256,
            reconnect_wait: Duration::from_secs(5),
            standby_per_tunnel: 8,
            standby: 4096,
            control_message_bytes: 64 * 1024,
            data_message_bytes: 64 * 1024,
            in_flight_bytes: 1024 * 1024,
            ping_every: Duration::from_secs(30),
            pong_wait: Duration::from_secs(60),
            idle_exchange: Duration::from_secs(300),
            idle_upgraded: Duration::from_secs(3600),
            body_bytes: None,
            drain: Duration::from_secs(30),
            connections: None,
            connections_per_address: None,
            tunnels_per_key: None,
            viewers_per_key: None,
            waiting_per_key: None,
            creations_per_key: None,
            bandwidth_per_key: None,
        }
    }
}

/// After a failed accept (out of descriptors), so that the loop does not spin.
#[doc(hidden)]
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What operators see of clients.
#[doc(hidden)]
pub mod pulse {
    use std::time::Duration;

    /// A client whose pong is due for longer is late: round trips by satellite are under one second, and of a network that
    /// loses every other packet under five.
    pub const LATE: Duration = Duration::from_secs(5);
    /// What one tick of a client's strip stands for: with pings every 30 seconds, one ping.
    pub const SLOT: Duration = Duration::from_secs(30);
    /// Ticks of a strip: an hour. Each takes a byte of every client's memory.
    pub const SLOTS: usize = 120;
    /// Characters of a client's `User-Agent` that are kept.
    pub const AGENT_CHARS: usize = 100;
    /// Different ones that clients share the text of.
    pub const AGENTS: usize = 64;
    /// Clients of one tunnel that were lost and are still shown.
    pub const LOST: usize = 8;
}

/// What happened, for operators.
#[doc(hidden)]
pub mod events {
    /// Events of clients and tunnels that are kept, each under 300 bytes.
    pub const KEPT: usize = 2_000;
    /// Refusals that are kept beside them, so that whoever is refused without end does not push the others out.
    pub const REFUSALS_KEPT: usize = 500;
}

/// The admin listener and its dashboard.
#[doc(hidden)]
pub mod admin {
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
}

/// TLS of viewers and clients.
#[doc(hidden)]
pub mod tls {
    use std::time::Duration;

    /// Bytes until a ClientHello has to be whole: hellos with post-quantum keys have under 2 KiB, and one record may have
    /// 16 KiB.
    pub const HELLO_BYTES: usize = 18 * 1024;
    /// Files with certificates are looked at this often.
    pub const LOOK_EVERY: Duration = Duration::from_secs(10);
    /// A certificate that ends sooner is told of in the log.
    pub const WARN_BEFORE: Duration = Duration::from_secs(14 * 24 * 3600);
}

/// Orders of certificates.
#[doc(hidden)]
pub mod acme {
    use std::time::Duration;

    /// Names that viewers ask for and that wait for the keeper; a viewer beyond it sees no certificate this time.
    pub const QUEUE: usize = 64;
    /// Orders under way at the same time.
    pub const AT_ONCE: usize = 4;
    /// Orders within [`WINDOW`]: a third of what Let's Encrypt allows an account, so that a flood of new tunnels leaves
    /// room for renewals by hand.
    pub const ORDERS: usize = 100;
    /// See [`ORDERS`].
    pub const WINDOW: Duration = Duration::from_secs(3 * 3600);
    /// After a first failed order; twice as long after each further one. An authority allows five failures an hour.
    pub const RETRY_LEAST: Duration = Duration::from_secs(60);
    /// The longest.
    pub const RETRY_MOST: Duration = Duration::from_secs(6 * 3600);
    /// Certificates are looked at this often, and when one is due.
    pub const LOOK_EVERY: Duration = Duration::from_secs(3600);
    /// Bytes of an answer of the authority; a certificate with its chain has under 20 KiB.
    pub const ANSWER_BYTES: usize = 1024 * 1024;
    /// For one call of the authority.
    pub const CALL_WAIT: Duration = Duration::from_secs(30);
    /// For the authority to look and to issue.
    pub const POLL_WAIT: Duration = Duration::from_secs(60);
    /// For one order in all; DNS entries take their time.
    pub const WAIT: Duration = Duration::from_secs(900);
    /// For one run of the operator's hook.
    pub const HOOK_WAIT: Duration = Duration::from_secs(300);
}

/// Hosts of owners' own.
#[doc(hidden)]
pub mod domains {
    use std::time::Duration;

    /// Of one tunnel.
    pub const MOST: usize = 20;
    /// For the DNS entry of one of them to be looked up.
    pub const PROOF_WAIT: Duration = Duration::from_secs(5);
}

/// Rules for keeping a data socket, with the client's connection to the target behind it, for a next request.
#[doc(hidden)]
pub mod reuse {
    use std::time::Duration;

    /// No idle data socket is used after this; targets commonly close after 60 s or more.
    pub const MAX_IDLE: Duration = Duration::from_secs(55);
    /// Taken off the target's own `Keep-Alive: timeout`, so that we never race its close.
    pub const MARGIN: Duration = Duration::from_secs(1);
    /// A request that is not safe to resend takes only a socket that was in use this recently.
    pub const UNSAFE_MAX_IDLE: Duration = Duration::from_secs(1);
    /// Idle sockets are pinged this often.
    pub const PING_EVERY: Duration = Duration::from_secs(15);
    /// An idle socket whose pong is later than this is dropped.
    pub const PONG_WAIT: Duration = Duration::from_secs(5);
    /// A socket idle for longer than this is pinged along with the request it is given.
    pub const PROBE_AFTER: Duration = Duration::from_secs(5);
    /// Neither byte nor pong within this after such a request: a fresh claim is raced against it.
    pub const PROBE_WAIT: Duration = Duration::from_secs(2);
    /// Idle data sockets kept for one tunnel; above it the oldest goes.
    pub const PER_TUNNEL: usize = 128;
}

/// Rules for standby data sockets, which clients of level two open in advance.
pub mod standby {
    use std::time::Duration;

    /// Arrivals are counted over this: about the time in which a client replaces a socket that was used, and more.
    pub const SPAN: Duration = Duration::from_secs(1);
    /// A burst counts for half after this.
    pub const HALF_LIFE: Duration = Duration::from_secs(10);
    /// A tunnel without a viewer for this long has none.
    pub const IDLE: Duration = Duration::from_secs(3600);
    /// Messages that may wait for a control socket beside those of waiting viewers.
    pub const SAID_BESIDE: usize = 16;
}

/// Rules for the last places when connections are as many as there may be.
pub mod descriptors {
    /// Descriptors that are no connection of a viewer or client: the database with its log (3), listeners, the runtime,
    /// signals, probes of the admin listener, a successor that asks.
    pub const OUR_OWN: usize = 32;
    /// Connections that are taken however few descriptors there are; then it is accepting that fails, and pauses.
    pub const LEAST: usize = 16;
    /// One place in so many is promised to no viewer, so that clients come back.
    pub const RESERVE: usize = 8;
    /// With fewer than one place in so many left, no connection of a viewer is kept for a next request.
    pub const SCARCE: usize = 4;
    /// One place in so many may be taken by standby sockets, which only save time.
    pub const STANDBY: usize = 4;
}

/// Rules for viewers that left while their request was under way.
#[doc(hidden)]
pub mod viewer {
    use std::time::Duration;

    /// A viewer that shut its sending side before the response head is served for this much longer.
    pub const SERVED_AFTER_FIN: Duration = Duration::from_secs(30);
    /// A viewer that shut its sending side and whose response has been silent for this long is taken as gone.
    pub const SILENT_AFTER_FIN: Duration = Duration::from_secs(5);
    /// Bytes a second that are read of what a refused viewer goes on sending, so that it sees its answer and takes little of
    /// others' time.
    pub const UNWANTED_A_SECOND: u64 = 25_000_000;
    /// A target that ignores `Expect: 100-continue` gets the body after this.
    pub const EXPECT_WAIT: Duration = Duration::from_secs(1);
    /// HTTP/2 streams a viewer may have open on one connection.
    pub const H2_STREAMS: u32 = 100;
    /// HTTP/2 streams that a viewer has reset before they were looked at; one more ends the connection (rapid reset).
    /// Whoever leaves a page resets what is under way once, and the relay looks at streams as they come.
    pub const H2_PENDING_RESETS: usize = 20;
    /// HTTP/2 streams of one connection that the relay had to reset as a frame broke a rule; one more ends it. Few are
    /// seen of viewers that only send on after an early answer; a flood of them costs a frame to write each.
    pub const H2_ERROR_RESETS: usize = 1024;
}

/// Headers of the PROXY protocol.
#[doc(hidden)]
pub mod proxy_header {
    /// Bytes of one of version 1, its line end included: the specification's own limit.
    pub const V1_BYTES: usize = 107;
    /// Bytes of one of version 2. Balancers put up to a few hundred behind the addresses; what is longer is an attack.
    pub const V2_BYTES: usize = 4 * 1024;
}

/// Rules for several clients of one tunnel.
#[doc(hidden)]
pub mod replicas {
    use std::time::Duration;

    /// Clients of one tunnel at the same time: the one for the next viewer is looked for among all of them.
    pub const MOST: usize = 64;
    /// A client has one part in so many of the time for a claim before another one is asked.
    pub const CLAIM_PART: u32 = 4;
    /// One that did not take up a viewer, or could not reach its target, is asked after the others for this long.
    pub const AILING: Duration = Duration::from_secs(5);
    /// Bytes of a request that are kept while its client may still say that it does not reach the target.
    pub const KEPT: usize = 64 * 1024;
}

/// Rules for targets that speak HTTP/2.
#[doc(hidden)]
pub mod multiplex {
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
}

/// Sessions of wsmux: streams in one WebSocket. What is not explained is the other implementation's own number.
pub mod wsmux {
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
}

/// How long a name stays its key's after it was last in use.
#[doc(hidden)]
pub mod reservation {
    use std::time::Duration;

    /// The id of a worker: operators see for so long that it is gone.
    pub const WORKER: Duration = Duration::from_secs(10 * 60);
    /// A name that its owner chose.
    pub const CHOSEN: Duration = Duration::from_secs(30 * 24 * 3600);
    /// A name that the relay made up.
    pub const GENERATED: Duration = Duration::from_secs(24 * 3600);
    /// After a crash a reservation may be so much shorter.
    pub const SAVED_EVERY: Duration = Duration::from_secs(5 * 60);
}

/// How clients are spread when they are told that the relay goes.
pub mod drain {
    use std::time::Duration;

    /// Clients come back at most this close to each other on average: a handshake costs far less.
    pub const PER_CLIENT: Duration = Duration::from_millis(2);
    /// Few clients are spread over this.
    pub const SPREAD_LEAST: Duration = Duration::from_millis(200);
    /// However many there are, the last one comes back after this.
    pub const SPREAD_MOST: Duration = Duration::from_secs(3);
}

/// Those who read `/metrics` on a listener of its own, which may be anybody.
#[doc(hidden)]
pub mod metrics {
    use std::time::Duration;

    /// Connections; those beyond wait to be accepted. A relay has a few scrapers and probes.
    pub const AT_ONCE: usize = 64;
    /// For all of a connection: one request and its answer of some tens of kilobytes. Scrapers give up after 10 seconds.
    pub const CONNECTION: Duration = Duration::from_secs(30);
    /// For the page that another scraper has caused.
    pub const WAIT: Duration = Duration::from_secs(10);
}

/// What a log takes, so that strangers fill neither it nor a disk.
#[doc(hidden)]
pub mod log {
    use std::time::Duration;

    /// Records of one kind (one place in the program) within [`WINDOW`]: some 20 kB, so 200 MB a day at the worst. Those
    /// beyond are counted. The closing records of exchanges, which are asked for, and those finer than info have no limit.
    pub const PER_KIND: u32 = 100;
    /// After this, what was left out is told, and records of the kind are written again.
    pub const WINDOW: Duration = Duration::from_secs(10);
    /// Bytes of one record, before what is not printable is escaped; values of longer ones are cut. Tools that collect
    /// logs take 16 KiB and less.
    pub const LINE_BYTES: usize = 8 * 1024;
    /// Records that wait to be written; those beyond are left out, as nobody may have to wait for whoever reads the log.
    pub const WAITING: usize = 4096;
    /// Characters of a viewer's path in the closing record of its exchange.
    pub const PATH_CHARS: usize = 1024;
    /// Bytes of one message to a syslog daemon, which need not take more (RFC 5426, section 3.2).
    pub const SYSLOG_BYTES: usize = 2048;
    /// A syslog daemon that is away or busy is tried again this often.
    pub const SYSLOG_RETRY: Duration = Duration::from_millis(250);
    /// The addresses of a syslog daemon's host are asked for this often, as it may move.
    pub const SYSLOG_LOOK_UP: Duration = Duration::from_secs(60);
    /// What waits for a syslog daemon may go out this long after the end.
    pub const SYSLOG_LAST: Duration = Duration::from_secs(1);
}

/// Spans on their way to a collector.
#[doc(hidden)]
pub mod spans {
    use std::time::Duration;

    /// Spans that wait, as in other programs with OpenTelemetry: two seconds of a thousand requests each. Those beyond are
    /// lost, and counted.
    pub const WAITING: usize = 2048;
    /// For one call, as the standard has it.
    pub const CALL_WAIT: Duration = Duration::from_secs(10);
    /// Bytes of an answer, which says how many spans were refused and why.
    pub const ANSWER_BYTES: usize = 64 * 1024;
    /// What waits may go out this long at the end.
    pub const LAST: Duration = Duration::from_secs(2);
    /// Spans that are lost are told of at first, and then this often.
    pub const TELL_EVERY: Duration = Duration::from_secs(60);
}

/// How much is read of a stream at one go.
#[doc(hidden)]
pub mod read {
    /// At first: enough for a request.
    pub const LEAST: usize = 4 * 1024;
    /// Any stream may come to this. Thousands of slow readers hold so much each.
    pub const MODEST: usize = 64 * 1024;
    /// Beyond [`MODEST`] a stream must have moved so much: more than the buffers of the system take, on both ends of both hops, of
    /// a stream whose reader is slow.
    pub const LARGE_AFTER: usize = 16 * 1024 * 1024;
    /// Streams of a process that may go beyond it at the same time.
    pub const LARGE_AT_ONCE: usize = 16;
    /// Bytes that are read from a viewer at one go, and that wait for a slow one.
    pub const OF_VIEWER: usize = 128 * 1024;
}

/// How those who move much leave time to those who move little.
#[doc(hidden)]
pub mod turn {
    use std::time::Duration;

    /// Bytes that a stream moves in one go, about 0.1 ms of work, before others have their turn.
    pub const BYTES: usize = 256 * 1024;
    /// Turns after which sockets are looked at again, though others are ready: a request waits for this many of them, where
    /// with tokio's default it would be 61.
    pub const SOCKETS_EVERY: u32 = 16;
    /// A viewer beyond its key's quota is told after this at the soonest: one who asks again at once would take the time of
    /// others.
    pub const REFUSAL_LEAST: Duration = Duration::from_millis(500);
    /// And within this more: told at one time, all would ask again at one time.
    pub const REFUSAL_SPREAD: Duration = Duration::from_secs(1);
}

/// What the policy of one tunnel may ask for, so that checking a request stays cheap and what is remembered is bounded.
#[doc(hidden)]
pub mod policy {
    use std::time::Duration;

    /// Users. Each costs a slow hash when the policy is given, and again whenever its client comes back.
    pub const USERS: usize = 16;
    /// Networks in one list, which is looked through for each request.
    pub const NETWORKS: usize = 256;
    /// Signatures that a request must have.
    pub const VERIFY: usize = 4;
    /// Secrets of one signature: the current one, and those before and after it.
    pub const SECRETS: usize = 3;
    /// Bytes of a secret, a prefix or a payload; those in use have under 100.
    pub const TEXT_BYTES: usize = 1024;
    /// Items of a header of signatures that are looked at; senders that replace a secret send two or three.
    pub const SIGNATURES: usize = 16;
    /// The longest time that a signature may be old.
    pub const TOLERANCE: Duration = Duration::from_secs(24 * 3600);
    /// Bytes of a signed body, which is held in memory until it was checked: GitHub, Stripe and Slack stay below it.
    pub const SIGNED_BODY: u64 = 1024 * 1024;
    /// The same where the policy itself names a longest body.
    pub const SIGNED_BODY_MOST: u64 = 8 * 1024 * 1024;
    /// Bytes of all bodies that one tunnel holds at the same time; the next one gets 503.
    pub const SIGNED_AT_ONCE: usize = 32 * 1024 * 1024;
    /// A signed body must have come within this; else 408.
    pub const SIGNED_BODY_WAIT: Duration = Duration::from_secs(30);
    /// Changes of headers in one direction.
    pub const HEADERS: usize = 32;
    /// Bytes of all of them: targets refuse heads of more than 8 to 16 KiB.
    pub const HEADER_BYTES: usize = 8 * 1024;
    /// Bytes of an offline page.
    pub const PAGE_BYTES: usize = 64 * 1024;
    /// Requests in the unit of a rate, and at once.
    pub const RATE: u64 = 1_000_000;
    /// Addresses (networks of 64 bits in IPv6) whose rate one tunnel remembers, 16 bytes each. With more that are all busy
    /// a new one takes over the debt of the least busy one.
    pub const ADDRESSES: usize = 16 * 1024;
    /// A browser that was asked whether to go on is not asked again within this.
    pub const PASSED: Duration = Duration::from_secs(7 * 24 * 3600);
    /// The button of the page that asks is good for this.
    pub const ASKED: Duration = Duration::from_secs(3600);
}

/// Tokens that lead a bridge to its targets.
#[doc(hidden)]
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
    /// Between two looks at the files, where sessions end with their tokens.
    pub const LOOK_EVERY: Duration = Duration::from_secs(1);
}

/// Who may use a bridge.
#[doc(hidden)]
pub mod admit {
    use std::time::Duration;

    /// Wrong passwords that one address may send at once: a page with an old one in its address asks for all its files.
    pub const GUESSES: u64 = 20;
    /// After these it has one more in so much time: at best 17,280 guesses a day.
    pub const GUESS_EVERY: Duration = Duration::from_secs(5);
}

/// Files that a bridge serves.
#[doc(hidden)]
pub mod web {
    use std::time::Duration;

    /// Entries of a directory that are listed.
    pub const LISTED: usize = 10_000;
    /// A file system that does not answer for so long (a network's, a tape's) gives its visitor a 503.
    pub const OPEN_WAIT: Duration = Duration::from_secs(30);
}

/// Workers, which are reached by streams in one WebSocket.
#[doc(hidden)]
pub mod worker {
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
}

/// Routes of a bridge.
#[doc(hidden)]
pub mod routes {
    /// Bytes of one compiled pattern: more than any that somebody has written by hand.
    pub const PATTERN_BYTES: usize = 1024 * 1024;
}

/// Programs that a bridge runs.
#[doc(hidden)]
pub mod spawn {
    use std::time::Duration;

    /// From the signal that asks a program to end to the one that ends it: as long as a service manager's users would wait.
    pub const END: Duration = Duration::from_secs(5);
    /// From one start of a backend to the next, at least: one that cannot run must not take the machine.
    pub const RESTART: Duration = Duration::from_secs(1);
}

/// What a client does to notice a dead relay and to come back.
#[doc(hidden)]
pub mod client {
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
}

/// The bridge from WebSockets to TCP.
#[doc(hidden)]
pub mod bridge {
    use std::time::Duration;

    /// Buffers of one direction of a session grow to this.
    pub const BUFFER: usize = 256 * 1024;
    /// Payload bytes of one message to a viewer.
    pub const MESSAGE: usize = 256 * 1024;
    /// Characters of `--traffic`, in pairs, that wait to be printed; what comes while nobody reads them is left out.
    pub const TRAFFIC_QUEUE: usize = 4 * 1024;
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
    /// Descriptors that one session takes: the viewer's and the target's.
    pub const DESCRIPTORS: usize = 2;
    /// A connection at which there is no session, no request and no part of a file that is taken, once there was a request. Of
    /// HTTP/1 that is a viewer which stopped taking a file; between two requests it has the time of the handshake.
    pub const UNUSED: Duration = Duration::from_secs(60);
    /// Between two pings of a connection of HTTP/2.
    pub const H2_PING_EVERY: Duration = Duration::from_secs(30);
    /// For their answer.
    pub const H2_PONG_WAIT: Duration = Duration::from_secs(10);
    /// After the end of all sessions was asked for: for them to say goodbye.
    pub const LAST_GOODBYES: Duration = Duration::from_secs(5);
}
