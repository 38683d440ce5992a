//! What a session is to do, and the handle of one that runs.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::connector::{self, Connector, KeyError};
use super::event::{End, Event, Events, Omitted};
use super::runner::Runner;
use super::target::Target;
use crate::auth::Secret;
use crate::proto::api::Balance;
use crate::proto::api::{Proto, ProxyProtocol};
use crate::proto::policy::Policy;

/// What a session is to do.
#[derive(Clone)]
#[non_exhaustive]
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
    /// What is wanted of viewers.
    pub policy: Option<Policy>,
    /// `Host` that the target sees; `None`: the viewers' own.
    pub host_header: Option<String>,
    /// `false`: each data socket carries one request only.
    pub reuse: bool,
    /// Hosts of our own that are to lead to the tunnel.
    pub domains: Vec<String>,
    /// What viewers speak.
    pub proto: Proto,
    /// The wanted port of the relay, with [`Proto::Tcp`]; `None` leaves it to the relay. It is kept over reconnects either
    /// way.
    pub remote_port: Option<u16>,
    /// The target is told of its viewer by this version of the PROXY protocol, before anything else on a connection.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// The target speaks HTTP/2 with prior knowledge, as gRPC servers do. One with TLS is offered nothing else (ALPN).
    pub http2: bool,
    /// Share the tunnel with other clients of the same key that ask for it too, and so viewers among them. `None`: this
    /// client takes over from all others.
    pub replica: Option<Balance>,
    /// Requests told as events in a second, the others are counted; 0: requests are not looked at.
    pub requests_per_second: u32,
    /// End instead of trying again when the relay is not reached or lost.
    pub exit_on_disconnect: bool,
    /// Once online, tell whether the target can be reached, before a viewer finds out. Only where viewers speak HTTP.
    pub probe: bool,
    /// What opens the tunnel, for display.
    pub source: String,
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
            policy: None,
            host_header: None,
            reuse: true,
            domains: Vec::new(),
            proto: Proto::Http,
            remote_port: None,
            proxy_protocol: None,
            http2: false,
            replica: None,
            requests_per_second: 0,
            exit_on_disconnect: false,
            probe: false,
            source: "library".to_owned(),
            device_name: None,
        }
    }
}

/// A running session. Dropping it ends it at once, without a goodbye.
pub struct Session {
    stop: CancellationToken,
    tokens: watch::Sender<Option<Secret>>,
    omitted: Omitted,
    task: AbortOnDropHandle<End>,
}

impl Session {
    /// Starts it. The receiver need not be read: events that find no room are dropped.
    pub fn start(options: Options) -> (Self, mpsc::Receiver<Event>) {
        let (events, receiver) = Events::new(options.requests_per_second);
        let stop = CancellationToken::new();
        let omitted = events.omitted();
        let (tokens, given) = watch::channel(None);
        let runner = Runner::new(options, events, stop.clone(), given);
        let task = AbortOnDropHandle::new(tokio::spawn(runner.run()));
        (Self { stop, tokens, omitted, task }, receiver)
    }

    /// Gives it a fresh key or token of the same owner, for the relay it is connected to and for later connections. What
    /// the relay says to it comes as [`Event::Auth`]; a refused one changes nothing. A base relay is not told, and says
    /// nothing. Of several that are given in haste the last counts.
    pub fn authenticate(&self, token: &Secret) -> Result<(), KeyError> {
        connector::bearer(token.expose().trim())?;
        self.tokens.send_replace(Some(Secret::new(token.expose().trim())));
        Ok(())
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
