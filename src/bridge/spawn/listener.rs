//! The listening socket that a process is given.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use socket2::{Domain, SockAddr, Socket, Type};

use crate::bridge::target::Target;

/// Listens at `target`.
pub(super) fn listen(target: &Target, backlog: i32) -> io::Result<OwnedFd> {
    let socket = match target {
        Target::Unix(path) => {
            clear(path)?;
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            socket.bind(&SockAddr::unix(path)?)?;
            socket
        }
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

/// Takes away the socket of a process that is gone.
fn clear(path: &Path) -> io::Result<()> {
    let Ok(found) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !found.file_type().is_socket() {
        return Err(io::Error::other("there is a file of that name, which is no socket"));
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another program answers there")),
        Err(_) => std::fs::remove_file(path),
    }
}

/// What is left of it when the process is not wanted any more.
pub(super) fn forget(target: &Target) {
    if let Target::Unix(path) = target {
        let _ = std::fs::remove_file(path);
    }
}
