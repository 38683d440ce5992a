//! The life of one tunnel: created, served, lost, taken up again under the same URL, and closed.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::api::CallError;
use super::connector::{Connector, SocketError};
use super::control::{Control, Ended};
use super::event::{End, Event, Events, Omitted};
use super::retry::Retry;
use super::serve::Server;
use super::target::Target;
use super::text::percent_encode;
use crate::proto::api::{CreateTunnel, Tunnel};
use crate::proto::limits::client::CONNECT_WAIT;
use crate::stream::handshake::{ConnectError, Opened};

/// Data sockets that are open at the same time. Beyond it the relay's viewers wait and get 504; the relay's own
/// limits are lower.
const MAX_STREAMS: usize = 4096;
/// At a stop: for data streams to end by themselves.
const STREAMS_WAIT: Duration = Duration::from_secs(5);
/// At a stop: for the tunnel to be deleted, or for a try to connect to come to an end before.
const DELETE_WAIT: Duration = Duration::from_secs(3);

/// What a session is to do.
#[derive(Clone)]
pub struct Options {
    /// The relay and the key.
    pub connector: Arc<Connector>,
    /// Where viewers are led to.
    pub target: Target,
    /// The wanted name; `None` leaves it to the relay. It is kept over reconnects either way.
    pub name: Option<String>,
    /// Lifetime of the tunnel in the notation of the REST API; `None`: until it is deleted.
    pub ttl: Option<String>,
    /// User and password that viewers must give.
    pub auth: Option<(String, String)>,
    /// `Host` that the target sees; `None`: the viewers' own.
    pub host_header: Option<String>,
    /// `false`: each data socket carries one request only.
    pub reuse: bool,
    /// Requests told as events in a second, the others are counted; 0: requests are not looked at.
    pub requests_per_second: u32,
    /// End instead of trying again when the relay is not reached or lost.
    pub exit_on_disconnect: bool,
    /// Once online, tell whether the target can be reached, before a viewer finds out.
    pub probe: bool,
    /// Name of this machine, for display.
    pub device_name: Option<String>,
}

impl Options {
    /// A tunnel to `target` with everything else as usual.
    pub fn new(connector: Arc<Connector>, target: Target) -> Self {
        Self {
            connector,
            target,
            name: None,
            ttl: None,
            auth: None,
            host_header: None,
            reuse: true,
            requests_per_second: 0,
            exit_on_disconnect: false,
            probe: false,
            device_name: None,
        }
    }
}

/// A running session. Dropping it ends it at once, without a goodbye.
pub struct Session {
    stop: CancellationToken,
    omitted: Omitted,
    task: AbortOnDropHandle<End>,
}

impl Session {
    /// Starts it. The receiver need not be read: events that find no room are dropped.
    pub fn start(options: Options) -> (Self, mpsc::Receiver<Event>) {
        let (events, receiver) = Events::new(options.requests_per_second);
        let stop = CancellationToken::new();
        let omitted = events.omitted();
        let runner = Runner::new(options, events, stop.clone());
        let task = AbortOnDropHandle::new(tokio::spawn(runner.run()));
        (Self { stop, omitted, task }, receiver)
    }

    /// Asks it to end in order: no new viewers, running ones get a few seconds, the tunnel is deleted.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> End {
        (&mut self.task).await.unwrap_or(End::Failed)
    }

    /// Requests since the last call that were not told as events.
    pub fn take_omitted(&self) -> u64 {
        self.omitted.take()
    }
}

/// Why there is no session now.
enum Failure {
    /// Trying again may help.
    Passing(String),
    /// It cannot.
    Final(End),
}

/// What must stay the same once viewers know it.
struct Known {
    slug: String,
    url: String,
}

struct Runner {
    options: Options,
    server: Arc<Server>,
    events: Events,
    stop: CancellationToken,
    streams: JoinSet<()>,
    retry: Retry,
    known: Option<Known>,
    /// The tunnel as last created.
    id: Option<String>,
}

