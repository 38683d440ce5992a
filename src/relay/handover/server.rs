//! The running relay's end: it waits for a successor, gives it the listeners, and then answers its questions.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::time::{sleep, timeout};

use super::message::{Listening, Reply, Request, Wanted, Worker};
use super::questions;
use super::socket::Published;
use crate::link::peer::ToPredecessor;
use crate::proto::limits::ACCEPT_PAUSE;
use crate::relay::ending::Kind;
use crate::relay::{Listeners, Shared, unix};
use crate::stream::courier::{Courier, MOST_DESCRIPTORS};

/// From a connection to what it wants.
const REQUEST_WAIT: Duration = Duration::from_secs(5);
/// From the listeners to the word that the successor is ready; after that we go on as if nothing had happened.
const READY_WAIT: Duration = Duration::from_secs(30);
/// Questions of the successor that are answered at the same time; one more finds its socket closed.
const MOST_QUESTIONS: usize = 4096;

/// Bytes of workers in one message, which may have twice as many.
const WORKERS_BYTES: usize = 32 * 1024;
/// Bytes of one of them beside its id.
const WORKER_BYTES: usize = 32;

/// The listeners of a relay.
#[derive(Clone)]
pub struct Sockets {
    /// Where viewers and clients come in.
    pub listen: Vec<Arc<TcpListener>>,
    /// Where viewers and clients come in by a path.
    pub unix: Vec<Arc<UnixListener>>,
    /// The files of these are ours to remove.
    pub files: bool,
    /// How many of `listen`, at its end, are for TLS alone.
    pub tls: usize,
    /// Where the operator comes in.
    pub admin: Option<Arc<TcpListener>>,
    /// Where metrics are read.
    pub metrics: Option<Arc<TcpListener>>,
}

impl Sockets {
    /// Those that the caller has bound; the last `tls` of them are for TLS alone.
    pub fn new(listeners: Listeners, tls: usize) -> Self {
        let Listeners { tcp, unix, admin, metrics } = listeners;
        Self {
            listen: tcp.into_iter().map(Arc::new).collect(),
            unix: unix.into_iter().map(Arc::new).collect(),
            admin: admin.map(Arc::new),
            metrics: metrics.map(Arc::new),
            files: false,
            tls,
        }
    }

    /// Where they listen.
    pub fn addresses(&self) -> io::Result<Listening> {
        let listen = self.listen.iter().map(|listener| listener.local_addr()).collect::<Result<_, _>>()?;
        let admin = self.admin.as_ref().map(|listener| listener.local_addr()).transpose()?;
        let unix = self.unix.iter().filter_map(|listener| unix::path_of(listener)).collect();
        let metrics = self.metrics.as_ref().map(|listener| listener.local_addr()).transpose()?;
        Ok(Listening { listen, admin, unix, files: self.files, tls: self.tls, metrics })
    }
}

/// Waits for a successor until the relay stops. Once there is one, answers its questions until it ends.
pub(in crate::relay) async fn serve(shared: Arc<Shared>, socket: Published, sockets: Sockets) {
    let successor = loop {
        let accepted = tokio::select! {
            biased;
            () = shared.ending.stopping() => {
                // From now on another relay may start in our place.
                socket.withdraw();
                return;
            }
            accepted = socket.listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let given = tokio::select! {
            biased;
            () = shared.ending.stopping() => continue,
            given = give(&shared, stream, &sockets) => given,
            // One after the other; whoever comes meanwhile is told.
            never = refuse_others(&socket) => match never {},
        };
        match given {
            Ok(Some(successor)) => break successor,
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "no successor took over; going on"),
        }
    };
    // Its path is the successor's by now, or will be in a moment.
    drop((socket, sockets));
    answer_questions(&shared, successor).await;
}

enum Never {}

