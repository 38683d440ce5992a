//! Options set on every TCP socket of ours.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::TcpListener;

/// Data that the peer does not take for this long means that it is gone; the kernel's own patience is over 15 minutes.
/// A peer that is there and does not read counts too (a paused download), so it is as long as an exchange may be idle;
/// what has to be noticed earlier is noticed by pings.
const USER_TIMEOUT: Duration = Duration::from_secs(300);
/// The kernel asks a silent peer after this, so that half-open connections end.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Connections that may wait to be accepted; the kernel cuts it to its own limit.
const BACKLOG: i32 = 1024;

/// Listens on `address`, which may have been in use until just now. `only_ipv6`: an IPv6 wildcard leaves IPv4 alone.
pub fn listen(address: SocketAddr, only_ipv6: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if only_ipv6 {
        socket.set_only_v6(true)?;
    }
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Sets no-delay, keep-alive and the user timeout, of a connection or of all that a listener accepts from now on: these
/// inherit them. Failures are ignored: the socket works without.
pub fn tune<S: AsFd>(socket: &S) {
    let socket = SockRef::from(socket);
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 4));
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let _ = socket.set_tcp_user_timeout(Some(USER_TIMEOUT));
}

/// Has what is written from now on wait for the drop of the socket, which is to follow: the last bytes and the end are one packet,
/// and the peer is woken once for both.
pub fn end_follows<S: AsFd>(socket: &S) {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let _ = SockRef::from(socket).set_tcp_cork(true);
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = socket;
}

/// Acknowledges now what has come until now, instead of with the next bytes or 40 ms later.
pub fn acknowledge<S: AsFd>(socket: &S) {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let _ = SockRef::from(socket).set_tcp_quickack(true);
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = socket;
}
