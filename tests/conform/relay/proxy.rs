//! A proxy in front of a relay that breaks one thing: it swaps words, drops and changes frames, and hides how a connection ended.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What a connection is for, by its first request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    Rest,
    Control,
    Data,
    Viewer,
}

/// A WebSocket frame: its first byte, and its payload without mask.
#[derive(Debug, Clone)]
pub struct Frame {
    pub first: u8,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn new(first: u8, payload: &[u8]) -> Self {
        Self { first, payload: payload.to_vec() }
    }

    pub fn has(&self, text: &str) -> bool {
        self.payload.windows(text.len()).any(|window| window == text.as_bytes())
    }
}

/// Of all connections of a proxy.
#[derive(Debug, Default)]
pub struct State {
    /// For whatever a change counts.
    pub count: usize,
    /// What it holds back.
    pub held: Vec<Frame>,
}

/// Changes a frame: what goes on in its place.
pub type Change = fn(&mut State, Frame) -> Vec<Frame>;

/// What is broken.
#[derive(Clone, Copy)]
pub enum Spoil {
    /// Words of the relay become others. On WebSockets both have one length.
    Says(On, &'static str, &'static str),
    /// Words to the relay become others, outside of frames.
    Hears(On, &'static str, &'static str),
    /// Frames of the relay.
    Down(On, Change),
    /// Frames to the relay. A frame waits until it is whole.
    Up(On, Change),
    /// However the relay ends: these bytes, and an end in order.
    Ends(On, &'static [u8]),
    /// An end in order of the other side: these bytes before it.
    EndsUp(On, &'static [u8]),
    /// The relay's end is not told.
    Keeps(On),
    /// The end of the other side is not told to the relay.
    Deaf(On),
    /// An end in order of the other side is a reset to the relay.
    Resets(On),
}

/// A running proxy; dropped, it ends.
pub struct Proxy {
    pub address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// In front of `relay`, with that broken; `None` breaks nothing.
    pub async fn start(relay: SocketAddr, spoil: Option<Spoil>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (peer, _) = listener.accept().await.unwrap();
                connections.spawn(serve(peer, relay, spoil, Arc::clone(&state)));
            }
        });
        Self { address, _tasks: tasks }
    }
}

