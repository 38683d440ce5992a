//! Upgraded connections: raw bytes both ways, after the target's own 101 and only for a protocol that was asked for.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Version};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::carry::{Ends, Of, Terms, carry};
use super::exchange::Account;
use super::viewer::{Busy, Connection, ViewerIo};
use crate::stream::{Duplex, handshake};
use crate::sync::{Count, Held};
use crate::tunnel::Meter;

/// Whether the protocol of a 101 was among the wanted ones.
pub fn is_among(wanted: &HeaderValue, switched: &HeaderValue) -> bool {
    let tokens = |value: &HeaderValue| {
        let text = value.to_str().unwrap_or_default().to_ascii_lowercase();
        text.split(',')
            .map(|token| token.trim().to_owned())
            .filter(|token| !token.is_empty())
            .collect::<Vec<_>>()
    };
    let (wanted, switched) = (tokens(wanted), tokens(switched));
    !switched.is_empty() && switched.iter().all(|token| wanted.contains(token))
}

/// Whoever asked for the upgrade.
pub struct Viewer {
    on_upgrade: OnUpgrade,
    /// On a connection of HTTP/2 it is one stream of several, which holds the connection and counts by itself.
    stream: Option<(Busy, Held)>,
}

impl Viewer {
    /// The viewer behind `on_upgrade`, counted by `kind` from now on.
    pub fn new(on_upgrade: OnUpgrade, connection: &Arc<Connection>, version: Version, kind: &Count) -> Self {
        if version == Version::HTTP_2 {
            return Self { on_upgrade, stream: Some((connection.hold(), kind.hold())) };
        }
        connection.becomes(kind);
        Self { on_upgrade, stream: None }
    }
}

/// Copies until either side ends, the tunnel ends, or nothing moves for too long. Of the target come what was read behind
/// its head, its stream, and the meter of that.
pub async fn splice(
    viewer: Viewer,
    (input, stream, meter): (Bytes, Box<dyn Duplex>, Option<Box<Meter>>),
    terms: Terms,
    account: Account,
) {
    let Viewer { on_upgrade, stream: one_of_several } = viewer;
    let Ok(upgraded) = on_upgrade.await else { return };
    if let Some((busy, counted)) = one_of_several {
        let (viewer, of, early) = (TokioIo::new(upgraded), Of::Stream(busy, counted), Bytes::new());
        let ends = Ends { viewer, of, stream, meter, early, input, rejected: None, sign_of_life: None };
        return carry(ends, terms, account).await;
    }
    let Ok(parts) = upgraded.downcast::<TokioIo<ViewerIo>>() else { return };
    let viewer = parts.io.into_inner();
    let of = Of::Connection(Arc::clone(&viewer.connection));
    // What came right behind the two heads was read along with them.
    let early = handshake::left_over(&parts.read_buf).freeze();
    drop(parts.read_buf);
    let ends = Ends { viewer, of, stream, meter, early, input, rejected: None, sign_of_life: None };
    carry(ends, terms, account).await;
}
