//! A client that serves a tunnel: put in its place, made known, and taken off again, whatever it speaks.

use std::net::IpAddr;
use std::sync::Arc;

use crate::link::sockets::{Ended, Session, end_name};
use crate::tunnel::events::{Event, Kind};
use crate::tunnel::{Arrival, Credential, Registry, Tunnel};

/// A session in its place.
pub struct Attached {
    registry: Arc<Registry>,
    tunnel: Arc<Tunnel>,
    session: Arc<Session>,
    address: IpAddr,
}

impl Attached {
    /// Makes `session` the one that serves `tunnel`.
    pub fn new(
        registry: &Arc<Registry>,
        tunnel: Arc<Tunnel>,
        session: Arc<Session>,
        credential: Credential,
        arrival: Arrival,
        address: IpAddr,
    ) -> Self {
        let took_over = tunnel.attach(Arc::clone(&session), credential, arrival);
        // One that came too late, or is one too many, has been told already.
        if session.end_reason().is_none() {
            let kind = if took_over { Kind::TookOver } else { Kind::Connected };
            registry.events.add(Event::of(kind, &tunnel).from(address));
            let speaks = session.speaks().as_str();
            tracing::info!(tunnel = tunnel.name, owner = tunnel.owner.as_str(), speaks, "client connected");
        }
        Self { registry: Arc::clone(registry), tunnel, session, address }
    }

    /// The session has ended.
    pub fn end(self, ended: Ended) {
        let Self { registry, tunnel, session, address } = self;
        tunnel.detach(&session);
        let event = Event::of(Kind::Disconnected, &tunnel).from(address);
        registry.events.add(event.because(end_name(ended)));
        tracing::info!(tunnel = tunnel.name, owner = tunnel.owner.as_str(), ?ended, "client disconnected");
    }
}