async fn serve(mut peer: TcpStream, relay: SocketAddr, spoil: Option<Spoil>, state: Arc<Mutex<State>>) {
    let mut first = Vec::with_capacity(64 * 1024);
    while !first.windows(4).any(|window| window == b"\r\n\r\n") && first.len() < 128 * 1024 {
        if peer.read_buf(&mut first).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let on = kind(&first);
    let spoil = spoil.filter(|spoil| spoil.on() == on);
    let Ok(upstream) = TcpStream::connect(relay).await else { return };
    for stream in [&peer, &upstream] {
        stream.set_nodelay(true).unwrap();
    }
    let (relay_read, relay_write) = upstream.into_split();
    let (peer_read, peer_write) = peer.into_split();
    let up = Pump { spoil, down: false, on, state: Arc::clone(&state), head: true, buffer: first };
    let down = Pump { spoil, down: true, on, state, head: true, buffer: Vec::new() };
    let (mut up, mut down) = (pin!(up.run(peer_read, relay_write)), pin!(down.run(relay_read, peer_write)));
    // A reset ends both directions, with all that is dropped here.
    tokio::select! {
        reset = &mut up => if !reset { down.await; },
        reset = &mut down => if !reset { up.await; },
    }
}

fn kind(head: &[u8]) -> On {
    let text = String::from_utf8_lossy(head);
    let line = text.lines().next().unwrap_or_default();
    let path = line.split(' ').nth(1).unwrap_or_default().replacen("//", "/", 1);
    let own = text.contains("Host: 127.0.0.1");
    match path {
        path if own && path.starts_with("/ws/control") => On::Control,
        path if own && path.starts_with("/ws/data") => On::Data,
        path if own && (path.starts_with("/v") || path.starts_with("/health")) => On::Rest,
        _ => On::Viewer,
    }
}

impl Spoil {
    fn on(&self) -> On {
        match *self {
            Self::Says(on, ..) | Self::Hears(on, ..) | Self::Down(on, _) | Self::Up(on, _) => on,
            Self::Ends(on, _) | Self::EndsUp(on, _) | Self::Keeps(on) | Self::Deaf(on) | Self::Resets(on) => {
                on
            }
        }
    }
}

/// One direction of a connection.
struct Pump {
    spoil: Option<Spoil>,
    down: bool,
    on: On,
    state: Arc<Mutex<State>>,
    /// No frame has come yet.
    head: bool,
    buffer: Vec<u8>,
}

impl Pump {
    /// Whether the connections are to be dropped now: `to` is set to be reset.
    async fn run(mut self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> bool {
        loop {
            let out = self.changed();
            if !out.is_empty() && to.write_all(&out).await.is_err() {
                // What nobody takes is read to its end all the same.
                while from.read(&mut [0; 4096]).await.is_ok_and(|count| count > 0) {}
                return false;
            }
            self.buffer.reserve(64 * 1024);
            match from.read_buf(&mut self.buffer).await {
                Ok(0) => return self.ended(to, false).await,
                Ok(_) => {}
                Err(_) => return self.ended(to, true).await,
            }
        }
    }

    /// Ends the other connection as this one has ended, or as it is spoilt.
    async fn ended(self, mut to: OwnedWriteHalf, broken: bool) -> bool {
        let _ = to.write_all(&self.buffer).await;
        let (last, reset) = match self.spoil {
            Some(Spoil::Ends(_, last)) if self.down => (last, false),
            Some(Spoil::EndsUp(_, last)) if !self.down => (last, broken),
            Some(Spoil::Keeps(_)) if self.down => return std::future::pending().await,
            Some(Spoil::Deaf(_)) if !self.down => return std::future::pending().await,
            Some(Spoil::Resets(_)) if !self.down => (&b""[..], true),
            _ => (&b""[..], broken),
        };
        let _ = to.write_all(last).await;
        if reset {
            let _ = to.as_ref().set_zero_linger();
            to.forget();
        } else {
            let _ = to.shutdown().await;
        }
        reset
    }

    /// What goes on of what has come, which is taken from the buffer.
    fn changed(&mut self) -> Vec<u8> {
        match self.spoil {
            Some(Spoil::Says(_, from, to)) if self.down => {
                assert!(
                    from.len() == to.len() || matches!(self.on, On::Rest | On::Viewer) || self.head,
                    "{from}"
                );
                swapped(&std::mem::take(&mut self.buffer), from, to)
            }
            Some(Spoil::Hears(_, from, to)) if !self.down => {
                swapped(&std::mem::take(&mut self.buffer), from, to)
            }
            Some(Spoil::Down(_, change)) if self.down => self.frames(change),
            Some(Spoil::Up(_, change)) if !self.down => self.frames(change),
            // A close frame would tell it.
            Some(Spoil::Keeps(_)) if self.down => self.frames(|_, frame| match frame.first {
                0x88 => vec![],
                _ => vec![frame],
            }),
            _ => std::mem::take(&mut self.buffer),
        }
    }

    fn frames(&mut self, change: Change) -> Vec<u8> {
        let mut out = Vec::new();
        if self.head {
            let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") else {
                return out;
            };
            out.extend(self.buffer.drain(..end + 4));
            self.head = false;
            // A refusal has no frames.
            if self.down && !out.starts_with(b"HTTP/1.1 101") {
                self.spoil = None;
                out.append(&mut self.buffer);
                return out;
            }
        }
        while let Some(frame) = take(&mut self.buffer) {
            for frame in change(&mut self.state.lock().unwrap(), frame) {
                put(&mut out, &frame, !self.down);
            }
        }
        out
    }
}

/// `from` without regard to case, wherever it is in one piece.
fn swapped(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        if bytes[at..].len() >= from.len() && bytes[at..at + from.len()].eq_ignore_ascii_case(from.as_bytes())
        {
            out.extend_from_slice(to.as_bytes());
            at += from.len();
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    out
}

/// The first whole frame.
fn take(buffer: &mut Vec<u8>) -> Option<Frame> {
    let [first, second, ..] = buffer[..] else { return None };
    let (length, mut at) = match second & 0x7f {
        126 => (usize::from(u16::from_be_bytes(buffer.get(2..4)?.try_into().unwrap())), 4),
        127 => (u64::from_be_bytes(buffer.get(2..10)?.try_into().unwrap()) as usize, 10),
        short => (usize::from(short), 2),
    };
    let mut mask = [0; 4];
    if second & 0x80 != 0 {
        mask.copy_from_slice(buffer.get(at..at + 4)?);
        at += 4;
    }
    let payload = buffer.get(at..at + length)?;
    let payload = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
    buffer.drain(..at + length);
    Some(Frame { first, payload })
}

fn put(out: &mut Vec<u8>, frame: &Frame, masked: bool) {
    let bit = if masked { 0x80 } else { 0 };
    out.push(frame.first);
    match frame.payload.len() {
        length @ 0..126 => out.push(bit | length as u8),
        length @ 126..65536 => {
            out.push(bit | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(bit | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    if masked {
        out.extend_from_slice(&[0; 4]);
    }
    out.extend_from_slice(&frame.payload);
}
