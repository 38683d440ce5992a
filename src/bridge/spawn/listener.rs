//! The listening socket that a process is given.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use socket2::{Domain, Socket, Type};

use crate::bridge::target::Target;
use crate::stream::unix;

/// Listens at `target`.
pub(super) fn listen(target: &Target, backlog: i32) -> io::Result<OwnedFd> {
    let socket = match target {
        // Nobody but the bridge need get there.
        Target::Unix(path) => unix::bind(path, 0o600)?,
        Target::Tcp { host, port } => {
            let address: IpAddr = host.parse().map_err(io::Error::other)?;
            if *port == 0 {
                return Err(io::Error::other("there are not so many ports behind the first one"));
            }
            let address = std::net::SocketAddr::from((address, *port));
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
            // The connections of the one before may still be ending.
            socket.set_reuse_address(true)?;
            socket.bind(&address.into())?;
            socket
        }
    };
    socket.listen(backlog)?;
    Ok(socket.into())
}

/// What is left of it when the process is not wanted any more.
pub(super) fn forget(target: &Target) {
    if let Target::Unix(path) = target {
        let _ = std::fs::remove_file(path);
    }
}
