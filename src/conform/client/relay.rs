//! The scripted relay: it accepts, reads each request, and hands it to the case; calls that no case is about it answers itself.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::call::Call;
use super::world::LOOK_EVERY;
use crate::conform::trace::{Trace, Way};
use crate::sync::lock;

/// Requests of one kind that may wait for the case.
const QUEUE: usize = 4096;
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;
/// For a request to come on a connection: pools open some in advance.
const HEAD_WAIT: Duration = Duration::from_secs(60);

/// A port of loopback that is kept for one case, whether anybody listens there or not.
pub(super) struct Port {
    /// Bound, and not listening: connections are refused, and nobody else gets the port. Of two sockets that are bound to
    /// a port, the one that listens gets all connections.
    _kept: Socket,
    at: SocketAddr,
}

impl Port {
    /// Any that is free.
    pub(super) fn any() -> io::Result<Self> {
        let kept = bound(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let at = kept.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self { _kept: kept, at })
    }

    pub(super) fn number(&self) -> u16 {
        self.at.port()
    }

    /// Listens there, until the listener is dropped.
    pub(super) fn listen(&self) -> io::Result<TcpListener> {
        let socket = bound(self.at)?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    }

    /// Returns when connections are refused, which may be a moment after the listener was dropped: a program that is being
    /// started, for another case, has a copy of it until it runs.
    pub(super) async fn refuses(&self) {
        while TcpStream::connect(self.at).await.is_ok() {
            sleep(LOOK_EVERY).await;
        }
    }
}

fn bound(at: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&at.into())?;
    Ok(socket)
}

/// The relay of one case.
pub(super) struct Relay {
    port: Port,
    /// Accepts, and reads requests; ended to be away.
    accepting: JoinSet<()>,
    door: Door,
    /// `POST /v1/tunnels`.
    pub(super) creations: mpsc::Receiver<Call>,
    /// `GET /ws/control`.
    pub(super) controls: mpsc::Receiver<Call>,
    /// `GET /ws/data`.
    pub(super) datas: mpsc::Receiver<Call>,
}

/// Where requests go.
#[derive(Clone)]
struct Door {
    creations: mpsc::Sender<Call>,
    controls: mpsc::Sender<Call>,
    datas: mpsc::Sender<Call>,
    /// Method and target of each request.
    log: Arc<Mutex<Vec<String>>>,
    accepted: Arc<AtomicUsize>,
    trace: Trace,
}

impl Relay {
    /// One that listens.
    pub(super) fn start(trace: &Trace) -> io::Result<Self> {
        let ((creations_in, creations), (controls_in, controls), (datas_in, datas)) =
            (mpsc::channel(QUEUE), mpsc::channel(QUEUE), mpsc::channel(QUEUE));
        let door = Door {
            creations: creations_in,
            controls: controls_in,
            datas: datas_in,
            log: Arc::default(),
            accepted: Arc::default(),
            trace: trace.clone(),
        };
        let (port, accepting) = (Port::any()?, JoinSet::new());
        let mut relay = Self { port, accepting, door, creations, controls, datas };
        relay.listen()?;
        Ok(relay)
    }

    pub(super) fn port(&self) -> u16 {
        self.port.number()
    }

    /// Takes connections, again after [`Relay::leave`].
    pub(super) fn listen(&mut self) -> io::Result<()> {
        let listener = self.port.listen()?;
        self.accepting.spawn(self.door.clone().accept(listener));
        Ok(())
    }

    /// Refuses connections. Sockets that the case holds stay.
    pub(super) async fn leave(&mut self) {
        self.door.trace.text(Way::Sent, "relay", "nobody listens any more");
        self.accepting.shutdown().await;
        self.port.refuses().await;
    }

    /// Method and target of all requests until now.
    pub(super) fn log(&self) -> Vec<String> {
        lock(&self.door.log).clone()
    }

    /// Whether anybody has ever connected.
    pub(super) fn was_reached(&self) -> bool {
        self.door.accepted.load(Ordering::Relaxed) > 0
    }
}

impl Door {
    async fn accept(self, listener: TcpListener) {
        let mut reading = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                    let number = self.accepted.fetch_add(1, Ordering::Relaxed) + 1;
                    reading.spawn(self.clone().read(stream, number));
                },
                Some(_) = reading.join_next() => {}
            }
        }
    }

    async fn read(self, stream: TcpStream, number: usize) {
        let read = Call::read(stream, format!("connection {number}"), &self.trace);
        let Ok(Some(mut call)) = timeout(HEAD_WAIT, read).await else { return };
        lock(&self.log).push(format!("{} {}", call.method, call.target));
        let queue = match (call.method.as_str(), call.path.as_str()) {
            ("POST", "/v1/tunnels") => &self.creations,
            ("GET", "/ws/control") => {
                call.who = format!("control {number}");
                &self.controls
            }
            ("GET", "/ws/data") => {
                call.who = format!("data {number}");
                &self.datas
            }
            _ => return usual(call).await,
        };
        // A client that asks more often than that is told nothing.
        let _ = queue.try_send(call);
    }
}

/// What any relay answers.
async fn usual(call: Call) {
    match (call.method.as_str(), call.path.as_str()) {
        ("GET", "/health") => {
            call.answer(200, &json!({ "status": "ok", "version": "kit", "api_version": "1" })).await;
        }
        ("GET", "/v1/version") => call.answer(200, &json!({ "version": "kit", "api_version": "1" })).await,
        ("GET", "/v1/tunnels") => call.answer(200, &json!([])).await,
        ("DELETE", path) if path.starts_with("/v1/tunnels/") => call.answer_with(204, "", "").await,
        _ => call.refuse(404, "not_found").await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_is_left_when_no_program_that_is_being_started_holds_its_listener() {
        let port = Arc::new(Port::any().unwrap());
        let listener = port.listen().unwrap();
        let copy = socket2::SockRef::from(&listener).try_clone().unwrap();
        drop(listener);
        let left = tokio::spawn({
            let port = Arc::clone(&port);
            async move { port.refuses().await }
        });
        TcpStream::connect(port.at).await.unwrap();
        assert!(!left.is_finished());
        drop(copy);
        left.await.unwrap();
        assert!(TcpStream::connect(port.at).await.is_err());
    }
}
