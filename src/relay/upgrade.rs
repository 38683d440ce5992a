//! Upgraded connections: raw bytes both ways, after the target's own 101 and only for a protocol that was asked for.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Version};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::ending::Ending;
use super::errors::Cause;
use super::exchange::Account;
use super::viewer::{Busy, Connection, ViewerIo};
use crate::stream::splice::{HalfClose, Moved, splice as copy};
use crate::stream::{Duplex, handshake};
use crate::sync::{Count, Held};
use crate::tunnel::{Meter, Metered};

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

/// Copies until either side ends, the tunnel ends, or nothing moves for `idle`. Of the target come what was read behind its
/// head, its stream, and the meter of that.
pub async fn splice(
    viewer: Viewer,
    (input, mut stream, mut meter): (Bytes, Box<dyn Duplex>, Option<Box<Meter>>),
    idle: Duration,
    running: CancellationToken,
    ending: Arc<Ending>,
    mut account: Account,
) {
    let Viewer { on_upgrade, stream: one_of_several } = viewer;
    let Ok(upgraded) = on_upgrade.await else { return };
    let way = Way { input, stream: &mut stream, meter: &mut meter, idle };
    let stopped = async {
        running.cancelled().await;
        ending.why_stopped()
    };
    if let Some((busy, _counted)) = one_of_several {
        let broke = way.copy(&mut TokioIo::new(upgraded), BytesMut::new(), stopped, &mut account).await;
        // Its end is what a stream has for both, and a WebSocket says goodbye by itself.
        drop((busy, account));
        if !(broke && stream.half_closes()) {
            let _ = timeout(CLOSE_WAIT, stream.shutdown()).await;
        }
        return;
    }
    let Ok(parts) = upgraded.downcast::<TokioIo<ViewerIo>>() else { return };
    let mut viewer = parts.io.into_inner();
    let early = handshake::left_over(&parts.read_buf);
    drop(parts.read_buf);
    let broke = way.copy(&mut viewer, early, stopped, &mut account).await;
    if broke && stream.half_closes() {
        // Neither side is to take this for an end in order.
        viewer.connection.reset_on_close();
        return;
    }
    drop(account);
    let _ = timeout(CLOSE_WAIT, stream.shutdown()).await;
    // The viewer may be sending still: closing at once would reset the connection, and lose what it has not read yet.
    viewer.connection.linger().await;
}

/// The target's side of an upgraded connection.
struct Way<'a> {
    /// What came right behind its head.
    input: Bytes,
    stream: &'a mut Box<dyn Duplex>,
    meter: &'a mut Option<Box<Meter>>,
    idle: Duration,
}

impl Way<'_> {
    /// Copies between `viewer`, from whom `early` has come, and the target; whether it broke off.
    async fn copy<V>(
        self,
        viewer: &mut V,
        early: BytesMut,
        stopped: impl Future<Output = Cause>,
        account: &mut Account,
    ) -> bool
    where
        V: AsyncRead + AsyncWrite + Send + Unpin,
    {
        let Self { input, stream, meter, idle } = self;
        let half_close = if stream.half_closes() { HalfClose::Kept } else { HalfClose::EndsBoth };
        let mut moved = Moved::default();
        let copying = async {
            // What came right behind the two heads was read along with them.
            viewer.write_all(&input).await?;
            if !early.is_empty() {
                stream.write_all(&early).await?;
                stream.flush().await?;
            }
            match meter {
                None => copy(viewer, stream.as_mut(), half_close, idle, &mut moved).await,
                Some(meter) => {
                    let mut stream = Metered::new(stream.as_mut(), meter);
                    copy(viewer, &mut stream, half_close, idle, &mut moved).await
                }
            }
        };
        let ended = tokio::select! {
            ended = copying => ended.map_err(|error| {
                let silent = error.kind() == io::ErrorKind::TimedOut;
                (if silent { Cause::TargetSilent } else { Cause::BrokeOff }, error)
            }),
            cause = stopped => Err((cause, io::Error::other("the tunnel has ended"))),
        };
        account.upgraded(early.len() as u64 + moved.inward, input.len() as u64 + moved.outward);
        match ended {
            Ok(()) => account.complete(),
            Err((cause, error)) => {
                account.fail(&cause);
                tracing::debug!(%error, tunnel = account.tunnel.name, "upgraded connection broke off");
                return true;
            }
        }
        false
    }
}
