//! Upgraded connections: raw bytes both ways, after the target's own 101 and only for a protocol that was asked for.

use http::HeaderValue;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::carry::{Ends, Terms, carry};
use super::exchange::{Account, Exchange};
use super::viewer::ViewerIo;
use crate::stream::handshake;

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

/// Copies until either side ends, the tunnel ends, or nothing moves for too long.
pub async fn splice(on_upgrade: OnUpgrade, exchange: Exchange, terms: Terms, account: Account) {
    let Ok(upgraded) = on_upgrade.await else { return };
    let Ok(parts) = upgraded.downcast::<TokioIo<ViewerIo>>() else { return };
    let viewer = parts.io.into_inner();
    // What came right behind the two heads was read along with them.
    let early = handshake::left_over(&parts.read_buf).freeze();
    drop(parts.read_buf);
    let (input, stream, meter) = exchange.into_parts();
    let ends = Ends { viewer, stream, meter, early, input, rejected: None, sign_of_life: None };
    carry(ends, terms, account).await;
}
