//! Upgraded connections: raw bytes both ways, after the target's own 101 and only for a protocol that was asked for.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::ending::Ending;
use super::errors::Cause;
use super::exchange::{Account, Exchange};
use super::viewer::ViewerIo;
use crate::stream::handshake;
use crate::stream::splice::{HalfClose, Moved, splice as copy};
use crate::tunnel::Metered;

/// For the goodbye to the target.
const CLOSE_WAIT: Duration = Duration::from_secs(2);

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

/// Copies until either side ends, the tunnel ends, or nothing moves for `idle`.
pub async fn splice(
    on_upgrade: OnUpgrade,
    exchange: Exchange,
    idle: Duration,
    running: CancellationToken,
    ending: Arc<Ending>,
    mut account: Account,
) {
    let Ok(upgraded) = on_upgrade.await else { return };
    let Ok(parts) = upgraded.downcast::<TokioIo<ViewerIo>>() else { return };
    let mut viewer = parts.io.into_inner();
    let early = handshake::left_over(&parts.read_buf);
    drop(parts.read_buf);
    let (input, mut stream, mut meter) = exchange.into_parts();
    let half_close = if stream.half_closes() { HalfClose::Kept } else { HalfClose::EndsBoth };
    let mut moved = Moved::default();
    let copying = async {
        // What came right behind the two heads was read along with them.
        viewer.write_all(&input).await?;
        if !early.is_empty() {
            stream.write_all(&early).await?;
            stream.flush().await?;
        }
        match &mut meter {
            None => copy(&mut viewer, stream.as_mut(), half_close, idle, &mut moved).await,
            Some(meter) => {
                let mut stream = Metered::new(stream.as_mut(), meter);
                copy(&mut viewer, &mut stream, half_close, idle, &mut moved).await
            }
        }
    };
    let ended = tokio::select! {
        ended = copying => ended.map_err(|error| {
            let silent = error.kind() == io::ErrorKind::TimedOut;
            (if silent { Cause::TargetSilent } else { Cause::BrokeOff }, error)
        }),
        () = running.cancelled() => Err((ending.why_stopped(), io::Error::other("the tunnel has ended"))),
    };
    account.upgraded(early.len() as u64 + moved.inward, input.len() as u64 + moved.outward);
    if ended.is_ok() {
        account.complete();
    }
    if let Err((cause, error)) = ended {
        account.fail(&cause);
        tracing::debug!(%error, tunnel = account.tunnel.name, "upgraded connection broke off");
        if stream.half_closes() {
            // Neither side is to take this for an end in order.
            viewer.connection.reset_on_close();
            return;
        }
    }
    drop(account);
    let _ = timeout(CLOSE_WAIT, stream.shutdown()).await;
    // The viewer may be sending still: closing at once would reset the connection, and lose what it has not read yet.
    viewer.connection.linger().await;
}
