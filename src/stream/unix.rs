//! Listening at a path: for a proxy on the same machine, without a port.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::UnixListener;

/// Connections that may wait to be accepted; the kernel cuts it to its own limit.
const BACKLOG: i32 = 1024;

/// Listens at `path`, as [`bind`] does.
pub fn listen(path: &Path, mode: u32) -> io::Result<UnixListener> {
    let socket = bind(path, mode)?;
    socket.set_nonblocking(true)?;
    socket.listen(BACKLOG)?;
    UnixListener::from_std(socket.into())
}

/// A socket at `path` that does not listen yet, with these permissions from the first moment. A socket that nobody answers is
/// what is left of a process, and is replaced; anything else that is there is an error.
pub fn bind(path: &Path, mode: u32) -> io::Result<Socket> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
        Ok(there) if !there.file_type().is_socket() => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file, and it is no socket"));
        }
        Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)?,
            Err(error) => return Err(error),
            Ok(_) => return Err(io::Error::new(io::ErrorKind::AddrInUse, "another program listens there")),
        },
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    // Before it listens, so that nobody gets in meanwhile.
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    Ok(socket)
}

/// Where it listens, unless that has no name.
pub fn path_of(listener: &UnixListener) -> Option<PathBuf> {
    listener.local_addr().ok()?.as_pathname().map(Path::to_owned)
}

/// The file of a socket that we made, as long as it is that one.
pub struct File {
    path: PathBuf,
    id: (u64, u64, i64, i64),
}

impl File {
    /// The file at which a socket of ours listens.
    pub fn at(path: &Path) -> Option<Self> {
        Some(Self { path: path.to_owned(), id: id(path)? })
    }

    /// Takes it away, unless another one is in its place.
    pub fn remove(self) {
        if id(&self.path) == Some(self.id) {
            let _ = fs::remove_file(self.path);
        }
    }
}

/// With the time, as a new file may get the number of one that was just removed.
fn id(path: &Path) -> Option<(u64, u64, i64, i64)> {
    fs::symlink_metadata(path).ok().map(|file| (file.dev(), file.ino(), file.ctime(), file.ctime_nsec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_left_of_a_socket_is_replaced_and_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("web.sock");
        let first = listen(&path, 0o660).unwrap();
        let file = File::at(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert_eq!(path_of(&first), Some(path.clone()));
        assert_eq!(listen(&path, 0o660).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        let second = listen(&path, 0o600).unwrap();
        file.remove();
        assert!(path.exists(), "it is another one by now");
        drop(second);
        File::at(&path).unwrap().remove();
        assert!(!path.exists());
        fs::write(&path, "precious").unwrap();
        assert_eq!(listen(&path, 0o660).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }
}
