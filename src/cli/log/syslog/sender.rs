//! Messages on their way to a syslog daemon, by a thread of its own: nobody waits for one that is slow or away.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::proto::limits::log::{SYSLOG_LAST, SYSLOG_LOOK_UP, SYSLOG_RETRY, WAITING};
use crate::relay::config::SyslogAddress;
use crate::sync::lock;

/// Takes messages for the daemon.
pub(super) struct Sender(Arc<Queue>);

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The first is the one under way.
    waiting: VecDeque<Arc<Message>>,
    /// Messages that will never arrive.
    lost: u64,
    /// What went wrong last, and whether it was told of.
    trouble: Option<(String, bool)>,
    /// Until then what waits may still go out.
    last: Option<Instant>,
    /// Nothing goes out any more.
    over: bool,
}

struct Message {
    bytes: Vec<u8>,
    /// Its loss is told.
    counts: bool,
}

impl State {
    /// The same error again is no news.
    fn blame(&mut self, error: &io::Error) {
        let error = error.to_string();
        if self.trouble.as_ref().is_none_or(|(before, _)| *before != error) {
            self.trouble = Some((error, false));
        }
    }

    fn is_late(&self) -> bool {
        self.last.is_some_and(|last| Instant::now() >= last)
    }

    /// The message under way is sent.
    fn done(&mut self) {
        // At the end it was counted as lost already.
        if !self.over {
            self.waiting.pop_front();
        }
    }

    fn lose(&mut self, message: &Message) {
        self.lost += u64::from(message.counts);
    }
}

impl Sender {
    /// Begins to send to `address`.
    pub(super) fn start(address: SyslogAddress) -> io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let of_thread = Arc::clone(&queue);
        // Names are looked up and sockets block: that is not for the threads of the runtime. It ends with the process, or
        // after `finish`.
        std::thread::Builder::new().name("syslog".into()).spawn(move || {
            let mut way = Way { address, open: None };
            let mut counted = false;
            while let Some(message) = of_thread.next() {
                of_thread.deliver(&mut way, &message, counted);
                counted = message.counts;
            }
        })?;
        Ok(Self(queue))
    }

    /// Sends a message when those before it have gone out. Never waits.
    pub(super) fn send(&self, bytes: Vec<u8>, counts: bool) {
        let mut state = lock(&self.0.state);
        let message = Message { bytes, counts };
        if state.waiting.len() < WAITING && state.last.is_none() {
            state.waiting.push_back(Arc::new(message));
            self.0.changed.notify_all();
        } else {
            state.lose(&message);
        }
    }

    /// See [`Syslog::trouble`](super::Syslog::trouble).
    pub(super) fn trouble(&self) -> (u64, Option<String>) {
        let mut state = lock(&self.0.state);
        let lost = std::mem::take(&mut state.lost);
        let trouble = state.trouble.as_mut().and_then(|(error, told)| {
            let news = !std::mem::replace(told, true);
            (news || lost > 0).then(|| error.clone())
        });
        (lost, trouble)
    }

    /// Waits until all has gone out, but not for long.
    pub(super) fn finish(&self) {
        let mut state = lock(&self.0.state);
        let last = *state.last.get_or_insert_with(|| Instant::now() + SYSLOG_LAST);
        self.0.changed.notify_all();
        while !state.over && Instant::now() < last {
            state = self.0.wait(state, last.saturating_duration_since(Instant::now()));
        }
        state.over = true;
        let rest = std::mem::take(&mut state.waiting);
        rest.iter().for_each(|message| state.lose(message));
    }
}

impl Queue {
    fn wait<'a>(&self, state: MutexGuard<'a, State>, most: Duration) -> MutexGuard<'a, State> {
        self.changed.wait_timeout(state, most).unwrap_or_else(PoisonError::into_inner).0
    }

    /// The next message, when there is one; `None` at the end.
    fn next(&self) -> Option<Arc<Message>> {
        let mut state = lock(&self.state);
        loop {
            if state.over || state.is_late() {
                return None;
            }
            if let Some(message) = state.waiting.front() {
                return Some(Arc::clone(message));
            }
            if state.last.is_some() {
                state.over = true;
                self.changed.notify_all();
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Tries until it is sent, or there is no more time. `counted`: the loss of the one before it is told.
    fn deliver(&self, way: &mut Way, message: &Message, counted: bool) {
        loop {
            let sent = way.send(&message.bytes);
            let mut state = lock(&self.state);
            let error = match sent {
                Ok(Sent::Well) => {
                    state.trouble = None;
                    return state.done();
                }
                // The address answers that nobody listens: the one before has not arrived.
                Ok(Sent::After(error)) => {
                    state.blame(&error);
                    state.lost += u64::from(counted);
                    return state.done();
                }
                Err(error) => error,
            };
            state.blame(&error);
            let again = Instant::now() + SYSLOG_RETRY;
            while Instant::now() < again {
                if state.over || state.is_late() {
                    return;
                }
                let until = state.last.map_or(again, |last| last.min(again));
                state = self.wait(state, until.saturating_duration_since(Instant::now()));
            }
        }
    }
}

enum Sent {
    Well,
    /// One before it was not, for this reason.
    After(io::Error),
}

/// To the daemon, and the socket that leads there, as long as it does.
struct Way {
    address: SyslogAddress,
    open: Option<Open>,
}

enum Open {
    Unix(UnixDatagram),
    Udp(UdpSocket, Instant),
}

impl Way {
    /// Sends one message. After an error nothing of it was sent.
    fn send(&mut self, bytes: &[u8]) -> io::Result<Sent> {
        if matches!(&self.open, Some(Open::Udp(_, since)) if since.elapsed() > SYSLOG_LOOK_UP) {
            self.open = None;
        }
        let open = match self.open.take() {
            Some(open) => open,
            None => self.open()?,
        };
        match &open {
            Open::Udp(socket, _) => {
                let sent = match socket.send(bytes) {
                    Ok(_) => Sent::Well,
                    Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                        socket.send(bytes)?;
                        Sent::After(error)
                    }
                    Err(error) => return Err(error),
                };
                self.open = Some(open);
                Ok(sent)
            }
            Open::Unix(socket) => match socket.send(bytes) {
                Ok(_) => {
                    self.open = Some(open);
                    Ok(Sent::Well)
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    self.open = Some(open);
                    Err(io::Error::other("it is too slow"))
                }
                // It may have been started anew, at another socket of the same path.
                Err(_) => {
                    let Open::Unix(socket) = self.open()? else { return Err(ErrorKind::NotFound.into()) };
                    socket.send(bytes)?;
                    self.open = Some(Open::Unix(socket));
                    Ok(Sent::Well)
                }
            },
        }
    }

    fn open(&self) -> io::Result<Open> {
        match &self.address {
            SyslogAddress::Unix(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(path)?;
                socket.set_write_timeout(Some(SYSLOG_RETRY))?;
                Ok(Open::Unix(socket))
            }
            SyslogAddress::Udp { host, port } => {
                let mut failed = io::Error::other("the name has no address");
                for address in (host.as_str(), *port).to_socket_addrs()? {
                    let own = match address {
                        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
                        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
                    };
                    let opened =
                        UdpSocket::bind(own).and_then(|socket| socket.connect(address).map(|()| socket));
                    match opened {
                        Ok(socket) => return Ok(Open::Udp(socket, Instant::now())),
                        Err(error) => failed = error,
                    }
                }
                Err(failed)
            }
        }
    }
}