async fn refuse_others(socket: &Published) -> Never {
    loop {
        match socket.listener.accept().await {
            Ok((stream, _)) => {
                let reply = Reply::Refused("another relay is taking over at this moment".into());
                let _ = timeout(REQUEST_WAIT, Courier::new(stream).send(&reply, &[])).await;
            }
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// Gives the listeners to whoever asks over `stream`; `None` if nobody wants them after all. We accept until the
/// successor has said that it is ready.
async fn give(shared: &Arc<Shared>, stream: UnixStream, sockets: &Sockets) -> io::Result<Option<Courier>> {
    let pid = stream.peer_cred().ok().and_then(|peer| peer.pid()).and_then(|pid| u32::try_from(pid).ok());
    let mut courier = Courier::new(stream);
    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
    let asked = timeout(REQUEST_WAIT, courier.receive()).await.map_err(late)??;
    // Whoever only looks whether somebody is here says nothing.
    let Some(Request::TakeOver(wanted)) = asked else { return Ok(None) };
    let Wanted { version, .. } = &wanted;
    let mut has = sockets.addresses()?;
    has.metrics = has.metrics.filter(|address| wanted.takes_metrics(address));
    let metrics = sockets.metrics.as_ref().filter(|_| has.metrics.is_some());
    if let Err(sentence) =
        has.check(&wanted).or_else(|sentence| if wanted.any { Ok(()) } else { Err(sentence) })
    {
        tracing::warn!(version, sentence, "a relay wanted to take over with other addresses; going on");
        courier.send(&Reply::OtherAddresses(sentence), &[]).await?;
        return Ok(None);
    }
    tracing::info!(version, "another relay begins to take over");
    let mut descriptors: Vec<_> =
        sockets.listen.iter().chain(&sockets.admin).map(|listener| listener.as_fd()).collect();
    descriptors.extend(sockets.unix.iter().map(|listener| listener.as_fd()));
    descriptors.extend(metrics.map(|listener| listener.as_fd()));
    courier.send(&Reply::Listeners(has), &descriptors).await?;
    let said = timeout(READY_WAIT, courier.receive()).await.map_err(late)??;
    let Some(ToPredecessor::Ready) = said else { return Err(io::ErrorKind::UnexpectedEof.into()) };
    if let Some(pid) = pid {
        shared.ending.set_successor(pid);
    }
    if !shared.ending.begin(Kind::HandedOver) {
        courier.send(&Reply::Refused("it stops".into()), &[]).await?;
        return Ok(None);
    }
    // Also for one that does not know them: it opens them itself, when they are free.
    let ports = shared.ports.hand_over();
    for ports in ports.chunks(MOST_DESCRIPTORS).filter(|_| wanted.ports) {
        let descriptors: Vec<_> = ports.iter().map(|listener| listener.as_fd()).collect();
        let _ = courier.send(&Reply::Ports(descriptors.len()), &descriptors).await;
    }
    drop(ports);
    let workers = shared.registry.workers().into_iter();
    let workers = workers.map(|(id, suspended)| Worker { id, suspended }).collect();
    for workers in some_at_a_time(workers).into_iter().filter(|_| wanted.workers) {
        let _ = courier.send(&Reply::Workers(workers), &[]).await;
    }
    // A successor that does not hear this has ended: its connection, which is read next, says so.
    let _ = courier.send(&Reply::Yours, &[]).await;
    tracing::info!(version, "another relay has taken over");
    Ok(Some(courier))
}

/// As many in each part as fit into a message. Those that would not fit alone are left out: their viewers have 404 until they
/// are back.
fn some_at_a_time(workers: Vec<Worker>) -> Vec<Vec<Worker>> {
    let (mut parts, mut part, mut bytes) = (Vec::new(), Vec::new(), 0);
    for worker in workers {
        let length = worker.id.len() + WORKER_BYTES;
        if length > WORKERS_BYTES {
            continue;
        }
        if bytes + length > WORKERS_BYTES {
            parts.push(std::mem::take(&mut part));
            bytes = 0;
        }
        bytes += length;
        part.push(worker);
    }
    parts.push(part);
    parts
}

async fn answer_questions(shared: &Arc<Shared>, mut successor: Courier) {
    while let Ok(Some(ToPredecessor::Question)) = successor.receive().await {
        let Some(socket) = successor.take_descriptor() else { continue };
        let stream = std::os::unix::net::UnixStream::from(socket);
        let stream = stream.set_nonblocking(true).and_then(|()| UnixStream::from_std(stream));
        let Ok(stream) = stream else { continue };
        if shared.questions.len() < MOST_QUESTIONS {
            let answering = Box::pin(questions::answer(Arc::clone(shared), stream));
            shared.questions.spawn(shared.ending.cut.clone().run_until_cancelled_owned(answering));
        }
    }
    tracing::info!("the successor has ended");
}
