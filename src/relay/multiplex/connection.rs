//! One connection of HTTP/2 to a target, over a data socket: its streams are counted, and it ends when nobody needs it.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use http::Request;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::io::{LaneIo, Pulse};
use super::pool::Pool;
use crate::link::Lane;
use crate::link::sockets::Load;
use crate::proto::limits::multiplex;
use crate::relay::Shared;
use crate::relay::errors::Cause;
use crate::sync::lock;
use crate::tunnel::Tunnel;

/// How often a connection looks whether it is still of use.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A connection that takes requests. It is closed once this is dropped and its last stream has ended.
pub struct Connection {
    requests: SendRequest<Bytes>,
    streams: AtomicUsize,
    /// It takes no more requests.
    over: AtomicBool,
    /// When the last stream ended.
    used: Mutex<Instant>,
    pulse: Arc<Pulse>,
    /// Told when a stream ends.
    rested: Arc<Notify>,
    /// Wakes the task that carries it: dropping the last handle does not.
    _gone: DropGuard,
}

impl Connection {
    /// Speaks HTTP/2 over `lane` with prior knowledge, and waits for the target's settings. What carries the connection is
    /// a task of the relay's; it takes the connection out of `pool` at its end.
    pub async fn open(
        shared: &Arc<Shared>,
        tunnel: &Tunnel,
        lane: Lane,
        pool: Weak<Pool>,
    ) -> Result<Arc<Self>, Cause> {
        let (io, hello, pulse) = LaneIo::new(lane, tunnel.quota.meter());
        let wait = shared.config.limits.claim_wait;
        let shaken = timeout(wait, builder().handshake::<_, Bytes>(io)).await;
        let (requests, carrying) = match shaken {
            Ok(Ok(shaken)) => shaken,
            Ok(Err(error)) => return Err(cause_of(&error)),
            Err(_) => return Err(Cause::TargetSilent),
        };
        let (gone, rested) = (CancellationToken::new(), Arc::new(Notify::new()));
        let connection = Arc::new(Self {
            requests,
            streams: AtomicUsize::new(0),
            over: AtomicBool::new(false),
            used: Mutex::new(Instant::now()),
            pulse,
            rested: Arc::clone(&rested),
            _gone: gone.clone().drop_guard(),
        });
        let (weak, ending) = (Arc::downgrade(&connection), Arc::clone(&shared.ending));
        let carrying = async move {
            let mut carrying = pin!(carrying);
            let mut looks = interval(LOOK_EVERY);
            looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let (mut needed, mut last) = (true, false);
            loop {
                tokio::select! {
                    ended = &mut carrying => {
                        if let Err(error) = ended {
                            tracing::debug!(%error, "connection to a target ended");
                        }
                        break;
                    }
                    () = gone.cancelled(), if needed => needed = false,
                    // What is about to end waits for nothing that only might be needed.
                    () = ending.begun.cancelled(), if !last => last = true,
                    () = rested.notified(), if last && needed => {}
                    _ = looks.tick(), if needed => {}
                }
                if let Some(pool) = pool.upgrade().filter(|_| needed) {
                    pool.weed(&weak, if last { Duration::ZERO } else { multiplex::IDLE });
                }
            }
            if let Some(connection) = weak.upgrade() {
                connection.close();
            }
            if let Some(pool) = pool.upgrade() {
                pool.remove(&weak);
            }
        };
        shared.spawn(carrying);
        match timeout(wait, hello).await {
            // One that takes no request at all is of no use.
            Ok(Ok(Ok(()))) if connection.requests.current_max_send_streams() == 0 => Err(Cause::TargetClosed),
            Ok(Ok(Ok(()))) => Ok(connection),
            Ok(Ok(Err(cause))) => Err(cause),
            Ok(Err(_)) => Err(Cause::TargetClosed),
            Err(_) => Err(Cause::TargetSilent),
        }
    }

    /// A place for one more request, if there is one.
    pub fn place(self: &Arc<Self>) -> Option<Place> {
        let most = self.requests.current_max_send_streams().min(multiplex::STREAMS);
        let more = |streams| (streams < most && !self.is_over()).then_some(streams + 1);
        self.streams.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Place { connection: Arc::clone(self), _load: None })
    }

    /// Whether it takes no more requests.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// It is to take no more requests; those under way go on.
    pub fn close(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Whether nobody has asked anything for so long. Nobody can begin meanwhile, as the caller has the pool.
    pub fn is_idle(&self, long: Duration) -> bool {
        self.streams.load(Ordering::Relaxed) == 0 && lock(&self.used).elapsed() >= long
    }
}

/// The right to one stream.
pub struct Place {
    connection: Arc<Connection>,
    /// Counts its viewer, where several clients share a tunnel.
    _load: Option<Load>,
}

impl Place {
    /// The same, whose viewer is counted by `load`.
    pub fn counted(mut self, load: Option<Load>) -> Self {
        self._load = load;
        self
    }

    /// Whether the client is there: it is asked where nothing has come of it for a while.
    pub async fn is_alive(&self) -> bool {
        let pulse = &self.connection.pulse;
        let alive = !pulse.is_quiet() || timeout(multiplex::PROBE_WAIT, pulse.sign()).await.is_ok();
        if !alive {
            self.connection.close();
        }
        alive
    }

    /// Whether the target takes WebSockets (RFC 8441).
    pub fn takes_websockets(&self) -> bool {
        self.connection.requests.is_extended_connect_protocol_enabled()
    }

    /// Sends the head of a request. `None`: the connection is about to end, and has not taken it.
    pub async fn send(
        &self,
        request: Request<()>,
        whole: bool,
    ) -> Option<(h2::client::ResponseFuture, h2::SendStream<Bytes>)> {
        let sent = async { self.connection.requests.clone().ready().await?.send_request(request, whole) };
        // It is ready at once, but for a queue that has none of its streams in it.
        match timeout(multiplex::PROBE_WAIT, sent).await {
            Ok(Ok(sent)) => Some(sent),
            failed => {
                tracing::debug!(?failed, "connection to a target takes no more requests");
                self.connection.close();
                None
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *lock(&self.connection.used) = Instant::now();
        self.connection.streams.fetch_sub(1, Ordering::Relaxed);
        self.connection.rested.notify_one();
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_max_send_streams(multiplex::STREAMS)
        .initial_window_size(multiplex::WINDOW)
        .initial_connection_window_size(multiplex::WINDOW * multiplex::STREAMS as u32)
        .max_frame_size(multiplex::FRAME)
        .max_header_list_size(multiplex::HEAD)
        .max_send_buffer_size(multiplex::SEND_BUFFER)
        .max_concurrent_reset_streams(multiplex::RESETS)
        .max_local_error_reset_streams(None);
    builder
}

/// What a failure of a stream, or of its connection, means to the viewer.
pub fn cause_of(error: &h2::Error) -> Cause {
    match error.reason() {
        Some(reason) if error.is_remote() && error.is_reset() => Cause::TargetReset(reason.into()),
        _ if error.get_io().is_some_and(|error| error.to_string() == Cause::TargetSilent.label()) => {
            Cause::TargetSilent
        }
        Some(_) if error.is_library() => Cause::BadResponse,
        _ => Cause::TargetClosed,
    }
}

/// Whether the target says that it has not looked at the request: it may go out again.
pub fn is_unprocessed(error: &h2::Error) -> bool {
    let reason = error.reason();
    error.is_remote()
        && ((error.is_reset() && reason == Some(h2::Reason::REFUSED_STREAM))
            || (error.is_go_away() && reason == Some(h2::Reason::NO_ERROR)))
}
