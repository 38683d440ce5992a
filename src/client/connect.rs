//! One try to get a tunnel and its control socket, and what a refusal means.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::timeout;

use super::api::CallError;
use super::connector::SocketError;
use super::control::Control;
use super::event::End;
use super::session::Options;
use super::text::percent_encode;
use crate::proto::api::{CreateTunnel, Proto, TARGET_HTTP2, Tunnel};
use crate::proto::limits::client::{CONNECT_WAIT, RETRY_AFTER};
use crate::stream::handshake::ConnectError;
use crate::sync::lock;

/// For a tunnel to be deleted.
pub(super) const DELETE_WAIT: Duration = Duration::from_secs(3);

/// Why there is no session now.
pub(super) enum Failure {
    /// Trying again may help.
    Passing(String),
    /// Trying again helps after this time.
    Later(String, Duration),
    /// It cannot.
    Final(End),
}

/// What must stay the same once viewers know it.
#[derive(Clone)]
pub(super) struct Known {
    pub(super) slug: String,
    pub(super) url: String,
    pub(super) port: Option<u16>,
}

/// What is tried.
pub(super) struct Attempt {
    pub(super) options: Arc<Options>,
    /// `None`: it is the first.
    pub(super) known: Option<Known>,
    /// Our session before, as its relay called it.
    pub(super) predecessor: Option<String>,
    /// The tunnel as last created, known as soon as it is there: it is to be deleted at the end.
    pub(super) id: Arc<Mutex<Option<String>>>,
}

impl Attempt {
    /// Creates the tunnel and opens its control socket.
    pub(super) async fn run(self) -> Result<(Control, Tunnel), Failure> {
        let connector = &self.options.connector;
        let created = connector.create(&self.wanted()).await;
        let tunnel = created.map_err(|error| self.judge(error))?;
        *lock(&self.id) = Some(tunnel.id.clone());
        self.check_policy(&tunnel).await?;
        self.check_features(&tunnel)?;
        self.check_name(&tunnel).await?;
        let mut path = format!("/ws/control?tunnel_id={}", percent_encode(&tunnel.id));
        if let Some(session) = &self.predecessor {
            path = format!("{path}&successor_of={}", percent_encode(session));
        }
        let opened = timeout(CONNECT_WAIT, connector.control(&path)).await;
        let opened = opened.unwrap_or(Err(SocketError::Handshake(ConnectError::BadAnswer)));
        let (opened, level) = opened.map_err(|error| self.judge(error.into()))?;
        Ok((Control::new(opened.io, opened.already, level).await, tunnel))
    }

    fn wanted(&self) -> CreateTunnel {
        let options = &self.options;
        let (auth_user, auth_pass) = options.auth.clone().unzip();
        CreateTunnel {
            // A Unix socket has none, and a base relay insists on one.
            local_port: options.target.port().unwrap_or(80).into(),
            name: options.name.clone().or_else(|| self.known.as_ref().map(|known| known.slug.clone())),
            ttl: options.ttl.clone(),
            resume: self.known.is_some().then_some(true),
            device_name: options.device_name.clone(),
            source: Some(options.source.clone()),
            auth_user,
            auth_pass,
            host_header: options.host_header.clone(),
            reuse: (!options.reuse).then_some(false),
            domains: (!options.domains.is_empty()).then(|| options.domains.clone()),
            policy: options.policy.clone(),
            proto: options.proto.is_raw().then(|| options.proto.to_string()),
            remote_port: self
                .known
                .as_ref()
                .and_then(|known| known.port)
                .or(options.remote_port)
                .map(i64::from),
            proxy_protocol: options.proxy_protocol.map(|version| version.to_string()),
            replica: options.replica.map(|_| true),
            balance: options.replica.map(|balance| balance.as_str().to_owned()),
            target_proto: options.http2.then(|| TARGET_HTTP2.to_owned()),
        }
    }

