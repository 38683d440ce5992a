//! Connections that a proxy in front passes on: its PROXY header says who the viewer is.

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

use super::Shared;
use super::forward::is_trusted;
use super::room::Place;
use super::viewer::Peer;
use crate::proto::limits::{proxy_header::V2_BYTES, read};
use crate::proto::proxy_header::{HeaderError, parse};

/// Why a connection of a proxy is of no use.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    Header(#[from] HeaderError),
    #[error("the connection ended before its PROXY header: {0}")]
    Io(#[from] std::io::Error),
    #[error("the PROXY header did not come in time")]
    Late,
}

/// Who is at the other end, and what was read behind the header. A trusted peer must send one where the operator says so;
/// of others it is never read. `None`: the connection is to be closed.
pub async fn announced<S: AsyncRead + Unpin>(
    shared: &Shared,
    stream: &mut S,
    peer: Peer,
    place: &mut Place,
) -> Option<(Peer, BytesMut)> {
    let config = &shared.config;
    if !config.accept_proxy_protocol || !is_trusted(peer.remote.ip(), &config.trusted_proxies) {
        return Some((peer, BytesMut::new()));
    }
    let reading = async {
        // Most connections of a proxy are given up unused, by probes.
        match timeout(config.limits.first_byte_wait, header(stream, peer)).await {
            Ok(read) => read,
            Err(_) => Err(Refused::Late),
        }
    };
    let read = tokio::select! {
        read = reading => read,
        () = shared.ending.closing.cancelled() => return None,
    };
    match read {
        Ok((announced, behind)) => {
            let stranger = announced != peer && !is_trusted(announced.remote.ip(), &config.trusted_proxies);
            let counted = !stranger || shared.room.count(place, announced.remote.ip());
            counted.then_some((announced, behind))
        }
        Err(error) => {
            tracing::warn!(proxy = %peer.remote, %error, "a connection of a trusted proxy is closed");
            None
        }
    }
}

async fn header<S: AsyncRead + Unpin>(stream: &mut S, peer: Peer) -> Result<(Peer, BytesMut), Refused> {
    let mut bytes = BytesMut::with_capacity(read::LEAST);
    loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
        }
        if let Some(header) = parse(&bytes)? {
            let behind = bytes.split_off(header.length);
            let announced = header
                .ends
                .map_or(peer, |ends| Peer { remote: ends.source, reached: Some(ends.destination) });
            return Ok((announced, behind));
        }
        debug_assert!(bytes.len() < V2_BYTES, "a header is judged before");
    }
}