impl Runner {
    fn new(options: Options, events: Events, stop: CancellationToken) -> Self {
        let server = Arc::new(Server {
            connector: Arc::clone(&options.connector),
            target: options.target.clone(),
            events: events.clone(),
        });
        let (streams, retry) = (JoinSet::new(), Retry::default());
        Self { options, server, events, stop, streams, retry, known: None, id: None }
    }

    async fn run(mut self) -> End {
        let end = self.live().await;
        if end == End::Stopped
            && timeout(STREAMS_WAIT, async { while self.streams.join_next().await.is_some() {} })
                .await
                .is_err()
        {
            tracing::debug!(streams = self.streams.len(), "streams cut off");
        }
        // A tunnel that the relay has ended is not there any more, or is another's; a bad key deletes nothing.
        let ours = !matches!(end, End::Closed(_) | End::Replaced | End::Unauthorised(_));
        if let Some(id) = self.id.take().filter(|_| ours) {
            let _ = timeout(DELETE_WAIT, self.options.connector.delete(&id)).await;
        }
        self.events.send(Event::Ended(end.clone()));
        end
    }

    async fn live(&mut self) -> End {
        loop {
            let reason = match self.connect().await {
                Ok(mut control) => match self.serve(&mut control).await {
                    Ended::Done(reason) if reason.contains("replaced") => return End::Replaced,
                    Ended::Done(reason) => return End::Closed(reason),
                    Ended::Stopped => return End::Stopped,
                    Ended::Lost(reason) => reason,
                },
                Err(Failure::Final(end)) => return end,
                Err(Failure::Passing(reason)) => reason,
            };
            if self.stop.is_cancelled() {
                return End::Stopped;
            }
            if self.options.exit_on_disconnect {
                return End::Unreachable(reason);
            }
            let retry_in = self.retry.next();
            self.events.send(Event::Offline { reason, retry_in });
            let mut woken = self.options.connector.woken();
            woken.mark_unchanged();
            tokio::select! {
                () = tokio::time::sleep(retry_in) => {}
                // The network may be there again, and nothing is gained by waiting.
                Ok(()) = woken.changed() => {}
                () = self.stop.cancelled() => return End::Stopped,
            }
        }
    }

    /// Serves viewers until the control socket ends.
    async fn serve(&mut self, control: &mut Control) -> Ended {
        let began = Instant::now();
        let (stop, woken) = (self.stop.clone(), self.options.connector.woken());
        let (streams, server) = (&mut self.streams, &self.server);
        let ended = control
            .run(&stop, woken, |id| {
                while streams.try_join_next().is_some() {}
                if streams.len() < MAX_STREAMS {
                    streams.spawn(Arc::clone(server).serve(id));
                } else {
                    tracing::warn!("{MAX_STREAMS} connections are open: one more was not taken up");
                }
            })
            .await;
        self.retry.after(began.elapsed());
        ended
    }

    /// Creates the tunnel and opens its control socket.
    async fn connect(&mut self) -> Result<Control, Failure> {
        self.events.send(Event::Connecting);
        let stop = self.stop.clone();
        let grace = async {
            stop.cancelled().await;
            // What is being created shall be known by its id, to be deleted.
            tokio::time::sleep(DELETE_WAIT).await;
        };
        tokio::select! {
            tried = self.attempt() => tried,
            () = grace => Err(Failure::Final(End::Stopped)),
        }
    }

    async fn attempt(&mut self) -> Result<Control, Failure> {
        let first = self.known.is_none();
        let created = self.options.connector.create(&self.wanted()).await;
        let tunnel = created.map_err(|error| self.judge(error, first))?;
        self.id = Some(tunnel.id.clone());
        self.check_name(&tunnel).await?;
        let path = format!("/ws/control?tunnel_id={}", percent_encode(&tunnel.id));
        let opened = timeout(CONNECT_WAIT, self.options.connector.websocket(&path, true)).await;
        let opened = opened.unwrap_or(Err(SocketError::Handshake(ConnectError::BadAnswer)));
        let Opened { io, already, .. } = opened.map_err(|error| self.judge(error.into(), first))?;
        let control = Control::new(io, already).await;
        self.events.send(Event::Online { url: tunnel.public_url.clone(), id: tunnel.id, again: !first });
        if first && self.options.probe {
            self.probe();
        }
        self.known = Some(Known { slug: tunnel.slug, url: tunnel.public_url });
        Ok(control)
    }

