//! Where a bridge listens: addresses, a path, what a supervisor gives, or standard input.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, anyhow};
use listenfd::ListenFd;
use rustix::fs::{Stat, fstat};
use rustix::net::sockopt::socket_acceptconn;
use socket2::Socket;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream, lookup_host};

use super::flags::Flags;
use super::settings::Usage;
use crate::bridge::{Accepted, Listener};
use crate::stream::{tcp, unix};

/// Permissions of a socket at a path, unless others are asked for: nobody but its owner gets there.
const USUAL_MODE: u32 = 0o600;

/// What there is to serve.
pub(super) enum Sockets {
    /// Connections to be accepted.
    Listening(Vec<Listener>),
    /// One that was accepted.
    Accepted(Accepted),
}

impl Sockets {
    /// Those that listen.
    pub(super) fn listeners(&self) -> &[Listener] {
        match self {
            Self::Listening(listeners) => listeners,
            Self::Accepted(_) => &[],
        }
    }

    fn has_path(&self) -> bool {
        matches!(self, Self::Accepted(Accepted::Unix(_)))
            || self.listeners().iter().any(|listener| matches!(listener, Listener::Unix(_)))
    }
}

/// What a supervisor has started us with (sd_listen_fds(3)): sockets that listen or, by systemd's `Accept=yes`, a connection.
pub(super) fn given() -> anyhow::Result<Option<Sockets>> {
    let mut given = ListenFd::from_env();
    let mut listeners = Vec::new();
    for at in 0..given.len() {
        let failed = || format!("the socket {} that systemd gave cannot be used", at + 3);
        // Neither of these looks whether it listens.
        let socket: OwnedFd = match given.take_unix_listener(at) {
            Ok(Some(socket)) => socket.into(),
            _ => match given.take_tcp_listener(at).with_context(failed)? {
                Some(socket) => socket.into(),
                None => continue,
            },
        };
        match sorted(socket).with_context(failed)? {
            Sockets::Listening(more) => listeners.extend(more),
            connection => return Ok(Some(connection)),
        }
    }
    Ok(if listeners.is_empty() { None } else { Some(Sockets::Listening(listeners)) })
}

/// There is no TLS at a path, so it cannot be asked of those who come there.
pub(super) fn check_tls(flags: &Flags, given: Option<&Sockets>) -> Result<(), Usage> {
    let path = flags.unix_listen.is_some() || given.is_some_and(Sockets::has_path);
    let asked = [(flags.ssl_only, "--ssl-only"), (flags.verify_client, "--verify-client")];
    match asked.iter().find(|(asked, _)| path && *asked) {
        Some((_, flag)) => Err(Usage(format!(
            "{flag} does not go with a socket at a path (--unix-listen), where no TLS is spoken: listen at a port, or leave \
             {flag} out and say by --unix-listen-mode who gets to the path"
        ))),
        None => Ok(()),
    }
}

/// Listens as the flags say.
pub(super) async fn bind(flags: &Flags, sources: &[String]) -> anyhow::Result<Vec<Listener>> {
    let mut listeners = Vec::new();
    if let Some(path) = &flags.unix_listen {
        let listener = unix::listen(path, flags.unix_listen_mode.unwrap_or(USUAL_MODE));
        listeners.push(listener.with_context(|| format!("cannot listen at {}", path.display()))?.into());
    }
    for source in sources {
        listeners.extend(bind_one(flags, source).await.map_err(advised)?);
    }
    Ok(listeners)
}

async fn bind_one(flags: &Flags, source: &str) -> anyhow::Result<Vec<Listener>> {
    let (host, port) = parse(source)?;
    let bind = |address: SocketAddr| {
        tcp::listen(address, address.is_ipv6()).with_context(|| format!("cannot listen on {address}"))
    };
    if host.is_empty() {
        // One socket for both families; a system without IPv6 has only the other one.
        let both = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        let listener = match tcp::listen(both, false) {
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))
            }
            listener => listener.with_context(|| format!("cannot listen on port {port}")),
        };
        return Ok(vec![listener?.into()]);
    }
    let found = lookup_host((host, port)).await.with_context(|| format!("{host} was not found"))?;
    let mut addresses: Vec<_> = found.collect();
    addresses.sort_by_key(|address| address.is_ipv6() != flags.prefer_ipv6);
    addresses.dedup();
    let (mut listeners, mut failed) = (Vec::new(), None);
    for address in addresses {
        match bind(address) {
            Ok(listener) => listeners.push(listener.into()),
            // A name may have an address that this machine does not.
            Err(error) => failed = Some(error),
        }
    }
    match failed {
        Some(error) if listeners.is_empty() || is_in_use(&error) => Err(error),
        _ => Ok(listeners),
    }
}

