//! The scripted target: connections of the client, told apart by the first bytes that come on them.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::relay::Port;
use super::wire::{End, first};
use crate::conform::case::Ended;
use crate::conform::trace::{Trace, Way};

/// Connections that may wait for the case.
const QUEUE: usize = 1024;
/// A connection that stays silent is waited for so long.
const SILENT: Duration = Duration::from_secs(120);

/// The target of one case.
pub(super) struct Target {
    port: Port,
    accepting: JoinSet<()>,
    /// Connections on which bytes came; others may be a client that looks whether its target is there.
    spoken: mpsc::Receiver<Visit>,
    send: mpsc::Sender<Visit>,
    /// Connections that are open and have brought no byte.
    silent: Arc<AtomicUsize>,
    /// Those that were taken out of the queue while another was looked for.
    others: VecDeque<Visit>,
    trace: Trace,
}

/// A connection of the client to its target.
pub(super) struct Visit {
    stream: TcpStream,
    who: String,
    /// Read, and not yet looked at.
    buffer: BytesMut,
    trace: Trace,
}

impl Target {
    /// One that listens.
    pub(super) fn start(trace: &Trace) -> io::Result<Self> {
        let (send, spoken) = mpsc::channel(QUEUE);
        let (port, accepting) = (Port::any()?, JoinSet::new());
        let (silent, others, trace) = (Arc::default(), VecDeque::new(), trace.clone());
        let mut target = Self { port, accepting, spoken, send, silent, others, trace };
        target.listen()?;
        Ok(target)
    }

    pub(super) fn port(&self) -> u16 {
        self.port.number()
    }

    /// Takes connections, again after [`Target::leave`].
    pub(super) fn listen(&mut self) -> io::Result<()> {
        let listener = self.port.listen()?;
        let (send, silent, trace) = (self.send.clone(), Arc::clone(&self.silent), self.trace.clone());
        self.accepting.spawn(accept(listener, send, silent, trace));
        Ok(())
    }

    /// Refuses connections.
    pub(super) async fn leave(&mut self) {
        self.trace.text(Way::Sent, "target", "nobody listens any more");
        self.accepting.shutdown().await;
        self.port.refuses().await;
    }

    /// Connections that are open and have brought no byte.
    pub(super) fn silent(&self) -> usize {
        self.silent.load(Ordering::Relaxed)
    }

    /// The connection that begins with `bytes`, which are taken off it.
    pub(super) async fn visit(&mut self, bytes: &[u8], wait: Duration) -> Result<Visit, Ended> {
        let expected = || format!("the bytes of a viewer (\"{}\") at the target", first(bytes));
        let mut came = Vec::new();
        let found = timeout(wait, async {
            let mut look_again = std::mem::take(&mut self.others);
            loop {
                let visit = match look_again.pop_front() {
                    Some(visit) => Some(visit),
                    None => self.spoken.recv().await,
                };
                let mut visit = visit?;
                if visit.begins_with(bytes).await {
                    self.others.append(&mut look_again);
                    return Some(visit);
                }
                came.push(first(&visit.buffer));
                self.others.push_back(visit);
            }
        });
        match found.await {
            Ok(Some(visit)) => Ok(visit),
            _ if came.is_empty() => Err(Ended::failed(expected(), format!("none came within {wait:?}"))),
            _ => Err(Ended::failed(expected(), format!("there came \"{}\"", came.join("\", \"")))),
        }
    }
}

async fn accept(listener: TcpListener, send: mpsc::Sender<Visit>, silent: Arc<AtomicUsize>, trace: Trace) {
    let (mut waiting, mut number) = (JoinSet::new(), 0);
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                number += 1;
                let (send, silent, trace) = (send.clone(), Arc::clone(&silent), trace.clone());
                let who = format!("target {number}");
                trace.text(Way::Came, &who, "a connection");
                silent.fetch_add(1, Ordering::Relaxed);
                waiting.spawn(async move {
                    let spoke = timeout(SILENT, stream.peek(&mut [0])).await;
                    silent.fetch_sub(1, Ordering::Relaxed);
                    match spoke {
                        Ok(Ok(1..)) => drop(send.try_send(Visit { stream, who, buffer: BytesMut::new(), trace })),
                        _ => trace.text(Way::Came, &who, "its end, without a byte"),
                    }
                });
            },
            Some(_) = waiting.join_next() => {}
        }
    }
}

impl Visit {
    /// Takes `bytes` off the front, if they are what comes.
    async fn begins_with(&mut self, bytes: &[u8]) -> bool {
        while self.buffer.len() < bytes.len() && bytes.starts_with(&self.buffer) {
            if !matches!(self.stream.read_buf(&mut self.buffer).await, Ok(1..)) {
                break;
            }
        }
        let begins = self.buffer.starts_with(bytes);
        if begins {
            self.trace.bytes(Way::Came, &self.who, "bytes", bytes);
            let _ = self.buffer.split_to(bytes.len());
        }
        begins
    }

    /// These bytes come next.
    pub(super) async fn gets(&mut self, bytes: &[u8], wait: Duration) -> Result<(), Ended> {
        if timeout(wait, self.begins_with(bytes)).await == Ok(true) {
            return Ok(());
        }
        let expected = format!("\"{}\" ({} bytes) at the target", first(bytes), bytes.len());
        let came = format!("there came \"{}\" ({} bytes)", first(&self.buffer), self.buffer.len());
        Err(Ended::failed(expected, came))
    }

    /// Some bytes, or `None` at the end; an error is a reset.
    pub(super) async fn some(&mut self) -> Result<Option<BytesMut>, End> {
        if self.buffer.is_empty() {
            self.buffer.reserve(256 * 1024);
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(0) => return Ok(None),
                Ok(_) => self.trace.bytes(Way::Came, &self.who, "bytes", &self.buffer),
                Err(_) => return Err(End::Reset),
            }
        }
        Ok(Some(self.buffer.split()))
    }

    /// Reads to the end: what came, and whether that was an end or a reset; `None`: it did not end in time.
    pub(super) async fn rest(&mut self, wait: Duration) -> (Vec<u8>, Option<End>) {
        let mut all = Vec::new();
        let read = async {
            loop {
                match self.some().await {
                    Ok(Some(bytes)) => all.extend_from_slice(&bytes),
                    Ok(None) => return End::Fin,
                    Err(end) => return end,
                }
            }
        };
        let end = timeout(wait, read).await.ok();
        let shown = end.map_or("no end in time".to_owned(), |end| end.to_string());
        self.trace.text(Way::Came, &self.who, &shown);
        (all, end)
    }

    /// Sends bytes; an error is the client's end, which shows elsewhere.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> bool {
        self.trace.bytes(Way::Sent, &self.who, "bytes", bytes);
        self.stream.write_all(bytes).await.is_ok()
    }

    /// Ends its sending.
    pub(super) async fn fin(&mut self) {
        self.trace.text(Way::Sent, &self.who, "the end of sending");
        let _ = self.stream.shutdown().await;
    }

    /// Drops the connection by a reset.
    pub(super) fn reset(self) {
        self.trace.text(Way::Sent, &self.who, "a TCP reset");
        let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    /// Both halves, for bytes in both directions at the same time. Nothing may wait in the buffer.
    pub(super) fn split(&mut self) -> (tokio::net::tcp::ReadHalf<'_>, tokio::net::tcp::WriteHalf<'_>) {
        self.stream.split()
    }
}
