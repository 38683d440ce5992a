//! The successor's end: it asks the running relay for its listeners, and says when it is ready to use them.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::time::timeout;

use super::message::{Listening, Reply, Request, Wanted, Worker};
use super::socket;
use crate::link::peer::ToPredecessor;
use crate::relay::config::RelayConfig;
use crate::relay::{Listeners, unix};
use crate::stream::courier::Courier;

/// For each answer of the running relay.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// Why a running relay was not replaced; it goes on as before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TakeOverError {
    /// Nobody is there.
    #[error("no relay runs on the data directory {dir} ({error}): start without --take-over", dir = dir.display())]
    NoRelay {
        /// The data directory.
        dir: PathBuf,
        /// What connecting said.
        error: io::Error,
    },
    /// It listens on other addresses; the text names both.
    #[error("{0}")]
    OtherAddresses(String),
    /// It does not hand over now.
    #[error("the running relay does not hand over: {0}")]
    Refused(String),
    /// It did not answer, or ended meanwhile.
    #[error("the running relay does not hand over: {0}")]
    Io(#[from] io::Error),
}

/// What the running relay gave. Nothing is accepted before it has heard that we are ready.
pub struct Inheritance {
    /// Its listeners.
    pub listeners: Listeners,
    /// How many of the TCP ones, at their end, are for TLS alone.
    pub tls: usize,
    /// The files of those by a path are ours to remove.
    pub files: bool,
    /// The conversation with the running relay.
    pub courier: Courier,
}

/// What the running relay gives last.
#[derive(Default)]
pub struct Late {
    /// Sockets that listen at ports of tunnels.
    pub ports: Vec<TcpListener>,
    /// The workers that it knows.
    pub workers: Vec<Worker>,
}

/// Asks the relay that runs on the data directory of `config` for its listeners.
/// `any`: whatever addresses these have; else they must be those of `config`.
pub async fn take_over(config: &RelayConfig, any: bool) -> Result<Inheritance, TakeOverError> {
    let stream = socket::connect(&config.data_dir)
        .await
        .map_err(|error| TakeOverError::NoRelay { dir: config.data_dir.clone(), error })?;
    let mut courier = Courier::new(stream);
    let wanted = Wanted {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        listen: config.addresses().copied().collect(),
        admin: config.admin_listen,
        ports: true,
        workers: true,
        unix: config.listen_unix.clone(),
        metrics: config.metrics_listen,
        any,
    };
    courier.send(&Request::TakeOver(wanted), &[]).await?;
    let Listening { listen, admin, unix, files, tls, metrics } = match answer(&mut courier).await? {
        Reply::Listeners(listening) => listening,
        Reply::OtherAddresses(sentence) => return Err(TakeOverError::OtherAddresses(sentence)),
        Reply::Refused(sentence) => return Err(TakeOverError::Refused(sentence)),
        Reply::Ports(_) | Reply::Workers(_) | Reply::Yours => return Err(unexpected()),
    };
    let listener = |courier: &mut Courier, address: SocketAddr| {
        let descriptor = courier.take_descriptor().ok_or_else(unexpected)?;
        let listener = std::net::TcpListener::from(descriptor);
        listener.set_nonblocking(true)?;
        if listener.local_addr()? != address {
            return Err(unexpected());
        }
        Ok(TcpListener::from_std(listener)?)
    };
    let tcp = listen.into_iter().map(|address| listener(&mut courier, address)).collect::<Result<_, _>>()?;
    let admin = admin.map(|address| listener(&mut courier, address)).transpose()?;
    let by_path = unix.iter().map(|path| {
        let descriptor = courier.take_descriptor().ok_or_else(unexpected)?;
        let listener = std::os::unix::net::UnixListener::from(descriptor);
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener)?;
        if unix::path_of(&listener).as_ref() != Some(path) {
            return Err(unexpected());
        }
        Ok(listener)
    });
    let unix = by_path.collect::<Result<_, TakeOverError>>()?;
    let metrics = metrics.map(|address| listener(&mut courier, address)).transpose()?;
    Ok(Inheritance { listeners: Listeners { tcp, unix, admin, metrics }, tls, files, courier })
}

/// Says that we can serve. When this returns, the running relay has stopped accepting; what has come since waits in the
/// listeners. The rest of the conversation is about what only that relay can answer. With its answer comes what came and
/// went until then.
pub async fn ready(courier: &mut Courier) -> Result<Late, TakeOverError> {
    courier.send(&ToPredecessor::Ready, &[]).await?;
    let Late { mut ports, mut workers } = Late::default();
    loop {
        match answer(courier).await? {
            Reply::Ports(count) => {
                for _ in 0..count {
                    let descriptor = courier.take_descriptor().ok_or_else(unexpected)?;
                    let listener = std::net::TcpListener::from(descriptor);
                    listener.set_nonblocking(true)?;
                    ports.push(TcpListener::from_std(listener)?);
                }
            }
            Reply::Workers(known) => workers.extend(known),
            Reply::Yours => return Ok(Late { ports, workers }),
            Reply::Refused(sentence) => return Err(TakeOverError::Refused(sentence)),
            _ => return Err(unexpected()),
        }
    }
}

async fn answer(courier: &mut Courier) -> Result<Reply, TakeOverError> {
    let answered = timeout(ANSWER_WAIT, courier.receive()).await;
    let answered = answered.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
    answered.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof).into())
}

fn unexpected() -> TakeOverError {
    TakeOverError::Refused("it does not say what is expected; perhaps its version is too old".into())
}
