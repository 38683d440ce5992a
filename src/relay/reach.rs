//! The link over which a viewer reaches the client of a tunnel.

use std::net::SocketAddr;
use std::sync::Arc;

use super::Shared;
use crate::link::Link;
use crate::tunnel::Tunnel;

/// The session of the tunnel, or that which the process before us has still; `None`: no client is connected.
pub async fn link(shared: &Shared, tunnel: &Tunnel, viewer: SocketAddr) -> Option<Arc<dyn Link>> {
    if let Some(session) = tunnel.session() {
        return Some(session);
    }
    // Boxed: what is rare must not make every request's future larger.
    Box::pin(shared.predecessor.link_for(&tunnel.name, viewer)).await
}
