//! The Unix socket in the data directory, by which a running relay is found.

use std::fs::{Permissions, remove_file, rename, set_permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

/// Its name.
const FILE_NAME: &str = "relay.sock";
/// What a new one is called until it takes the place of the one before; no longer than that name, as paths of sockets
/// are short.
const DRAFT_NAME: &str = "relay.next";
/// Connections that may wait.
const BACKLOG: i32 = 16;
/// A relay whose socket takes no connection in this time is there all the same.
const CONNECT_WAIT: Duration = Duration::from_secs(1);

/// Connects to the relay that runs on `dir`.
pub async fn connect(dir: &Path) -> io::Result<UnixStream> {
    let connecting = UnixStream::connect(dir.join(FILE_NAME));
    timeout(CONNECT_WAIT, connecting).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Whether a relay runs on `dir`. A socket that nobody answers is what is left of one.
pub async fn is_answered(dir: &Path) -> bool {
    match connect(dir).await {
        Ok(_) => true,
        Err(error) => matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock),
    }
}

/// The socket by which this relay is found.
pub struct Published {
    /// Takes the connections.
    pub listener: UnixListener,
    path: PathBuf,
}

impl Published {
    /// Makes one in `dir` that only its owner can connect to, and puts it in the place of the one before at one stroke.
    pub fn new(dir: &Path) -> io::Result<Self> {
        let (draft, path) = (dir.join(DRAFT_NAME), dir.join(FILE_NAME));
        match remove_file(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SockAddr::unix(&draft)?)?;
        // Before it listens, so that nobody gets in meanwhile.
        set_permissions(&draft, Permissions::from_mode(0o600))?;
        socket.listen(BACKLOG)?;
        let listener = UnixListener::from_std(socket.into())?;
        rename(draft, &path)?;
        Ok(Self { listener, path })
    }

    /// Takes it away, before another relay may start on the directory. Not for one that has a successor: the path is that
    /// one's.
    pub fn withdraw(self) {
        let _ = remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_relay_is_found_as_long_as_it_runs_and_what_is_left_of_it_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!is_answered(dir.path()).await);
        let first = Published::new(dir.path()).unwrap();
        assert!(is_answered(dir.path()).await);
        let mode = std::fs::metadata(dir.path().join(FILE_NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(first);
        assert!(dir.path().join(FILE_NAME).exists() && !is_answered(dir.path()).await, "as after a kill");
        let second = Published::new(dir.path()).unwrap();
        let third = Published::new(dir.path()).unwrap();
        drop(second);
        assert!(is_answered(dir.path()).await, "it is replaced while it is there, too");
        third.withdraw();
        assert!(!dir.path().join(FILE_NAME).exists());
    }

    #[tokio::test]
    async fn a_path_that_is_too_long_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let long = dir.path().join("x".repeat(120));
        std::fs::create_dir(&long).unwrap();
        assert!(Published::new(&long).is_err() && !is_answered(&long).await);
    }
}
