//! What a bridge is to do, resolved: the settings that flags, files and programs fill in.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use ipnet::IpNet;

use super::Target;
use super::admit::Admit;
use super::backends::Balancing;
use super::coded::{FrameType, TextMessages};
use super::record::Recorder;
use super::routes::Matcher;
use super::spawn::Spawn;
use super::tokens::Tokens;
use super::web::Web;
use crate::proto::api::ProxyProtocol;
use crate::proto::limits::bridge;
use crate::stream::server_tls::Pair;

/// A whole bridge.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BridgeConfig {
    /// Where WebSockets lead to, and how they are treated.
    pub service: Service,
    /// Tried in their order before `service`, which is for all that fits none of them.
    pub routes: Vec<Route>,
    /// TLS on the listening sockets, told from plain HTTP by the first byte; `None`: only plain.
    pub tls: Option<ServerTls>,
    /// From the accept to the end of a request's head, and between two requests of a connection.
    pub handshake_wait: Duration,
    /// Connections of these addresses come from proxies of the operator: what they say of the viewer is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Connections of trusted proxies begin with a PROXY header, version 1 or 2.
    pub accept_proxy_protocol: bool,
    /// Files for requests that want no WebSocket; without them, these are refused.
    pub web: Option<Arc<Web>>,
    /// Files are only for those who show what WebSockets ask for, but their origin.
    pub web_auth: bool,
    /// What every answer says, be it a file, an error or a handshake.
    pub headers: HeaderMap,
    /// Every session is recorded.
    pub record: Option<Arc<Recorder>>,
    /// A character for each thing that moves goes to the standard output.
    pub traffic: bool,
    /// Ends after the first session.
    pub run_once: bool,
    /// Ends once there was no session for so long in all.
    pub timeout: Option<Duration>,
    /// Ends once there was no session for so long at a stretch.
    pub idle_timeout: Option<Duration>,
    /// After the end was asked for, sessions may go on for so long before they are closed with 1001.
    pub drain: Duration,
}

impl BridgeConfig {
    /// A bridge to `target` with the usual settings.
    pub fn to(target: Target) -> Self {
        Self { service: Service { target: Some(target), ..Service::default() }, ..Self::default() }
    }
}

impl Default for BridgeConfig {
    fn default() -> Self {
        Self {
            service: Service::default(),
            routes: Vec::new(),
            tls: None,
            handshake_wait: bridge::HANDSHAKE,
            trusted_proxies: Vec::new(),
            accept_proxy_protocol: false,
            web: None,
            web_auth: false,
            headers: HeaderMap::new(),
            record: None,
            traffic: false,
            run_once: false,
            timeout: None,
            idle_timeout: None,
            drain: Duration::ZERO,
        }
    }
}

/// Where the WebSockets of a path lead to, and how they are treated.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Service {
    /// Who may have one; `None`: everybody.
    pub admit: Option<Arc<Admit>>,
    /// Where they lead to, for each by its token. Goes before `target`.
    pub tokens: Option<Arc<Tokens>>,
    /// Where they lead to; `None`: something else says so.
    pub target: Option<Target>,
    /// How it is dialled.
    pub dialling: Dialling,
    /// The target is dialled before the handshake is answered: a failure is a status, which programs can read, and not the
    /// close code 1011, which browsers can.
    pub connect_first: bool,
    /// A subprotocol that is chosen if it is offered, before `binary` and `base64`.
    pub protocol: Option<String>,
    /// How bytes of the target are sent.
    pub frame_type: FrameType,
    /// What becomes of text messages.
    pub text: TextMessages,
    /// Payload bytes of the largest frame that is taken; a larger one ends the session with 1009.
    pub max_frame: u64,
    /// After the target's end, the viewer's direction goes on for so long; `None`: the first end is that of the session.
    pub half_close: Option<Duration>,
    /// Between two pings; a viewer that leaves two unanswered is gone at the third. `None`: no pings.
    pub heartbeat: Option<Duration>,
    /// A session in which nothing moves for so long is ended.
    pub idle: Option<Duration>,
    /// One in which nothing comes from the viewer for so long, not even a pong: lighttpd's `server.max-read-idle`.
    pub read_idle: Option<Duration>,
    /// One in which the viewer takes nothing of what waits for it for so long: lighttpd's `server.max-write-idle`.
    pub write_idle: Option<Duration>,
    /// What the log gets of the sessions, as lighttpd's `wstunnel.debug`: below 3 no record of each, from 4 on one also of its
    /// beginning. `None`: as the log's own filter has it.
    pub debug: Option<u8>,
}

impl Default for Service {
    fn default() -> Self {
        Self {
            admit: None,
            tokens: None,
            target: None,
            dialling: Dialling::default(),
            connect_first: false,
            protocol: None,
            frame_type: FrameType::default(),
            text: TextMessages::default(),
            max_frame: bridge::FRAME,
            half_close: Some(bridge::HALF_CLOSE),
            heartbeat: None,
            idle: None,
            read_idle: None,
            write_idle: None,
            debug: None,
        }
    }
}

/// WebSockets of some requests, with backends of their own.
#[derive(Debug, Clone)]
pub struct Route {
    /// Which requests these are.
    pub matcher: Matcher,
    /// Where they lead to.
    pub backends: Vec<Target>,
    /// Backends that the bridge runs itself.
    pub spawned: Vec<Spawn>,
    /// Which backend gets whom, and how long one that failed is left alone.
    pub balancing: Balancing,
    /// Who may use it, besides what `service` asks.
    pub admit: Option<Arc<Admit>>,
    /// How the WebSockets are treated. Its `tokens` and its `target`, which routes of a file do not have, go before `backends`.
    pub service: Service,
}

/// How a target is dialled.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Dialling {
    /// TLS to targets of TCP.
    pub tls: Option<TargetTls>,
    /// To be connected, TLS done, however many backends and addresses are tried.
    pub wait: Duration,
    /// Of the addresses of a name, those of IPv6 are tried first.
    pub prefer_ipv6: bool,
    /// The target is told the viewer's address by a PROXY header.
    pub proxy_protocol: Option<ProxyProtocol>,
}

impl Default for Dialling {
    fn default() -> Self {
        Self { tls: None, wait: bridge::CONNECT, prefer_ipv6: false, proxy_protocol: None }
    }
}

/// How the certificates of targets are looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetTls {
    /// By the authorities of the system.
    System,
    /// By those in this PEM file alone.
    Authorities(PathBuf),
    /// Not at all.
    Unverified,
}

/// TLS of viewers.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ServerTls {
    /// The certificate with its key; both are read again when they change.
    pub pair: Pair,
    /// Plain connections are closed.
    pub only: bool,
    /// Nothing below TLS 1.3.
    pub only_tls13: bool,
    /// The only suites that are offered, by their names in IANA's registry or OpenSSL; none: those that are usual. Where none of
    /// TLS 1.3 is among them, all of its are.
    pub suites: Vec<String>,
    /// Viewers must show a certificate of one of these authorities. Those without TLS cannot, and are closed.
    pub verify: Option<Authorities>,
}

impl ServerTls {
    /// The usual TLS with this certificate.
    pub fn new(pair: Pair) -> Self {
        Self { pair, only: false, only_tls13: false, suites: Vec::new(), verify: None }
    }
}

/// Who vouches for viewers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authorities {
    /// The authorities of the system.
    System,
    /// Those in this PEM file alone.
    File(PathBuf),
}
