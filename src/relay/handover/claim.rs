//! A data socket of a client is for a viewer of this process, or of one before it.

use std::os::fd::OwnedFd;

use bytes::BytesMut;
use socket2::{Domain, SockRef};
use tokio::net::{TcpStream, UnixStream};
use uuid::Uuid;

use crate::link::peer::{PeerClaim, Predecessor};
use crate::link::sockets::{Bearer, Claim, ClaimError, Pending};
use crate::stream::any::AnyStream;
use crate::stream::websocket::Sizes;

/// The right to deliver one data socket.
pub enum Claimed {
    /// To a viewer of ours.
    Here(Claim),
    /// To the predecessor.
    There(PeerClaim),
}

/// Takes up the connection `id`, wherever it was announced. Nothing that is refused burns it.
pub async fn claim(
    pending: &Pending,
    predecessor: &Predecessor,
    id: &str,
    bearer: Option<Bearer<'_>>,
) -> Result<Claimed, ClaimError> {
    match pending.claim(id, bearer) {
        Err(ClaimError::Unknown) if predecessor.is_alive() && Uuid::parse_str(id).is_ok() => {
            predecessor.claim(id, bearer).await.map(Claimed::There)
        }
        claimed => claimed.map(Claimed::Here),
    }
}

impl Claimed {
    /// Passes on a socket that came as a descriptor, after its handshake; `already` is what was read behind that.
    pub async fn deliver(self, socket: OwnedFd, already: BytesMut, sizes: Sizes) -> std::io::Result<()> {
        match self {
            Self::Here(claim) => {
                let about = SockRef::from(&socket);
                about.set_nonblocking(true)?;
                let stream = if about.domain()? == Domain::UNIX {
                    AnyStream::Unix(UnixStream::from_std(socket.into())?)
                } else {
                    AnyStream::Tcp(TcpStream::from_std(socket.into())?)
                };
                claim.deliver(stream, already, sizes);
            }
            Self::There(claim) => claim.deliver(socket, &already).await,
        }
        Ok(())
    }
}
