//! How a viewer reaches a tunnel and its client, wherever they are while one process replaces another.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Shared;
use crate::link::Link;
use crate::tunnel::Tunnel;

/// After a take-over, clients have this long to come back.
const RECONNECT_WAIT: Duration = Duration::from_secs(5);
/// Whether they are back is looked at this often.
const LOOK_EVERY: Duration = Duration::from_millis(20);

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
    Box::pin(link_elsewhere(shared, tunnel, viewer)).await
}

async fn link_elsewhere(shared: &Shared, tunnel: &Tunnel, viewer: SocketAddr) -> Option<Arc<dyn Link>> {
    let give_up = Instant::now() + RECONNECT_WAIT;
    loop {
        if let Some(link) = shared.predecessor.link_for(&tunnel.name, viewer).await {
            return Some(link);
        }
        if let Some(session) = tunnel.session() {
            return Some(session);
        }
        if !shared.predecessor.was_there() || Instant::now() >= give_up {
            return None;
        }
        sleep(LOOK_EVERY).await;
    }
}
