//! Connections that a proxy in front passes on: its PROXY header says who the viewer is.

use bytes::BytesMut;
use tokio::io::AsyncRead;

use super::Shared;
use super::forward::is_trusted;
use super::room::Place;
use super::viewer::Peer;
use crate::stream::announced;

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
    let read = tokio::select! {
        read = announced::read(stream, config.limits.first_byte_wait) => read,
        () = shared.ending.closing.cancelled() => return None,
    };
    match read {
        Ok((ends, behind)) => {
            let announced =
                ends.map_or(peer, |ends| Peer { remote: ends.source, reached: Some(ends.destination) });
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