    /// A relay that knows no policies has passed over ours, and would let everybody in.
    async fn check_policy(&self, tunnel: &Tunnel) -> Result<(), Failure> {
        if self.options.policy.is_none() || tunnel.policy.is_some() {
            return Ok(());
        }
        self.give_back().await;
        let sentence = format!(
            "{} knows no policies, so it would keep none of the rules for viewers: leave them out, or use another relay",
            self.options.connector.relay()
        );
        Err(Failure::Final(End::Refused(sentence)))
    }

    async fn give_back(&self) {
        let id = lock(&self.id).take();
        if let Some(id) = id {
            let _ = timeout(DELETE_WAIT, self.options.connector.delete(&id)).await;
        }
    }

    /// A relay that passes over what was asked for is an older one. The tunnel is left to whoever else may have it.
    fn check_features(&self, tunnel: &Tunnel) -> Result<(), Failure> {
        let options = &self.options;
        let unknown = if options.http2 && tunnel.target_proto.as_deref() != Some(TARGET_HTTP2) {
            "targets that speak HTTP/2"
        } else if options.replica.is_some() && !tunnel.replica {
            "tunnels with several clients"
        } else {
            return Ok(());
        };
        lock(&self.id).take();
        let relay = options.connector.relay();
        Err(Failure::Final(End::Refused(format!("{relay} does not know {unknown}: it is an older relay"))))
    }

    /// Viewers must find the tunnel where it was, and under the name that was asked for.
    async fn check_name(&self, tunnel: &Tunnel) -> Result<(), Failure> {
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
            (None, _) if !is_of(tunnel, self.options.proto) => {
                format!("the relay does not know tunnels of {}: it has made another kind", self.options.proto)
            }
            (None, _) if self.options.proxy_protocol.is_some() && tunnel.proxy_protocol.is_none() => {
                "the relay does not know the PROXY protocol".to_owned()
            }
            (None, Some(name)) if !name.eq_ignore_ascii_case(&tunnel.slug) => {
                format!(
                    "the relay has given the name {} instead of {name}: it seems not to allow names",
                    tunnel.slug
                )
            }
            _ => return Ok(()),
        };
        self.give_back().await;
        Err(if self.known.is_some() {
            Failure::Passing(sentence)
        } else {
            Failure::Final(End::Refused(sentence))
        })
    }

    /// Whether an error is final: a refused key always, other refusals before the first success, or if the relay itself says
    /// so by a code.
    fn judge(&self, error: CallError) -> Failure {
        let (relay, given_by) = (self.options.connector.relay(), self.options.connector.given_by());
        let last = if self.known.is_none() { error.is_final() } else { error.is_final_again() };
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
            CallError::Refused { status, message, code }
                if status.as_u16() == 409 && code.contains("port") =>
            {
                let what = if last { "; --remote-port chooses another" } else { "" };
                format!("the relay refuses the port (409): {message}{what}")
            }
            CallError::Refused { status, message, code }
                if status.as_u16() == 409 && !code.contains("domain") =>
            {
                let name = self.wanted().name.unwrap_or_default();
                let what = if last { "; give another with --name" } else { "" };
                format!("the relay refuses the name {name:?} (409): {message}{what}")
            }
            CallError::Refused { status, .. } if status.as_u16() == 404 && last => {
                format!("{relay} is no relay, or not its root (404): check {given_by}")
            }
            CallError::Refused { status, .. } if status.is_redirection() => {
                format!("{relay} sends us elsewhere ({status}): check {given_by}; perhaps it is https://")
            }
            CallError::Refused { status, message, .. } => format!("the relay refuses ({status}): {message}"),
            CallError::TooSoon { wait: Some(wait), .. } => {
                return Failure::Later(error.to_string(), (*wait).min(RETRY_AFTER));
            }
            CallError::TooSoon { .. } => error.to_string(),
            CallError::Unreachable(message) => message.clone(),
        };
        if last { Failure::Final(End::Refused(text)) } else { Failure::Passing(text) }
    }
}

/// Whether a tunnel is of that kind; relays that know only one do not say.
fn is_of(tunnel: &Tunnel, proto: Proto) -> bool {
    tunnel.proto == proto.as_str() || (tunnel.proto.is_empty() && proto == Proto::Http)
}
