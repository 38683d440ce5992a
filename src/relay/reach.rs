//! How a viewer reaches a tunnel and its client, wherever they are while one process replaces another.

use std::net::SocketAddr;
use std::sync::Arc;

use super::Shared;
use crate::link::Link;
use crate::tunnel::Tunnel;

/// The tunnel of that name. One that is not known may have been made by the process before us a moment ago.
pub async fn tunnel(shared: &Shared, name: &str) -> Option<Arc<Tunnel>> {
    let known = shared.registry.by_name(name);
    if known.is_some() || !shared.predecessor.is_alive() {
        return known;
    }
    Box::pin(shared.registry.learn()).await;
    shared.registry.by_name(name)
}

/// The session of the tunnel, or that which the process before us has still; `None`: no client is connected.
pub async fn link(shared: &Shared, tunnel: &Tunnel, viewer: SocketAddr) -> Option<Arc<dyn Link>> {
    if let Some(session) = tunnel.session() {
        return Some(session);
    }
    // Boxed: what is rare must not make every request's future larger.
    Box::pin(shared.predecessor.link_for(&tunnel.name, viewer)).await
}
