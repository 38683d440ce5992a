//! The listening sockets of ports that lead to tunnels: opened when a tunnel gets one, closed when it ends, handed over to
//! a successor.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex};

use socket2::SockRef;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::serve;
use crate::proto::api::Proto;
use crate::relay::proxied::announced;
use crate::relay::room::{Permit, Room};
use crate::relay::viewer::{Connection, Security};
use crate::relay::{Shared, listen};
use crate::stream::any::AnyStream;
use crate::stream::tcp;
use crate::sync::lock;
use crate::tunnel::{PortError, Ports};

/// The ports that are listened on.
pub struct OpenPorts {
    range: Option<RangeInclusive<u16>>,
    /// Each port is listened on at all of them.
    addresses: Vec<IpAddr>,
    room: Arc<Room>,
    /// `None`: a successor has them.
    open: Mutex<Option<HashMap<u16, Vec<Door>>>>,
    /// Told when one is opened.
    opened: Notify,
}

/// One listening socket.
struct Door {
    listener: Arc<TcpListener>,
    closed: CancellationToken,
    /// Somebody accepts.
    served: bool,
    _descriptor: Permit,
}

impl Drop for Door {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}

impl OpenPorts {
    /// Ports of `range` at each of `addresses`; none is open yet.
    pub fn new(range: Option<RangeInclusive<u16>>, addresses: Vec<IpAddr>, room: Arc<Room>) -> Self {
        Self { range, addresses, room, open: Mutex::new(Some(HashMap::new())), opened: Notify::new() }
    }

    /// How many sockets listen.
    pub fn count(&self) -> usize {
        lock(&self.open).as_ref().map_or(0, |open| open.values().map(Vec::len).sum())
    }

    /// Takes up the sockets of a predecessor, of ports for which `wanted` says so.
    pub fn adopt(&self, listeners: Vec<TcpListener>, wanted: impl Fn(u16) -> bool) {
        let mut open = lock(&self.open);
        let Some(open) = open.as_mut() else { return };
        for listener in listeners {
            let Ok(address) = listener.local_addr() else { continue };
            let given = self.range.as_ref().is_some_and(|range| range.contains(&address.port()));
            if !given || !self.addresses.contains(&address.ip()) || !wanted(address.port()) {
                continue;
            }
            if let Some(descriptor) = self.room.spare() {
                open.entry(address.port()).or_default().push(Door::new(listener, descriptor));
            }
        }
        // With another configuration the same port may have other addresses; those are opened like new ones.
        open.retain(|_, doors| doors.len() == self.addresses.len());
        self.opened.notify_one();
    }

    /// Gives all of them away, for a successor; from now on none is opened any more.
    pub fn hand_over(&self) -> Vec<Arc<TcpListener>> {
        let open = lock(&self.open).take().unwrap_or_default();
        open.values().flatten().map(|door| Arc::clone(&door.listener)).collect()
    }

    fn listen(&self, port: u16) -> Result<Vec<Door>, PortError> {
        let beside_ipv4 = self.addresses.iter().any(IpAddr::is_ipv4);
        let door = |address: &IpAddr| {
            let descriptor = self.room.spare().ok_or(PortError::Full)?;
            let only_ipv6 = address.is_ipv6() && beside_ipv4;
            let listener = tcp::listen(SocketAddr::new(*address, port), only_ipv6)?;
            tcp::tune(&listener);
            Ok(Door::new(listener, descriptor))
        };
        self.addresses.iter().map(door).collect()
    }
}

impl Door {
    fn new(listener: TcpListener, descriptor: Permit) -> Self {
        let (listener, closed) = (Arc::new(listener), CancellationToken::new());
        Self { listener, closed, served: false, _descriptor: descriptor }
    }
}

impl Ports for OpenPorts {
    fn range(&self) -> Option<RangeInclusive<u16>> {
        self.range.clone()
    }

    fn open(&self, port: u16) -> Result<(), PortError> {
        let mut open = lock(&self.open);
        let open = open.as_mut().ok_or(PortError::HandedOver)?;
        if open.contains_key(&port) {
            return Ok(());
        }
        if !self.range.as_ref().is_some_and(|range| range.contains(&port)) {
            return Err(std::io::Error::other("it is not in tcp-ports").into());
        }
        open.insert(port, self.listen(port)?);
        self.opened.notify_one();
        Ok(())
    }

    fn close(&self, port: u16) {
        let Some(doors) = lock(&self.open).as_mut().and_then(|open| open.remove(&port)) else { return };
        for door in &doors {
            // At once: who accepts on it lets go of it only a moment later, and the port may be wanted before.
            let _ = SockRef::from(&*door.listener).shutdown(std::net::Shutdown::Both);
        }
    }
}

/// Accepts at all ports that are opened, until the relay ends.
pub async fn keep(shared: Arc<Shared>) {
    let mut accepting = JoinSet::new();
    loop {
        let fresh: Vec<_> = {
            let mut open = lock(&shared.ports.open);
            let doors = open.iter_mut().flat_map(|open| open.values_mut()).flatten();
            let fresh = |door: &mut Door| {
                let served = std::mem::replace(&mut door.served, true);
                (!served).then(|| (Arc::clone(&door.listener), door.closed.clone()))
            };
            doors.filter_map(fresh).collect()
        };
        for (listener, closed) in fresh {
            accepting.spawn(accept(Arc::clone(&shared), listener, closed));
        }
        tokio::select! {
            biased;
            () = shared.ending.begun.cancelled() => {
                // A relay that stops has no time for who comes now: refused is clearer than cut short. A successor gets
                // them from whoever hands over.
                if shared.ending.is_stopping() {
                    drop(shared.ports.hand_over());
                }
                return;
            }
            () = shared.ports.opened.notified() => {}
            Some(_) = accepting.join_next() => {}
        }
    }
}

async fn accept(shared: Arc<Shared>, listener: Arc<TcpListener>, closed: CancellationToken) {
    let Ok(port) = listener.local_addr().map(|address| address.port()) else { return };
    let accepting =
        listen::accept(Arc::clone(&shared), listener, |shared, mut stream, remote, mut place| async move {
            let announced = announced(&shared, &mut stream, remote.into(), &mut place).await;
            let Some((peer, first)) = announced else { return };
            let (stream, security) = (AnyStream::Tcp(stream), Security::Plain { tls_port: false });
            let connection = Connection::new(stream, security, peer, false, place);
            let tunnel = shared.registry.by_port(port);
            Box::pin(serve(shared, connection, first.freeze(), tunnel, Proto::Tcp)).await;
        });
    tokio::select! {
        biased;
        () = closed.cancelled() => {}
        () = accepting => {}
    }
}
