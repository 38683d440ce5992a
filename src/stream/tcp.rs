//! Options set on every TCP socket of ours.

use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// Unacknowledged data for this long means that the peer is gone; the kernel's own patience is over 15 minutes.
const USER_TIMEOUT: Duration = Duration::from_secs(30);
/// The kernel asks a silent peer after this, so that half-open connections end.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Sets no-delay, keep-alive and the user timeout. Failures are ignored: the socket works without.
pub fn tune(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let socket = SockRef::from(stream);
    let _ = socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 4));
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let _ = socket.set_tcp_user_timeout(Some(USER_TIMEOUT));
}
