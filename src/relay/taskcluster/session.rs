//! The life of one worker's session, from its handshake to its end.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite};
use uuid::Uuid;

use crate::link::Speaks;
use crate::link::sockets::pulse::Identity;
use crate::link::sockets::{Opened, Session, run_mux};
use crate::proto::frame::Role;
use crate::proto::limits::Limits;
use crate::proto::limits::wsmux::{RELAY_DRAIN, RELAY_HELD};
use crate::relay::Shared;
use crate::relay::attached::Attached;
use crate::stream::wsmux::{self, Budget, Settings};
use crate::tunnel::{Arrival, Credential, Tunnel};

/// Makes the worker behind `io` the one that serves `tunnel`, and gives what serves it to its end. With `io` comes what was
/// read behind the handshake.
pub fn begin<IO>(
    shared: &Shared,
    tunnel: Arc<Tunnel>,
    arrival: Arrival,
    address: IpAddr,
    agent: Option<Arc<str>>,
    (io, already): (IO, BytesMut),
) -> impl Future<Output = ()> + Send + 'static
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (limits, id, speaks) = (&shared.config.limits, Uuid::new_v4(), Speaks::Wsmux);
    let opened = Opened {
        speaks,
        owner: tunnel.owner.as_str().into(),
        tunnel: tunnel.name.as_str().into(),
        reuse: shared.config.worker_reuse,
        recent: false,
        id,
        pulse: tunnel.pulse_of(Identity { address, agent, speaks }, id, arrival),
    };
    let settings = settings(limits, &shared.streams_budget);
    let (mux, driver) = wsmux::Session::with_already(io, Role::Server, already, settings);
    let session = Session::over_mux(opened, mux.clone(), Arc::clone(&shared.pending), limits);
    // A session outlives its token, as it does in websocktunnel.
    let credential = Credential::Token;
    let attached =
        Attached::new(&shared.registry, tunnel, Arc::clone(&session), credential, arrival, address);
    async move { attached.end(run_mux(session, mux, driver).await) }
}

fn settings(limits: &Limits, budget: &Budget) -> Settings {
    Settings {
        held: RELAY_HELD,
        budget: Some(budget.clone()),
        drain: RELAY_DRAIN,
        // Nobody here waits for streams of a worker.
        unaccepted: 0,
        ping_every: limits.ping_every,
        open_wait: limits.claim_wait,
        ..Settings::default()
    }
}
