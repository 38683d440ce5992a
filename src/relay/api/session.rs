//! The life of one control session, from its handshake to its end.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use uuid::Uuid;

use super::{Api, ApiFailure};
use crate::auth::Principal;
use crate::link::Speaks;
use crate::link::sockets::pulse::Identity;
use crate::link::sockets::{End, Ended, Judge, Opened, Session, is_recent, run_control};
use crate::proto::control::relay::{RelayEnd, Timing, TokenEnd};
use crate::proto::limits::{Limits, drain};
use crate::proto::message::{Level, SessionLimits, Welcome};
use crate::relay::attached::Attached;
use crate::tunnel::{Arrival, Credential, Tunnel, drain_session, rfc3339, unix_ms};

/// What a client asked for by its handshake.
pub struct Begun {
    /// The protocol that it speaks.
    pub level: Level,
    /// Its place among the clients of the tunnel.
    pub arrival: Arrival,
    /// Where it comes from.
    pub address: IpAddr,
    /// Its `User-Agent`.
    pub agent: Option<Arc<str>>,
}

/// Makes the client behind `io` the one that serves `tunnel`, and gives what serves it to its end. With `io` comes what
/// was read behind the handshake.
pub fn begin<IO>(
    api: &Api,
    tunnel: Arc<Tunnel>,
    principal: &Principal,
    begun: Begun,
    io: (IO, Vec<u8>),
) -> impl Future<Output = ()> + Send + 'static
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let Begun { level, arrival, address, agent } = begun;
    let (limits, id, speaks) = (&api.limits, Uuid::new_v4(), Speaks::Sockets(level));
    let opened = Opened {
        speaks,
        owner: tunnel.owner.as_str().into(),
        tunnel: tunnel.name.as_str().into(),
        reuse: tunnel.spec().reuse,
        recent: is_recent(tunnel.unused_for()),
        id,
        pulse: tunnel.pulse_of(Identity { address, agent, speaks }, id, arrival),
    };
    let (session, said) = Session::new(opened, level, Arc::clone(&api.pending), limits);
    let timing = Timing { ping_every: limits.ping_every, pong_wait: limits.pong_wait };
    let now = Instant::now().into_std();
    let mut core = RelayEnd::new(now, level, timing, welcome(&session, limits));
    core.set_token(now, token_end(principal));
    let (place, credential) = (Arc::clone(&tunnel), credential(principal));
    let attached = Attached::new(&api.registry, place, Arc::clone(&session), credential, arrival, address);
    api.registry.look_at_keys();
    if api.ending.has_begun() {
        // It came too late to be told with the others.
        drain_session(&session, limits.drain, drain::SPREAD_LEAST);
    }
    let judge = judge(api, &tunnel, &session);
    let running = run_control(Arc::clone(&session), io, core, said, judge, limits.control_message_bytes);
    // In a block of its own the future would take its place twice: where it is kept, and where it is awaited.
    running.map(move |ended| {
        if ended == Ended::ByUs(End::TokenExpired) {
            tunnel.cut(&session);
        }
        attached.end(ended);
    })
}

fn credential(principal: &Principal) -> Credential {
    if principal.is_token() { Credential::Token } else { Credential::Key(principal.since) }
}

/// When the token ends. Only here is it judged by the wall clock: a jump of that ends no session.
fn token_end(principal: &Principal) -> Option<TokenEnd> {
    let expires_at = principal.expires_at?;
    let left = Duration::from_millis(u64::try_from(expires_at - unix_ms()).unwrap_or(0));
    Some(TokenEnd { at: Instant::now().into_std() + left, shown: rfc3339(expires_at) })
}

fn welcome(session: &Session, limits: &Limits) -> Welcome {
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Welcome {
        session: session.id().to_string(),
        relay: concat!("adit/", env!("CARGO_PKG_VERSION")).to_owned(),
        ping_interval_ms: ms(limits.ping_every),
        pong_timeout_ms: ms(limits.pong_wait),
        claim_ms: ms(limits.claim_wait),
        limits: SessionLimits {
            control_message_bytes: limits.control_message_bytes as u64,
            data_message_bytes: limits.data_message_bytes as u64,
            waiting: limits.waiting_per_tunnel as u64,
            standby: limits.standby_per_tunnel as u64,
        },
    }
}

/// How fresh tokens of a session are judged: they must be of the same owner.
fn judge(api: &Api, tunnel: &Arc<Tunnel>, session: &Arc<Session>) -> Judge {
    let (keys, tunnel, session) = (Arc::clone(&api.keys), Arc::downgrade(tunnel), Arc::downgrade(session));
    Box::new(move |token| {
        let (keys, tunnel, session) = (Arc::clone(&keys), tunnel.clone(), session.clone());
        Box::pin(async move {
            let principal = keys.authenticate_bearer(&token).await.map_err(|error| error.to_string())?;
            let (Some(tunnel), Some(session)) = (tunnel.upgrade(), session.upgrade()) else {
                return Err("the session is over".to_owned());
            };
            if tunnel.owner != principal.owner {
                return Err("this key or token is of another owner than the session".to_owned());
            }
            if !principal.may_use(&tunnel.name) {
                return Err(ApiFailure::OtherTunnel.to_string());
            }
            tunnel.renew(&session, credential(&principal));
            Ok(token_end(&principal))
        })
    })
}
