//! Workers of Taskcluster on the relay's own hosts: which paths are theirs, how they register, and how they are viewed
//! (`docs/taskcluster.md`). Their requests go through the same front as those to all other tunnels.

mod register;
mod session;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;

use super::Shared;
use super::errors::Cause;
use super::front::Content;
use super::viewer::Connection;
use crate::proto::worker;
use crate::tunnel::Tunnel;

/// Names the worker that registers.
const ID: HeaderName = HeaderName::from_static(worker::ID);
/// Answers with the URL at which it is viewed.
const CLIENT_URL: HeaderName = HeaderName::from_static(worker::CLIENT_URL);

/// First segments of paths that are the relay's own, and so no ids.
const RESERVED: [&str; 8] =
    ["t", "v1", "ws", "health", ".well-known", "__heartbeat__", "__lbheartbeat__", "__version__"];

/// Whom a request is for that is not for the rest of the relay.
pub enum For {
    /// The worker with this id.
    Worker(String),
    /// The relay itself.
    Relay(Asked),
}

/// What the relay itself is asked.
pub enum Asked {
    /// A worker registers.
    Register,
    /// Whether it is there.
    Heartbeat,
    /// Which version it is.
    Version,
}

/// Whom here a request to one of the relay's own hosts is for; `None`: nobody.
pub fn asked<B>(shared: &Shared, request: &Request<B>) -> Option<For> {
    shared.config.worker_tokens.as_ref()?;
    let path = request.uri().path();
    if path == "/" {
        let id = request.headers().get(ID)?;
        return (!id.is_empty()).then_some(For::Relay(Asked::Register));
    }
    match path {
        "/__heartbeat__" | "/__lbheartbeat__" => return Some(For::Relay(Asked::Heartbeat)),
        "/__version__" => return Some(For::Relay(Asked::Version)),
        _ => {}
    }
    let id = path.strip_prefix('/')?.split('/').next()?;
    (!id.is_empty() && !RESERVED.contains(&id)).then(|| For::Worker(id.to_owned()))
}

/// The tunnel of the worker `id`, which must be there.
pub fn tunnel(shared: &Shared, id: &str) -> Result<Arc<Tunnel>, Cause> {
    there(shared, shared.registry.worker(id))
}

/// The tunnel of the worker whose host has this label below the base domain, which must be there.
pub fn tunnel_of_host(shared: &Shared, label: &str) -> Result<Arc<Tunnel>, Cause> {
    there(shared, shared.registry.by_label(label))
}

fn there(shared: &Shared, known: Option<Arc<Tunnel>>) -> Result<Arc<Tunnel>, Cause> {
    if shared.ending.is_stopping() {
        return Err(Cause::Draining);
    }
    // The process before us told its own: they are still there, or on their way to us.
    let may_come = || shared.predecessor.was_alive(shared.config.limits.reconnect_wait);
    let is_there = |tunnel: &Arc<Tunnel>| tunnel.session().is_some() || may_come();
    known.filter(is_there).ok_or(Cause::NoWorker)
}

/// The answer to what the relay itself is asked.
pub async fn answer(
    shared: &Arc<Shared>,
    connection: &Connection,
    asked: Asked,
    request: Request<Incoming>,
) -> Response<Content> {
    if !hyper::body::Body::is_end_stream(request.body()) {
        connection.leave_unread();
    }
    match asked {
        Asked::Register => register::register(shared, connection, request).await,
        Asked::Version => {
            let version = concat!("{\"version\":\"", env!("CARGO_PKG_VERSION"), "\"}\n");
            text(StatusCode::OK, "application/json", version.into())
        }
        Asked::Heartbeat => text(StatusCode::OK, "text/plain; charset=utf-8", Bytes::new()),
    }
}

fn text(status: StatusCode, kind: &'static str, text: Bytes) -> Response<Content> {
    let mut response = Response::new(Content::Page(Full::new(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
