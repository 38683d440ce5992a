//! The TCP front: viewers that come in at a port of a tunnel, and every other connection whose bytes go on unread.

mod ports;

pub use ports::{OpenPorts, keep};

use std::sync::Arc;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::carry::{Ends, Of, Terms, carry};
use super::errors::Cause;
use super::exchange::{Account, Record};
use super::policy;
use super::reach;
use super::viewer::{Connection, ViewerIo, vanished};
use crate::link::{Ask, Lane};
use crate::proto::api::Proto;
use crate::proto::limits::turn;
use crate::proto::proxy_header;
use crate::random::fraction;
use crate::tunnel::{Tunnel, Viewing};

/// Takes a viewer's connection through `tunnel`, to its end. `first` was read of it already. What cannot be served is
/// closed with a reset, as there is no other way to say so.
pub async fn serve(
    shared: Arc<Shared>,
    connection: Arc<Connection>,
    first: Bytes,
    tunnel: Option<Arc<Tunnel>>,
    proto: Proto,
) {
    connection.becomes(&shared.open.raw);
    let mut record = Record::connection(proto, tunnel.as_ref(), connection.remote_text(), &shared.ledger);
    // Taken before the look at the tunnel's state: a suspension after it ends this connection.
    let running = tunnel.as_ref().map(|tunnel| tunnel.running()).unwrap_or_default();
    match open(&shared, &connection, tunnel, &running, proto).await {
        Ok(Reached { tunnel, viewing, lane }) => {
            let sign_of_life = lane.waited.map(|_| shared.config.limits.claim_wait);
            let Lane { stream, rejected, load, .. } = lane;
            let ends = Ends {
                viewer: ViewerIo::new(Arc::clone(&connection), first),
                of: Of::Connection(connection),
                stream,
                meter: tunnel.quota.meter(),
                early: Bytes::new(),
                input: Bytes::new(),
                rejected,
                sign_of_life,
            };
            let terms = Terms {
                idle: shared.config.limits.idle_upgraded,
                running,
                ending: Arc::clone(&shared.ending),
            };
            let mut account = Account::of_connection(tunnel, viewing, Some(record));
            account.hold(load);
            carry(ends, terms, account).await;
        }
        Err(cause) => {
            tracing::debug!(cause = cause.label(), viewer = connection.remote_text(), "refused");
            record.fail(&cause);
            connection.reset_on_close();
            if cause.is_of_a_quota() {
                // Who asks again at once would take the time of others.
                Box::pin(sleep(turn::REFUSAL_LEAST + turn::REFUSAL_SPREAD.mul_f64(fraction()))).await;
            }
        }
    }
}

/// What a connection needs to begin.
struct Reached {
    tunnel: Arc<Tunnel>,
    viewing: Viewing,
    lane: Lane,
}

async fn open(
    shared: &Shared,
    connection: &Arc<Connection>,
    tunnel: Option<Arc<Tunnel>>,
    running: &CancellationToken,
    proto: Proto,
) -> Result<Reached, Cause> {
    let tunnel = tunnel.ok_or(Cause::NoTunnelAtPort)?;
    if shared.ending.is_stopping() {
        return Err(Cause::Draining);
    }
    if tunnel.is_suspended() {
        return Err(Cause::Suspended);
    }
    let spec = tunnel.spec();
    if let Some(policy) = &spec.policy {
        policy::admit_connection(policy, connection.remote_canonical().ip())?;
    }
    let viewing = tunnel.quota.view().map_err(Cause::ViewersOfKey)?;
    tunnel.request();
    let ask = Ask { resendable: false, remote: connection.remote_canonical(), proto, unused: true };
    // What a viewer does while it waits is only looked at during an exchange.
    let _busy = connection.begin();
    let ready = tunnel.pick(ask.remote.ip(), &[]).and_then(|picked| picked.ready(ask).ok());
    let lane = match ready {
        Some(lane) => lane,
        None => tokio::select! {
            biased;
            lane = reach::lane(shared, &tunnel, ask) => lane?,
            () = running.cancelled() => return Err(shared.ending.why_stopped()),
            () = vanished(connection) => return Err(Cause::ViewerLeft),
        },
    };
    let mut lane = lane;
    if let Some(version) = spec.proxy_protocol {
        let header = proxy_header::write(version, connection.ends());
        let greeting = async {
            lane.stream.write_all(&header).await?;
            lane.stream.flush().await
        };
        let greeted = timeout(shared.config.limits.claim_wait, greeting).await;
        greeted.map_err(|_| Cause::TargetSilent)?.map_err(|_| Cause::TargetClosed)?;
    }
    Ok(Reached { tunnel, viewing, lane })
}