    fn wanted(&self) -> CreateTunnel {
        let options = &self.options;
        let (auth_user, auth_pass) = options.auth.clone().unzip();
        CreateTunnel {
            // A Unix socket has none, and a base relay insists on one.
            local_port: options.target.port().unwrap_or(80).into(),
            name: options.name.clone().or_else(|| self.known.as_ref().map(|known| known.slug.clone())),
            ttl: options.ttl.clone(),
            device_name: options.device_name.clone(),
            source: Some("cli".into()),
            auth_user,
            auth_pass,
            host_header: options.host_header.clone(),
            reuse: (!options.reuse).then_some(false),
        }
    }

    /// Viewers must find the tunnel where it was, and under the name that was asked for.
    async fn check_name(&mut self, tunnel: &Tunnel) -> Result<(), Failure> {
        let sentence = match (&self.known, &self.options.name) {
            (Some(known), _) if known.slug != tunnel.slug => format!(
                "the relay has given the name {} instead of {}: waiting for the old one; restart this client to take \
                 the new",
                tunnel.slug, known.slug
            ),
            // The same tunnel, which is therefore not deleted.
            (Some(known), _) if known.url != tunnel.public_url => {
                return Err(Failure::Passing(format!(
                    "the relay now has {} instead of {}: waiting for the old address; restart this client to take \
                     the new",
                    tunnel.public_url, known.url
                )));
            }
            (None, Some(name)) if !name.eq_ignore_ascii_case(&tunnel.slug) => {
                format!(
                    "the relay has given the name {} instead of {name}: it seems not to allow names",
                    tunnel.slug
                )
            }
            _ => return Ok(()),
        };
        if let Some(id) = self.id.take() {
            let _ = timeout(DELETE_WAIT, self.options.connector.delete(&id)).await;
        }
        Err(if self.known.is_some() {
            Failure::Passing(sentence)
        } else {
            Failure::Final(End::Refused(sentence))
        })
    }

    /// Whether an error is final: a refused key always, other refusals only before the first success.
    fn judge(&self, error: CallError, first: bool) -> Failure {
        let (relay, last) = (self.options.connector.relay(), error.is_final() && first);
        let text = match &error {
            CallError::Unauthorised { message, status } if self.options.connector.has_key() => {
                let what =
                    if status.as_u16() == 403 { "does not allow it" } else { "does not accept the key" };
                let sentence = format!("{relay} {what}: {message}");
                return Failure::Final(End::Unauthorised(sentence));
            }
            CallError::Unauthorised { .. } => {
                let whence = if relay.is_loopback() {
                    "The relay printed one on its own terminal at its first start, behind ADIT_KEY=; `adit key \
                     create NAME` makes another"
                } else {
                    "The relay's operator makes them with `adit key create NAME`"
                };
                let sentence = format!("{relay} asks for a key: set ADIT_KEY, or give --key. {whence}");
                return Failure::Final(End::Unauthorised(sentence));
            }
            CallError::Refused { status, message, .. } if status.as_u16() == 409 => {
                let name = self.wanted().name.unwrap_or_default();
                let what = if last { "; give another with --name" } else { "" };
                format!("the relay refuses the name {name:?} (409): {message}{what}")
            }
            CallError::Refused { status, .. } if status.as_u16() == 404 && last => {
                format!("{relay} is no relay, or not its root (404): check --relay")
            }
            CallError::Refused { status, .. } if status.is_redirection() => {
                format!("{relay} sends us elsewhere ({status}): check --relay; perhaps it is https://")
            }
            CallError::Refused { status, message, .. } => format!("the relay refuses ({status}): {message}"),
            CallError::Unreachable(message) => message.clone(),
        };
        if last { Failure::Final(End::Refused(text)) } else { Failure::Passing(text) }
    }

    fn probe(&mut self) {
        let (target, events) = (self.options.target.clone(), self.events.clone());
        self.streams.spawn(async move {
            if let Err(error) = target.connect().await {
                events.send(Event::TargetDown { error, at_start: true });
            }
        });
    }
}