/// The same with what helps where a port is in use.
fn advised(error: anyhow::Error) -> anyhow::Error {
    match is_in_use(&error) {
        true => anyhow!("{error:#}; give another port, or end the program that has it: `ss -ltnp` shows it"),
        false => error,
    }
}

fn is_in_use(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::AddrInUse)
}

/// `[ADDRESS:]PORT`: the last colon counts.
pub(super) fn parse(source: &str) -> anyhow::Result<(&str, u16)> {
    let (host, port) = source.rsplit_once(':').unwrap_or(("", source));
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let port = port.parse().map_err(|_| Usage(format!("{source:?}: [ADDRESS:]PORT is expected")))?;
    Ok((host, port))
}

/// The socket that standard input is: one that listens, or a connection.
pub(super) fn stdin() -> anyhow::Result<Sockets> {
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    socket_acceptconn(&socket).map_err(|_| {
        anyhow!(
            "--inetd: standard input is no socket; it is for inetd and systemd, elsewhere give [ADDRESS:]PORT"
        )
    })?;
    Ok(sorted(socket)?)
}

/// A socket by what it is: one that listens, or a connection.
fn sorted(socket: OwnedFd) -> io::Result<Sockets> {
    if socket_acceptconn(&socket)? {
        return Ok(Sockets::Listening(vec![listener(socket)?]));
    }
    let socket = Socket::from(socket);
    socket.set_nonblocking(true)?;
    let accepted = match socket.local_addr()?.is_unix() {
        true => Accepted::Unix(UnixStream::from_std(socket.into())?),
        false => {
            let stream = TcpStream::from_std(socket.into())?;
            tcp::tune(&stream);
            let peer = stream.peer_addr()?;
            Accepted::Tcp(stream, peer)
        }
    };
    Ok(Sockets::Accepted(accepted))
}

/// A descriptor that listens.
pub(super) fn listener(socket: OwnedFd) -> io::Result<Listener> {
    let socket = Socket::from(socket);
    socket.set_nonblocking(true)?;
    Ok(match socket.local_addr()?.is_unix() {
        true => Listener::Unix(UnixListener::from_std(socket.into())?),
        false => Listener::Tcp(TcpListener::from_std(socket.into())?),
    })
}

/// Whether `output` is the very socket that standard input is, as inetd has stdout and stderr.
pub(super) fn is_stdin(output: &impl AsFd) -> bool {
    let which = |stat: Stat| (stat.st_dev, stat.st_ino);
    let input = io::stdin();
    let same = fstat(&input).ok().map(which);
    socket_acceptconn(&input).is_ok() && same.is_some() && same == fstat(output).ok().map(which)
}

/// The port at which it listens, if it is one.
pub(super) fn port(listener: &Listener) -> Option<u16> {
    match listener {
        Listener::Tcp(listener) => listener.local_addr().ok().map(|address| address.port()),
        Listener::Unix(_) => None,
    }
}

/// Where it listens, for the log.
pub(super) fn shown(listener: &Listener) -> String {
    match listener {
        Listener::Tcp(listener) => listener.local_addr().map(|address| address.to_string()),
        Listener::Unix(listener) => {
            Ok(unix::path_of(listener).map_or_else(|| "a socket".into(), |path| path.display().to_string()))
        }
    }
    .unwrap_or_else(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_may_have_an_address_before_it() {
        for (source, host, port) in [
            ("6080", "", 6080),
            (":6080", "", 6080),
            ("[::1]:1", "::1", 1),
            ("::1:1", "::1", 1),
            ("h:0", "h", 0),
        ] {
            assert_eq!(parse(source).unwrap(), (host, port), "{source}");
        }
        for source in ["", "h", "h:", "1:x", "65536"] {
            assert!(parse(source).is_err(), "{source}");
        }
    }
}
