//! Every limit and deadline of the relay in one place, each with its reason.

#[doc(hidden)]
pub mod admin;
#[doc(hidden)]
pub mod bridge;
#[doc(hidden)]
pub mod client;
#[doc(hidden)]
pub mod multiplex;
#[doc(hidden)]
pub mod policy;
#[doc(hidden)]
pub mod worker;
pub mod wsmux;

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
    /// Events of clients and tunnels that are kept, most of them under 300 bytes.
    pub const KEPT: usize = 2_000;
    /// Refusals that are kept beside them, so that whoever is refused without end does not push the others out.
    pub const REFUSALS_KEPT: usize = 500;
    /// Of a text in them, in characters, as some of it comes from strangers. A worker's id has up to 38, a name 63.
    pub const TEXT_CHARS: usize = 200;
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
    /// Bytes of a body behind which a client still hears a ping, whether its target reads them or not: what any socket
    /// buffers.
    pub const HEARD_BEHIND: u64 = 16 * 1024;
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
    /// For the head of its request.
    pub const HEAD_WAIT: Duration = Duration::from_secs(10);
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
    /// Between two writes of records: nobody who reads along sees it, and of thousands of records a second it spares the cost of
    /// a wake and a write for each.
    pub const BATCH_EVERY: Duration = Duration::from_millis(5);
    /// Bytes of records that are written before that, so that they take no more memory.
    pub const BATCH_BYTES: usize = 64 * 1024;
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
